package logs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tidegate/collector/containers"
	"tidegate/collector/logs/decode"
	"tidegate/collector/logs/logstest"
	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// maxRecord is the length at which package tail ends a record without a newline.
const maxRecord = 1 << 20

// configAt returns the default configuration with Docker's data folder at root.
func configAt(root string) Config {
	cfg := Default()
	cfg.DockerDataRoot = root
	return cfg
}

// messages returns the texts of the shipped lines by time. Lines of one file with the same time keep their
// order.
func messages(ship *logstest.Shipper) []string {
	list := ship.All()
	slices.SortStableFunc(list, func(a, b logstest.Shipped) int { return int(a.Time - b.Time) })
	texts := make([]string, len(list))
	for i, shipped := range list {
		texts[i] = shipped.Message
	}
	return texts
}

// wantMessages checks that exactly the lines want were shipped, in their order.
func wantMessages(t testing.TB, ship *logstest.Shipper, want ...string) {
	t.Helper()
	ship.Wait(t, len(want))
	got := messages(ship)
	if !slices.Equal(got, want) {
		t.Fatalf("got %d lines %.300q\nwant %d lines %.300q", len(got), got, len(want), want)
	}
	ship.Check(t)
}

// wantOnce checks that line 0, line 1, … were shipped once each and nothing else. lines is their number.
func wantOnce(t testing.TB, ship *logstest.Shipper, lines int) {
	t.Helper()
	ship.Wait(t, lines)
	seen := make([]int, lines)
	ids := map[string]bool{}
	for _, shipped := range ship.All() {
		var line int
		if _, err := fmt.Sscanf(shipped.Message, "line %d", &line); err != nil || line >= lines {
			t.Fatalf("unexpected line %.80q", shipped.Message)
		}
		seen[line]++
		if ids[shipped.ID] {
			t.Fatalf("event.id of %q came twice", shipped.Message)
		}
		ids[shipped.ID] = true
	}
	for line, count := range seen {
		if count != 1 {
			t.Fatalf("line %d came %d times", line, count)
		}
	}
	ship.Check(t)
}

// TestLinesBecomeEvents: an event has the text, stream, level, position and container of its line.
func TestLinesBecomeEvents(t *testing.T) {
	root := t.TempDir()
	dockerd, ship := logstest.NewDockerd(t, root, 1), logstest.NewShipper()
	dockerd.Attrs = `,"attrs":{"tag":"a\"}b","x":"{"}`
	dockerd.WriteLog("stdout", "level=info hello \"you\"\n")
	dockerd.WriteLog("stderr", "[ERROR] password=hunter2 over\n\n")
	registry := newRegistry()
	registry.set(dockerd.ID, "web", containers.Status{Known: true, Running: true})
	start(t, configAt(root), registry, ship)
	ship.Wait(t, 3)
	events := ship.All()
	if event := events[0]; event.Message != `level=info hello "you"` || event.Stream != "stdout" ||
		event.Level != "info" || event.Offset != 0 || event.Container != "web" || event.Path != dockerd.Path ||
		event.Time != dockerd.Now.UnixNano()-2*137 || event.Bytes != 22 || event.Partial || event.Truncated {
		t.Errorf("%+v", event)
	}
	if event := events[1]; event.Message != "[ERROR] password=REDACTED over" || event.Stream != "stderr" ||
		event.Level != "error" {
		t.Errorf("%+v", event)
	}
	if event := events[2]; event.Message != "" || event.Stream != "stderr" {
		t.Errorf("%+v", event)
	}
	dockerd.WriteLog("stdout", "more\n")
	wantMessages(t, ship, events[0].Message, events[1].Message, "", "more")
}

// TestFilesFromBeforeTheStartAreReadInOrder reads what rotation left before the first start, the oldest
// first.
func TestFilesFromBeforeTheStartAreReadInOrder(t *testing.T) {
	for _, compress := range []bool{false, true} {
		root := t.TempDir()
		dockerd, ship := logstest.NewDockerd(t, root, 1), logstest.NewShipper()
		dockerd.MaxFile, dockerd.Compress = 4, compress
		var want []string
		for i := range 4 {
			dockerd.WriteLog("stdout", fmt.Sprintf("a%d\nb%d\n", i, i))
			want = append(want, fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i))
			if i < 3 {
				dockerd.Rotate()
			}
		}
		start(t, configAt(root), nil, ship)
		wantMessages(t, ship, want...)
	}
}

