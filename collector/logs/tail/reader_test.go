package tail

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"

	"tidegate/collector"
	"tidegate/collector/logs/decode"
	"tidegate/collector/logs/discover"
	"tidegate/collector/logs/logstest"
)

// TestBrokenFileIsReadUpToTheBreak, which is counted.
func TestBrokenFileIsReadUpToTheBreak(t *testing.T) {
	content := gzipped(t, "one\ntwo\nthree")
	content[len(content)-5] ^= 1 // of the checksum
	tailer, ship := textTailer(t, map[string]string{"a.log.1.gz": string(content)})
	tailer.scanFolder()
	readAll(t, tailer)
	f := tailer.files[0]
	if got := testutil.ToFloat64(tailer.group.metrics.errors.WithLabelValues("read")); got != 1 || f.readErr == nil || !f.done || f.gzipReader != nil {
		t.Errorf("%v errors, %v, done %t", got, f.readErr, f.done)
	}
	if got := texts(ship); !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("%q", got)
	}
	tailer.group.closeTailer(tailer)
}

// TestFileFromBeforeTheStartIsSkipped if it was born before, and its records need no times.
func TestFileFromBeforeTheStartIsSkipped(t *testing.T) {
	check := func(what string, notBefore int64, dated, want bool) {
		t.Helper()
		tailer, _ := textTailer(t, nil)
		tailer.group.cfg.NotBefore, tailer.log.Format.Dated = notBefore, dated
		if got := tailer.isBeforeStart(textFile(t, "x", 0)); got != want {
			t.Errorf("%s: %t", what, got)
		}
	}
	later, earlier := time.Now().Add(time.Hour).UnixNano(), time.Now().Add(-time.Hour).UnixNano()
	check("no start", 0, false, false)
	check("a later start", later, false, true)
	check("a later start, with times", later, true, false)
	check("an earlier start", earlier, false, false)

	tailer, ship := textTailer(t, map[string]string{"a.log": "old\n", "a.log.1.gz": string(gzipped(t, "older\n"))})
	tailer.group.cfg.NotBefore = later
	tailer.handler = countingHandler{tailer.handler, new(int)}
	tailer.scanFolder()
	readAll(t, tailer)
	if ship.Count() != 0 || !tailer.files[0].skipped || tailer.files[1].offset != 4 {
		t.Errorf("%d lines, skipped %t, offset %d", ship.Count(), tailer.files[0].skipped, tailer.files[1].offset)
	}
	tailer.group.closeTailer(tailer)
}

// A countingHandler counts the calls of Refresh.
type countingHandler struct {
	Handler
	refreshes *int
}

func (h countingHandler) Refresh() { *h.refreshes++ }

// TestMetadataIsRefreshedOnceInAMegabyte, and at the begin of each stretch of lines.
func TestMetadataIsRefreshedOnceInAMegabyte(t *testing.T) {
	line := strings.Repeat("x", 1023) + "\n"
	for mebibytes, want := range map[int]int{0: 1, 3: 3} {
		tailer, _ := textTailer(t, map[string]string{"a.log": "a\n" + strings.Repeat(line, mebibytes<<10)})
		var refreshes int
		tailer.handler = countingHandler{tailer.handler, &refreshes}
		tailer.scanFolder()
		if _, err := tailer.readAvailable(t.Context()); err != nil {
			t.Fatal(err)
		}
		if refreshes < want || refreshes > want+1 {
			t.Errorf("%d MiB: %d refreshes, want %d", mebibytes, refreshes, want)
		}
		if lines := testutil.ToFloat64(tailer.group.metrics.lines); mebibytes > 0 && lines == 0 {
			t.Error("the lines are not counted while they are read")
		}
		tailer.group.closeTailer(tailer)
	}
}

// TestPanicOfADecoderIsCountedAndLogged, and the next record has a decoder without its state.
func TestPanicOfADecoderIsCountedAndLogged(t *testing.T) {
	g := newGroupTest(t)
	tailer := g.tail("a.log")
	made := 0
	tailer.log.Format.New = func() decode.Decoder {
		made++
		return failingDecoder{decode.Text.New()}
	}
	tailer.decoder = tailer.log.Format.New()
	if !tailer.decode([]byte("one")) || tailer.tally.panics != 0 || made != 1 {
		t.Errorf("%d panics, %d decoders", tailer.tally.panics, made)
	}
	for range 2 {
		if tailer.decode([]byte("t!wo")) {
			t.Error("a record was decoded by a panic")
		}
	}
	if tailer.tally.panics != 2 || made != 3 || strings.Count(g.logged.String(), "could not be decoded") != 1 ||
		!strings.Contains(g.logged.String(), `panic="a bug"`) {
		t.Errorf("%d panics, %d decoders: %s", tailer.tally.panics, made, g.logged)
	}
}

