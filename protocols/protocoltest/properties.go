package protocoltest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"tidegate/protocols"
)

// CheckProperties runs the tests that hold for every protocol on a conversation without losses. want is the
// name of the protocol that must be recognised, or "".
func CheckProperties(t *testing.T, list []protocols.Protocol, conversation Conversation, want string) {
	conversation.Steps = conversation.timed()
	whole := conversation.mustPlay(t, list)
	t.Run("recognised", func(t *testing.T) { conversation.recognised(t, list, whole, want) })
	t.Run("any split gives the same events", func(t *testing.T) { conversation.anySplit(t, list, whole) })
	t.Run("what is not partial is true behind a gap", func(t *testing.T) { conversation.anyGap(t, list, whole) })
	t.Run("from the middle", func(t *testing.T) { conversation.fromTheMiddle(t, list, whole) })
	t.Run("roles flipped", func(t *testing.T) { conversation.rolesFlipped(t, list) })
	t.Run("one side only", func(t *testing.T) { conversation.oneSide(t, list) })
	t.Run("the server's packet first", func(t *testing.T) { conversation.serverFirst(t, list) })
	t.Run("state without replies is bounded", func(t *testing.T) { conversation.withoutReplies(t, list) })
}

func (c Conversation) recognised(t *testing.T, list []protocols.Protocol, whole []string, want string) {
	if len(whole) == 0 {
		t.Fatal("no events")
	}
	if _, name := c.Play(list); name != want && want != "" {
		t.Errorf("it is %q, want %q", name, want)
	}
	seen := map[string]bool{}
	for _, e := range whole {
		if id := field(e, "event.id"); id == "" || seen[id] {
			t.Errorf("event.id %q is not its own: %s", id, e)
		} else {
			seen[id] = true
		}
	}
	if again := c.mustPlay(t, list); !slices.Equal(again, whole) {
		t.Errorf("played again:\n%s\nfirst:\n%s", lines(again), lines(whole))
	}
}

// field returns the value of a field in the form of Text.
func field(event, name string) string {
	_, rest, _ := strings.Cut(event, name+"=")
	value, _, _ := strings.Cut(rest, " ")
	return value
}

func lines(events []string) string { return "\t" + strings.Join(events, "\n\t") }

// CheckSplits checks that the events of conversation do not depend on how its bytes are cut.
func CheckSplits(t *testing.T, list []protocols.Protocol, conversation Conversation) {
	t.Helper()
	if conversation.UDP {
		return
	}
	conversation.Steps = conversation.timed()
	conversation.anySplit(t, list, conversation.mustPlay(t, list))
}

// anySplit cuts the bytes everywhere: into pieces of each small size, and each step in two at each of its
// bytes.
func (c Conversation) anySplit(t *testing.T, list []protocols.Protocol, whole []string) {
	if c.UDP {
		t.Skip("datagrams are not cut")
	}
	check := func(what string, cut Conversation) bool {
		got := cut.mustPlay(t, list)
		if !slices.Equal(got, whole) {
			t.Errorf("%s:\n%s\nwhole:\n%s", what, lines(got), lines(whole))
			return false
		}
		return true
	}
	for _, n := range []int{1, 2, 3, 5, 7, 11, 64, 1000} {
		if !check(fmt.Sprintf("pieces of %d bytes", n), c.Cut(n)) {
			return
		}
	}
	for i, step := range c.Steps {
		for at := 1; at < len(step.Data); at += stride(len(step.Data)) {
			two := c
			two.Steps = slices.Concat(c.Steps[:i], piece(step, 0, at), piece(step, at, len(step.Data)), c.Steps[i+1:])
			if !check(fmt.Sprintf("step %d in two at %d", i, at), two) {
				return
			}
		}
	}
}

// stride returns the distance of the places at which a step of n bytes is cut: all of a short one, some
// hundreds of a long one.
func stride(n int) int { return 1 + n/300 }

// anyGap loses bytes everywhere. Fewer events may come out, but an event that is not partial is one of those
// without losses, word for word.
func (c Conversation) anyGap(t *testing.T, list []protocols.Protocol, whole []string) {
	for i, step := range c.Steps {
		for from := 0; from < len(step.Data); from += 1 + len(step.Data)/40 {
			for _, n := range []int{1, 9, len(step.Data)} {
				if n = min(n, len(step.Data)-from); n == 0 {
					continue
				}
				holed := c
				if c.UDP {
					holed.Steps = slices.Delete(slices.Clone(c.Steps), i, i+1)
				} else {
					gap := []Step{{Dir: step.Dir, Gap: n, At: step.At}}
					front, rest := piece(step, 0, from), piece(step, from+n, len(step.Data))
					holed.Steps = slices.Concat(c.Steps[:i], front, gap, rest, c.Steps[i+1:])
				}
				got := holed.mustPlay(t, list)
				if !checkEvents(t, fmt.Sprintf("%d bytes lost from step %d at %d", n, i, from), got, whole) {
					return
				}
			}
		}
	}
}

func piece(step Step, from, to int) []Step {
	if from >= to {
		return nil
	}
	return []Step{{Dir: step.Dir, Data: step.Data[from:to], At: step.At}}
}