// TestEveryLineOfAFastRotationComesOnce: files are rotated while they are read, without or with compression.
func TestEveryLineOfAFastRotationComesOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	check := func(maxFile int, size int64, compress bool, lines int) {
		root := t.TempDir()
		ship := logstest.NewShipper()
		stop := start(t, configAt(root), nil, ship)
		dockerd := logstest.NewDockerd(t, root, 1)
		dockerd.MaxSize, dockerd.MaxFile, dockerd.Compress = size, maxFile, compress
		for i := range lines {
			dockerd.WriteLog("stdout", fmt.Sprintf("line %d of a container that writes a lot\n", i))
			if i%50 == 49 {
				time.Sleep(100 * time.Microsecond) // dockerd writes no faster: it gets each line from the container
			}
		}
		dockerd.Remove()
		wantOnce(t, ship, lines)
		stop()
	}
	check(3, 1<<20, false, 100_000)
	check(1, 1<<20, false, 60_000)
	check(3, 1<<20, true, 60_000)
}

// TestPartsAreJoined: dockerd cuts a line into records of 16384 bytes. They become one event again, also
// while the parts of both streams alternate.
func TestPartsAreJoined(t *testing.T) {
	root := t.TempDir()
	dockerd, ship := logstest.NewDockerd(t, root, 1), logstest.NewShipper()
	start(t, configAt(root), nil, ship)
	repeat := func(n int, c string) string { return strings.Repeat(c, n) }
	dockerd.WriteLog("stdout", repeat(decode.DockerPartBytes, "a")+"\n")
	dockerd.WriteLog("stdout", repeat(2*decode.DockerPartBytes, "b")+"\n")
	dockerd.WriteLog("stdout", repeat(decode.DockerPartBytes+1, "c")+"\n")
	// Both streams in the middle of a line.
	at := dockerd.Now.Add(time.Second)
	dockerd.WriteRecord(repeat(decode.DockerPartBytes, "o"), "stdout", at)
	dockerd.WriteRecord(repeat(decode.DockerPartBytes, "e"), "stderr", at.Add(1))
	dockerd.WriteRecord("O\n", "stdout", at)
	dockerd.WriteRecord("E\n", "stderr", at.Add(1))
	dockerd.Now = at.Add(2)
	dockerd.WriteLog("stdout", "end of stream")
	dockerd.WriteLog("stdout", "new run\n")
	// The last line of a run had 16384 bytes and no newline. The next run writes to the same log, at another
	// time.
	dockerd.WriteLog("stdout", repeat(decode.DockerPartBytes, "l"))
	dockerd.WriteLog("stdout", "after\n")
	ship.Wait(t, 9)
	var got []string
	for _, event := range ship.All() {
		got = append(got, fmt.Sprintf("%s %.1s%d %d", event.Stream, event.Message, len(event.Message), event.Bytes))
	}
	want := []string{
		"stdout a16384 16384", "stdout b32768 32768", "stdout c16385 16385", "stdout o16385 16385",
		"stderr e16385 16385", "stdout e13 13", "stdout n7 7", "stdout l16384 16384", "stdout a5 5",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	ship.Check(t)
}

// TestInvalidBytesDoNotEndALine: dockerd replaces each invalid byte by three bytes. A part of 16384 bytes is
// recognised although its record is longer.
func TestInvalidBytesDoNotEndALine(t *testing.T) {
	root := t.TempDir()
	dockerd, ship := logstest.NewDockerd(t, root, 1), logstest.NewShipper()
	start(t, configAt(root), nil, ship)
	at := dockerd.Now
	dockerd.WriteRecord(strings.Repeat("a", decode.DockerPartBytes-10)+strings.Repeat("\ufffd", 10), "stdout", at)
	dockerd.WriteRecord("b\n", "stdout", at)
	// One byte less than a part: the end of the stream.
	dockerd.WriteRecord(strings.Repeat("\ufffd", decode.DockerPartBytes-1), "stdout", at.Add(1))
	dockerd.WriteRecord("c\n", "stdout", at.Add(2))
	ship.Wait(t, 3)
	events := ship.All()
	if len(events[0].Message) != decode.DockerPartBytes+20+1 ||
		len(events[1].Message) != 3*(decode.DockerPartBytes-1) || events[2].Message != "c" {
		t.Errorf("%d %d %q", len(events[0].Message), len(events[1].Message), events[2].Message)
	}
}

// TestALineOverTheCapKeepsItsHeadAndItsTail: Bytes is the length of the whole line. The line has one record, or
// many of which the last ones overwrite the middle.
func TestALineOverTheCapKeepsItsHeadAndItsTail(t *testing.T) {
	check := func(padding string, limit int) {
		t.Helper()
		root := t.TempDir()
		dockerd, ship := logstest.NewDockerd(t, root, 1), logstest.NewShipper()
		cfg := configAt(root)
		cfg.MaxLineBytes = config.Size(limit)
		start(t, cfg, nil, ship)
		line := "begin " + padding + " attack at the end"
		dockerd.WriteLog("stdout", line+"\nnext\n")
		ship.Wait(t, 2)
		events := ship.All()
		event := events[0]
		head, tail, marked := strings.Cut(event.Message, "…")
		if !marked || !strings.HasPrefix(line, head) || !strings.HasSuffix(line, tail) ||
			!strings.HasSuffix(tail, "attack at the end") || len(tail) < limit/5 || len(head) < limit*2/3 {
			t.Errorf("%d: %.20q…%.20q of %d and %d bytes", limit, head, tail, len(head), len(tail))
		}
		if len(event.Message) > limit || len(event.Message) < limit-8 || !event.Truncated || event.Bytes != uint64(len(line)) {
			t.Errorf("%d bytes, truncated %v, of %d", len(event.Message), event.Truncated, event.Bytes)
		}
		if events[1].Message != "next" || events[1].Truncated {
			t.Errorf("%+v", events[1])
		}
	}
	numbers := ""
	for i := range 12_000 {
		numbers += strconv.Itoa(i) + " "
	}
	check(numbers[:10_000], 2000)   // one record
	check(numbers[:50_000], 20_000) // the ring buffer is overwritten several times
	check(numbers, 40_001)          // the ring buffer is smaller than a record
}

// TestALineThatRedactionLengthensIsCut: the lines become longer than max_line_bytes after they were cut to it,
// and must fit into a batch nevertheless.
func TestALineThatRedactionLengthensIsCut(t *testing.T) {
	root := t.TempDir()
	limit := int(Default().MaxLineBytes)
	for i, part := range []string{"pw=1 ", "a\xff", "token=x&", "{\"\xff\":1,\"pw\":\"1\"}", "日本", "é😀", "😀."} {
		path := filepath.Join(root, strconv.Itoa(i)+".log")
		line := "begin " + strings.Repeat(part, limit/len(part)) + " end"
		if err := os.WriteFile(path, []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		var events []*pipeline.Event
		err := ReadFile(t.Context(), Default(), path, decode.Text, pipeline.ID{1}, func(event *pipeline.Event) {
			events = append(events, event)
		})
		if err != nil || len(events) != 1 {
			t.Fatal(len(events), err)
		}
		text := events[0].Log.Message
		if len(text) > limit || len(text) < limit/2 || !events[0].Log.Truncated || !slices.Contains(events[0].Tags, pipeline.TagTruncated) || !utf8.ValidString(text) ||
			!strings.HasPrefix(text, "begin ") || !strings.HasSuffix(text, " end") ||
			utf8.ValidString(line) && strings.Contains(text, "\ufffd") {
			t.Errorf("%q: %d bytes, truncated %v", part, len(text), events[0].Log.Truncated)
		}
	}
}

// TestALineWithoutEndIsShippedWhenItsContainerEnds: it is shipped once, whatever follows later.
func TestALineWithoutEndIsShippedWhenItsContainerEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	root := t.TempDir()
	dockerd, ship, registry := logstest.NewDockerd(t, root, 1), logstest.NewShipper(), newRegistry()
	registry.set(dockerd.ID, "c", containers.Status{Known: true, Running: true})
	stop := start(t, configAt(root), registry, ship)
	dockerd.WriteLog("stderr", "first\n")
	dockerd.WriteLog("stdout", strings.Repeat("p", decode.DockerPartBytes))
	dockerd.WriteLog("stderr", strings.Repeat("q", decode.DockerPartBytes))
	ship.Wait(t, 1)
	registry.set(dockerd.ID, "c", containers.Status{Known: true})
	ship.Wait(t, 3)
	stop()
	// A kill between the two lines that were flushed together: the second is shipped again with the same End,
	// the first is not.
	ship.Crash(func(int) int { return 2 })
	stop = start(t, configAt(root), registry, ship)
	ship.Wait(t, 3)
	stop()
	// Both were shipped: neither is shipped again, whatever follows.
	for range 2 {
		stop = start(t, configAt(root), registry, ship)
		dockerd.WriteLog("stdout", "after\n")
		ship.Wait(t, 4)
		stop()
		events := ship.All()
		if events[1].Message[0] != 'p' || events[2].Message[0] != 'q' || events[3].Message != "after" || events[1].Partial {
			t.Errorf("%.10q %.10q %.10q", events[1].Message, events[2].Message, events[3].Message)
		}
	}
	ship.Check(t)
}

func TestALineWithoutEndIsShippedWhenTheContainerIsRemoved(t *testing.T) {
	root := t.TempDir()
	dockerd, ship := logstest.NewDockerd(t, root, 1), logstest.NewShipper()
	start(t, configAt(root), nil, ship)
	dockerd.WriteLog("stdout", "a\n"+strings.Repeat("p", decode.DockerPartBytes))
	ship.Wait(t, 1)
	dockerd.Remove()
	ship.Wait(t, 2)
	if events := ship.All(); len(events[1].Message) != decode.DockerPartBytes || events[1].Partial {
		t.Errorf("%d %v", len(events[1].Message), events[1].Partial)
	}
}

// TestALineOverARotationIsOne: a line whose parts are in three files is one event, also over a restart.
func TestALineOverARotationIsOne(t *testing.T) {
	for _, compress := range []bool{false, true} {
		root := t.TempDir()
		dockerd, ship := logstest.NewDockerd(t, root, 1), logstest.NewShipper()
		dockerd.MaxFile, dockerd.Compress = 5, compress
		stop := start(t, configAt(root), nil, ship)
		at := dockerd.Now.Add(time.Hour)
		dockerd.WriteLog("stdout", "before\n")
		dockerd.WriteRecord(strings.Repeat("a", decode.DockerPartBytes), "stdout", at)
		dockerd.Rotate()
		dockerd.WriteRecord("err\n", "stderr", at.Add(-2))
		ship.Wait(t, 2)
		stop() // and over a restart, in the middle of it
		stop = start(t, configAt(root), nil, ship)
		dockerd.WriteRecord(strings.Repeat("b", decode.DockerPartBytes), "stdout", at)
		dockerd.Rotate()
		dockerd.WriteRecord("c\n", "stdout", at)
		dockerd.Now = at.Add(1)
		dockerd.WriteLog("stdout", "end\n")
		parts := strings.Repeat("a", decode.DockerPartBytes) + strings.Repeat("b", decode.DockerPartBytes)
		want := []string{"before", "err", parts + "c", "end"}
		wantMessages(t, ship, want...)
		stop()
		// Open lines of older files that are read again add nothing to what was shipped.
		for range 2 {
			stop = start(t, configAt(root), nil, ship)
			dockerd.WriteLog("stdout", "x\n")
			want = append(want, "x")
			wantMessages(t, ship, want...)
			stop()
		}
	}
}

// TestKillsLoseAndDuplicateNothing kills at any checkpoint of each file. A line that is shipped again
// must have the same id, text and End as before.
func TestKillsLoseAndDuplicateNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 1))
		root := t.TempDir()
		ship := logstest.NewShipper()
		dockerd := logstest.NewDockerd(t, root, 1)
		dockerd.MaxSize, dockerd.MaxFile, dockerd.Compress = 150_000, 1000, seed%2 == 0
		lines := 0
		write := func(count int) {
			for range count {
				pad := rng.IntN(30)
				if rng.IntN(40) == 0 {
					pad = decode.DockerPartBytes*rng.IntN(3) + rng.IntN(3) - len(fmt.Sprintf("line %d ", lines))
				}
				stream := []string{"stdout", "stderr"}[rng.IntN(2)]
				line := fmt.Sprintf("line %d ", lines) + strings.Repeat("x", max(0, pad))
				interleave(dockerd, rng, stream, line)
				lines++
			}
		}
		for range 6 {
			write(rng.IntN(300))
			stop := start(t, configAt(root), nil, ship)
			ship.Wait(t, max(0, rng.IntN(lines+1)-2))
			write(rng.IntN(300))
			ship.Wait(t, max(0, rng.IntN(lines+1)-2))
			stop()
			ship.Crash(func(lines int) int { return lines - rng.IntN(lines+1)/(1+rng.IntN(3)) })
		}
		writeOpenLines(dockerd)
		stop := start(t, configAt(root), nil, ship)
		wantOnce(t, ship, lines)
		stop()
		if t.Failed() {
			t.Fatalf("seed %d, compressed %v", seed, dockerd.Compress)
		}
	}
}