// TestShortagesAreCounted, and begin when the first file waits.
func TestShortagesAreCounted(t *testing.T) {
	g := newGroupTest(t)
	tailer := g.tail("a.log")
	tailer.noteShortage(&tailer.readShort)
	since := tailer.shortSince.Load()
	tailer.noteShortage(&tailer.scanShort)
	if g.errorCount("no_descriptor") != 2 || since == 0 || tailer.shortSince.Load() != since || !tailer.isShort() {
		t.Errorf("%v shortages, since %d", g.errorCount("no_descriptor"), since)
	}
	check := func(scan, read, want bool) {
		t.Helper()
		tailer.scanShort.Store(scan)
		tailer.readShort.Store(read)
		if tailer.isShort() != want {
			t.Errorf("in a listing %t, at a read %t: short %t", scan, read, !want)
		}
	}
	check(false, false, false)
	check(true, false, true)
	check(false, true, true)

	// What is open has been so since it was opened.
	f := &file{}
	tailer.noteOpened(f)
	if tailer.opened.Load() != 0 || tailer.shortSince.Load() != since {
		t.Errorf("open since %d, short since %d", tailer.opened.Load(), tailer.shortSince.Load())
	}
	tailer.readShort.Store(false)
	f.file = textFile(t, "", 0).file
	tailer.noteOpened(f)
	if opened := time.Unix(0, tailer.opened.Load()); time.Since(opened).Abs() > time.Minute || tailer.shortSince.Load() != 0 {
		t.Errorf("open since %s, short since %d", opened, tailer.shortSince.Load())
	}
	tailer.opened.Store(5)
	if tailer.noteOpened(f); tailer.opened.Load() != 5 {
		t.Error("the file is open since now")
	}
	for err, want := range map[error]bool{unix.EMFILE: true, unix.ENFILE: true, unix.EACCES: false, nil: false} {
		if isShortage(err) != want {
			t.Errorf("%v is a shortage: %t", err, !want)
		}
	}
}

// TestFilesAreReleasedWhenAskedTo, unless they may be gone before they are opened again.
func TestFilesAreReleasedWhenAskedTo(t *testing.T) {
	check := func(what string, want bool, change func(tailer *Tailer, f *file)) {
		t.Helper()
		tailer, _ := textTailer(t, map[string]string{"a.log": "one\n"})
		tailer.scanFolder()
		f := tailer.files[0]
		tailer.release.Store(true)
		change(tailer, f)
		tailer.releaseIfAsked()
		if f.released != want || tailer.release.Load() || want && (f.inode == 0 || f.lastSize != 4) {
			t.Errorf("%s: released %t, inode %d, size %d", what, f.released, f.inode, f.lastSize)
		}
		f.released = false
		tailer.group.closeTailer(tailer)
	}
	check("asked", true, func(*Tailer, *file) {})
	check("not asked", false, func(tailer *Tailer, _ *file) { tailer.release.Store(false) })
	check("compressed", false, func(_ *Tailer, f *file) { f.gz = true })
	check("without a name", false, func(_ *Tailer, f *file) { f.name = "" })
	check("rotated", false, func(tailer *Tailer, f *file) { tailer.files = append(tailer.files, &file{}) })
	check("done", false, func(_ *Tailer, f *file) { f.done = true })
	check("removed", false, func(tailer *Tailer, _ *file) { _ = os.Remove(tailer.path) })
}

