package protocols

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// A numberedRequest is a request of the model.
type numberedRequest struct {
	number int
	marked bool // Pairing has reported that the reply may belong to another request
}

// A pairingModel consists of a client and a server, whose requests and replies are numbered, and of a parser
// that captures some of them.
type pairingModel struct {
	t       *testing.T
	pairing Pairing[numberedRequest]
	sent    int  // requests of the client
	replied int  // replies of the server
	max     int  // requests that may wait
	unsound bool // the losses exceed what Pairing can detect: a wrong pair need not be marked

	seen, unsolicited, skipped, flushed, right, wrong int
}

// request sends the next request. The parser does not see it if it is lost.
func (m *pairingModel) request(lost bool) {
	m.sent++
	if lost {
		m.pairing.LostRequests()
		return
	}
	m.seen++
	if m.pairing.RepliesLost() {
		m.pairing.Flush(func(numberedRequest) { m.flushed++ })
	}
	if m.pairing.Len() >= m.max {
		m.pairing.Evict(1)
		m.flushed++
	}
	uncertain := m.pairing.Expect(numberedRequest{number: m.sent})
	for i := range uncertain {
		uncertain[i].marked = true
	}
	if m.pairing.Len() > m.max {
		m.t.Fatalf("%d requests wait", m.pairing.Len())
	}
}

// reply sends the next reply and checks the request with which it is paired.
func (m *pairingModel) reply(lost bool) {
	m.replied++
	if lost {
		if m.pairing.Len() > 0 {
			m.pairing.LostReplies()
		}
		for i := range m.pairing.Waiting() {
			m.pairing.Waiting()[i].marked = true
		}
		return
	}
	request, skipped := m.pairing.Reply()
	switch {
	case skipped:
		m.skipped++
	case request == nil:
		m.unsolicited++
	default:
		done := m.pairing.Pop()
		switch {
		case done.number > m.sent:
			m.t.Fatalf("the reply is paired with request %d, of %d", done.number, m.sent)
		case done.number == m.replied:
			m.right++
		case !done.marked && !m.unsound:
			m.t.Fatalf("the reply to %d is paired with request %d, which is not marked", m.replied, done.number)
		default:
			m.wrong++
		}
	}
}

// check checks that every request that was seen is paired, flushed or waiting.
func (m *pairingModel) check() {
	m.t.Helper()
	if sum := m.right + m.wrong + m.flushed + m.pairing.Len(); sum != m.seen {
		m.t.Fatalf("%d requests were seen, %d are accounted for: %+v", m.seen, sum, m)
	}
}

// TestEachReplyIsPairedWithItsRequestWithoutLosses mixes pipelined requests and others.
func TestEachReplyIsPairedWithItsRequestWithoutLosses(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		model := &pairingModel{t: t, max: 1 << 20}
		for range 300 {
			if model.replied < model.sent && rng.IntN(2) == 0 {
				model.reply(false)
			} else {
				model.request(false)
			}
		}
		model.check()
		if model.wrong+model.flushed+model.unsolicited > 0 {
			t.Fatalf("%+v", model)
		}
	}
}

// TestWrongPairIsMarkedUnderLosses: the client waits for each reply, and messages of both sides are lost. A
// wrong pair is marked. After the losses, pairs are right and unmarked again.
func TestWrongPairIsMarkedUnderLosses(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		model := &pairingModel{t: t, max: 4}
		for range 60 {
			model.request(rng.IntN(4) == 0)
			model.reply(rng.IntN(4) == 0)
			model.check()
		}
		for range 2 { // the losses are noticed during these
			model.request(false)
			model.reply(false)
		}
		for range 5 {
			right := model.right
			model.request(false)
			if model.pairing.First().marked {
				t.Fatalf("still uncertain without losses: %+v", model)
			}
			if model.reply(false); model.right != right+1 {
				t.Fatalf("not paired without losses: %+v", model)
			}
		}
	}
}

// TestWrongPairOfAPipelineIsMarked: requests are lost or evicted while several wait for a reply. The next one
// is lost only after the loss before it was noticed.
func TestWrongPairOfAPipelineIsMarked(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	for range 3000 {
		model := &pairingModel{t: t, max: 6}
		model.request(false)
		model.request(false) // a second request before a reply makes it a pipeline
		for range 100 {
			if model.replied < model.sent && rng.IntN(2) == 0 {
				model.reply(false)
			} else {
				model.request(rng.IntN(5) == 0 && !model.pairing.uncertain)
			}
			model.check()
		}
	}
}

// TestUncertaintyBeginsAgainWithAPipeline: the requests that were lost were pipelined, and their replies come one at a
// time between further requests, as if the client waited for each. When a second request waits, that was wrong for it
// and for the request that waits already.
func TestUncertaintyBeginsAgainWithAPipeline(t *testing.T) {
	var pairing Pairing[int]
	pairing.LostRequests() // three of them
	expect := func(request int, want ...int) {
		t.Helper()
		if got := pairing.Expect(request); !slices.Equal(got, want) {
			t.Errorf("request %d: uncertain are %v, want %v", request, got, want)
		}
	}
	reply := func(want int) {
		t.Helper()
		if waiting, _ := pairing.Reply(); waiting == nil && want != 0 || waiting != nil && pairing.Pop() != want {
			t.Errorf("the reply is not paired with %d", want)
		}
	}
	expect(4, 4)
	reply(4)
	expect(5)
	expect(6, 5, 6)
	reply(5)
	reply(6)
	expect(7, 7)
	reply(7)
	reply(0) // the reply to 5, for which no request waits
	expect(8)
}

// TestPairingQueueIsBoundedAndReset makes random calls in random order.
func TestPairingQueueIsBoundedAndReset(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 4))
	model := &pairingModel{t: t, max: 100, unsound: true}
	for range 100_000 {
		if rng.IntN(3) > 0 {
			model.request(rng.IntN(9) == 0)
		} else {
			model.reply(rng.IntN(9) == 0)
		}
	}
	if size := cap(model.pairing.queue); size > 4*model.max {
		t.Errorf("a queue of %d for %d requests", size, model.max)
	}
	model.pairing.Reset()
	if model.pairing.Len() != 0 || model.pairing.RequestsLost() || model.pairing.Skipping() || model.pairing.First() != nil {
		t.Errorf("%+v", model.pairing)
	}
}