// interleave writes a line, or only its first part and keeps the rest in open. A rest is written before a
// later line, at the latest before the next line of its stream.
func interleave(dockerd *logstest.Dockerd, rng *rand.Rand, stream, text string) {
	dockerd.Now = dockerd.Now.Add(137)
	for _, line := range open[dockerd] {
		if line.stream == stream || rng.IntN(2) == 0 {
			dockerd.WriteRecord(line.rest, line.stream, line.at)
			open[dockerd] = slices.DeleteFunc(slices.Clone(open[dockerd]), func(other openLine) bool {
				return other == line
			})
		}
	}
	for len(text) >= decode.DockerPartBytes {
		dockerd.WriteRecord(text[:decode.DockerPartBytes], stream, dockerd.Now)
		text = text[decode.DockerPartBytes:]
		if rng.IntN(2) == 0 {
			open[dockerd] = append(open[dockerd], openLine{stream, text + "\n", dockerd.Now})
			if len(text) >= decode.DockerPartBytes {
				open[dockerd][len(open[dockerd])-1].rest = text[:100] + "\n"
			}
			return
		}
	}
	dockerd.WriteRecord(text+"\n", stream, dockerd.Now)
}

// writeOpenLines writes the last parts of the lines that interleave has left open.
func writeOpenLines(dockerd *logstest.Dockerd) {
	for _, line := range open[dockerd] {
		dockerd.WriteRecord(line.rest, line.stream, line.at)
	}
	delete(open, dockerd)
}

