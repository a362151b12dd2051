package protocoltest

import (
	"slices"
	"strings"
	"testing"

	"tidegate/protocols"
)

// Fuzz returns the body of a fuzz target: the bytes of a client and of a server are played whole, in pieces,
// with a gap, and from the middle. A panic of the parser is a failure. So are events that depend on how the
// bytes were cut, unless the place in the stream was lost: where it is found again may depend on the packets.
func Fuzz(list []protocols.Protocol) func(t *testing.T, client, server []byte, size, gap uint8) {
	return func(t *testing.T, client, server []byte, size, gap uint8) {
		conversation := Conversation{Port: list[0].Ports[0], Steps: []Step{
			{Dir: protocols.Client, Data: client, At: 1},
			{Dir: protocols.Server, Data: server, At: 2},
			{Dir: protocols.Client, End: true, At: 3},
			{Dir: protocols.Server, End: true, At: 3},
		}}
		lost := false
		list := watchSync(list, &lost)
		whole := conversation.mustPlay(t, list)
		if got := conversation.Cut(int(size)+1).mustPlay(t, list); !lost && !slices.Equal(got, whole) {
			t.Errorf("cut into pieces of %d bytes:\n%q\nwhole:\n%q", int(size)+1, got, whole)
		}
		holed := conversation.Cut(int(size) + 1)
		if n := len(holed.Steps); n > 0 {
			step := &holed.Steps[int(gap)%n]
			if len(step.Data) > 0 {
				*step = Step{Dir: step.Dir, Gap: len(step.Data), At: step.At}
			}
		}
		holed.mustPlay(t, list)
		conversation.MidStream = true
		conversation.mustPlay(t, list)
		conversation.Flipped = true
		conversation.Cut(int(size)+1).mustPlay(t, list)
	}
}

// Secret begins every password in the transcripts of testdata. No event may hold it, whatever is lost.
const Secret = "hunter"

// mustPlay plays c, and fails if a parser panics or an event holds Secret.
func (c Conversation) mustPlay(t testing.TB, list []protocols.Protocol) []string {
	t.Helper()
	set := protocols.NewSet(list, protocols.Default(), nil)
	set.Panicked = func(protocol string, value any, stack []byte) {
		t.Fatalf("%s: the parser of %s panicked: %v\n%s", c.Name, protocol, value, stack)
	}
	events, _ := c.PlayOn(set)
	for _, e := range events {
		if strings.Contains(e, Secret) {
			t.Fatalf("%s: an event holds a secret: %s", c.Name, e)
		}
	}
	return events
}

// Cut returns c with its bytes in pieces of n.
func (c Conversation) Cut(n int) Conversation {
	var steps []Step
	for _, step := range c.timed() {
		if c.UDP || len(step.Data) <= n {
			steps = append(steps, step)
			continue
		}
		for b := range slices.Chunk(step.Data, n) {
			steps = append(steps, Step{Dir: step.Dir, Data: b, At: step.At})
		}
	}
	c.Steps = steps
	return c
}

// timed returns the steps with their times, so that pieces of one step share its time.
func (c Conversation) timed() []Step {
	steps := slices.Clone(c.Steps)
	for i := range steps {
		if steps[i].At == 0 {
			steps[i].At = 1
			if i > 0 {
				steps[i].At += steps[i-1].At
			}
		}
	}
	return steps
}

// watchSync returns list with a Sync that sets lost when it is called.
func watchSync(list []protocols.Protocol, lost *bool) []protocols.Protocol {
	list = slices.Clone(list)
	for i := range list {
		if sync := list[i].Sync; sync != nil {
			list[i].Sync = func(dir protocols.Dir, b []byte) (int, protocols.Match) {
				*lost = true
				return sync(dir, b)
			}
		}
	}
	return list
}
