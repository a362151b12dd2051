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
	"tidegate/pipeline"
)

func config(root string) Config {
	c := Default()
	c.Root = root
	return c
}

// messages sorts by offset within a lane already; the order over lanes is by time.
func messages(ship *fakeShipper) []string {
	list := ship.all()
	slices.SortStableFunc(list, func(a, b shipped) int { return int(a.time - b.time) })
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = e.message
	}
	return out
}

func wantMessages(t testing.TB, ship *fakeShipper, want ...string) {
	t.Helper()
	ship.wait(t, len(want))
	got := messages(ship)
	if !slices.Equal(got, want) {
		t.Fatalf("got %d lines %.300q\nwant %d lines %.300q", len(got), got, len(want), want)
	}
	ship.check(t)
}

// wantOnce checks that the lines line 0 … line n-1 came exactly once each.
func wantOnce(t testing.TB, ship *fakeShipper, n int) {
	t.Helper()
	ship.wait(t, n)
	seen := make([]int, n)
	ids := map[string]bool{}
	for _, e := range ship.all() {
		var i int
		if _, err := fmt.Sscanf(e.message, "line %d", &i); err != nil || i >= n {
			t.Fatalf("strange line %.80q", e.message)
		}
		seen[i]++
		if ids[e.id] {
			t.Fatalf("event.id of %q came twice", e.message)
		}
		ids[e.id] = true
	}
	for i, k := range seen {
		if k != 1 {
			t.Fatalf("line %d came %d times", i, k)
		}
	}
	ship.check(t)
}

func TestLinesBecomeEvents(t *testing.T) {
	root := t.TempDir()
	d, ship := newDockerd(t, root, 1), newFake()
	d.attrs = `,"attrs":{"tag":"a\"}b","x":"{"}`
	d.writeLog("stdout", "level=info hello \"you\"\n")
	d.writeLog("stderr", "[ERROR] password=hunter2 over\n\n")
	who := newRegistry()
	who.set(d.id, "web", containers.Status{Known: true, Running: true})
	start(t, config(root), who, ship)
	ship.wait(t, 3)
	l := ship.all()
	if e := l[0]; e.message != `level=info hello "you"` || e.stream != "stdout" || e.level != "info" || e.offset != 0 || e.container != "web" ||
		e.path != d.path || e.time != d.now.UnixNano()-2*137 || e.bytes != 22 || e.partial || e.truncated {
		t.Errorf("%+v", e)
	}
	if e := l[1]; e.message != "[ERROR] password=REDACTED over" || e.stream != "stderr" || e.level != "error" {
		t.Errorf("%+v", e)
	}
	if e := l[2]; e.message != "" || e.stream != "stderr" {
		t.Errorf("%+v", e)
	}
	d.writeLog("stdout", "more\n")
	wantMessages(t, ship, l[0].message, l[1].message, "", "more")
}

// TestFilesOfAnEarlierLifeAreReadInOrder: what rotation left before the first start is read from the oldest on.
func TestFilesOfAnEarlierLifeAreReadInOrder(t *testing.T) {
	for _, compress := range []bool{false, true} {
		root := t.TempDir()
		d, ship := newDockerd(t, root, 1), newFake()
		d.maxFile, d.compress = 4, compress
		var want []string
		for i := range 4 {
			d.writeLog("stdout", fmt.Sprintf("a%d\nb%d\n", i, i))
			want = append(want, fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i))
			if i < 3 {
				d.rotate()
			}
		}
		start(t, config(root), nil, ship)
		wantMessages(t, ship, want...)
	}
}

func TestEveryLineOfAFastRotationComesOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	torture := func(maxFile int, size int64, compress bool, lines int) {
		root := t.TempDir()
		ship := newFake()
		stop := start(t, config(root), nil, ship)
		d := newDockerd(t, root, 1)
		d.maxSize, d.maxFile, d.compress = size, maxFile, compress
		for i := range lines {
			d.writeLog("stdout", fmt.Sprintf("line %d of a container that says a lot\n", i))
			if i%50 == 49 {
				time.Sleep(100 * time.Microsecond) // as fast as dockerd, not as fast as memory: one write of the container for each line
			}
		}
		d.remove()
		wantOnce(t, ship, lines)
		stop()
	}
	torture(3, 1<<20, false, 100_000)
	torture(1, 1<<20, false, 60_000)
	torture(3, 1<<20, true, 60_000)
}