// An openLine is a line whose first part was written.
type openLine struct {
	stream, rest string
	at           time.Time
}

// open holds the open lines of each container.
var open = map[*logstest.Dockerd][]openLine{}

func TestATruncatedFileIsReadFromItsFront(t *testing.T) {
	root := t.TempDir()
	dockerd, ship := logstest.NewDockerd(t, root, 1), logstest.NewShipper()
	stop := start(t, configAt(root), nil, ship)
	dockerd.WriteLog("stdout", "a\nb\nc\n")
	ship.Wait(t, 3)
	dockerd.Must(os.Truncate(dockerd.Path, 0))
	dockerd.WriteLog("stdout", "d\n")
	ship.Wait(t, 4)
	// The file is longer than before when it is read again.
	dockerd.Must(os.Truncate(dockerd.Path, 0))
	dockerd.WriteLog("stdout", "e\nf\ng\nh\n")
	wantMessages(t, ship, "a", "b", "c", "d", "e", "f", "g", "h")
	stop()
	dockerd.Must(os.Truncate(dockerd.Path, 0))
	dockerd.WriteLog("stdout", "i\n")
	start(t, configAt(root), nil, ship)
	wantMessages(t, ship, "a", "b", "c", "d", "e", "f", "g", "h", "i")
}

// TestAnInodeThatIsUsedAgainIsAnotherFile: ext4 uses the inode of a removed file for the next one.
func TestAnInodeThatIsUsedAgainIsAnotherFile(t *testing.T) {
	root := t.TempDir()
	dockerd, ship := logstest.NewDockerd(t, root, 1), logstest.NewShipper()
	var want []string
	for i := range 5 {
		stop := start(t, configAt(root), nil, ship)
		dockerd.WriteLog("stdout", fmt.Sprintf("line %d\n", i))
		want = append(want, fmt.Sprintf("line %d", i))
		wantMessages(t, ship, want...)
		stop()
		dockerd.Rotate() // max-file=1: removed and created again while no collector runs
	}
}

