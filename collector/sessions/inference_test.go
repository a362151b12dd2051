package sessions

import (
	"testing"

	"tidegate/collector/reassembly"
)

// TestDirectionIsInferredFromThePorts where no handshake shows it: the higher score of two ports is that of the server, and
// the difference decides how certain it is. Over UDP the first sender asks, unless the difference is clear.
func TestDirectionIsInferredFromThePorts(t *testing.T) {
	check := func(proto uint8, flags uint8, sport, dport uint16, sendsAsClient bool, confidence uint8) {
		t.Helper()
		f := &flow{table: New(Default(), Deps{}, nil)}
		f.key.proto = proto
		p := &packet{sport: sport, dport: dport}
		p.Flags = flags
		f.inferDirection(p, 1)
		if (f.clientSide == 1) != sendsAsClient || f.stats.directionConfidence != confidence {
			t.Errorf("protocol %d, flags %#x, %d → %d: the sender is the client %t, %d %%; want %t, %d %%", proto, flags, sport, dport,
				f.clientSide == 1, f.stats.directionConfidence, sendsAsClient, confidence)
		}
	}
	check(protoTCP, reassembly.SYN, 80, 40000, true, 100)
	check(protoTCP, reassembly.SYN|reassembly.ACK, 40000, 80, false, 95)
	check(protoTCP, reassembly.ACK, 40000, 80, true, 90)
	check(protoTCP, reassembly.ACK, 80, 40000, false, 90)
	check(protoTCP, reassembly.ACK, 40000, 6379, true, 80)
	check(protoTCP, reassembly.ACK, 6379, 40000, false, 80)
	check(protoTCP, reassembly.ACK, 2000, 40000, false, 70)
	check(protoTCP, reassembly.ACK, 6379, 80, true, 70)
	check(protoTCP, reassembly.ACK, 40000, 50000, true, 40)
	check(protoTCP, reassembly.ACK, 80, 443, true, 40)
	check(protoUDP, 0, 40000, 53, true, 90)
	check(protoUDP, 0, 53, 40000, false, 90)
	check(protoUDP, 0, 2000, 40000, true, 70) // not clear
	check(protoUDP, 0, 40000, 50000, true, 70)
	for port, want := range map[uint16]int{0: 0, 1: 3, 1023: 3, 1024: 1, 32767: 1, 32768: 0, 65535: 0, 3306: 2, 33060: 2, 80: 3, 8080: 2, 8082: 1} {
		if got := serverScore(port); got != want {
			t.Errorf("port %d has the score %d, want %d", port, got, want)
		}
	}
	for state, want := range map[string]string{
		stateResetClient: stateResetServer, stateResetServer: stateResetClient, stateFIN: stateFIN, stateTimeout: stateTimeout, stateRefused: stateRefused,
	} {
		if got := flippedState(state); got != want {
			t.Errorf("%s is %s with the sides exchanged", state, got)
		}
	}
}

// TestFlowsAreEvictedByTheirValue: dead flows first, then unanswered ones, duplicates and finished exchanges, then those
// without a protocol; of one kind the one that is idle for longest.
func TestFlowsAreEvictedByTheirValue(t *testing.T) {
	table := New(Default(), Deps{}, nil)
	table.clock.now = 1e12
	value := func(idle int64, change func(f *flow)) int64 {
		f := &flow{table: table, stream: &reassembly.Conn{}, lastSeen: 1e12 - idle}
		f.key.proto = protoUDP
		f.stats.sides[fromServer].packets = 1
		change(f)
		return f.evictionValue()
	}
	dead := func(f *flow) { f.dead = true }
	unanswered := func(f *flow) { f.stats.sides[fromServer].packets = 0 }
	halfOpen := func(f *flow) { f.key.proto = protoTCP }
	duplicates := func(f *flow) { f.dedup.state = duplicate }
	open := func(*flow) {}
	order := []int64{
		value(2e9, dead), value(0, dead),
		value(2e9, unanswered), value(1e9, halfOpen), value(0, unanswered),
		value(exchangeOver+2e6, open), value(exchangeOver+1e6, open), value(1e9, duplicates),
		value(exchangeOver, open), value(1e9, open), value(0, open),
	}
	for i := 1; i < len(order); i++ {
		if order[i-1] >= order[i] {
			t.Errorf("flow %d has the value %d, flow %d has %d", i-1, order[i-1], i, order[i])
		}
	}
}