func TestPartsAreJoined(t *testing.T) {
	root := t.TempDir()
	d, ship := newDockerd(t, root, 1), newFake()
	start(t, config(root), nil, ship)
	x := func(n int, c string) string { return strings.Repeat(c, n) }
	d.writeLog("stdout", x(partBytes, "a")+"\n")
	d.writeLog("stdout", x(2*partBytes, "b")+"\n")
	d.writeLog("stdout", x(partBytes+1, "c")+"\n")
	// Both streams in the middle of a line.
	at := d.now.Add(time.Second)
	d.writeRecord(x(partBytes, "o"), "stdout", at)
	d.writeRecord(x(partBytes, "e"), "stderr", at.Add(1))
	d.writeRecord("O\n", "stdout", at)
	d.writeRecord("E\n", "stderr", at.Add(1))
	d.now = at.Add(2)
	d.writeLog("stdout", "end of stream")
	d.writeLog("stdout", "new run\n")
	// A line of 16384 bytes that was the last of a run, then another run on the same log: it has another time.
	d.writeLog("stdout", x(partBytes, "l"))
	d.writeLog("stdout", "after\n")
	ship.wait(t, 9)
	var got []string
	for _, e := range ship.all() {
		got = append(got, fmt.Sprintf("%s %.1s%d %d", e.stream, e.message, len(e.message), e.bytes))
	}
	want := []string{
		"stdout a16384 16384", "stdout b32768 32768", "stdout c16385 16385", "stdout o16385 16385", "stderr e16385 16385", "stdout e13 13",
		"stdout n7 7", "stdout l16384 16384", "stdout a5 5",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	ship.check(t)
}

// TestInvalidBytesDoNotEndALine: a part holds 16384 bytes as the container wrote them, though each invalid one is three by now.
func TestInvalidBytesDoNotEndALine(t *testing.T) {
	root := t.TempDir()
	d, ship := newDockerd(t, root, 1), newFake()
	start(t, config(root), nil, ship)
	at := d.now
	d.writeRecord(strings.Repeat("a", partBytes-10)+strings.Repeat("\ufffd", 10), "stdout", at)
	d.writeRecord("b\n", "stdout", at)
	d.writeRecord(strings.Repeat("\ufffd", partBytes-1), "stdout", at.Add(1)) // one less: the end of the stream
	d.writeRecord("c\n", "stdout", at.Add(2))
	ship.wait(t, 3)
	l := ship.all()
	if len(l[0].message) != partBytes+20+1 || len(l[1].message) != 3*(partBytes-1) || l[2].message != "c" {
		t.Errorf("%d %d %q", len(l[0].message), len(l[1].message), l[2].message)
	}
}

func TestALineOverTheCapIsTruncatedAndCounted(t *testing.T) {
	root := t.TempDir()
	d, ship := newDockerd(t, root, 1), newFake()
	cfg := config(root)
	cfg.LineMax = 20000
	start(t, cfg, nil, ship)
	d.writeLog("stdout", strings.Repeat("x", 50000)+"\nnext\n")
	ship.wait(t, 2)
	l := ship.all()
	if e := l[0]; len(e.message) != 20000 || !e.truncated || e.bytes != 50000 {
		t.Errorf("%d %v %d", len(e.message), e.truncated, e.bytes)
	}
	if l[1].message != "next" || l[1].truncated {
		t.Errorf("%+v", l[1])
	}
}

// TestALineWithoutEndIsToldWhenItsContainerEnds: nothing comes after it, so the bytes can not tell; and only once.
func TestALineWithoutEndIsToldWhenItsContainerEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	root := t.TempDir()
	d, ship, who := newDockerd(t, root, 1), newFake(), newRegistry()
	who.set(d.id, "c", containers.Status{Known: true, Running: true})
	stop := start(t, config(root), who, ship)
	d.writeLog("stderr", "first\n")
	d.writeLog("stdout", strings.Repeat("p", partBytes))
	d.writeLog("stderr", strings.Repeat("q", partBytes))
	ship.wait(t, 1)
	who.set(d.id, "c", containers.Status{Known: true})
	ship.wait(t, 3)
	stop()
	// A kill between the two that were told at once: the second comes again, under its number, the first does not.
	ship.crash(func(int) int { return 2 })
	stop = start(t, config(root), who, ship)
	ship.wait(t, 3)
	stop()
	// All acknowledged: nothing of it again, whatever comes.
	for range 2 {
		stop = start(t, config(root), who, ship)
		d.writeLog("stdout", "after\n")
		ship.wait(t, 4)
		stop()
		l := ship.all()
		if l[1].message[0] != 'p' || l[2].message[0] != 'q' || l[3].message != "after" || l[1].partial {
			t.Errorf("%.10q %.10q %.10q", l[1].message, l[2].message, l[3].message)
		}
	}
	ship.check(t)
}