// TestNULsAreSkippedAndGarbageIsText: bytes that are no record, as a power cut leaves them, do not end the
// reading.
func TestNULsAreSkippedAndGarbageIsText(t *testing.T) {
	root := t.TempDir()
	cfg := configAt(root)
	cfg.MaxLineBytes = maxRecord // a record that is too long is cut, and not the line that it becomes
	dockerd, ship := logstest.NewDockerd(t, root, 1), logstest.NewShipper()
	dockerd.WriteLog("stdout", "a\n")
	dockerd.WriteRaw(strings.Repeat("\x00", 700_000))
	dockerd.WriteLog("stdout", "b\n")
	dockerd.WriteRaw(`{"log":"torn` + strings.Repeat("\x00", 5000))
	dockerd.WriteLog("stdout", "c\n")
	dockerd.WriteRaw("no json at all\n\n{\"log\":5}\n")
	dockerd.WriteLog("stdout", "d\n")
	dockerd.WriteRaw(strings.Repeat("z", maxRecord+10) + "\n")
	dockerd.WriteLog("stdout", "e\n")
	dockerd.WriteRaw(`{"log":"half`)
	stop := start(t, cfg, nil, ship)
	dockerd.WriteRaw("\" no\n")
	dockerd.WriteLog("stdout", "f\n")
	want := []string{
		"a", "b", `{"log":"torn`, "c", "no json at all", `{"log":5}`, "d",
		strings.Repeat("z", maxRecord), "zzzzzzzzzz", "e", `{"log":"half" no`, "f",
	}
	wantMessages(t, ship, want...)
	stop()
	ship.Crash(func(n int) int { return n / 2 })
	start(t, cfg, nil, ship)
	wantMessages(t, ship, want...)
}

