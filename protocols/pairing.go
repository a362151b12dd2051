package protocols

// A Pairing pairs the replies of a connection with its requests, for protocols whose replies come in the
// order of their requests: HTTP/1, RESP, memcached. Bytes of either side may be lost. T is the type in which
// the parser keeps a waiting request, one without its reply.
//
// Without losses it is a queue: Expect appends a request, Reply returns the request that the next reply
// answers, Pop removes it.
//
//   - Replies were lost (LostReplies): it is unknown which request the next reply answers. If the client sends
//     another request first, it has received the earlier replies, so the parser calls Flush before Expect if
//     RepliesLost. If a reply comes first, it is paired with the oldest request. The parser marks all waiting
//     requests as partial.
//   - Requests were lost (LostRequests): their replies may still come and be paired with requests that were
//     sent later, so Expect returns those as uncertain. The uncertainty ends with a reply for which no request
//     waits, since it answered a lost request. If requests are not pipelined, it also ends with the first request
//     after a reply. When they turn out to be pipelined later, that was wrong, and the uncertainty begins again,
//     also that of the requests that wait already.
//   - Too many requests wait (Evict): the replies to an evicted request are skipped when they come.
//
// Invariants: a reply is paired only with a request that was seen before it. If the client does not pipeline,
// every wrong pair was either reported as uncertain by Expect or marked by the parser at LostReplies.
type Pairing[T any] struct {
	queue []T
	head  int // index of the oldest request in queue
	skip  int // replies to evicted requests that are still to come

	repliesLost  bool // replies were lost, and none was seen since
	requestsLost bool // requests were lost at any time
	uncertain    bool // the reply to a lost request may still come
	assumed      bool // uncertain ended only because no requests were pipelined so far
	replied      bool // a reply was seen since requests were lost
	pipelined    bool // more than one request waited at a time
}

// Len returns the number of waiting requests.
func (p *Pairing[T]) Len() int { return len(p.queue) - p.head }

// Waiting returns the waiting requests, oldest first. It is valid until the next call.
func (p *Pairing[T]) Waiting() []T { return p.queue[p.head:] }

// First returns the oldest waiting request, or nil.
func (p *Pairing[T]) First() *T {
	if p.Len() == 0 {
		return nil
	}
	return &p.queue[p.head]
}

// Expect appends a request. It returns the waiting requests that have become uncertain: each may be paired with the
// reply to another one. They are the last ones of Waiting, request among them, or none. If RepliesLost, the caller
// calls Flush first.
func (p *Pairing[T]) Expect(request T) (uncertain []T) {
	before := 0 // requests that wait already and become uncertain
	switch {
	case p.Len() == 0 && p.replied && !p.pipelined && p.uncertain:
		p.uncertain, p.assumed = false, true
	case p.Len() > 0 && p.assumed:
		p.uncertain, p.assumed, before = true, false, p.Len()
	}
	if p.head > 32 && p.head > len(p.queue)/2 { // reuse the free front instead of growing the slice
		kept := copy(p.queue, p.queue[p.head:])
		clear(p.queue[kept:])
		p.queue, p.head = p.queue[:kept], 0
	}
	p.queue = append(p.queue, request)
	p.pipelined = p.pipelined || p.Len() > 1
	if !p.uncertain {
		return nil
	}
	return p.queue[len(p.queue)-1-before:]
}

// Reply returns the request that the next reply answers. The request stays in the queue until Pop, since it
// may have several replies. If Reply returns nil, skipped reports whether the reply answers an evicted
// request; else its request was not captured, or the server sent it unasked.
func (p *Pairing[T]) Reply() (request *T, skipped bool) {
	p.FoundReplies()
	if p.skip > 0 {
		p.skip--
		return nil, true
	}
	if p.Len() == 0 {
		p.uncertain, p.assumed = false, false
	}
	return p.First(), false
}

// Pop removes the oldest request and returns it.
func (p *Pairing[T]) Pop() T {
	request := p.queue[p.head]
	var none T
	p.queue[p.head] = none
	if p.head++; p.head == len(p.queue) {
		p.queue, p.head = p.queue[:0], 0
	}
	return request
}

// Evict removes the oldest request to make room, and returns it. replies is the number of replies to it that
// have not begun.
func (p *Pairing[T]) Evict(replies int) T {
	p.skip += replies
	return p.Pop()
}

// Skipping reports whether the next reply answers an evicted request.
func (p *Pairing[T]) Skipping() bool { return p.skip > 0 }

// LostReplies records that replies, or parts of them, were lost.
func (p *Pairing[T]) LostReplies() { p.repliesLost = true }

// RepliesLost reports whether replies were lost and none was seen since. If so, the waiting requests must be
// flushed before the next request.
func (p *Pairing[T]) RepliesLost() bool { return p.repliesLost }

// FoundReplies records that a reply, or a part of one, was seen. Reply calls it; a parser calls it for a part
// that does not complete a reply.
func (p *Pairing[T]) FoundReplies() { p.repliesLost, p.replied = false, true }

// LostRequests records that requests, or parts of them, were lost.
func (p *Pairing[T]) LostRequests() {
	p.requestsLost, p.uncertain, p.assumed, p.replied = true, true, false, false
}

// RequestsLost reports whether requests were lost at any time. If so, a reply without a request may answer a
// lost one.
func (p *Pairing[T]) RequestsLost() bool { return p.requestsLost }

// Pipelined reports whether more than one request waited at a time.
func (p *Pairing[T]) Pipelined() bool { return p.pipelined }

// Flush calls emit for each waiting request, oldest first, and empties the queue. It is called when the
// client has received every reply, or when the connection ends.
func (p *Pairing[T]) Flush(emit func(T)) {
	p.repliesLost, p.uncertain, p.assumed, p.skip = false, false, false, 0
	for p.Len() > 0 {
		emit(p.Pop())
	}
}

// maxKeptQueue is the largest capacity of a queue that is reused for the next connection.
const maxKeptQueue = 256

// Reset returns p to its initial state, for a new connection.
func (p *Pairing[T]) Reset() {
	queue := p.queue
	if cap(queue) > maxKeptQueue {
		queue = nil
	}
	clear(queue)
	*p = Pairing[T]{queue: queue[:0]}
}
