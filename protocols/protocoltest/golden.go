package protocoltest

import (
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// CheckGoldens plays every transcript of a protocol and compares all fields of its events with the golden of the
// same name in testdata of the calling test. GOLDEN=1 in the environment rewrites the goldens.
func CheckGoldens(t *testing.T, list []protocols.Protocol, protocol string) {
	t.Helper()
	for _, conversation := range transcripts(t, protocol) {
		events, _ := conversation.Play(list)
		CompareGolden(t, strings.TrimSuffix(filepath.Base(conversation.Name), ".txt")+".golden", strings.Join(events, "\n")+"\n")
	}
}

// transcripts returns the transcripts of a protocol.
func transcripts(t *testing.T, protocol string) (all []Conversation) {
	t.Helper()
	files, err := filepath.Glob("../testdata/" + protocol + "/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts")
	}
	for _, path := range files {
		conversation, err := ReadTranscript(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, conversation)
	}
	return all
}

// CompareGolden compares got with a file in testdata of the calling test. Only the first difference is printed. GOLDEN=1 in
// the environment rewrites the file.
func CompareGolden(t *testing.T, name, got string) {
	t.Helper()
	golden := filepath.Join("testdata", name)
	if os.Getenv("GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Error(err)
		return
	}
	want, lines := strings.Split(string(data), "\n"), strings.Split(got, "\n")
	for i := range max(len(want), len(lines)) {
		if line, wanted := lineAt(lines, i), lineAt(want, i); line != wanted {
			t.Errorf("%s differs in line %d (GOLDEN=1 go test ./protocols/... -run Goldens rewrites it)\ngot:\n%s\nwant:\n%s", golden, i+1, line, wanted)
			return
		}
	}
}

func lineAt(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "nothing"
}

// CheckLossGoldens plays every transcript of a protocol with losses: without a part of each of its steps, and from each of
// its steps on as if its beginning had not been captured. It compares the events that are not among those of the whole
// transcript, and what is counted, with losses.golden in testdata of the calling test.
func CheckLossGoldens(t *testing.T, list []protocols.Protocol, protocol string) {
	t.Helper()
	checkLosses(t, list, transcripts(t, protocol), "losses.golden", true, 0)
}

// CheckDialogueGoldens plays dialogues, each of which has a name, as they are and without a part of each of their steps from
// the number first on. It compares the events, and what is counted, with dialogues.golden in testdata of the calling test. Of a dialogue with losses
// only the events that differ are in it.
func CheckDialogueGoldens(t *testing.T, list []protocols.Protocol, dialogues []Conversation, first int) {
	t.Helper()
	checkLosses(t, list, dialogues, "dialogues.golden", false, first)
}

// maxInFull is the number of events of a conversation that are in a golden. Of more there is a checksum.
const maxInFull = 20

// inGolden returns an event as it is in a golden: the middle of a long text is its checksum.
func inGolden(event string) string {
	const most, kept = 1200, 300
	if len(event) <= most {
		return event
	}
	return fmt.Sprintf("%s…%d bytes %08x…%s", event[:kept], len(event), crc32.ChecksumIEEE([]byte(event)), event[len(event)-kept:])
}

// checkLosses plays conversations. The events of a transcript as a whole have a golden of their own.
func checkLosses(t *testing.T, list []protocols.Protocol, conversations []Conversation, golden string, isTranscript bool, first int) {
	t.Helper()
	var out strings.Builder
	write := func(what string, played Conversation, known []string) {
		reg := prometheus.NewRegistry()
		events, _ := played.PlayOn(protocols.NewSet(list, protocols.Default(), reg))
		fmt.Fprintf(&out, "%s, %s: %d events%s\n", filepath.Base(played.Name), what, len(events), countersText(t, reg))
		events = slices.DeleteFunc(events, func(event string) bool { return slices.Contains(known, event) })
		for i, event := range events {
			if i == maxInFull {
				rest := events[i:]
				fmt.Fprintf(&out, "  %d more: %08x\n", len(rest), crc32.ChecksumIEEE([]byte(strings.Join(rest, "\n"))))
				break
			}
			fmt.Fprintf(&out, "  %s\n", inGolden(event))
		}
	}
	for _, conversation := range conversations {
		conversation.Steps = conversation.timed()
		whole := conversation.mustPlay(t, list)
		if isTranscript {
			write("whole", conversation, whole)
		} else {
			write("whole", conversation, nil)
		}
		for i, step := range conversation.Steps {
			if size := len(step.Data); size > 0 && i >= first {
				write(fmt.Sprintf("without a part of step %d", i), conversation.withGap(i, size/3, 1+size/3), whole)
			}
			if isTranscript {
				rest := conversation
				rest.MidStream, rest.Steps = true, conversation.Steps[i:]
				write(fmt.Sprintf("from step %d", i), rest, whole)
			}
		}
	}
	CompareGolden(t, golden, out.String())
}

// CheckCaptureGoldens plays the shared captures with messages of a protocol and compares the number and the checksum of
// their events, what is counted, and the first event, with captures.golden in testdata of the calling test.
func CheckCaptureGoldens(t *testing.T, list []protocols.Protocol) {
	t.Helper()
	folder := filepath.Join(SharedData(t, "../.."), "pcaps")
	files, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if golden, err := os.ReadFile("testdata/captures.golden"); err == nil && os.Getenv("GOLDEN") == "" {
		files = nil
		for line := range strings.Lines(string(golden)) {
			if name, _, found := strings.Cut(line, ": "); found && line[0] != ' ' {
				files = append(files, filepath.Join(folder, name))
			}
		}
	}
	var out strings.Builder
	for _, path := range files {
		reg := prometheus.NewRegistry()
		var events []string
		partial := 0
		playCapture(t, protocols.NewSet(list, protocols.Default(), reg), path, func(event *pipeline.Event) {
			events = append(events, Text(event))
			if event.Partial {
				partial++
			}
			event.ReturnToVTPool()
		})
		if len(events) > 0 {
			fmt.Fprintf(&out, "%s: %d events, %d partial, %08x%s\n  %s\n", filepath.Base(path), len(events), partial,
				crc32.ChecksumIEEE([]byte(strings.Join(events, "\n"))), countersText(t, reg), inGolden(events[0]))
		}
	}
	CompareGolden(t, "captures.golden", out.String())
}

// countersText returns the counters of reg that are not 0.
func countersText(t *testing.T, reg *prometheus.Registry) (text string) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			value := metric.GetCounter().GetValue()
			if value == 0 {
				continue
			}
			text += ", " + strings.TrimPrefix(family.GetName(), "tidegate_protocols_")
			for _, label := range metric.GetLabel() {
				text += " " + label.GetValue()
			}
			text += fmt.Sprint(" ", value)
		}
	}
	return text
}