// TestRecordBehindATornOneIsRead: a record that a full disk has cut, with the next one right behind it, costs no
// other record, wherever it was cut. The text of a record cannot be taken for the beginning of one.
func TestRecordBehindATornOneIsRead(t *testing.T) {
	root := t.TempDir()
	dockerd, ship := logstest.NewDockerd(t, root, 1), logstest.NewShipper()
	const whole = `{"log":"cut\n","stream":"stdout","time":"2026-11-24T23:08:00Z"}`
	var want []string
	for i := range len(whole) + 1 {
		dockerd.WriteRaw(whole[:i])
		switch i {
		case 0:
		case len(whole): // only its newline is missing: it has its own time, the earliest
			want = slices.Insert(want, 0, "cut")
		default:
			want = append(want, whole[:i])
		}
		dockerd.WriteLog("stderr", fmt.Sprintf("line %d\n", i))
		want = append(want, fmt.Sprintf("line %d", i))
	}
	dockerd.WriteRaw(`{"log":"a{"log":"b` + "\x00\x00" + `{"log":"c{"x":1}` + "\n")
	want = append(want, `{"log":"a`, `{"log":"b`, `{"log":"c{"x":1}`)
	dockerd.WriteLog("stdout", `{"log":"text"}`+"\n")
	want = append(want, `{"log":"text"}`)
	stop := start(t, configAt(root), nil, ship)
	wantMessages(t, ship, want...)
	stop()
	ship.Crash(func(n int) int { return n / 2 })
	start(t, configAt(root), nil, ship)
	ship.Wait(t, len(want))
	got := messages(ship) // torn records have no time of their own: their order is not the same
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("after a crash: got %q\nwant %q", got, want)
	}
}

