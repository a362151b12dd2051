package protocols

import (
	"math/rand/v2"
	"testing"
)

// An exchanged is a request of the model, by its number, and whether it was said that its reply may be
// another's.
type exchanged struct {
	number int
	marked bool
}

// A pairingModel is a client and a server, whose requests and replies are numbered, and a parser that sees
// some of them.
type pairingModel struct {
	t       *testing.T
	pairing Pairing[exchanged]
	sent    int  // requests of the client
	replied int  // replies of the server
	max     int  // requests that may wait
	unsound bool // more is lost than can be noticed: a wrong pair need not be marked

	seen, unsolicited, skipped, flushed, right, wrong int
}

func (m *pairingModel) request(lost bool) {
	m.sent++
	if lost {
		m.pairing.LostRequests()
		return
	}
	m.seen++
	if m.pairing.RepliesLost() {
		m.pairing.Flush(func(exchanged) { m.flushed++ })
	}
	if m.pairing.Len() >= m.max {
		m.pairing.Evict(1)
		m.flushed++
	}
	request := exchanged{number: m.sent}
	request.marked = m.pairing.Expect(request)
	m.pairing.Waiting()[m.pairing.Len()-1] = request
	if m.pairing.Len() > m.max {
		m.t.Fatalf("%d requests wait", m.pairing.Len())
	}
}

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
			m.t.Fatalf("the reply to %d is paired with request %d, and nothing says that it may be wrong", m.replied, done.number)
		default:
			m.wrong++
		}
	}
}

// check: every request that was seen is paired, flushed or waits.
func (m *pairingModel) check() {
	m.t.Helper()
	if sum := m.right + m.wrong + m.flushed + m.pairing.Len(); sum != m.seen {
		m.t.Fatalf("%d requests were seen, %d are accounted for: %+v", m.seen, sum, m)
	}
}

// TestPairingWithoutLosses: pipelined or not, each reply is paired with its request.
func TestPairingWithoutLosses(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		m := &pairingModel{t: t, max: 1 << 20}
		for range 300 {
			if m.replied < m.sent && rng.IntN(2) == 0 {
				m.reply(false)
			} else {
				m.request(false)
			}
		}
		m.check()
		if m.wrong+m.flushed+m.unsolicited > 0 {
			t.Fatalf("%+v", m)
		}
	}
}

// TestPairingUnderLosses: a client that waits for each reply, and losses of both sides at any place: a wrong
// pair is marked, and behind the losses pairs are right and unmarked again.
func TestPairingUnderLosses(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		m := &pairingModel{t: t, max: 4}
		for range 60 {
			m.request(rng.IntN(4) == 0)
			m.reply(rng.IntN(4) == 0)
			m.check()
		}
		for range 2 { // what was lost shows by now
			m.request(false)
			m.reply(false)
		}
		for range 5 {
			right := m.right
			m.request(false)
			if m.pairing.First().marked {
				t.Fatalf("still uncertain without losses: %+v", m)
			}
			if m.reply(false); m.right != right+1 {
				t.Fatalf("not paired without losses: %+v", m)
			}
		}
	}
}

// TestPairingOfAPipeline: requests are lost or evicted while more than one is on its way, one more only when
// the one before was noticed.
func TestPairingOfAPipeline(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	for range 3000 {
		m := &pairingModel{t: t, max: 6}
		m.request(false)
		m.request(false) // it is seen to be a pipeline
		for range 100 {
			if m.replied < m.sent && rng.IntN(2) == 0 {
				m.reply(false)
			} else {
				m.request(rng.IntN(5) == 0 && !m.pairing.uncertain)
			}
			m.check()
		}
	}
}

// TestPairingIsBounded: any calls in any order; the queue is no longer than what waits, and is reset.
func TestPairingIsBounded(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 4))
	m := &pairingModel{t: t, max: 100, unsound: true}
	for range 100_000 {
		if rng.IntN(3) > 0 {
			m.request(rng.IntN(9) == 0)
		} else {
			m.reply(rng.IntN(9) == 0)
		}
	}
	if n := cap(m.pairing.queue); n > 4*m.max {
		t.Errorf("a queue of %d for %d requests", n, m.max)
	}
	m.pairing.Reset()
	if m.pairing.Len() != 0 || m.pairing.RequestsLost() || m.pairing.Skipping() || m.pairing.First() != nil {
		t.Errorf("%+v", m.pairing)
	}
}
