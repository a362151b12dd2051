package protocoltest

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tidegate/protocols"
)

// CheckProperties checks the properties of every parser with a conversation without losses. want is the name
// of the protocol that must be recognised; any name is accepted if want is empty.
func CheckProperties(t *testing.T, list []protocols.Protocol, conversation Conversation, want string) {
	conversation.Steps = conversation.timed()
	whole := conversation.mustPlay(t, list)
	t.Run("recognised", func(t *testing.T) { conversation.checkRecognised(t, list, whole, want) })
	t.Run("any split gives the same events", func(t *testing.T) { conversation.checkAnySplit(t, list, whole) })
	t.Run("what is not partial is true behind a gap", func(t *testing.T) { conversation.checkAnyGap(t, list, whole, 40) })
	t.Run("from the middle", func(t *testing.T) { conversation.checkMidStream(t, list, whole) })
	t.Run("roles flipped", func(t *testing.T) { conversation.checkFlipped(t, list) })
	t.Run("one side only", func(t *testing.T) { conversation.checkOneSide(t, list, whole) })
	t.Run("the server's packet first", func(t *testing.T) { conversation.checkServerFirst(t, list, whole) })
	t.Run("state without replies is bounded", func(t *testing.T) { conversation.checkMemory(t, list) })
}

// CheckTranscripts plays every transcript of a protocol in a few of the ways of CheckProperties. It is quick.
func CheckTranscripts(t *testing.T, list []protocols.Protocol, folder, protocol string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, protocol, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts")
	}
	for _, path := range files {
		conversation, err := ReadTranscript(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			conversation.Steps = conversation.timed()
			whole := conversation.mustPlay(t, list)
			for _, size := range []int{1, 7} {
				if got := conversation.Cut(size).mustPlay(t, list); !conversation.UDP && !slices.Equal(got, whole) {
					t.Errorf("pieces of %d bytes:\n%s\nwhole:\n%s", size, lines(got), lines(whole))
				}
			}
			conversation.checkReuse(t, list, whole)
			conversation.checkAnyGap(t, list, whole, 4)
			conversation.checkMidStream(t, list, whole)
			conversation.checkFlipped(t, list)
			conversation.checkOneSide(t, list, whole)
			conversation.checkServerFirst(t, list, whole)
		})
	}
}

// checkReuse plays c behind a connection that ended at any of its steps, with the same pools: nothing of it is left.
func (c Conversation) checkReuse(t *testing.T, list []protocols.Protocol, whole []string) {
	for i := range c.Steps {
		set := protocols.NewSet(list, protocols.Default(), nil)
		before := c
		last := c.Steps[i]
		last.Data = last.Data[:len(last.Data)*3/4] // within a message
		before.Steps = append(slices.Clone(c.Steps[:i]), last)
		before.PlayOn(set)
		if got, _ := c.PlayOn(set); !slices.Equal(got, whole) {
			t.Errorf("behind a connection that ended at step %d:\n%s\nwhole:\n%s", i, lines(got), lines(whole))
			return
		}
	}
}