// TestAStuckProducerDelaysNoOther: other files are read, and the lines of the stuck one are not lost when the
// file is removed.
func TestAStuckProducerDelaysNoOther(t *testing.T) {
	root := t.TempDir()
	ship := logstest.NewShipper()
	stuck, free := logstest.NewDockerd(t, root, 1), logstest.NewDockerd(t, root, 2)
	shut, openGate := make(chan struct{}), make(chan struct{})
	close(openGate)
	ship.Gate = func(name string) <-chan struct{} {
		if strings.Contains(name, stuck.ID) {
			return shut
		}
		return openGate
	}
	start(t, configAt(root), nil, ship)
	stuck.WriteLog("stdout", "s1\ns2\n")
	for i := range 100 {
		free.WriteLog("stdout", fmt.Sprintf("line %d\n", i))
	}
	wantOnce(t, ship, 100)
	stuck.Remove()
	ship.Wait(t, 102)
}

func TestExcludedContainersAreNotRead(t *testing.T) {
	root := t.TempDir()
	ship, registry := logstest.NewShipper(), newRegistry()
	self, other := logstest.NewDockerd(t, root, 1), logstest.NewDockerd(t, root, 2)
	self.WriteLog("stdout", "mine\n")
	other.WriteLog("stdout", "other\n")
	registry.set(self.ID, "tidegate", containers.Status{Known: true, Running: true, Excluded: true})
	start(t, configAt(root), registry, ship)
	registry.set(other.ID, "other", containers.Status{Known: true, Running: true})
	wantMessages(t, ship, "other")
}

// TestLinesOfANewContainerWaitForItsName: the folder is there before the API reports the container.
func TestLinesOfANewContainerWaitForItsName(t *testing.T) {
	root := t.TempDir()
	ship, registry := logstest.NewShipper(), newRegistry()
	start(t, configAt(root), registry, ship)
	dockerd := logstest.NewDockerd(t, root, 1)
	dockerd.WriteLog("stdout", "hello\n")
	registry.set(dockerd.ID, "late", containers.Status{Known: true, Running: true})
	ship.Wait(t, 1)
	if event := ship.All()[0]; event.Container != "late" {
		t.Errorf("container %q", event.Container)
	}
}

// TestStartAtTheEndLeavesOutWhatIsOlder: with start_at: end, lines from before NotBefore are not shipped.
func TestStartAtTheEndLeavesOutWhatIsOlder(t *testing.T) {
	root := t.TempDir()
	dockerd, ship := logstest.NewDockerd(t, root, 1), logstest.NewShipper()
	dockerd.WriteLog("stdout", "old\n")
	cfg := configAt(root)
	cfg.StartAt, cfg.NotBefore = "end", dockerd.Now.Add(time.Minute)
	dockerd.Now = dockerd.Now.Add(2 * time.Minute)
	dockerd.WriteLog("stdout", "new\n")
	start(t, cfg, nil, ship)
	wantMessages(t, ship, "new")
}

// TestALogElsewhereIsFoundByTheAPI: a log outside of Docker's data folder is read at the path that the API
// reports.
func TestALogElsewhereIsFoundByTheAPI(t *testing.T) {
	root, elsewhere := t.TempDir(), t.TempDir()
	ship, registry := logstest.NewShipper(), newRegistry()
	dockerd := logstest.NewDockerd(t, elsewhere, 1)
	dockerd.WriteLog("stdout", "here\n")
	registry.logs = []containers.LogFile{
		{ContainerID: dockerd.ID, Path: dockerd.Path, Driver: "json-file"},
		{ContainerID: "x", Driver: "journald"},
	}
	dockerd.Must(os.MkdirAll(filepath.Join(root, "containers"), 0o700))
	registry.set(dockerd.ID, "c", containers.Status{Known: true, Running: true})
	start(t, configAt(root), registry, ship)
	wantMessages(t, ship, "here")
}

// TestManyContainersShareTheBudget: 300 files are read with 64 descriptors.
func TestManyContainersShareTheBudget(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	root := t.TempDir()
	ship := logstest.NewShipper()
	cfg := configAt(root)
	cfg.MaxOpenFiles = 64
	const files = 300
	all := make([]*logstest.Dockerd, files)
	for i := range all {
		all[i] = logstest.NewDockerd(t, root, i)
		all[i].WriteLog("stdout", fmt.Sprintf("line %d\n", i))
	}
	start(t, cfg, nil, ship)
	// The descriptors of containers that are removed go to others.
	ship.Wait(t, 64)
	removed := map[int]bool{}
	for len(removed) < files {
		ship.Wait(t, min(files, len(removed)+1))
		for _, event := range ship.All() {
			var i int
			_, _ = fmt.Sscanf(event.Message, "line %d", &i)
			if !removed[i] {
				removed[i] = true
				all[i].Remove()
			}
		}
	}
	wantOnce(t, ship, files)
}

