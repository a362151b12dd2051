package logs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/collector/containers"
	"tidegate/collector/logs/decode"
	"tidegate/collector/logs/logstest"
	"tidegate/pipeline"
)

// maxRecord is the length at which package tail ends a record without a newline.
const maxRecord = 1 << 20

func configAt(root string) Config {
	c := Default()
	c.DockerDataRoot = root
	return c
}

// messages returns the lines by time, and those of one file in their order.
func messages(ship *logstest.Shipper) []string {
	list := ship.All()
	slices.SortStableFunc(list, func(a, b logstest.Shipped) int { return int(a.Time - b.Time) })
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = e.Message
	}
	return out
}

func wantMessages(t testing.TB, ship *logstest.Shipper, want ...string) {
	t.Helper()
	ship.Wait(t, len(want))
	got := messages(ship)
	if !slices.Equal(got, want) {
		t.Fatalf("got %d lines %.300q\nwant %d lines %.300q", len(got), got, len(want), want)
	}
	ship.Check(t)
}

// wantOnce checks that each of line 0 … line n-1 came exactly once.
func wantOnce(t testing.TB, ship *logstest.Shipper, n int) {
	t.Helper()
	ship.Wait(t, n)
	seen := make([]int, n)
	ids := map[string]bool{}
	for _, shipped := range ship.All() {
		var i int
		if _, err := fmt.Sscanf(shipped.Message, "line %d", &i); err != nil || i >= n {
			t.Fatalf("strange line %.80q", shipped.Message)
		}
		seen[i]++
		if ids[shipped.ID] {
			t.Fatalf("event.id of %q came twice", shipped.Message)
		}
		ids[shipped.ID] = true
	}
	for i, k := range seen {
		if k != 1 {
			t.Fatalf("line %d came %d times", i, k)
		}
	}
	ship.Check(t)
}

func TestLinesBecomeEvents(t *testing.T) {
	root := t.TempDir()
	dockerd, ship := logstest.NewDockerd(t, root, 1), logstest.NewShipper()
	dockerd.Attrs = `,"attrs":{"tag":"a\"}b","x":"{"}`
	dockerd.WriteLog("stdout", "level=info hello \"you\"\n")
	dockerd.WriteLog("stderr", "[ERROR] password=hunter2 over\n\n")
	who := newRegistry()
	who.set(dockerd.ID, "web", containers.Status{Known: true, Running: true})
	start(t, configAt(root), who, ship)
	ship.Wait(t, 3)
	shippeds := ship.All()
	if e := shippeds[0]; e.Message != `level=info hello "you"` || e.Stream != "stdout" || e.Level != "info" || e.Offset != 0 || e.Container != "web" ||
		e.Path != dockerd.Path || e.Time != dockerd.Now.UnixNano()-2*137 || e.Bytes != 22 || e.Partial || e.Truncated {
		t.Errorf("%+v", e)
	}
	if e := shippeds[1]; e.Message != "[ERROR] password=REDACTED over" || e.Stream != "stderr" || e.Level != "error" {
		t.Errorf("%+v", e)
	}
	if e := shippeds[2]; e.Message != "" || e.Stream != "stderr" {
		t.Errorf("%+v", e)
	}
	dockerd.WriteLog("stdout", "more\n")
	wantMessages(t, ship, shippeds[0].Message, shippeds[1].Message, "", "more")
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

func TestEveryLineOfAFastRotationComesOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	torture := func(maxFile int, size int64, compress bool, lines int) {
		root := t.TempDir()
		ship := logstest.NewShipper()
		stop := start(t, configAt(root), nil, ship)
		dockerd := logstest.NewDockerd(t, root, 1)
		dockerd.MaxSize, dockerd.MaxFile, dockerd.Compress = size, maxFile, compress
		for i := range lines {
			dockerd.WriteLog("stdout", fmt.Sprintf("line %d of a container that says a lot\n", i))
			if i%50 == 49 {
				time.Sleep(100 * time.Microsecond) // as fast as dockerd, not as fast as memory: one write of the container for each line
			}
		}
		dockerd.Remove()
		wantOnce(t, ship, lines)
		stop()
	}
	torture(3, 1<<20, false, 100_000)
	torture(1, 1<<20, false, 60_000)
	torture(3, 1<<20, true, 60_000)
}

