package protocoltest

import (
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline/lineartest"
	"tidegate/protocols"
)

// Fuzz returns the body of a fuzz target. It plays the bytes of a client and of a server whole, in pieces of
// size+1 bytes, with a gap in place of one piece, and from the middle. A panic of the parser is a failure. So
// are events that depend on how the bytes were cut, unless the parser lost its position in the stream: where
// it resumes may depend on the packets.
//
// More than linear work is a failure too.
func Fuzz(list []protocols.Protocol) func(t *testing.T, client, server []byte, size, gap uint8) {
	return func(t *testing.T, client, server []byte, size, gap uint8) {
		lineartest.CheckRepeatedPair(t, lineartest.Default, client, server, func(client, server []byte) {
			fuzzOnce(t, list, client, server, size, gap)
		})
	}
}

// fuzzOnce plays the bytes of a client and of a server in the ways that Fuzz lists.
func fuzzOnce(t *testing.T, list []protocols.Protocol, client, server []byte, size, gap uint8) {
	conversation := Conversation{Port: list[0].Ports[0], Steps: []Step{
		{Dir: protocols.Client, Data: client, At: 1},
		{Dir: protocols.Server, Data: server, At: 2},
		{Dir: protocols.Client, End: true, At: 3},
		{Dir: protocols.Server, End: true, At: 3},
	}}

	// Whole and in pieces.
	lost := false
	list = watchSync(list, &lost)
	whole := conversation.mustPlay(t, list)
	if got := conversation.Cut(int(size)+1).mustPlay(t, list); !lost && !slices.Equal(got, whole) {
		t.Errorf("cut into pieces of %d bytes:\n%q\nwhole:\n%q", int(size)+1, got, whole)
	}

	// With a gap in place of one piece.
	holed := conversation.Cut(int(size) + 1)
	if pieces := len(holed.Steps); pieces > 0 {
		step := &holed.Steps[int(gap)%pieces]
		if len(step.Data) > 0 {
			*step = Step{Dir: step.Dir, Gap: len(step.Data), At: step.At}
		}
	}
	holed.mustPlay(t, list)

	// From the middle, with the roles as they are and exchanged.
	conversation.MidStream = true
	conversation.mustPlay(t, list)
	conversation.Flipped = true
	conversation.Cut(int(size)+1).mustPlay(t, list)
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
	for _, event := range events {
		if strings.Contains(event, Secret) {
			t.Fatalf("%s: an event holds a secret: %s", c.Name, event)
		}
	}
	return events
}

// Cut returns c with its bytes in pieces of at most size bytes. Datagrams stay whole.
func (c Conversation) Cut(size int) Conversation {
	var steps []Step
	for _, step := range c.timed() {
		if c.UDP || len(step.Data) <= size {
			steps = append(steps, step)
			continue
		}
		for data := range slices.Chunk(step.Data, size) {
			steps = append(steps, Step{Dir: step.Dir, Data: data, At: step.At})
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
			list[i].Sync = func(dir protocols.Dir, data []byte) (int, protocols.Match) {
				*lost = true
				return sync(dir, data)
			}
		}
	}
	return list
}
