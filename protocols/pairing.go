package protocols

// A Pairing pairs the replies of a connection with its requests, for protocols whose replies come in the
// order of their requests: HTTP/1, RESP. Bytes of either side may be lost. T is a request that waits, as the
// parser keeps it.
//
// Without losses it is a queue: Expect appends a request, Reply returns the one that the next reply answers,
// Pop takes it out.
//
//   - Replies were lost (LostReplies): which request the next reply answers is not known. If the client sends
//     another request first, it has had its replies: the parser calls Flush before Expect if RepliesLost. If
//     a reply comes first, it is paired with the oldest request; the parser marks everything that waits as
//     partial.
//   - Requests were lost (LostRequests): their replies may still come and be paired with requests that were
//     sent later, so Expect reports uncertain. That ends with a reply that finds nothing waiting: it was that
//     of a lost request. Where requests are not pipelined it also ends with the first request behind a reply.
//   - Too many requests wait (Evict): the replies to an evicted request are skipped when they come.
//
// Invariants: a reply is paired only with a request that was seen before it. If the client does not pipeline,
// a wrong pair is always one that Expect reported as uncertain, or that the parser marked at LostReplies.
type Pairing[T any] struct {
	queue []T
	head  int // of the oldest in queue
	skip  int // replies that are still to come to requests that were evicted

	repliesLost  bool // and no reply was seen since
	requestsLost bool // at any time
	uncertain    bool // the reply to a lost request may still come
	replied      bool // a reply was seen since requests were lost
	pipelined    bool // more than one request waited at a time
}

// Len returns how many requests wait.
func (p *Pairing[T]) Len() int { return len(p.queue) - p.head }

// Waiting returns the requests that wait, oldest first. It is valid until the next call.
func (p *Pairing[T]) Waiting() []T { return p.queue[p.head:] }

// First returns the oldest request that waits, or nil.
func (p *Pairing[T]) First() *T {
	if p.Len() == 0 {
		return nil
	}
	return &p.queue[p.head]
}

// Expect appends a request, and reports whether it may be paired with the reply to another one. See
// RepliesLost.
func (p *Pairing[T]) Expect(request T) (uncertain bool) {
	if p.Len() == 0 && p.replied && !p.pipelined {
		p.uncertain = false
	}
	if p.head > 32 && p.head > len(p.queue)/2 { // move them to the front before append makes room behind
		n := copy(p.queue, p.queue[p.head:])
		clear(p.queue[n:])
		p.queue, p.head = p.queue[:n], 0
	}
	p.queue = append(p.queue, request)
	p.pipelined = p.pipelined || p.Len() > 1
	return p.uncertain
}

// Reply returns the request that the next reply answers. It stays until Pop: it may have several replies. If
// there is none, skipped reports whether the reply is that of an evicted request; else nobody that we have
// seen asked for it.
func (p *Pairing[T]) Reply() (request *T, skipped bool) {
	p.FoundReplies()
	if p.skip > 0 {
		p.skip--
		return nil, true
	}
	if p.Len() == 0 {
		p.uncertain = false
	}
	return p.First(), false
}

// Pop takes out the oldest request.
func (p *Pairing[T]) Pop() T {
	request := p.queue[p.head]
	var none T
	p.queue[p.head] = none
	if p.head++; p.head == len(p.queue) {
		p.queue, p.head = p.queue[:0], 0
	}
	return request
}

// Evict takes out the oldest request, to make room. replies is how many replies to it are still to begin.
func (p *Pairing[T]) Evict(replies int) T {
	p.skip += replies
	return p.Pop()
}

// Skipping reports whether the next reply is that of an evicted request.
func (p *Pairing[T]) Skipping() bool { return p.skip > 0 }

// LostReplies notes that replies, or parts of them, were lost.
func (p *Pairing[T]) LostReplies() { p.repliesLost = true }

// RepliesLost reports whether replies were lost and none was seen since: before the next request what waits
// is to be flushed.
func (p *Pairing[T]) RepliesLost() bool { return p.repliesLost }

// FoundReplies notes that a reply, or a part of one that does not end it, was seen.
func (p *Pairing[T]) FoundReplies() { p.repliesLost, p.replied = false, true }

// LostRequests notes that requests, or parts of them, were lost.
func (p *Pairing[T]) LostRequests() { p.requestsLost, p.uncertain, p.replied = true, true, false }

// RequestsLost reports whether requests were lost at any time: a reply that nobody asked for may be that of
// one of them.
func (p *Pairing[T]) RequestsLost() bool { return p.requestsLost }

// Pipelined reports whether more than one request waited at a time.
func (p *Pairing[T]) Pipelined() bool { return p.pipelined }

// Flush calls emit for all that waits, oldest first: the client goes on, so it has had every reply.
func (p *Pairing[T]) Flush(emit func(T)) {
	p.repliesLost, p.uncertain, p.skip = false, false, 0
	for p.Len() > 0 {
		emit(p.Pop())
	}
}

// maxKeptQueue is the capacity of a queue that is kept for the next connection.
const maxKeptQueue = 256

// Reset forgets everything, for a new connection.
func (p *Pairing[T]) Reset() {
	queue := p.queue
	if cap(queue) > maxKeptQueue {
		queue = nil
	}
	clear(queue)
	*p = Pairing[T]{queue: queue[:0]}
}