func TestPartsAreJoined(t *testing.T) {
	root := t.TempDir()
	dockerd, ship := logstest.NewDockerd(t, root, 1), logstest.NewShipper()
	start(t, configAt(root), nil, ship)
	x := func(n int, c string) string { return strings.Repeat(c, n) }
	dockerd.WriteLog("stdout", x(decode.DockerPartBytes, "a")+"\n")
	dockerd.WriteLog("stdout", x(2*decode.DockerPartBytes, "b")+"\n")
	dockerd.WriteLog("stdout", x(decode.DockerPartBytes+1, "c")+"\n")
	// Both streams in the middle of a line.
	at := dockerd.Now.Add(time.Second)
	dockerd.WriteRecord(x(decode.DockerPartBytes, "o"), "stdout", at)
	dockerd.WriteRecord(x(decode.DockerPartBytes, "e"), "stderr", at.Add(1))
	dockerd.WriteRecord("O\n", "stdout", at)
	dockerd.WriteRecord("E\n", "stderr", at.Add(1))
	dockerd.Now = at.Add(2)
	dockerd.WriteLog("stdout", "end of stream")
	dockerd.WriteLog("stdout", "new run\n")
	// A line of 16384 bytes was the last of a run, then another run wrote to the same log: it has another
	// time.
	dockerd.WriteLog("stdout", x(decode.DockerPartBytes, "l"))
	dockerd.WriteLog("stdout", "after\n")
	ship.Wait(t, 9)
	var got []string
	for _, e := range ship.All() {
		got = append(got, fmt.Sprintf("%s %.1s%d %d", e.Stream, e.Message, len(e.Message), e.Bytes))
	}
	want := []string{
		"stdout a16384 16384", "stdout b32768 32768", "stdout c16385 16385", "stdout o16385 16385", "stderr e16385 16385", "stdout e13 13",
		"stdout n7 7", "stdout l16384 16384", "stdout a5 5",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	ship.Check(t)
}

// TestInvalidBytesDoNotEndALine has a part of 16384 bytes as the container wrote them, each of which dockerd
// replaced by three.
func TestInvalidBytesDoNotEndALine(t *testing.T) {
	root := t.TempDir()
	dockerd, ship := logstest.NewDockerd(t, root, 1), logstest.NewShipper()
	start(t, configAt(root), nil, ship)
	at := dockerd.Now
	dockerd.WriteRecord(strings.Repeat("a", decode.DockerPartBytes-10)+strings.Repeat("\ufffd", 10), "stdout", at)
	dockerd.WriteRecord("b\n", "stdout", at)
	dockerd.WriteRecord(strings.Repeat("\ufffd", decode.DockerPartBytes-1), "stdout", at.Add(1)) // one less: the end of the stream
	dockerd.WriteRecord("c\n", "stdout", at.Add(2))
	ship.Wait(t, 3)
	l := ship.All()
	if len(l[0].Message) != decode.DockerPartBytes+20+1 || len(l[1].Message) != 3*(decode.DockerPartBytes-1) || l[2].Message != "c" {
		t.Errorf("%d %d %q", len(l[0].Message), len(l[1].Message), l[2].Message)
	}
}

func TestALineOverTheCapIsTruncatedAndCounted(t *testing.T) {
	root := t.TempDir()
	dockerd, ship := logstest.NewDockerd(t, root, 1), logstest.NewShipper()
	cfg := configAt(root)
	cfg.MaxLineBytes = 20000
	start(t, cfg, nil, ship)
	dockerd.WriteLog("stdout", strings.Repeat("x", 50000)+"\nnext\n")
	ship.Wait(t, 2)
	shippeds := ship.All()
	if e := shippeds[0]; len(e.Message) != 20000 || !e.Truncated || e.Bytes != 50000 {
		t.Errorf("%d %v %d", len(e.Message), e.Truncated, e.Bytes)
	}
	if shippeds[1].Message != "next" || shippeds[1].Truncated {
		t.Errorf("%+v", shippeds[1])
	}
}

// TestALineWithoutEndIsShippedWhenItsContainerEnds, and only once, whatever follows later.
func TestALineWithoutEndIsShippedWhenItsContainerEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	root := t.TempDir()
	dockerd, ship, who := logstest.NewDockerd(t, root, 1), logstest.NewShipper(), newRegistry()
	who.set(dockerd.ID, "c", containers.Status{Known: true, Running: true})
	stop := start(t, configAt(root), who, ship)
	dockerd.WriteLog("stderr", "first\n")
	dockerd.WriteLog("stdout", strings.Repeat("p", decode.DockerPartBytes))
	dockerd.WriteLog("stderr", strings.Repeat("q", decode.DockerPartBytes))
	ship.Wait(t, 1)
	who.set(dockerd.ID, "c", containers.Status{Known: true})
	ship.Wait(t, 3)
	stop()
	// A kill between the two that were flushed together: the second comes again, under its number, the first
	// does not.
	ship.Crash(func(int) int { return 2 })
	stop = start(t, configAt(root), who, ship)
	ship.Wait(t, 3)
	stop()
	// Both are acknowledged: neither comes again, whatever follows.
	for range 2 {
		stop = start(t, configAt(root), who, ship)
		dockerd.WriteLog("stdout", "after\n")
		ship.Wait(t, 4)
		stop()
		l := ship.All()
		if l[1].Message[0] != 'p' || l[2].Message[0] != 'q' || l[3].Message != "after" || l[1].Partial {
			t.Errorf("%.10q %.10q %.10q", l[1].Message, l[2].Message, l[3].Message)
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
	if l := ship.All(); len(l[1].Message) != decode.DockerPartBytes || l[1].Partial {
		t.Errorf("%d %v", len(l[1].Message), l[1].Partial)
	}
}

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
		want := []string{"before", "err", strings.Repeat("a", decode.DockerPartBytes) + strings.Repeat("b", decode.DockerPartBytes) + "c", "end"}
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

// TestKillsLoseNothingAndDoubleNothing kills at any checkpoint of each file. What comes again must be what
// came before, with the same number.
func TestKillsLoseNothingAndDoubleNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 1))
		root := t.TempDir()
		ship := logstest.NewShipper()
		dockerd := logstest.NewDockerd(t, root, 1)
		dockerd.MaxSize, dockerd.MaxFile, dockerd.Compress = 150_000, 1000, seed%2 == 0
		n := 0
		write := func(k int) {
			for range k {
				pad := rng.IntN(30)
				if rng.IntN(40) == 0 {
					pad = decode.DockerPartBytes*rng.IntN(3) + rng.IntN(3) - len(fmt.Sprintf("line %d ", n))
				}
				stream := []string{"stdout", "stderr"}[rng.IntN(2)]
				interleave(dockerd, rng, stream, fmt.Sprintf("line %d ", n)+strings.Repeat("x", max(0, pad)))
				n++
			}
		}
		for range 6 {
			write(rng.IntN(300))
			stop := start(t, configAt(root), nil, ship)
			ship.Wait(t, max(0, rng.IntN(n+1)-2))
			write(rng.IntN(300))
			ship.Wait(t, max(0, rng.IntN(n+1)-2))
			stop()
			ship.Crash(func(n int) int { return n - rng.IntN(n+1)/(1+rng.IntN(3)) })
		}
		writeOpenLines(dockerd)
		stop := start(t, configAt(root), nil, ship)
		wantOnce(t, ship, n)
		stop()
		if t.Failed() {
			t.Fatalf("seed %d, compressed %v", seed, dockerd.Compress)
		}
	}
}