func TestALineWithoutEndIsToldWhenTheContainerIsRemoved(t *testing.T) {
	root := t.TempDir()
	d, ship := newDockerd(t, root, 1), newFake()
	start(t, config(root), nil, ship)
	d.writeLog("stdout", "a\n"+strings.Repeat("p", partBytes))
	ship.wait(t, 1)
	d.remove()
	ship.wait(t, 2)
	if l := ship.all(); len(l[1].message) != partBytes || l[1].partial {
		t.Errorf("%d %v", len(l[1].message), l[1].partial)
	}
}

func TestALineOverARotationIsOne(t *testing.T) {
	for _, compress := range []bool{false, true} {
		root := t.TempDir()
		d, ship := newDockerd(t, root, 1), newFake()
		d.maxFile, d.compress = 5, compress
		stop := start(t, config(root), nil, ship)
		at := d.now.Add(time.Hour)
		d.writeLog("stdout", "before\n")
		d.writeRecord(strings.Repeat("a", partBytes), "stdout", at)
		d.rotate()
		d.writeRecord("err\n", "stderr", at.Add(-2))
		ship.wait(t, 2)
		stop() // and over a restart, in the middle of it
		stop = start(t, config(root), nil, ship)
		d.writeRecord(strings.Repeat("b", partBytes), "stdout", at)
		d.rotate()
		d.writeRecord("c\n", "stdout", at)
		d.now = at.Add(1)
		d.writeLog("stdout", "end\n")
		want := []string{"before", "err", strings.Repeat("a", partBytes) + strings.Repeat("b", partBytes) + "c", "end"}
		wantMessages(t, ship, want...)
		stop()
		// The open ends of the older files, met again, do not make anything of what is shipped.
		for range 2 {
			stop = start(t, config(root), nil, ship)
			d.writeLog("stdout", "x\n")
			want = append(want, "x")
			wantMessages(t, ship, want...)
			stop()
		}
	}
}

// TestKillsLoseNothingAndDoubleNothing: at any mark of each lane; what comes again is what came before, at the same number.
func TestKillsLoseNothingAndDoubleNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 1))
		root := t.TempDir()
		ship := newFake()
		d := newDockerd(t, root, 1)
		d.maxSize, d.maxFile, d.compress = 150_000, 1000, seed%2 == 0
		n := 0
		write := func(k int) {
			for range k {
				pad := rng.IntN(30)
				if rng.IntN(40) == 0 {
					pad = partBytes*rng.IntN(3) + rng.IntN(3) - len(fmt.Sprintf("line %d ", n))
				}
				stream := []string{"stdout", "stderr"}[rng.IntN(2)]
				d.interleave(rng, stream, fmt.Sprintf("line %d ", n)+strings.Repeat("x", max(0, pad)))
				n++
			}
		}
		for range 6 {
			write(rng.IntN(300))
			stop := start(t, config(root), nil, ship)
			ship.wait(t, max(0, rng.IntN(n+1)-2))
			write(rng.IntN(300))
			ship.wait(t, max(0, rng.IntN(n+1)-2))
			stop()
			ship.crash(func(n int) int { return n - rng.IntN(n+1)/(1+rng.IntN(3)) })
		}
		d.drain()
		stop := start(t, config(root), nil, ship)
		wantOnce(t, ship, n)
		stop()
		if t.Failed() {
			t.Fatalf("seed %d, compressed %v", seed, d.compress)
		}
	}
}

// interleave writes a line, sometimes only the first parts of it, the rest behind what the other stream says next.
func (d *fakeDockerd) interleave(rng *rand.Rand, stream, text string) {
	d.now = d.now.Add(137)
	for _, p := range open[d] {
		if p.stream == stream || rng.IntN(2) == 0 {
			d.writeRecord(p.rest, p.stream, p.at)
			open[d] = slices.DeleteFunc(slices.Clone(open[d]), func(q openLine) bool { return q == p })
		}
	}
	for len(text) >= partBytes {
		d.writeRecord(text[:partBytes], stream, d.now)
		text = text[partBytes:]
		if rng.IntN(2) == 0 {
			open[d] = append(open[d], openLine{stream, text + "\n", d.now})
			if len(text) >= partBytes {
				open[d][len(open[d])-1].rest = text[:100] + "\n"
			}
			return
		}
	}
	d.writeRecord(text+"\n", stream, d.now)
}