// TestNamesOfOneFileShareItsDescriptor: a rotation has renamed it after it was looked for.
func TestNamesOfOneFileShareItsDescriptor(t *testing.T) {
	tailer, _ := textTailer(t, map[string]string{"a.log": "one\n"})
	tailer.scanFolder()
	f := tailer.files[0]
	again, err := openLog(tailer.log.Dir, "a.log")
	if err != nil {
		t.Fatal(err)
	}
	tailer.group.budget.acquireDescriptor()
	if got := tailer.registerFile(listedFile{name: "a.log.1"}, again, nil); got != f || f.name != "a.log.1" {
		t.Errorf("another file, name %s", f.name)
	}
	if open := tailer.group.budget.openFiles.Load(); open != 1 {
		t.Errorf("%d descriptors are in use", open)
	}
	if _, err := again.Stat(); err == nil {
		t.Error("the second descriptor is open")
	}
	closed, _ := openLog(tailer.log.Dir, "a.log")
	_ = closed.Close()
	tailer.group.budget.acquireDescriptor()
	before := testutil.ToFloat64(tailer.group.metrics.errors.WithLabelValues("open"))
	if got := tailer.registerFile(listedFile{name: "a.log"}, closed, nil); got != nil || !tailer.rescanNeeded || tailer.group.budget.openFiles.Load() != 1 ||
		testutil.ToFloat64(tailer.group.metrics.errors.WithLabelValues("open")) != before+1 {
		t.Error("a file without a handle is one")
	}
	tailer.group.closeTailer(tailer)
}

// TestCheckpointMayLieWithinTheNextRecord: an open line is numbered there when it is flushed.
func TestCheckpointMayLieWithinTheNextRecord(t *testing.T) {
	for beyond, want := range map[int64]bool{0: true, minPartRecord: true, minPartRecord + 1: false} {
		tailer, ship := textTailer(t, map[string]string{"a.log": "one\n"})
		tailer.scanFolder()
		f := tailer.files[0]
		f.readIdentity(tailer.log.Format, false)
		producer := ship.File(tailer.producerName(f.firstRecord))
		if err := tailer.handler.Ship(t.Context(), producer, &Line{Text: []byte("x")}, collector.Checkpoint{End: 4 + beyond, ReadFrom: 4}); err != nil {
			t.Fatal(err)
		}
		producer.Close(true)
		tailer.openProducer(f)
		if got := f.id == f.firstRecord; got != want {
			t.Errorf("%d bytes behind the end: resumed %t", beyond, got)
		}
		if len(ship.Dropped()) != 0 {
			t.Errorf("dropped %q", ship.Dropped())
		}
	}
}

// TestWritesAreReportedWhileTheReaderSleeps.
func TestWritesAreReportedWhileTheReaderSleeps(t *testing.T) {
	g := newGroupTest(t)
	g.watchFolders()
	g.write("a.log", "one\n")
	a := g.tail("a.log")
	folder := a.folder.Load()
	events := make(chan []inotifyEvent)
	go g.watch.readEvents(t.Context(), events)
	next := func() inotifyEvent {
		t.Helper()
		select {
		case batch := <-events:
			return batch[0]
		case <-time.After(20 * time.Second):
			t.Fatal("no event")
			return inotifyEvent{}
		}
	}
	write := func() {
		t.Helper()
		if err := appendTo(a.path, "more\n"); err != nil {
			t.Fatal(err)
		}
	}
	write()
	if !folder.watchWrites(true) {
		t.Fatal("writes are not watched")
	}
	write()
	if got := next(); got != (inotifyEvent{folder.wd, unix.IN_MODIFY, "a.log"}) {
		t.Errorf("%+v", got)
	}
	if !folder.watchWrites(false) {
		t.Fatal("the watch could not be set")
	}
	write()
	if err := os.Remove(a.path); err != nil {
		t.Fatal(err)
	}
	if got := next(); got != (inotifyEvent{folder.wd, unix.IN_DELETE, "a.log"}) {
		t.Errorf("%+v", got)
	}
}

// TestTailerEndsWhenItIsCancelled: the goroutine of a log ends, and its files are closed with the group.
func TestTailerEndsWhenItIsCancelled(t *testing.T) {
	g := newGroupTest(t)
	g.write("a.log", "one\n")
	tailer := g.tail("a.log")
	tailer.scanFolder()
	g.startTailer(t.Context(), tailer)
	g.ship.Wait(t, 1)
	tailer.cancel()
	if ended := <-g.ended; ended != tailer {
		t.Error("another tailer has ended")
	}
	if len(tailer.files) != 1 {
		t.Errorf("%d files", len(tailer.files))
	}
	g.stopTailers()
	if files, _ := g.Held(); files != 0 {
		t.Errorf("%d files are open", files)
	}
}