// interleave writes a line, and sometimes only its first parts: the others follow after the next line of the
// other stream.
func interleave(dockerd *logstest.Dockerd, rng *rand.Rand, stream, text string) {
	dockerd.Now = dockerd.Now.Add(137)
	for _, p := range open[dockerd] {
		if p.stream == stream || rng.IntN(2) == 0 {
			dockerd.WriteRecord(p.rest, p.stream, p.at)
			open[dockerd] = slices.DeleteFunc(slices.Clone(open[dockerd]), func(q openLine) bool { return q == p })
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
	for _, p := range open[dockerd] {
		dockerd.WriteRecord(p.rest, p.stream, p.at)
	}
	delete(open, dockerd)
}

type openLine struct {
	stream, rest string
	at           time.Time
}

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
	// The file is longer than before when it is looked at again.
	dockerd.Must(os.Truncate(dockerd.Path, 0))
	dockerd.WriteLog("stdout", "e\nf\ng\nh\n")
	wantMessages(t, ship, "a", "b", "c", "d", "e", "f", "g", "h")
	stop()
	dockerd.Must(os.Truncate(dockerd.Path, 0))
	dockerd.WriteLog("stdout", "i\n")
	start(t, configAt(root), nil, ship)
	wantMessages(t, ship, "a", "b", "c", "d", "e", "f", "g", "h", "i")
}

// TestAnInodeThatIsUsedAgainIsAnotherFile removes files: ext4 gives the number of a removed file to the next
// one.
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
		dockerd.Rotate() // max-file=1: removed, made anew, while nobody looks
	}
}