// TestOneFileIsReadByItself: ReadFile yields the lines of a live log, compressed or not.
func TestOneFileIsReadByItself(t *testing.T) {
	for _, compress := range []bool{false, true} {
		dockerd := logstest.NewDockerd(t, t.TempDir(), 1)
		dockerd.WriteLog("stdout", "a\n"+strings.Repeat("b", decode.DockerPartBytes+5)+"\n")
		dockerd.WriteRaw("no json\n")
		dockerd.WriteLog("stderr", strings.Repeat("c", decode.DockerPartBytes))
		path := dockerd.Path
		if compress {
			dockerd.Gzip(path)
			path += ".gz"
		}
		var got []string
		err := ReadFile(t.Context(), Default(), path, decode.DockerJSON, pipeline.ID{1}, func(event *pipeline.Event) {
			got = append(got, fmt.Sprintf("%.1s%d", event.Log.Message, len(event.Log.Message)))
			if event.Container.GetId() != dockerd.ID {
				t.Errorf("container %q", event.Container.GetId())
			}
		})
		if want := []string{"a1", "b16389", "n7", "c16384"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("compressed %v: %v %q", compress, err, got)
		}
	}
}

// TestDefaultsAreGoodAndBadOnesAreAllNamed: Check reports every problem, not the first.
func TestDefaultsAreGoodAndBadOnesAreAllNamed(t *testing.T) {
	if errs := Default().Check(); len(errs) != 0 {
		t.Error(errs)
	}
	if drain := Default().DrainTimeout; drain < time.Second || drain > 5*time.Second {
		t.Errorf("a stop reads removed files for %s, want some seconds: the service's stop has a limit", drain)
	}
	if errs := (Config{StartAt: "middle", MaxOpenFiles: -1}).Check(); len(errs) != 6 {
		t.Errorf("%d problems: %v", len(errs), errs)
	}
}

// TestCheckNamesEveryProblemOfTheLogs: the first and the last value of each range are allowed, those behind them are named.
func TestCheckNamesEveryProblemOfTheLogs(t *testing.T) {
	check := func(want string, change func(c *Config)) {
		t.Helper()
		cfg := Default()
		change(&cfg)
		var keys []string
		for _, problem := range cfg.Check() {
			keys = append(keys, problem.Key)
		}
		if got := strings.Join(keys, " "); got != want {
			t.Errorf("problems of %q, want %q", got, want)
		}
	}
	check("docker_data_root", func(c *Config) { c.DockerDataRoot = "" })
	check("", func(c *Config) { c.Files = []string{"/a/*.log", "/b/[ab].log"} })
	check("files[1]", func(c *Config) { c.Files = []string{"/a/*.log", "b/*.log"} })
	check("files[0]", func(c *Config) { c.Files = []string{"/a/[.log"} })
	check("", func(c *Config) { c.StartAt = "end" })
	check("start_at", func(c *Config) { c.StartAt = "" })
	check("", func(c *Config) { c.MaxLineBytes = 1 << 10 })
	check("max_line_bytes", func(c *Config) { c.MaxLineBytes = 1<<10 - 1 })
	check("", func(c *Config) { c.MaxLineBytes = 16 << 20 })
	check("max_line_bytes", func(c *Config) { c.MaxLineBytes = 16<<20 + 1 })
	check("", func(c *Config) { c.PartialTimeout = time.Second })
	check("partial_timeout", func(c *Config) { c.PartialTimeout = time.Second - 1 })
	check("", func(c *Config) { c.MaxOpenFiles = 0 })
	check("max_open_files", func(c *Config) { c.MaxOpenFiles = -1 })
	check("", func(c *Config) { c.BufferBytes = 4 << 20 })
	check("buffer_bytes", func(c *Config) { c.BufferBytes = 4<<20 - 1 })
}