// checkRecognised checks the protocol, that event IDs are unique, and that a second play yields the same
// events.
func (c Conversation) checkRecognised(t *testing.T, list []protocols.Protocol, whole []string, want string) {
	if len(whole) == 0 {
		t.Fatal("no events")
	}
	if _, name := c.Play(list); name != want && want != "" {
		t.Errorf("it is %q, want %q", name, want)
	}
	seen := map[string]bool{}
	for _, event := range whole {
		if id := field(event, "event.id"); id == "" || seen[id] {
			t.Errorf("event.id %q is not its own: %s", id, event)
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

var eventID = regexp.MustCompile(`event\.id=\S+ `)

// lines returns events one a line, for a message.
func lines(events []string) string { return "\t" + strings.Join(events, "\n\t") }

// CheckSplits checks that the events of conversation do not depend on how its bytes are cut.
func CheckSplits(t *testing.T, list []protocols.Protocol, conversation Conversation) {
	t.Helper()
	if conversation.UDP {
		return
	}
	conversation.Steps = conversation.timed()
	conversation.checkAnySplit(t, list, conversation.mustPlay(t, list))
}

// checkAnySplit plays c in pieces of several sizes, and with each step cut in two. The events must be those
// of the whole steps.
func (c Conversation) checkAnySplit(t *testing.T, list []protocols.Protocol, whole []string) {
	if c.UDP {
		return // datagrams are not cut
	}
	check := func(what string, cut Conversation) bool {
		got := cut.mustPlay(t, list)
		if !slices.Equal(got, whole) {
			t.Errorf("%s:\n%s\nwhole:\n%s", what, lines(got), lines(whole))
			return false
		}
		return true
	}
	// Pieces of the same size.
	for _, size := range []int{1, 2, 3, 5, 7, 11, 64, 1000} {
		if !check(fmt.Sprintf("pieces of %d bytes", size), c.Cut(size)) {
			return
		}
	}
	// One step in two pieces, at many positions.
	for i, step := range c.Steps {
		for at := 1; at < len(step.Data); at += stride(len(step.Data)) {
			two := c
			front, back := piece(step, 0, at), piece(step, at, len(step.Data))
			two.Steps = slices.Concat(c.Steps[:i], front, back, c.Steps[i+1:])
			if !check(fmt.Sprintf("step %d in two at %d", i, at), two) {
				return
			}
		}
	}
}

// stride returns the distance between two positions at which a step of size bytes is cut. A short step is cut
// at each byte, a long one at 300 positions.
func stride(size int) int { return 1 + size/300 }

// checkAnyGap plays c with bytes lost at so many positions of each step. Fewer events may result, but an event that is not
// partial must be one of the events without losses.
func (c Conversation) checkAnyGap(t *testing.T, list []protocols.Protocol, whole []string, positions int) {
	for i, step := range c.Steps {
		for from := 0; from < len(step.Data); from += 1 + len(step.Data)/positions {
			for _, size := range []int{1, 9, len(step.Data)} {
				if size = min(size, len(step.Data)-from); size == 0 {
					continue
				}
				got := c.withGap(i, from, size).mustPlay(t, list)
				if !checkEvents(t, fmt.Sprintf("%d bytes lost from step %d at %d", size, i, from), got, whole) {
					return
				}
			}
		}
	}
}

// withGap returns c with a gap in place of the size bytes of step i from offset from. A datagram is lost as a
// whole.
func (c Conversation) withGap(i, from, size int) Conversation {
	step := c.Steps[i]
	if c.UDP {
		c.Steps = slices.Delete(slices.Clone(c.Steps), i, i+1)
		return c
	}
	gap := []Step{{Dir: step.Dir, Gap: size, At: step.At}}
	front, rest := piece(step, 0, from), piece(step, from+size, len(step.Data))
	c.Steps = slices.Concat(c.Steps[:i], front, gap, rest, c.Steps[i+1:])
	return c
}

// piece returns a step with the bytes from offset from to offset to of step, or no step if that is empty.
func piece(step Step, from, to int) []Step {
	if from >= to {
		return nil
	}
	return []Step{{Dir: step.Dir, Data: step.Data[from:to], At: step.At}}
}

// checkEvents checks the events of a conversation with losses against whole, its events without losses. An
// event that is not partial must have no field that the event of whole with the same ID lacks. Fields may be
// missing, because the lost bytes may be those of a login or of a prepared statement. So may the whole reply:
// a reply that is lost to its end leaves no gap behind the last bytes that were seen.
func checkEvents(t *testing.T, what string, got, whole []string) bool {
	t.Helper()
	byID := map[string]string{}
	for _, event := range whole {
		byID[field(event, "event.id")] = event
	}
	for _, event := range got {
		if isPartial(event) || isSubset(event, byID[field(event, "event.id")]) {
			continue
		}
		t.Errorf("%s: this event is neither true nor partial:\n\t%s\nwhole:\n%s", what, event, lines(whole))
		return false
	}
	return true
}

// isPartial reports whether an event says that bytes of it are missing.
func isPartial(event string) bool { return field(event, "event.partial") == "true" }

// isSubset reports whether complete holds every field of event with the same value. An event without an outcome
// may be a query whose answer is missing: the answer overrides dns.type and adds to dns.header_flags.
func isSubset(event, complete string) bool {
	if field(event, "event.outcome") == "" {
		event = overriddenByAnswer.ReplaceAllString(event, "")
	}
	complete = " " + complete + " "
	for pair := range strings.SplitSeq(event, " ") {
		if !strings.Contains(complete, " "+pair+" ") {
			return false
		}
	}
	return true
}

var overriddenByAnswer = regexp.MustCompile(` dns\.type="query"| dns\.header_flags=\[[^]]*\]`)

// checkMidStream plays c as a connection without a SYN, from each step and from several bytes of each step. From
// the first byte of a step on, an event that is not partial must be one of whole, in everything but its ID.
func (c Conversation) checkMidStream(t *testing.T, list []protocols.Protocol, whole []string) {
	c.MidStream = true
	unmeasured := withoutMeasures(whole)
	for i, step := range c.Steps {
		for _, at := range []int{0, 1, len(step.Data) / 2, len(step.Data) - 1} {
			if at < 0 || at > 0 && c.UDP {
				continue
			}
			rest := c
			rest.Steps = slices.Concat(piece(step, at, len(step.Data)), c.Steps[i+1:])
			got := withoutMeasures(rest.mustPlay(t, list))
			if at > 0 {
				continue // a parser cannot know that the first byte is not the first one of a message
			}
			for _, event := range got {
				// Its ID is another one, because offsets count from the first byte that was seen.
				content := eventID.ReplaceAllString(event, "")
				isTrue := slices.ContainsFunc(unmeasured, func(w string) bool { return isSubset(content, w) })
				if !isPartial(event) && !isTrue {
					t.Errorf("from step %d: this event is neither true nor partial:\n\t%s\nwhole:\n%s",
						i, event, lines(whole))
					return
				}
			}
		}
	}

	// No request is missing if the capture holds the first byte.
	got := c.mustPlay(t, list)
	if len(got) == 0 {
		t.Errorf("picked up in mid-stream, at its first byte: no events")
	}
	checkEvents(t, "picked up in mid-stream, at its first byte", got, whole)
	if c.Steps[0].Dir == protocols.Server && len(whole) > 0 {
		whole = whole[1:] // a login is recognised by its greeting, which is looked for behind a SYN only
	}
	checkRequests(t, "picked up in mid-stream, at its first byte", got, whole)
}

// measuresOfTLS are the fields of a handshake that depend on where it begins.
var measuresOfTLS = regexp.MustCompile(`@timestamp=\S+| event\.duration=\S+| (source|destination)\.bytes=\S+`)

// withoutMeasures returns events without the measures of handshakes. The answer to a HelloRetryRequest looks like the
// first message of a handshake.
func withoutMeasures(events []string) (all []string) {
	for _, event := range events {
		if field(event, "event.dataset") == `"tls"` {
			event = measuresOfTLS.ReplaceAllString(event, "")
		}
		all = append(all, event)
	}
	return all
}

// checkFlipped opens the connection with client and server exchanged. The events must be the same.
func (c Conversation) checkFlipped(t *testing.T, list []protocols.Protocol) {
	if c.UDP {
		return // the port decides the roles of datagrams
	}
	c.MidStream = true
	want := c.mustPlay(t, list)
	c.Flipped = true
	if got := c.mustPlay(t, list); !slices.Equal(got, want) {
		t.Errorf("flipped:\n%s\nas it was:\n%s", lines(got), lines(want))
	}
}

// checkOneSide plays the steps of one side only. Every request is told. An event that is not partial is one of
// whole, without the fields of the other side; a handshake without its answer has no end, so that its length is
// another one, and the duration of a request without its answer is that of the request.
func (c Conversation) checkOneSide(t *testing.T, list []protocols.Protocol, whole []string) {
	duration := regexp.MustCompile(` event\.duration=\S+`)
	unmeasured := func(events []string) (all []string) {
		for _, event := range withoutMeasures(events) {
			if field(event, "event.outcome") == "" {
				event = duration.ReplaceAllString(event, "")
			}
			all = append(all, event)
		}
		return all
	}
	for _, dir := range []protocols.Dir{protocols.Client, protocols.Server} {
		one := c
		one.Steps = slices.DeleteFunc(slices.Clone(c.Steps), func(step Step) bool { return step.Dir != dir })
		for _, one.MidStream = range []bool{false, true} {
			what := fmt.Sprintf("side %d only, in mid-stream %t", dir, one.MidStream)
			got := one.mustPlay(t, list)
			checkEvents(t, what, unmeasured(got), unmeasured(whole))
			if dir == protocols.Client {
				checkRequests(t, what, got, whole)
			}
		}
	}
}

// checkServerFirst plays the first step of the server before all others, as a capture with reordered packets
// has it. No request may be missing. Which reply is whose cannot be known then: collector/reassembly delivers the
// request first.
func (c Conversation) checkServerFirst(t *testing.T, list []protocols.Protocol, whole []string) {
	first := slices.IndexFunc(c.Steps, func(step Step) bool { return step.Dir == protocols.Server })
	if first <= 0 || c.UDP {
		return
	}
	c.Steps = slices.Concat([]Step{c.Steps[first]}, c.Steps[:first], c.Steps[first+1:])
	for i := range c.Steps {
		c.Steps[i].At = int64(i + 1)
	}
	checkRequests(t, "the server's packet first", c.mustPlay(t, list), whole)
}

// checkRequests checks that no request of whole is missing in got, up to one whose answer decides how to read
// what follows: CONNECT, or the handshake of TLS.
func checkRequests(t *testing.T, what string, got, whole []string) {
	t.Helper()
	told := map[string]bool{}
	for _, event := range got {
		told[field(event, "event.id")] = true
	}
	for _, event := range whole {
		if field(event, "event.dataset") == `"tls"` {
			return
		}
		isRequest := field(event, "source.bytes") != ""
		if isRequest && !told[field(event, "event.id")] {
			t.Errorf("%s: no event of this request:\n\t%s\ngot:\n%s", what, event, lines(got))
			return
		}
		if field(event, "http.request.method") == `"CONNECT"` {
			return
		}
	}
}

// checkMemory repeats the steps of the client without any reply. The memory of the requests that wait must be
// bounded.
func (c Conversation) checkMemory(t *testing.T, list []protocols.Protocol) {
	// The steps of the client, and their size in total.
	var requests []Step
	size := 0
	for _, step := range c.Steps {
		if step.Dir == protocols.Client && len(step.Data) > 0 {
			requests = append(requests, step)
			size += len(step.Data)
		}
	}
	if size == 0 {
		return
	}

	// Send 16 MiB of them and measure the heap before the connection is closed.
	events := 0
	meter := HeapMeter{}
	conn := meter.open(t, list, c, &events)
	at := Start
	for sent := 0; sent < 16<<20; sent += size {
		for _, step := range requests {
			at += 1000
			if c.UDP {
				conn.Datagram(step.Dir, step.Data, at)
			} else {
				conn.Data(step.Dir, step.Data, at)
			}
		}
	}
	if held := meter.held(); held > 48<<20 {
		t.Errorf("%d MiB are held for replies to 16 MiB", held>>20)
	}
	conn.Close(at)
}

// CheckNegative checks that a conversation of another protocol is recognised as none of list.
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

// Ports returns list with the given ports, or without ports, for every protocol.
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
	for _, protocol := range list {
		names[protocol.Name] = true
	}
	return slices.Sorted(maps.Keys(names))
}