// drain ends the lines that interleave has left open.
func (d *fakeDockerd) drain() {
	for _, p := range open[d] {
		d.writeRecord(p.rest, p.stream, p.at)
	}
	delete(open, d)
}

type openLine struct {
	stream, rest string
	at           time.Time
}

var open = map[*fakeDockerd][]openLine{}

func TestATruncatedFileIsReadFromItsFront(t *testing.T) {
	root := t.TempDir()
	d, ship := newDockerd(t, root, 1), newFake()
	stop := start(t, config(root), nil, ship)
	d.writeLog("stdout", "a\nb\nc\n")
	ship.wait(t, 3)
	d.must(os.Truncate(d.path, 0))
	d.writeLog("stdout", "d\n")
	ship.wait(t, 4)
	// Longer than before by the time it is looked at.
	d.must(os.Truncate(d.path, 0))
	d.writeLog("stdout", "e\nf\ng\nh\n")
	wantMessages(t, ship, "a", "b", "c", "d", "e", "f", "g", "h")
	stop()
	d.must(os.Truncate(d.path, 0))
	d.writeLog("stdout", "i\n")
	start(t, config(root), nil, ship)
	wantMessages(t, ship, "a", "b", "c", "d", "e", "f", "g", "h", "i")
}

// TestAnInodeThatIsUsedAgainIsAnotherFile: ext4 gives the number of a removed file to the next one.
func TestAnInodeThatIsUsedAgainIsAnotherFile(t *testing.T) {
	root := t.TempDir()
	d, ship := newDockerd(t, root, 1), newFake()
	var want []string
	for i := range 5 {
		stop := start(t, config(root), nil, ship)
		d.writeLog("stdout", fmt.Sprintf("line %d\n", i))
		want = append(want, fmt.Sprintf("line %d", i))
		wantMessages(t, ship, want...)
		stop()
		d.rotate() // max-file=1: removed, made anew, while nobody looks
	}
}

func TestNULsAndGarbageAreSteppedOver(t *testing.T) {
	root := t.TempDir()
	d, ship := newDockerd(t, root, 1), newFake()
	d.writeLog("stdout", "a\n")
	d.writeRaw(strings.Repeat("\x00", 700_000))
	d.writeLog("stdout", "b\n")
	d.writeRaw(`{"log":"torn` + strings.Repeat("\x00", 5000))
	d.writeLog("stdout", "c\n")
	d.writeRaw("no json at all\n\n{\"log\":5}\n")
	d.writeLog("stdout", "d\n")
	d.writeRaw(strings.Repeat("z", recordMax+10) + "\n")
	d.writeLog("stdout", "e\n")
	d.writeRaw(`{"log":"half`)
	stop := start(t, config(root), nil, ship)
	d.writeRaw("\" no\n")
	d.writeLog("stdout", "f\n")
	want := []string{
		"a", "b", `{"log":"torn`, "c", "no json at all", `{"log":5}`, "d", strings.Repeat("z", recordMax), "zzzzzzzzzz", "e", `{"log":"half" no`, "f",
	}
	wantMessages(t, ship, want...)
	stop()
	ship.crash(func(n int) int { return n / 2 })
	start(t, config(root), nil, ship)
	wantMessages(t, ship, want...)
}

// TestAStuckLaneHoldsUpNobodyElse, and a file of it that is removed meanwhile is sealed and not lost.
func TestAStuckLaneHoldsUpNobodyElse(t *testing.T) {
	root := t.TempDir()
	ship := newFake()
	stuck, free := newDockerd(t, root, 1), newDockerd(t, root, 2)
	shut, openGate := make(chan struct{}), make(chan struct{})
	close(openGate)
	ship.gate = func(lane string) <-chan struct{} {
		if strings.Contains(lane, stuck.id) {
			return shut
		}
		return openGate
	}
	start(t, config(root), nil, ship)
	stuck.writeLog("stdout", "s1\ns2\n")
	for i := range 100 {
		free.writeLog("stdout", fmt.Sprintf("line %d\n", i))
	}
	wantOnce(t, ship, 100)
	stuck.remove()
	ship.wait(t, 102)
}