func TestNULsAndGarbageAreSteppedOver(t *testing.T) {
	root := t.TempDir()
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
	stop := start(t, configAt(root), nil, ship)
	dockerd.WriteRaw("\" no\n")
	dockerd.WriteLog("stdout", "f\n")
	want := []string{
		"a", "b", `{"log":"torn`, "c", "no json at all", `{"log":5}`, "d", strings.Repeat("z", maxRecord), "zzzzzzzzzz", "e", `{"log":"half" no`, "f",
	}
	wantMessages(t, ship, want...)
	stop()
	ship.Crash(func(n int) int { return n / 2 })
	start(t, configAt(root), nil, ship)
	wantMessages(t, ship, want...)
}

// TestAStuckProducerHoldsUpNobodyElse, and the lines of a file that is removed meanwhile are not lost.
func TestAStuckProducerHoldsUpNobodyElse(t *testing.T) {
	root := t.TempDir()
	ship := logstest.NewShipper()
	stuck, free := logstest.NewDockerd(t, root, 1), logstest.NewDockerd(t, root, 2)
	shut, openGate := make(chan struct{}), make(chan struct{})
	close(openGate)
	ship.Gate = func(lane string) <-chan struct{} {
		if strings.Contains(lane, stuck.ID) {
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
	ship, who := logstest.NewShipper(), newRegistry()
	self, other := logstest.NewDockerd(t, root, 1), logstest.NewDockerd(t, root, 2)
	self.WriteLog("stdout", "mine\n")
	other.WriteLog("stdout", "other\n")
	who.set(self.ID, "tidegate", containers.Status{Known: true, Running: true, Excluded: true})
	start(t, configAt(root), who, ship)
	who.set(other.ID, "other", containers.Status{Known: true, Running: true})
	wantMessages(t, ship, "other")
}

// TestLinesOfANewContainerWaitForItsName makes the folder before the API reports the container.
func TestLinesOfANewContainerWaitForItsName(t *testing.T) {
	root := t.TempDir()
	ship, who := logstest.NewShipper(), newRegistry()
	start(t, configAt(root), who, ship)
	d := logstest.NewDockerd(t, root, 1)
	d.WriteLog("stdout", "hello\n")
	who.set(d.ID, "late", containers.Status{Known: true, Running: true})
	ship.Wait(t, 1)
	if e := ship.All()[0]; e.Container != "late" {
		t.Errorf("container %q", e.Container)
	}
}

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

func TestALogElsewhereIsFoundByTheAPI(t *testing.T) {
	root, elsewhere := t.TempDir(), t.TempDir()
	ship, who := logstest.NewShipper(), newRegistry()
	dockerd := logstest.NewDockerd(t, elsewhere, 1)
	dockerd.WriteLog("stdout", "here\n")
	who.logs = []containers.LogFile{{ContainerID: dockerd.ID, Path: dockerd.Path, Driver: "json-file"}, {ContainerID: "x", Driver: "journald"}}
	dockerd.Must(os.MkdirAll(filepath.Join(root, "containers"), 0o700))
	who.set(dockerd.ID, "c", containers.Status{Known: true, Running: true})
	start(t, configAt(root), who, ship)
	wantMessages(t, ship, "here")
}

func TestManyContainersShareTheBudget(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	root := t.TempDir()
	ship := logstest.NewShipper()
	cfg := configAt(root)
	cfg.MaxOpenFiles = 64
	const n = 300
	all := make([]*logstest.Dockerd, n)
	for i := range all {
		all[i] = logstest.NewDockerd(t, root, i)
		all[i].WriteLog("stdout", fmt.Sprintf("line %d\n", i))
	}
	start(t, cfg, nil, ship)
	// The descriptors of containers that are removed go to others.
	ship.Wait(t, 64)
	removed := map[int]bool{}
	for len(removed) < n {
		ship.Wait(t, min(n, len(removed)+1))
		for _, e := range ship.All() {
			var i int
			_, _ = fmt.Sscanf(e.Message, "line %d", &i)
			if !removed[i] {
				removed[i] = true
				all[i].Remove()
			}
		}
	}
	wantOnce(t, ship, n)
}

// TestOneFileIsReadByItself reads what a live log gives, compressed or not.
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

func TestDefaultsAreGoodAndBadOnesAreAllNamed(t *testing.T) {
	if errs := Default().Check(); len(errs) != 0 {
		t.Error(errs)
	}
	if errs := (Config{StartAt: "middle", MaxOpenFiles: -1}).Check(); len(errs) != 6 {
		t.Errorf("%d problems: %v", len(errs), errs)
	}
}
