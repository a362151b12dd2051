package memcached

import (
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// TestParserThatIsUsedAgainBeginsAnew, and what was told within data is emitted at the end.
func TestParserThatIsUsedAgainBeginsAnew(t *testing.T) {
	emitted := 0
	set := protocols.NewSet([]protocols.Protocol{Protocol}, protocols.Default(), nil)
	conn := set.Open(protocols.Info{}, func(*pipeline.Event) { emitted++ })
	p := &parser{}
	p.Reset(conn)
	found := func() inner { return inner{pending: pending{event: &pipeline.Event{}, keysBytes: 3}} }
	p.data.unanswered = append(p.data.unanswered, found(), found())
	p.data.withheld = append(p.data.withheld, found())
	p.data.left, p.keysBytes = 7, 9
	if p.Close(0); emitted != 2 || p.keysBytes != 0 || p.data.left != 0 || len(p.data.unanswered)+len(p.data.withheld) != 0 || p.Held() != 0 {
		t.Errorf("%d commands are emitted, %d bytes are held, %+v", emitted, p.Held(), p.data)
	}
	p.pairing.Expect(pending{})
	p.pairing.LostRequests()
	if p.Reset(conn); p.pairing.Len() != 0 || p.pairing.RequestsLost() || p.conn != conn {
		t.Errorf("%d commands wait", p.pairing.Len())
	}
	p.binary = undecided
	if p.Gap(protocols.Client, 5); p.binary != isStopped {
		t.Errorf("a gap behind the header of the binary protocol: state %d", p.binary)
	}
}
