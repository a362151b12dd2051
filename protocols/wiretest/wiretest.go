// Package wiretest lets tests of parsers speak to them: it gives scripts of bytes and the streams of capture files to a
// protocols.Set and collects the events that come out. Only tests import it.
//
// Its reassembly is as plain as can be: segments in order, what was sent again thrown away, what never came a gap at the end. The
// one that runs is in collector/sessions.
package wiretest

import (
	"net/netip"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// Start is when scripts begin, ns.
const Start = int64(1_700_000_000_000_000_000)

// A Step is what happens next on a connection.
type Step struct {
	Dir  protocols.Dir
	Data []byte
	Gap  int   // bytes that were never seen, in place of Data
	End  bool  // FIN, in place of Data
	At   int64 // ns after Start; 0: a millisecond after the step before
}

// C is a step of the client, S one of the server.
func C(b string) Step { return Step{Dir: protocols.Client, Data: []byte(b)} }

// S is a step of the server.
func S(b string) Step { return Step{Dir: protocols.Server, Data: []byte(b)} }

// Info is a connection of 10.0.0.1:40000 to port of 10.0.0.2.
func Info(t pipeline.Transport, port uint16) protocols.Info {
	info := protocols.Info{
		Transport: t,
		Client:    netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 1}), 40000),
		Server:    netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 2}), port),
	}
	info.Session = pipeline.SessionID(pipeline.ID{}, t, info.Client, info.Server, 1, Start)
	return info
}

// Run plays steps and gives the events in the order in which they came. split says how the data of step i is cut: the lengths of
// its pieces but the last; nil cuts nothing.
func Run(list []protocols.Protocol, info protocols.Info, steps []Step, split func(i int, b []byte) []int) []*pipeline.Event {
	var events []*pipeline.Event
	c := protocols.NewSet(list, protocols.Default(), nil).Open(info, func(e *pipeline.Event) { events = append(events, e) })
	at := Start
	for i, s := range steps {
		if at += 1_000_000; s.At > 0 {
			at = Start + s.At
		}
		c.Tick(at)
		switch {
		case s.End:
			c.End(s.Dir, at)
		case s.Gap > 0:
			c.Gap(s.Dir, s.Gap, at)
		case info.Transport == pipeline.Transport_UDP:
			c.Datagram(s.Dir, slices.Clone(s.Data), at)
		default:
			b := s.Data
			if split != nil {
				for _, n := range split(i, b) {
					if n < len(b) {
						c.Data(s.Dir, slices.Clone(b[:n]), at)
						b = b[n:]
					}
				}
			}
			c.Data(s.Dir, slices.Clone(b), at)
		}
	}
	c.Close(at + 1_000_000)
	return events
}

// AnySplit fails t unless every way of cutting the bytes gives the events that the whole steps give: every byte alone, every step
// cut in two at every place (of long ones, at some), and pieces of a few sizes.
func AnySplit(t testing.TB, list []protocols.Protocol, info protocols.Info, steps []Step) {
	t.Helper()
	want := Text(Run(list, info, steps, nil))
	check := func(name string, split func(i int, b []byte) []int) {
		t.Helper()
		if got := Text(Run(list, info, steps, split)); !slices.Equal(got, want) {
			t.Fatalf("%s: events differ\n got %v\nwant %v", name, got, want)
		}
	}
	pieces := func(n int) func(int, []byte) []int {
		return func(_ int, b []byte) []int { return slices.Repeat([]int{n}, len(b)/n) }
	}
	for _, n := range []int{1, 2, 3, 5, 7, 64, 1000} {
		check("pieces", pieces(n))
	}
	for i, s := range steps {
		step := max(1, len(s.Data)/400)
		for cut := 1; cut < len(s.Data); cut += step {
			check("cut in two", func(j int, _ []byte) []int {
				if i == j {
					return []int{cut}
				}
				return nil
			})
		}
	}
}

// Text gives events in a form that can be compared and read.
func Text(events []*pipeline.Event) []string {
	var out []string
	for _, e := range events {
		out = append(out, prototext.MarshalOptions{}.Format(e))
	}
	return out
}