// TestTruncatedFileIsTheOneThatWasRead: what follows is another file, and a copy that was made is read instead.
func TestTruncatedFileIsTheOneThatWasRead(t *testing.T) {
	for _, what := range []string{"no copy", "a copy", "a released file", "a file that is done", "another file"} {
		tailer, ship := textTailer(t, map[string]string{"a.log": "one\ntwo\n"})
		tailer.scanFolder()
		readAll(t, tailer)
		f := tailer.files[0]
		older := textFile(t, "one\ntwo\nthree\n", 0)
		older.name, older.handle = "a.log.1", "older"
		tailer.group.budget.openFiles.Add(1)
		switch what {
		case "no copy":
			tailer.group.budget.openFiles.Add(-1)
		case "a released file":
			older.file, older.released = nil, true
			tailer.group.budget.openFiles.Add(-1)
		case "a file that is done":
			older.done = true
		case "another file":
			older = textFile(t, "zero\n", 0)
			older.name, older.handle = "a.log.1", "older"
		}
		if what != "no copy" {
			tailer.files = slices.Insert(tailer.files, 0, older)
		}
		copied := what == "a copy"
		opened := f.file
		tailer.handleTruncation(f)
		fresh := tailer.files[len(tailer.files)-1]
		if fresh == f || fresh.file != opened || fresh.name != "a.log" || fresh.offset != 0 || fresh.producer != nil {
			t.Errorf("%s: the file has the name %q, offset %d", what, fresh.name, fresh.offset)
		}
		if copied && (f.handle != "older" || f.name != "a.log.1" || f.file != older.file || f.done || slices.Contains(tailer.files, older)) {
			t.Errorf("%s: name %q, done %t", what, f.name, f.done)
		}
		if !copied && (!f.done || f.file != nil || f.name != "" || f.handle != "") {
			t.Errorf("%s: name %q, done %t", what, f.name, f.done)
		}
		if got := tailer.tally.truncated; got != uint64(btoi(!copied)) {
			t.Errorf("%s: %d truncations", what, got)
		}
		if ship.Count() != 2 {
			t.Errorf("%d lines", ship.Count())
		}
	}
}

// TestLineThatCannotBeShippedEndsTheRead: of another group, of the end of a file, and of a file that was removed.
func TestLineThatCannotBeShippedEndsTheRead(t *testing.T) {
	failure := errors.New("interrupted")
	tailer, ship := textTailer(t, map[string]string{"a.log.1": "one\nopen", "a.log": "two\n"})
	var state State
	var lines []shippedLine
	tailer.handler = checkpointHandler{shippingHandler{tailer.log}, &state, &failure, &lines}
	f := textFile(t, "", 0)
	f.producer = ship.File("x")
	f.pending[0] = pendingLine{active: true, group: 1}
	tailer.record = decode.Record{Group: 2, Text: []byte("next"), Ends: true}
	if err := tailer.joinRecord(t.Context(), f, 0, 10); !errors.Is(err, failure) || !f.pending[0].active {
		t.Errorf("a record of another group: %v", err)
	}
	if err := tailer.readRemainder(t.Context(), f, []byte("x")); !errors.Is(err, failure) || f.offset != 0 {
		t.Errorf("the rest of a file: %v, offset %d", err, f.offset)
	}
	if used, err := tailer.splitRecords(t.Context(), f, []byte("\x00\x00a\nb\n")); !errors.Is(err, failure) || used != 2 {
		t.Errorf("records: %v, %d bytes", err, used)
	}
	tailer.scanFolder()
	if _, err := tailer.readAvailable(t.Context()); !errors.Is(err, failure) || tailer.files[0].done {
		t.Errorf("a file: %v", err)
	}
	released := &file{released: true, producer: f.producer}
	released.pending[0].active = true
	tailer.files = append(tailer.files, released)
	if err := tailer.finishRemoved(t.Context(), released); !errors.Is(err, failure) || released.done {
		t.Errorf("a removed file: %v", err)
	}
	tailer.group.closeTailer(tailer)

	// One byte that is lost is counted, as is one that is not read.
	tailer, ship = textTailer(t, nil)
	f = &file{released: true, producer: ship.File("x"), lastSize: 1}
	tailer.files = []*file{f}
	if err := tailer.finishRemoved(t.Context(), f); err != nil || dropped(tailer, "removed") != 1 {
		t.Errorf("%v bytes are counted, %v", dropped(tailer, "removed"), err)
	}
	f.done = false
	if tailer.countUnread(); dropped(tailer, "removed") != 2 {
		t.Errorf("%v bytes are counted", dropped(tailer, "removed"))
	}
}