func TestExcludedContainersAreNotRead(t *testing.T) {
	root := t.TempDir()
	ship, who := newFake(), newRegistry()
	self, other := newDockerd(t, root, 1), newDockerd(t, root, 2)
	self.writeLog("stdout", "mine\n")
	other.writeLog("stdout", "other\n")
	who.set(self.id, "tidegate", containers.Status{Known: true, Running: true, Excluded: true})
	start(t, config(root), who, ship)
	who.set(other.id, "other", containers.Status{Known: true, Running: true})
	wantMessages(t, ship, "other")
}

// TestLinesOfANewContainerWaitForItsName: its folder is there before the API tells of it.
func TestLinesOfANewContainerWaitForItsName(t *testing.T) {
	root := t.TempDir()
	ship, who := newFake(), newRegistry()
	start(t, config(root), who, ship)
	d := newDockerd(t, root, 1)
	d.writeLog("stdout", "hello\n")
	who.set(d.id, "late", containers.Status{Known: true, Running: true})
	ship.wait(t, 1)
	if e := ship.all()[0]; e.container != "late" {
		t.Errorf("container %q", e.container)
	}
}

func TestStartAtTheEndLeavesOutWhatIsOlder(t *testing.T) {
	root := t.TempDir()
	d, ship := newDockerd(t, root, 1), newFake()
	d.writeLog("stdout", "old\n")
	cfg := config(root)
	cfg.Start, cfg.Born = "end", d.now.Add(time.Minute)
	d.now = d.now.Add(2 * time.Minute)
	d.writeLog("stdout", "new\n")
	start(t, cfg, nil, ship)
	wantMessages(t, ship, "new")
}

func TestALogElsewhereIsFoundByTheAPI(t *testing.T) {
	root, elsewhere := t.TempDir(), t.TempDir()
	ship, who := newFake(), newRegistry()
	d := newDockerd(t, elsewhere, 1)
	d.writeLog("stdout", "here\n")
	who.logs = []containers.LogFile{{ContainerID: d.id, Path: d.path, Driver: "json-file"}, {ContainerID: "x", Driver: "journald"}}
	d.must(os.MkdirAll(filepath.Join(root, "containers"), 0o700))
	who.set(d.id, "c", containers.Status{Known: true, Running: true})
	start(t, config(root), who, ship)
	wantMessages(t, ship, "here")
}

func TestManyContainersShareTheBudget(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	root := t.TempDir()
	ship := newFake()
	cfg := config(root)
	cfg.MaxOpen = 64
	const n = 300
	all := make([]*fakeDockerd, n)
	for i := range all {
		all[i] = newDockerd(t, root, i)
		all[i].writeLog("stdout", fmt.Sprintf("line %d\n", i))
	}
	start(t, cfg, nil, ship)
	// As containers are removed, others get their descriptors.
	ship.wait(t, 64)
	removed := map[int]bool{}
	for len(removed) < n {
		ship.wait(t, min(n, len(removed)+1))
		for _, e := range ship.all() {
			var i int
			_, _ = fmt.Sscanf(e.message, "line %d", &i)
			if !removed[i] {
				removed[i] = true
				all[i].remove()
			}
		}
	}
	wantOnce(t, ship, n)
}

// TestOneFileIsReadByItself: replay reads what live reading does, compressed or not.
func TestOneFileIsReadByItself(t *testing.T) {
	for _, compress := range []bool{false, true} {
		d := newDockerd(t, t.TempDir(), 1)
		d.writeLog("stdout", "a\n"+strings.Repeat("b", partBytes+5)+"\n")
		d.writeRaw("no json\n")
		d.writeLog("stderr", strings.Repeat("c", partBytes))
		path := d.path
		if compress {
			d.gzip(path)
			path += ".gz"
		}
		var got []string
		err := ReadFile(t.Context(), Default(), path, pipeline.ID{1}, func(e *pipeline.Event) {
			got = append(got, fmt.Sprintf("%.1s%d", e.Log.Message, len(e.Log.Message)))
			if e.Container.GetId() != d.id {
				t.Errorf("container %q", e.Container.GetId())
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
	if errs := (Config{Start: "middle", MaxOpen: -1}).Check(); len(errs) != 6 {
		t.Errorf("%d problems: %v", len(errs), errs)
	}
}