// checkEvents checks that an event which is not partial is one of whole, the events without losses, and has
// no field that that one has not: what was sent before the gap (a login, a prepared statement) may be
// missing. A reply that was lost as a whole, behind the last bytes that were seen, leaves no gap: an event
// without an outcome shows by that what is missing.
func checkEvents(t *testing.T, what string, got, whole []string) bool {
	known := map[string]string{}
	for _, e := range whole {
		known[field(e, "event.id")] = e
	}
	for _, text := range got {
		if field(text, "event.partial") == "true" || field(text, "event.outcome") == "" || within(text, known[field(text, "event.id")]) {
			continue
		}
		t.Errorf("%s: this event is neither true nor partial:\n\t%s\nwhole:\n%s", what, text, lines(whole))
		return false
	}
	return true
}

// within reports whether every field of e has the same value in of.
func within(e, of string) bool {
	for f := range strings.SplitSeq(e, " ") {
		if !strings.Contains(of, f) {
			return false
		}
	}
	return true
}

// fromTheMiddle plays what follows each step, and each step's middle.
func (c Conversation) fromTheMiddle(t *testing.T, list []protocols.Protocol, _ []string) {
	for i := range c.Steps {
		step := c.Steps[i]
		for _, at := range []int{0, 1, len(step.Data) / 2, len(step.Data) - 1} {
			if at < 0 || at > 0 && c.UDP {
				continue
			}
			conversation := c
			conversation.MidStream = true
			conversation.Steps = slices.Concat(piece(step, at, len(step.Data)), c.Steps[i+1:])
			conversation.mustPlay(t, list)
		}
	}
	// Seen from its first byte nothing is missing, though no SYN was seen.
	m := c
	m.MidStream = true
	if got := m.mustPlay(t, list); len(got) == 0 {
		t.Errorf("picked up in mid-stream, at its first byte: no events")
	}
}

func (c Conversation) rolesFlipped(t *testing.T, list []protocols.Protocol) {
	if c.UDP {
		t.Skip("a port tells the roles of datagrams")
	}
	c.MidStream = true
	want := c.mustPlay(t, list)
	c.Flipped = true
	if got := c.mustPlay(t, list); !slices.Equal(got, want) {
		t.Errorf("flipped:\n%s\nas it was:\n%s", lines(got), lines(want))
	}
}

func (c Conversation) oneSide(t *testing.T, list []protocols.Protocol) {
	for _, dir := range []protocols.Dir{protocols.Client, protocols.Server} {
		one := c
		one.Steps = slices.DeleteFunc(slices.Clone(c.Steps), func(s Step) bool { return s.Dir != dir })
		one.mustPlay(t, list)
		one.MidStream = true
		one.mustPlay(t, list)
	}
}

func (c Conversation) serverFirst(t *testing.T, list []protocols.Protocol) {
	i := slices.IndexFunc(c.Steps, func(s Step) bool { return s.Dir == protocols.Server })
	if i <= 0 {
		return
	}
	c.Steps = slices.Concat([]Step{c.Steps[i]}, c.Steps[:i], c.Steps[i+1:])
	for j := range c.Steps {
		c.Steps[j].At = int64(j + 1)
	}
	c.mustPlay(t, list)
}

// withoutReplies repeats what the client sends: what is held for the replies must be bounded.
func (c Conversation) withoutReplies(t *testing.T, list []protocols.Protocol) {
	var client []Step
	size := 0
	for _, step := range c.Steps {
		if step.Dir == protocols.Client && len(step.Data) > 0 {
			client = append(client, step)
			size += len(step.Data)
		}
	}
	if size == 0 {
		return
	}
	events := 0
	heapMeter := HeapMeter{}
	conn := heapMeter.open(t, list, c, &events)
	at := Start
	for sent := 0; sent < 16<<20; sent += size {
		for _, step := range client {
			at += 1000
			if c.UDP {
				conn.Datagram(step.Dir, step.Data, at)
			} else {
				conn.Data(step.Dir, step.Data, at)
			}
		}
	}
	if held := heapMeter.held(); held > 48<<20 {
		t.Errorf("%d MiB are held for replies to 16 MiB", held>>20)
	}
	conn.Close(at)
}

// CheckNegative checks that conversation, which belongs to another protocol, is recognised as none of list.
func CheckNegative(t *testing.T, list []protocols.Protocol, conversation Conversation) {
	conversation.Steps = conversation.timed()
	for _, cut := range []Conversation{conversation, conversation.Cut(1), conversation.Cut(3)} {
		if events, name := cut.Play(list); len(events) > 0 || name != "" {
			t.Errorf("%s was taken for %q:\n%s", conversation.Name, name, lines(events))
			return
		}
	}
	conversation.MidStream = true
	conversation.mustPlay(t, list)
}

// Ports returns list with these ports for every protocol, or none.
func Ports(list []protocols.Protocol, ports ...uint16) []protocols.Protocol {
	list = slices.Clone(list)
	for i := range list {
		list[i].Ports = ports
	}
	return list
}

// Names returns the names of the protocols of list, sorted.
func Names(list []protocols.Protocol) []string {
	names := map[string]bool{}
	for _, p := range list {
		names[p.Name] = true
	}
	return slices.Sorted(maps.Keys(names))
}