// TestDrainEndsWithItsFile: what is left of removed files is read, with their open lines; files that are there are read by the next
// process.
func TestDrainEndsWithItsFile(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, what := range []string{"removed", "there", "excluded"} {
		dockerd, ship := logstest.NewDockerd(t, t.TempDir(), 1), logstest.NewShipper()
		dockerd.WriteLog("stdout", "one\n"+strings.Repeat("p", decode.DockerPartBytes))
		tailer := tailerOf(dockerd, ship)
		tailer.group.cfg.DrainTimeout = time.Minute
		tailer.scanFolder()
		if what != "there" {
			dockerd.Must(os.Remove(dockerd.Path))
		}
		if what == "excluded" {
			tailer.handler = excludedHandler{tailer.handler}
		}
		tailer.drainUnlinked(ended)
		want := 2 * btoi(what == "removed")
		if ship.Count() != want || testutil.ToFloat64(tailer.group.metrics.lines) != float64(want) {
			t.Errorf("%s: %d lines", what, ship.Count())
		}
		tailer.group.closeTailer(tailer)
	}
}

// TestListedLogOfATextFileIsFoundByItsName.
func TestListedLogOfATextFileIsFoundByItsName(t *testing.T) {
	log := discover.TextLog("/x", "a.log")
	tailer := &Tailer{log: log}
	for name, want := range map[string]bool{"a.log": true, "a.log.1": true, "b.log": false} {
		if tailer.ownsName(name) != want {
			t.Errorf("%s is of the log: %t", name, !want)
		}
	}
	if got := joinPath("/x", "a.log"); got != filepath.Join("/x", "a.log") {
		t.Error(got)
	}
	if b := btoi(true); b != 1 || btoi(false) != 0 {
		t.Error("numbers of booleans")
	}
}

// TestOriginalOfACopyIsReadAndNewer.
func TestOriginalOfACopyIsReadAndNewer(t *testing.T) {
	check := func(what string, want bool, change func(original, copied *file)) {
		t.Helper()
		tailer, ship := textTailer(t, nil)
		copied, original := textFile(t, "one\ntwo\n", 0), textFile(t, "one\ntwo\n", 0)
		original.producer = ship.File("a")
		original.extendSample([]byte("two\n"), 8)
		change(original, copied)
		tailer.files = []*file{textFile(t, "", 0), copied, original}
		if got := tailer.findOriginal(copied); (got == original) != want || got != nil && got != original {
			t.Errorf("%s: found %t", what, got == original)
		}
		if got := tailer.findOriginal(original); got != nil {
			t.Errorf("%s: a copy is the original", what)
		}
	}
	check("a copy", true, func(_, _ *file) {})
	check("not read yet", false, func(original, _ *file) { original.producer = nil })
	check("done", false, func(original, _ *file) { original.done = true })
	check("another record", false, func(original, _ *file) { original.firstRecord = Identity{1} })

	// Two files have one record that occurs once: the one that is read is the other.
	same := func(what string, want bool, change func(f, other *file)) {
		t.Helper()
		tailer, ship := textTailer(t, nil)
		f, other := &file{unique: true, firstRecord: Identity{1}}, &file{firstRecord: Identity{1}, producer: ship.File("a")}
		change(f, other)
		tailer.files = []*file{f, other}
		if got := tailer.findIdentical(f); (got == other) != want {
			t.Errorf("%s: found %t", what, got == other)
		}
	}
	same("the same", true, func(_, _ *file) {})
	same("not unique", false, func(f, _ *file) { f.unique = false })
	same("not read", false, func(_, other *file) { other.producer = nil })
	same("another record", false, func(_, other *file) { other.firstRecord = Identity{2} })
	same("itself", false, func(f, other *file) { f.producer, other.producer = other.producer, nil })
}

