package tail

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"

	"tidegate/collector"
	"tidegate/collector/logs/decode"
	"tidegate/collector/logs/discover"
	"tidegate/collector/logs/logstest"
)

// readAll reads everything that a tailer has.
func readAll(t *testing.T, tailer *Tailer) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = tailer.readAvailable(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// texts returns the lines that were shipped.
func texts(ship *logstest.Shipper) (list []string) {
	for _, line := range ship.All() {
		list = append(list, line.Message)
	}
	return list
}

func dropped(tailer *Tailer, reason string) float64 {
	return testutil.ToFloat64(tailer.group.metrics.dropped.WithLabelValues(reason))
}

// TestIdentityIsThatOfTheFirstRecord and of its offset, so that it is kept by every copy.
func TestIdentityIsThatOfTheFirstRecord(t *testing.T) {
	head := fileHead{start: 258, record: []byte("abc\n")}
	if got, want := head.identity(), Identity(xxh3.Hash128([]byte("\x00\x00\x00\x00\x00\x00\x01\x02abc\n")).Bytes()); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := (Identity{0xab, 0xcd}).String(); got != "abcd"+strings.Repeat("0", 28) {
		t.Error(got)
	}
	check := func(record string, want bool) {
		t.Helper()
		if got := (fileHead{record: []byte(record)}).isDated(decode.DockerJSON.New()); got != want {
			t.Errorf("%q is dated: %t", record, got)
		}
	}
	const dated = `{"log":"x\n","stream":"stdout","time":"2026-11-24T23:08:00Z"}`
	check(dated+"\n", true)
	check(dated, false)
	check(`{"log":"x\n","stream":"stdout"}`+"\n", false)
	check("text\n", false)

	// A file that begins with NULs, or is still empty, gets no sample of its first record.
	for _, start := range []int64{0, 7} {
		f := &file{}
		f.setIdentity(fileHead{start: start, record: bytes.Repeat([]byte("x"), 300)}, decode.Text)
		if want := (collector.Sample{Size: maxSample, Hash: f.sampleHash(bytes.Repeat([]byte("x"), maxSample))}); start == 0 && f.sample != want || start > 0 && f.sample != (collector.Sample{}) {
			t.Errorf("sample %+v", f.sample)
		}
		if !f.identified || f.firstRecord != f.id || f.unique {
			t.Errorf("%+v", f)
		}
	}
}

// TestFileWithoutAHandleIsKnownByItsBirth: the file system has no handles.
func TestFileWithoutAHandleIsKnownByItsBirth(t *testing.T) {
	one, err := handleAt(unix.AT_FDCWD, "/proc/self/status")
	if err != nil || one[0] != 'x' {
		t.Skipf("/proc has handles: %q, %v", one, err)
	}
	if len(one) != 41 {
		t.Errorf("%d bytes, want five numbers", len(one))
	}
	if other, err := handleAt(unix.AT_FDCWD, "/proc/self/stat"); err != nil || other == one {
		t.Errorf("two files have the handle %q, %v", other, err)
	}
	opened, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	if same, err := handleAt(int(opened.Fd()), ""); err != nil || same[:25] != one[:25] {
		t.Errorf("by its descriptor: %q, want %q, %v", same, one, err)
	}
	link, err := handleAt(unix.AT_FDCWD, "/proc/self")
	target, _ := handleAt(unix.AT_FDCWD, "/proc/self/")
	if err != nil || link == target {
		t.Errorf("a link has the handle of its target: %v", err)
	}
	if handle, err := handleAt(unix.AT_FDCWD, "/proc/self/missing"); err == nil || handle != "" {
		t.Errorf("%q, %v", handle, err)
	}
}

// TestFilesThatBeginWithTheSameLineHaveTheirOwnCheckpoints, as openProducer describes it: two of an earlier process, one that is
// new.
func TestFilesThatBeginWithTheSameLineHaveTheirOwnCheckpoints(t *testing.T) {
	tailer, ship := textTailer(t, map[string]string{"a.log.2": "same\na\n", "a.log.1": "same\nb\n"})
	tailer.scanFolder()
	readAll(t, tailer)
	first := tailer.files
	if len(first) != 2 || first[0].id != first[0].firstRecord || first[1].id != first[1].firstRecord.withHandle(first[1].handle) {
		t.Fatalf("%d files: %v", len(first), first)
	}
	second := newTailer(tailer.group, tailer.log, tailer.handler, 0)
	tailer.group.closeTailer(tailer)
	if err := os.WriteFile(filepath.Join(second.log.Dir, "a.log"), []byte("same\nc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	second.scanFolder()
	readAll(t, second)
	files := second.files
	if len(files) != 3 || files[0].id != first[0].id || files[1].id != first[1].id || files[2].id != files[2].firstRecord.withHandle(files[2].handle) {
		t.Fatalf("%d files: %v", len(files), files)
	}
	if got := texts(ship); len(got) != 6 || files[0].resumeEnd != 7 {
		t.Errorf("lines %q, resumed behind %d", got, files[0].resumeEnd)
	}

	// All candidates are taken: an identity behind them is free.
	third := &file{handle: files[2].handle, firstRecord: files[2].firstRecord, file: files[2].file}
	for i, id := range third.candidateIDs() {
		second.files = append(second.files, &file{producer: ship.File("taken" + string(rune('0'+i))), id: id})
	}
	second.openProducer(third)
	if want := third.candidateIDs()[0].withHandle(third.handle); third.id != want {
		t.Errorf("identity %s, want %s", third.id, want)
	}
	ship.Check(t)

	// A checkpoint behind the end is that of another file, whose checkpoint is kept.
	short, ship := textTailer(t, map[string]string{"a.log": "same\nlonger\n"})
	short.scanFolder()
	readAll(t, short)
	next := newTailer(short.group, short.log, short.handler, 0)
	short.group.closeTailer(short)
	if err := os.Rename(short.path, short.path+".elsewhere"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(short.path, []byte("same\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	next.scanFolder()
	readAll(t, next)
	if f := next.files[0]; f.id != f.firstRecord.withHandle(f.handle) || len(texts(ship)) != 3 || len(ship.Dropped()) != 0 {
		t.Errorf("lines %q, dropped %q", texts(ship), ship.Dropped())
	}
	next.group.closeTailer(next)
	ship.Check(t)
}

// TestFileThatIsReadIsSampled: the last bytes show a later truncation.
func TestFileThatIsReadIsSampled(t *testing.T) {
	content := strings.Repeat("0123456789\n", 100)
	tailer, ship := textTailer(t, map[string]string{"a.log": content})
	tailer.scanFolder()
	readAll(t, tailer)
	f := tailer.files[0]
	want := collector.Sample{Start: int64(len(content)) - maxSample, Size: maxSample, Hash: f.sampleHash([]byte(content[len(content)-maxSample:]))}
	if f.sample != want || f.offset != int64(len(content)) || f.readOffset.Load() != f.offset || f.examined != f.offset {
		t.Errorf("sample %+v, want %+v, offset %d", f.sample, want, f.offset)
	}
	if tailer.tally.bytes != uint64(len(content)) || tailer.tally.records != 100 || tailer.tally.lines != 100 || time.Since(tailer.lastRead) > time.Minute {
		t.Errorf("%+v", tailer.tally)
	}

	// Bytes behind the last line are examined, and read when the line has its end.
	if err := appendTo(tailer.path, "open"); err != nil {
		t.Fatal(err)
	}
	if !tailer.hasUnread() {
		t.Error("new bytes are not unread")
	}
	readAll(t, tailer)
	if f.offset != int64(len(content)) || f.examined != f.offset+4 || tailer.hasUnread() || tailer.tally.bytes != uint64(len(content)) {
		t.Errorf("offset %d, examined %d", f.offset, f.examined)
	}
	tailer.release.Store(true)
	tailer.releaseIfAsked()
	if !f.released || tailer.hasUnread() {
		t.Error("a released file without new bytes has some")
	}
	if err := appendTo(tailer.path, "\n"); err != nil {
		t.Fatal(err)
	}
	if !tailer.hasUnread() {
		t.Error("a released file with new bytes has none")
	}
	readAll(t, tailer)
	if got := texts(ship); len(got) != 101 || got[100] != "open" {
		t.Errorf("%d lines", len(got))
	}
	tailer.folderGone.Store(true)
	if !tailer.hasUnread() {
		t.Error("a final file that is not done is to be read")
	}
	f.done = true
	if tailer.hasUnread() {
		t.Error("there is no file to be read")
	}
	f.done = false
	tailer.group.closeTailer(tailer)
}

// TestOpenLineIsFlushedWhenItsWriterIsQuiet, sooner if the writer has stopped.
func TestOpenLineIsFlushedWhenItsWriterIsQuiet(t *testing.T) {
	tailer, _ := textTailer(t, nil)
	var state State
	tailer.handler = checkpointHandler{shippingHandler{tailer.log}, &state, nil, nil}
	tailer.group.cfg.PartialTimeout = time.Hour
	f := &file{}
	check := func(what string, quiet time.Duration, want bool) {
		t.Helper()
		tailer.lastRead = time.Now().Add(-quiet)
		if got := tailer.isFlushDue(f); got != want {
			t.Errorf("%s, quiet for %s: due %t", what, quiet, got)
		}
	}
	check("no line", 2*time.Hour, false)
	f.pending[1].active = true
	check("running", time.Minute, false)
	check("running", 2*time.Hour, true)
	state.Stopped = true
	check("stopped", time.Second, false)
	check("stopped", quietAfterStop+time.Second, true)
	check("stopped", 2*time.Hour, true)
}

// TestOpenLineOfAnUnchangedFileIsFlushed, also of one without a descriptor.
func TestOpenLineOfAnUnchangedFileIsFlushed(t *testing.T) {
	for _, released := range []bool{false, true} {
		dockerd, ship := logstest.NewDockerd(t, t.TempDir(), 1), logstest.NewShipper()
		dockerd.WriteLog("stdout", strings.Repeat("a", decode.DockerPartBytes))
		tailer := tailerOf(dockerd, ship)
		tailer.scanFolder()
		readAll(t, tailer)
		tailer.release.Store(released)
		tailer.releaseIfAsked()
		readAll(t, tailer)
		if ship.Count() != 0 {
			t.Errorf("released %t: the line was flushed at once", released)
		}
		tailer.lastRead = time.Now().Add(-2 * time.Minute)
		more, err := tailer.readAvailable(t.Context())
		if more || err != nil || ship.Count() != 1 || tailer.files[0].released != released {
			t.Errorf("released %t: more %t, %v, %d lines", released, more, err, ship.Count())
		}
		tailer.group.closeTailer(tailer)
	}
}

// TestLineGoesOnInTheNextFile, if no earlier process has read from that; the files before it are done with their copies.
func TestLineGoesOnInTheNextFile(t *testing.T) {
	check := func(what string, prepare func(next *file), wantCarried bool) {
		t.Helper()
		tailer, _ := textTailer(t, map[string]string{"a.log.1": "one\n", "a.log": "two\n", "b": ""})
		tailer.scanFolder()
		f, next := tailer.files[0], tailer.files[1]
		tailer.opened.Store(1)
		part := []byte("part")
		f.pending[1].startLine(f, &decode.Record{Time: 7}, 3)
		f.pending[1].appendPart(part, 100, &tailer.group.budget)
		f.pending[1].unshipped = 9
		copied := &file{copyOf: f, file: textFile(t, "", 0).file}
		tailer.group.budget.openFiles.Add(1)
		tailer.files = slices.Insert(tailer.files, 0, copied)
		prepare(next)
		tailer.finishFile(f)
		line := next.pending[1]
		if carried := line.carried && line.start == 3 && string(line.text) == "part" && line.unshipped == 0; carried != wantCarried {
			t.Errorf("%s: carried %t", what, carried)
		}
		wantCut := uint64(len(part) * (1 - btoi(wantCarried)))
		if f.pending[1].active || tailer.tally.cut != wantCut {
			t.Errorf("%s: %d bytes are cut, want %d", what, tailer.tally.cut, wantCut)
		}
		if !f.done || f.file != nil || tailer.opened.Load() != 0 || len(tailer.files) != 3 {
			t.Errorf("%s: done %t, open since %d, %d files", what, f.done, tailer.opened.Load(), len(tailer.files))
		}
		if !copied.done || copied.copyOf != nil || copied.file != nil || tailer.tally.copies != 1 || tailer.group.budget.openFiles.Load() != 1 {
			t.Errorf("%s: the copy is done %t, %d descriptors", what, copied.done, tailer.group.budget.openFiles.Load())
		}
		if wantCarried != (tailer.group.budget.pendingBytes.Load() >= 4) {
			t.Errorf("%s: %d bytes are charged", what, tailer.group.budget.pendingBytes.Load())
		}
		tailer.group.closeTailer(tailer)
	}
	check("not read", func(*file) {}, true)
	check("read before", func(next *file) { next.offset = 1 }, false)
	check("with a line", func(next *file) { next.pending[1].active = true }, false)
	check("done", func(next *file) { next.done = true }, false)
	check("a copy", func(next *file) { next.copyOf = &file{} }, false)

	// Nothing of a folder that is gone is kept.
	tailer, ship := textTailer(t, map[string]string{"a.log": "one\n"})
	tailer.scanFolder()
	readAll(t, tailer)
	tailer.folderGone.Store(true)
	tailer.finishFile(tailer.files[0])
	if len(tailer.files) != 0 || len(ship.Dropped()) != 1 {
		t.Errorf("%d files, dropped %q", len(tailer.files), ship.Dropped())
	}
}

// TestCopyOfAFileIsNotReadTwice: of copytruncate, which is older than the file that is read, and of gzip.
func TestCopyOfAFileIsNotReadTwice(t *testing.T) {
	tailer, ship := textTailer(t, map[string]string{"a.log": "one\ntwo\n"})
	tailer.scanFolder()
	readAll(t, tailer)
	content, err := os.ReadFile(tailer.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tailer.path+".1", content, 0o600); err != nil {
		t.Fatal(err)
	}
	tailer.scanFolder()
	readAll(t, tailer)
	if len(tailer.files) != 2 || tailer.files[0].copyOf != tailer.files[1] || ship.Count() != 2 {
		t.Fatalf("%d files, %d lines", len(tailer.files), ship.Count())
	}
	if err := os.Truncate(tailer.path, 0); err != nil {
		t.Fatal(err)
	}
	if err := appendTo(tailer.path, "three\n"); err != nil {
		t.Fatal(err)
	}
	readAll(t, tailer)
	if got := texts(ship); !slices.Contains(got, "three") || len(got) != 3 {
		t.Errorf("%q", got)
	}
	tailer.group.closeTailer(tailer)
	ship.Check(t)

	// The copy is found first, and the file is read on behind it.
	dockerd, ship := logstest.NewDockerd(t, t.TempDir(), 1), logstest.NewShipper()
	dockerd.WriteLog("stdout", "one\ntwo\n")
	original, err := os.ReadFile(dockerd.Path)
	dockerd.Must(err)
	dockerd.Must(os.WriteFile(dockerd.Path+".1", original, 0o600))
	dockerd.WriteLog("stdout", "three\n")
	tailer = tailerOf(dockerd, ship)
	tailer.scanFolder()
	readAll(t, tailer)
	if got := texts(ship); !slices.Equal(got, []string{"one", "two", "three"}) || ship.Opened() != 1 {
		t.Errorf("%q of %d files", got, ship.Opened())
	}
	tailer.group.closeTailer(tailer)
	ship.Check(t)

	// The file and its compressed copy are there, of an earlier process.
	dockerd, ship = logstest.NewDockerd(t, t.TempDir(), 1), logstest.NewShipper()
	dockerd.WriteLog("stdout", "one\n")
	original, err = os.ReadFile(dockerd.Path)
	dockerd.Must(err)
	dockerd.Must(os.WriteFile(dockerd.Path+".2.gz", gzipped(t, string(original)), 0o600))
	tailer = tailerOf(dockerd, ship)
	tailer.scanFolder()
	readAll(t, tailer)
	if ship.Count() != 1 {
		t.Errorf("%d lines, want one", ship.Count())
	}
	tailer.group.closeTailer(tailer)
	ship.Check(t)
}

// TestReleasedFileThatIsCompressedIsReadOn: its bytes are in the compressed copy.
func TestReleasedFileThatIsCompressedIsReadOn(t *testing.T) {
	dockerd, ship := logstest.NewDockerd(t, t.TempDir(), 1), logstest.NewShipper()
	dockerd.MaxFile, dockerd.Compress = 3, true
	dockerd.WriteLog("stdout", "one\n")
	tailer := tailerOf(dockerd, ship)
	tailer.scanFolder()
	readAll(t, tailer)
	tailer.release.Store(true)
	tailer.releaseIfAsked()
	dockerd.WriteLog("stdout", "two\n")
	dockerd.Rotate()
	tailer.scanFolder()
	f := tailer.files[0]
	if f.released || !f.gz || f.file == nil || len(tailer.files) != 2 || f.gzipHandle == "" || f.name != filepath.Base(dockerd.Path)+".1.gz" {
		t.Fatalf("%d files, released %t, compressed %t, %s", len(tailer.files), f.released, f.gz, f.name)
	}
	readAll(t, tailer)
	if got := texts(ship); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("%q", got)
	}
	tailer.group.closeTailer(tailer)
	ship.Check(t)
}

// TestCompressedCopyIsKnownByItsRecordOrItsLength.
func TestCompressedCopyIsKnownByItsRecordOrItsLength(t *testing.T) {
	const text = "one\ntwo\n"
	newCopy := func(text string) *file {
		t.Helper()
		gz := gzipFile(t, gzipped(t, text))
		if !gz.readGzipIdentity(decode.Text) {
			t.Fatalf("%q has no identity", text)
		}
		return gz
	}
	check := func(what string, f *file, text string, want bool) {
		t.Helper()
		if got := f.isCompressedAs(newCopy(text), decode.Text); got != want {
			t.Errorf("%s: %t", what, got)
		}
	}
	check("the same", textFile(t, text, 0), text, true)
	check("another length", textFile(t, text+"three\n", 0), text, false)
	check("another record", textFile(t, "zero\ntwo\n", 0), text, false)
	check("no record yet", textFile(t, "on", 0), text, false)
	check("not open", &file{}, text, false)
	done := textFile(t, text, 0)
	done.readIdentity(decode.Text, false)
	done.file = nil
	done.readOffset.Store(int64(len(text)))
	check("done", done, text, true)
	done.readOffset.Store(int64(len(text)) - 1)
	check("not read to its end", done, text, false)
	done.unique = true
	check("unique", done, text, true)
	done.unique, done.gz = false, true
	check("compressed too", done, text, false)
	done.gz, done.released = false, true
	done.extendSample([]byte("two\n"), 8)
	check("released, with the same bytes", done, text+"three\n", true)
	done.extendSample([]byte("TWO\n"), 8)
	check("released, with other bytes", done, text, false)
	closed := textFile(t, text, 0)
	closed.readIdentity(decode.Text, false)
	_ = closed.file.Close()
	check("not readable", closed, text, false)

	if gzipFile(t, []byte("no gzip")).readGzipIdentity(decode.Text) || gzipFile(t, gzipped(t, "")).readGzipIdentity(decode.Text) {
		t.Error("a file without records has an identity")
	}
	long := strings.Repeat("\x00", 5000) + strings.Repeat("x", 5000) + "\nmore\n"
	if f, gz := textFile(t, long, 0), newCopy(long); !f.readIdentity(decode.Text, false) || f.firstRecord != gz.firstRecord {
		t.Error("a long record behind NULs has another identity when it is compressed")
	}
}

// TestBrokenCompressedFileIsCountedOnce, and kept, so that it is not opened every second.
func TestBrokenCompressedFileIsCountedOnce(t *testing.T) {
	tailer, ship := textTailer(t, map[string]string{"a.log": "one\n", "a.log.1.gz": "no gzip"})
	for range 2 {
		tailer.scanFolder()
	}
	bad := testutil.ToFloat64(tailer.group.metrics.malformed.WithLabelValues("bad_gzip"))
	if len(tailer.files) != 2 || !tailer.files[0].done || tailer.group.budget.openFiles.Load() != 1 || bad != 1 {
		t.Errorf("%d files, %v are bad, %d descriptors", len(tailer.files), bad, tailer.group.budget.openFiles.Load())
	}
	readAll(t, tailer)
	if ship.Count() != 1 {
		t.Errorf("%d lines", ship.Count())
	}
	tailer.group.closeTailer(tailer)
}

// TestFolderIsListedOnceForItsLogs: names are grouped by their base names if a log of the folder allows that.
func TestFolderIsListedOnceForItsLogs(t *testing.T) {
	g := newGroupTest(t)
	for _, name := range []string{"a.log", "a.log.1", "b.log", "id-json.log", "id-json.log.1"} {
		g.write(name, name+"\n")
	}
	a, b := g.tail("a.log"), g.tail("b.log")
	dockerLog := discover.DockerLog("id", g.dir, "id-json.log")
	docker := g.newTailer(dockerLog, shippingHandler{dockerLog})
	names, err := listFolder(g.dir, []*Tailer{a, b})
	if err != nil || len(names.all) != 5 || len(names.byBase) != 3 || len(names.byBase["a.log"]) != 2 {
		t.Errorf("%+v, %v", names, err)
	}
	for _, tailers := range [][]*Tailer{{a}, {docker, a}} {
		if names, err := listFolder(g.dir, tailers); err != nil || len(names.all) != 5 || names.byBase != nil {
			t.Errorf("%+v, %v", names, err)
		}
	}
	if names, err := listFolder(g.dir+"/missing", []*Tailer{a}); err == nil || names.all != nil {
		t.Errorf("%+v, %v", names, err)
	}
	// Whichever comes first, all files of all logs are found.
	for _, tailers := range [][]*Tailer{{docker, a, b}, {a, docker, b}} {
		scanFolders(tailers)
		if len(a.files) != 2 || len(b.files) != 1 || len(docker.files) != 2 || docker.files[1].name != "id-json.log" || a.files[0].name != "a.log.1" {
			t.Errorf("%d, %d and %d files", len(a.files), len(b.files), len(docker.files))
		}
		g.closeTailers(tailers)
	}
	own := b.ownNames(folderNames{all: []string{"b.log.1.gz", "b.log.1", "c.log", "b.log", "b.log.2.gz"}})
	var list []string
	for _, file := range own {
		list = append(list, file.name)
	}
	if !slices.Equal(list, []string{"b.log", "b.log.1", "b.log.2.gz"}) {
		t.Errorf("%q: newest first, and no compressed file whose original is there", list)
	}
}

// TestListingThatIsNeverStableIsRepeatedLater; what it has found is kept, compressed files excepted.
func TestListingThatIsNeverStableIsRepeatedLater(t *testing.T) {
	tailer, _ := textTailer(t, map[string]string{"a.log": "one\n", "a.log.1.gz": string(gzipped(t, "zero\n"))})
	unstable := true
	rank := tailer.log.Rank
	calls := 0
	tailer.log.BaseOf = nil
	tailer.log.Rank = func(name string) (discover.Rank, bool) {
		calls++
		rank, ok := rank(name)
		if name == "a.log.1.gz" && unstable { // there and gone
			return rank, calls%4 < 2
		}
		return rank, ok
	}
	tailer.scanFolder()
	if !tailer.rescanNeeded || !isWoken(tailer) || len(tailer.files) != 1 || tailer.files[0].name != "a.log" || tailer.group.budget.openFiles.Load() != 1 {
		t.Errorf("rescan %t, %d files, %d descriptors", tailer.rescanNeeded, len(tailer.files), tailer.group.budget.openFiles.Load())
	}
	unstable = false
	tailer.scanFolder()
	if tailer.rescanNeeded || len(tailer.files) != 2 || tailer.files[0].name != "a.log.1.gz" {
		t.Errorf("rescan %t, %d files", tailer.rescanNeeded, len(tailer.files))
	}
	tailer.group.closeTailer(tailer)
}

// TestMissingFileIsKeptForAWhile: it may be a file that is being renamed. A file that was not read is told to be gone.
func TestMissingFileIsKeptForAWhile(t *testing.T) {
	tailer, ship := textTailer(t, map[string]string{"a.log.1": "one\n", "a.log": "two\n"})
	tailer.scanFolder()
	readAll(t, tailer)
	old, base := tailer.files[0], tailer.files[1]
	if !old.done || base.done {
		t.Fatalf("done %t and %t", old.done, base.done)
	}
	if err := os.Remove(tailer.path + ".1"); err != nil {
		t.Fatal(err)
	}
	tailer.scanFolder()
	if len(tailer.files) != 2 || old.missingSince.IsZero() || !tailer.rescanNeeded {
		t.Errorf("%d files, missing since %s", len(tailer.files), old.missingSince)
	}
	since := old.missingSince
	if tailer.scanFolder(); old.missingSince != since {
		t.Error("the time begins anew")
	}
	tailer.listingIncomplete = true // it may be a file that could not be opened
	if tailer.dropMissing([]*file{base}); len(tailer.files) != 2 || old.missingSince == since {
		t.Errorf("%d files, missing since %s", len(tailer.files), old.missingSince)
	}
	old.missingSince = time.Now().Add(-missingTimeout - time.Second)
	tailer.scanFolder()
	if len(tailer.files) != 1 || len(ship.Dropped()) != 1 || old.producer != nil {
		t.Errorf("%d files, dropped %q", len(tailer.files), ship.Dropped())
	}
	base.missingSince, base.maybeListed = time.Now(), true
	if tailer.scanFolder(); !base.missingSince.IsZero() || base.maybeListed {
		t.Error("a file that is there is missing")
	}

	// A file that was moved away is read to its end; one that was removed loses its name.
	if err := os.Rename(tailer.path, filepath.Join(t.TempDir(), "away")); err != nil {
		t.Fatal(err)
	}
	if tailer.scanFolder(); len(tailer.files) != 1 || base.name != "a.log" || base.sourceGone {
		t.Errorf("%d files, name %q", len(tailer.files), base.name)
	}
	removed := textFile(t, "three\n", 0)
	if err := os.Remove(removed.file.Name()); err != nil {
		t.Fatal(err)
	}
	removed.name, removed.producer = "a.log.3", ship.File("removed")
	tailer.files = append(tailer.files, removed)
	tailer.listingIncomplete = true
	if tailer.dropMissing([]*file{base}); removed.name == "" || !removed.maybeListed || !removed.sourceGone || len(tailer.files) != 2 {
		t.Errorf("a file that may be listed: name %q, gone %t", removed.name, removed.sourceGone)
	}
	tailer.listingIncomplete = false
	if tailer.dropMissing([]*file{base}); removed.name != "" || removed.maybeListed {
		t.Errorf("a file that is not listed: name %q", removed.name)
	}
	tailer.group.budget.openFiles.Add(2)
	copied := textFile(t, "", 0)
	if err := os.Remove(copied.file.Name()); err != nil {
		t.Fatal(err)
	}
	copied.copyOf = base
	tailer.files = append(tailer.files, copied)
	if tailer.dropMissing([]*file{base}); len(tailer.files) != 2 || copied.file != nil || tailer.group.budget.openFiles.Load() != 2 {
		t.Errorf("a copy: %d files, %d descriptors", len(tailer.files), tailer.group.budget.openFiles.Load())
	}
	tailer.group.closeTailer(tailer)
}

// TestWhatNoLaterProcessCanReadIsCounted: the bytes and open lines of files without a name.
func TestWhatNoLaterProcessCanReadIsCounted(t *testing.T) {
	check := func(what string, want float64, change func(tailer *Tailer, f *file)) {
		t.Helper()
		tailer, _ := textTailer(t, nil)
		f := textFile(t, "0123456789", 4)
		f.name = "a.log"
		tailer.files = []*file{f}
		change(tailer, f)
		tailer.countUnread()
		if got := dropped(tailer, "removed"); got != want {
			t.Errorf("%s: %v bytes, want %v", what, got, want)
		}
	}
	remove := func(f *file) {
		t.Helper()
		f.name = ""
		if err := os.Remove(f.file.Name()); err != nil {
			t.Fatal(err)
		}
	}
	check("there", 0, func(*Tailer, *file) {})
	check("removed", 6, func(_ *Tailer, f *file) { remove(f) })
	check("unlinked, which is not known yet", 6, func(_ *Tailer, f *file) { remove(f); f.name = "a.log" })
	check("folder removed", 6, func(tailer *Tailer, _ *file) { tailer.folderGone.Store(true) })
	check("excluded", 0, func(tailer *Tailer, f *file) { remove(f); tailer.handler = excludedHandler{tailer.handler} })
	check("done", 0, func(_ *Tailer, f *file) { remove(f); f.done = true })
	check("a copy", 0, func(_ *Tailer, f *file) { remove(f); f.copyOf = f })
	check("released", 16, func(_ *Tailer, f *file) { remove(f); f.released, f.lastSize = true, 20 })
	check("released and cut", 0, func(_ *Tailer, f *file) { remove(f); f.released, f.lastSize = true, 2 })
	check("closed", 0, func(_ *Tailer, f *file) { remove(f); f.file = nil })
	check("closed, with a name", 0, func(_ *Tailer, f *file) { f.file = nil })
	check("open lines", 6+5, func(_ *Tailer, f *file) {
		remove(f)
		f.pending[0] = pendingLine{active: true, bytes: 2}
		f.pending[1] = pendingLine{active: true, bytes: 3}
		f.pending[2] = pendingLine{bytes: 100}
	})
	check("cut", 0, func(_ *Tailer, f *file) { remove(f); f.offset = 20 })

	tailer, _ := textTailer(t, nil)
	f := textFile(t, "", 0)
	if f.name = "a.log"; tailer.isUnlinked(f) {
		t.Error("a file that is there is unlinked")
	}
	if f.name = ""; !tailer.isUnlinked(f) {
		t.Error("a file without a name is not unlinked")
	}
	remove(f)
	if f.name = "a.log"; !tailer.isUnlinked(f) {
		t.Error("a removed file is not unlinked")
	}
	if f.file = nil; tailer.isUnlinked(f) {
		t.Error("a file with a name, without a descriptor, is unlinked")
	}
}

// TestClosedLogKeepsTheCheckpointsOfItsFiles while its folder exists: one without a name may have been compressed a moment ago.
func TestClosedLogKeepsTheCheckpointsOfItsFiles(t *testing.T) {
	for _, c := range []struct {
		dropped string
		set     func(tailer *Tailer)
	}{
		{"", func(*Tailer) {}},
		{"", func(tailer *Tailer) { tailer.files[0].name = "" }},
		{"a b", func(tailer *Tailer) { tailer.folderGone.Store(true) }},
	} {
		tailer, ship := textTailer(t, nil)
		for _, name := range []string{"a", "b"} {
			f := textFile(t, "x\n", 2)
			f.name, f.producer = name, ship.File(name)
			if err := tailer.handler.Ship(t.Context(), f.producer, &Line{Text: []byte("x")}, collector.Checkpoint{End: 2, ReadFrom: 2}); err != nil {
				t.Fatal(err)
			}
			f.pending[0].startLine(f, &decode.Record{}, 0)
			f.pending[0].appendPart([]byte("open"), 100, &tailer.group.budget)
			tailer.files = append(tailer.files, f)
			tailer.group.budget.openFiles.Add(1)
		}
		c.set(tailer)
		tailer.closeFiles()
		files, bytes := tailer.group.Held()
		names := ship.Dropped()
		slices.Sort(names)
		if got := strings.Join(names, " "); got != c.dropped || files != 0 || bytes != 0 || len(tailer.files) != 0 {
			t.Errorf("dropped %q, want %q; %d files and %d bytes are held", got, c.dropped, files, bytes)
		}
		ship.File("a") // it was closed
		ship.File("b")
		if c.dropped == "" {
			ship.Check(t)
		}
	}
}

// TestRecordsWithoutATimeHaveThatOfTheOneBefore, else the present one; older ones than the start are skipped.
func TestRecordsWithoutATimeHaveThatOfTheOneBefore(t *testing.T) {
	tailer, _ := textTailer(t, nil)
	f := &file{}
	check := func(at, want int64) {
		t.Helper()
		tailer.record = decode.Record{Time: at}
		if tailer.setTime(f); tailer.record.Time != want && (want != 0 || time.Since(time.Unix(0, tailer.record.Time)).Abs() > time.Minute) {
			t.Errorf("time %d: %d, want %d", at, tailer.record.Time, want)
		}
	}
	check(0, 0)
	check(5, 5)
	check(0, 5)
	if tailer.tally.noTime != 0 {
		t.Error("lines of text need no time")
	}
	tailer.log.Format.Dated = true
	check(0, 5)
	if check(6, 6); tailer.tally.noTime != 1 {
		t.Errorf("%d records of a dated format have no time", tailer.tally.noTime)
	}
	if f.lastTime != 6 {
		t.Errorf("the last time is %d", f.lastTime)
	}

	tailer, ship := textTailer(t, nil)
	f = textFile(t, "", 0)
	f.producer = ship.File("a")
	tailer.group.cfg.NotBefore = 100
	for i, at := range []int64{99, 100, 0} {
		f.lastTime = at
		if err := tailer.shipPlain(t.Context(), f, []byte("x"), int64(i), int64(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	lines := ship.All()
	if len(lines) != 2 || lines[0].Time != 100 || time.Since(time.Unix(0, lines[1].Time)).Abs() > time.Minute || tailer.tally.beforeStart != 1 {
		t.Errorf("%v, %d before the start", lines, tailer.tally.beforeStart)
	}
}

// TestMalformedRecordsAreShippedAsTheyAre, counted by what they are; blank ones are dropped.
func TestMalformedRecordsAreShippedAsTheyAre(t *testing.T) {
	dockerd, ship := logstest.NewDockerd(t, t.TempDir(), 1), logstest.NewShipper()
	dockerd.WriteRaw("no json\n \n\n{\"log\":\"torn\x00\x00\n")
	dockerd.WriteRaw(`{"log":"cut`)
	dockerd.WriteLog("stdout", "one\n")
	dockerd.WriteRaw("{\"log\":\"two\\n\",\"stream\":\"stdout\"}\n")
	tailer := tailerOf(dockerd, ship)
	tailer.scanFolder()
	readAll(t, tailer)
	want := []string{"no json", "{\"log\":\"torn", "{\"log\":\"cut", "one", "two"}
	if got := texts(ship); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if tally := tailer.tally; tally.malformed != 1 || tally.blank < 2 || tally.torn != 2 || tally.nul != 2 || tally.noTime != 1 || tally.records != 2 {
		t.Errorf("%+v", tally)
	}
	for i, line := range ship.All() {
		if line.Partial != (i < 3) || line.Bytes != uint64(len(want[i])) {
			t.Errorf("line %d: %+v", i, line)
		}
	}
	tailer.group.closeTailer(tailer)

	check := func(data string, want int) {
		t.Helper()
		if got := tailer.tornLength([]byte(data)); got != want {
			t.Errorf("%q: %d, want %d", data, got, want)
		}
	}
	check("abc", 3)
	check("ab\x00c", 2)
	check("\x00abc", 4)
	check(`{"log":{"log":"x`, 7)
	check(`{"log":`, 7)
	check("ab\x00"+`{"log":`, 2)
}

// TestLongRecordIsCutAtItsLimit: what is behind it is a line of its own, and both are counted.
func TestLongRecordIsCutAtItsLimit(t *testing.T) {
	text := strings.Repeat("x", maxRecord+100)
	tailer, ship := textTailer(t, map[string]string{"a.log": text + "\nnext\n"})
	tailer.scanFolder()
	readAll(t, tailer)
	lines := ship.All()
	if len(lines) != 3 || lines[0].Bytes != maxRecord || !lines[0].Partial || lines[1].Bytes != 100 || lines[2].Message != "next" {
		t.Errorf("%d lines", len(lines))
	}
	if tally := tailer.tally; tally.tooLong != 1 || tally.bytes != 101+5 {
		t.Errorf("%+v", tally)
	}
	if used := tailer.group.budget.bufferBytes.Load(); used != 0 {
		t.Errorf("%d bytes of buffers are in use", used)
	}
	tailer.group.closeTailer(tailer)
}

// TestGroupOfRecordsEndsALine: a record of another group begins a new one, and the line before has no end.
func TestGroupOfRecordsEndsALine(t *testing.T) {
	tailer, _ := textTailer(t, nil)
	var state State
	var failure error
	var lines []shippedLine
	tailer.handler = checkpointHandler{shippingHandler{tailer.log}, &state, &failure, &lines}
	f := textFile(t, "", 0)
	join := func(text string, group int64, ends bool, start, end int64) {
		t.Helper()
		tailer.record = decode.Record{Text: []byte(text), Group: group, Ends: ends, Time: 1}
		if err := tailer.joinRecord(t.Context(), f, start, end); err != nil {
			t.Fatal(err)
		}
	}
	join("a", 1, false, 0, 10)
	join("b", 1, false, 10, 20)
	join("c", 0, false, 20, 30)
	join("d", 2, false, 30, 40)
	join("e", 2, true, 40, 50)
	join("f", 3, true, 50, 60)
	want := []shippedLine{
		{"abc", false, collector.Checkpoint{End: 39, ReadFrom: 30}},
		{"de", false, collector.Checkpoint{End: 50, ReadFrom: 50}},
		{"f", false, collector.Checkpoint{End: 60, ReadFrom: 60}},
	}
	if !slices.Equal(lines, want) || tailer.tally.parts != 5 {
		t.Errorf("%+v, want %+v; %d parts", lines, want, tailer.tally.parts)
	}
	if held := tailer.group.budget.pendingBytes.Load(); held != 0 {
		t.Errorf("%d bytes are held", held)
	}
}

// TestLogsThatCannotBeShippedEnd: the next listing reads them again.
func TestLogsThatCannotBeShippedEnd(t *testing.T) {
	g := newGroupTest(t)
	g.write("a.log", "one\n")
	tailer := g.tail("a.log")
	tailer.handler = failingHandler{tailer.handler}
	tailer.scanFolder()
	ended := false
	tailer.cancel = func() { ended = true }
	tailer.readLoop(t.Context())
	if !ended || g.errorCount("ship") != 1 || !strings.Contains(g.logged.String(), "log lines could not be shipped") || !tailer.handlerReady.Load() {
		t.Errorf("ended %t, %v errors: %s", ended, g.errorCount("ship"), g.logged)
	}
	tailer.handler = neverReady{tailer.handler}
	tailer.readLoop(t.Context())
	if g.errorCount("ship") != 1 {
		t.Error("a log that is not ready is read")
	}
	g.closeTailer(tailer)
}

// TestFileIsReadByItself, and an error says what is wrong with it.
func TestFileIsReadByItself(t *testing.T) {
	dir := t.TempDir()
	broken := gzipped(t, "one\ntwo\n")
	for name, content := range map[string][]byte{
		"text": []byte("one\ntwo"), "packed.gz": gzipped(t, "one\ntwo\n"), "cut.gz": broken[:len(broken)-4], "none.gz": []byte("no gzip"), "empty": nil,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string, ctx context.Context, handler func(Handler) Handler) (*logstest.Shipper, error) {
		ship := logstest.NewShipper()
		log := discover.Log{ID: name, Dir: dir, Base: name, Format: decode.Text}
		return ship, ReadFile(ctx, testConfig, log, handler(shippingHandler{log}), ship)
	}
	plain := func(handler Handler) Handler { return handler }
	for name, want := range map[string]string{"text": "one two", "packed.gz": "one two", "empty": ""} {
		if ship, err := read(name, t.Context(), plain); err != nil || strings.Join(texts(ship), " ") != want {
			t.Errorf("%s: %q, %v", name, texts(ship), err)
		}
	}
	for name, want := range map[string]string{
		"missing": "open log file: ", "none.gz": "it has no file handle, or its compression is damaged", "cut.gz": "the file is cut or broken there",
	} {
		if _, err := read(name, t.Context(), plain); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	if _, err := read("text", t.Context(), func(handler Handler) Handler { return failingHandler{handler} }); err == nil || !strings.Contains(err.Error(), "rejected") {
		t.Errorf("a handler that fails: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := read("empty", ended, plain); err == nil {
		t.Error("an interrupted read has no error")
	}
}

// TestDescriptorLimitIsThatOfTheProcess minus the reserve, within bounds.
func TestDescriptorLimitIsThatOfTheProcess(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}()
	for current, want := range map[uint64]int64{0: 64, 320: 64, 321: 65, 512: 256} {
		changed := limit
		changed.Cur = min(current, limit.Max)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &changed); err != nil {
			t.Fatal(err)
		}
		if got := descriptorLimit(); got != want {
			t.Errorf("a limit of %d: %d files, want %d", current, got, want)
		}
	}
	b := &budget{maxFiles: 2}
	for i, want := range []bool{true, true, false, false} {
		if b.acquireDescriptor() != want || b.openFiles.Load() != int64(min(i+1, 2)) {
			t.Errorf("descriptor %d of 2: %d are in use", i+1, b.openFiles.Load())
		}
	}
	if b.releaseDescriptor(); !b.acquireDescriptor() {
		t.Error("a descriptor that was given back is not free")
	}
}

// TestBuffersAreUsedAgain, those that were enlarged excepted.
func TestBuffersAreUsedAgain(t *testing.T) {
	b := &budget{maxMemory: 1 << 30, overdraft: make(chan struct{}, maxOverdrafts)}
	missed := 0
	buffer := b.getBuffer()
	if err := b.enlarge(t.Context(), &buffer); err != nil || len(buffer.b) != 2*bufferSizes[0] || b.bufferBytes.Load() != int64(len(buffer.b)) {
		t.Errorf("%d bytes, %d charged, %v", len(buffer.b), b.bufferBytes.Load(), err)
	}
	b.putBuffer(&buffer)
	for class, size := range bufferSizes {
		if kept := b.pools[class].Get(); kept != nil {
			t.Errorf("an enlarged buffer is kept as one of %d bytes", size)
		}
	}
	for range 100 { // a goroutine that moves to another processor does not find what it has put
		buffer := b.getBuffer()
		if b.putBuffer(&buffer); b.pools[0].Get() != nil {
			break
		}
		missed++
	}
	if missed == 100 {
		t.Error("a buffer is not kept")
	}
	odd := readBuffer{b: make([]byte, bufferSizes[1], bufferSizes[1]+1)}
	b.putBuffer(&odd)
	if kept := b.pools[1].Get(); kept != nil {
		t.Error("a buffer of another capacity is kept")
	}
}

// TestCutTextKeepsItsCharacters.
func TestCutTextKeepsItsCharacters(t *testing.T) {
	check := func(text string, limit int, want string) {
		t.Helper()
		if got, cut := Cut(text, limit); got != want || cut != (got != text) {
			t.Errorf("%q to %d: %q, %t, want %q", text, limit, got, cut, want)
		}
	}
	check("0123456789abcdef", 16, "0123456789abcdef")
	check("0123456789abcdefg", 16, "012345678…defg")
	check("ééééééééééé", 16, "éééé…éé")
	check("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", 16, "\x80\x80\x80\x80\x80\x80\x80\x80\x80…")
	for pos, want := range []int{0, 0, 2, 2, 2, 5} {
		if got := runeStart([]byte("é€x"), pos); got != want {
			t.Errorf("position %d: the character begins at %d, want %d", pos, got, want)
		}
	}
	if got := runeStart([]byte("a\x80\x80\x80\x80\x80"), 5); got != 5 {
		t.Errorf("bytes that are no character begin at %d", got)
	}
	if got := runeStart([]byte("é"), 2); got != 0 && got != 2 {
		t.Errorf("the end: %d", got)
	}
}

// TestFirstByteIsFoundBehindNULs.
func TestFirstByteIsFoundBehindNULs(t *testing.T) {
	for size, want := range map[int]int64{0: 0, 1: 1, 16: 16, 17: 17, 300: 300, 70_000: 70_000} {
		offset, err := skipNULs(strings.NewReader(strings.Repeat("\x00", size) + "x"))
		if offset != want || err != nil {
			t.Errorf("%d NULs: %d, %v", size, offset, err)
		}
		if offset, err := skipNULs(strings.NewReader(strings.Repeat("\x00", size))); offset != want || err == nil {
			t.Errorf("%d NULs only: %d, %v", size, offset, err)
		}
	}
}