// TestFileThatWasCutWhileNobodyReadItGoesOnAtItsEnd: it begins with the same record, so its bytes were read before.
func TestFileThatWasCutWhileNobodyReadItGoesOnAtItsEnd(t *testing.T) {
	dockerd, ship := logstest.NewDockerd(t, t.TempDir(), 1), logstest.NewShipper()
	dockerd.WriteLog("stdout", "one\n")
	info, err := dockerd.File.Stat()
	dockerd.Must(err)
	dockerd.WriteLog("stdout", "two\n")
	tailer := tailerOf(dockerd, ship)
	tailer.scanFolder()
	readAll(t, tailer)
	tailer.group.closeTailer(tailer)
	dockerd.Must(os.Truncate(dockerd.Path, info.Size()))
	tailer = tailerOf(dockerd, ship)
	tailer.scanFolder()
	readAll(t, tailer)
	if f := tailer.files[0]; f.offset != info.Size() || tailer.tally.truncated != 1 || f.resumeEnd <= info.Size() || f.sample.Start+int64(f.sample.Size) != f.offset {
		t.Errorf("offset %d of %d, %d truncations, sample %+v", f.offset, info.Size(), tailer.tally.truncated, f.sample)
	}
	if ship.Count() != 2 {
		t.Errorf("%d lines", ship.Count())
	}
	tailer.group.closeTailer(tailer)
}

// TestBufferIsEnlargedWithinTheBudgetWithoutAWait.
func TestBufferIsEnlargedWithinTheBudgetWithoutAWait(t *testing.T) {
	const size = 4 << 10
	for memory, wantOverdrawn := range map[int64]bool{2 * size: false, 2*size - 1: true} {
		b := &budget{maxMemory: memory, overdraft: make(chan struct{}, 1)}
		buffer := readBuffer{b: make([]byte, size)}
		b.bufferBytes.Store(size)
		if err := b.enlarge(t.Context(), &buffer); err != nil || len(buffer.b) != 2*size || buffer.overdrawn != wantOverdrawn || len(b.overdraft) != btoi(wantOverdrawn) {
			t.Errorf("%d bytes of memory: %v, %d bytes, overdrawn %t", memory, err, len(buffer.b), buffer.overdrawn)
		}
		if err := b.enlarge(t.Context(), &buffer); err != nil || !buffer.overdrawn || len(b.overdraft) != 1 || b.bufferBytes.Load() != 4*size {
			t.Errorf("%d bytes of memory: %v, overdrawn %t, %d charged", memory, err, buffer.overdrawn, b.bufferBytes.Load())
		}
		if b.putBuffer(&buffer); len(b.overdraft) != 0 || b.bufferBytes.Load() != 0 {
			t.Errorf("%d overdrafts, %d bytes", len(b.overdraft), b.bufferBytes.Load())
		}
	}
}

// TestFileThatIsShorterThanItWasReadIsTruncated, also if it still has the bytes of its sample.
func TestFileThatIsShorterThanItWasReadIsTruncated(t *testing.T) {
	f := textFile(t, "0123456789", 10)
	f.extendSample([]byte("0123"), 4)
	for size, want := range map[int64]bool{10: false, 9: true} {
		if err := f.file.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if f.isTruncated() != want {
			t.Errorf("%d of 10 bytes: truncated %t", size, !want)
		}
		if err := os.WriteFile(f.file.Name(), []byte("0123456789"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLineWithoutAnEndIsEndedAtItsLimit, as a partial one.
func TestLineWithoutAnEndIsEndedAtItsLimit(t *testing.T) {
	tailer, _ := textTailer(t, nil)
	var state State
	var failure error
	var lines []shippedLine
	tailer.handler = checkpointHandler{shippingHandler{tailer.log}, &state, &failure, &lines}
	f := textFile(t, "", 0)
	for bytes, want := range map[uint64]int{lineHardMax - 2: 0, lineHardMax - 1: 1} {
		lines = nil
		f.pending[0] = pendingLine{active: true, bytes: bytes}
		tailer.record = decode.Record{Text: []byte("x"), Time: 1}
		if err := tailer.joinRecord(t.Context(), f, 0, 10); err != nil || len(lines) != want || want > 0 && !lines[0].partial {
			t.Errorf("%d bytes: %v, %v", bytes, lines, err)
		}
		f.pending[0].discardLine(&tailer.group.budget)
	}
	tailer.record = decode.Record{Text: []byte("x"), Time: 1, Ends: true}
	f.pending[0] = pendingLine{active: true}
	if err := tailer.joinRecord(t.Context(), f, 0, 10); err != nil || lines[len(lines)-1].partial {
		t.Errorf("a line with an end is partial: %v", err)
	}
}
