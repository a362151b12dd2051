package tail

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
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

// gzipped returns text, compressed.
func gzipped(t *testing.T, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	writer := gzip.NewWriter(&out)
	if _, err := io.WriteString(writer, text); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// gzipFile returns a compressed file with these bytes.
func gzipFile(t *testing.T, content []byte) *file {
	t.Helper()
	f := textFile(t, string(content), 0)
	f.gz = true
	return f
}

// TestCompressedFileIsReadFromAnyOffset, forwards and backwards; its end is told from a broken stream.
func TestCompressedFileIsReadFromAnyOffset(t *testing.T) {
	const text = "0123456789abcdefghij"
	content := gzipped(t, text)
	f := gzipFile(t, content)
	check := func(at int64, size int, want string, wantErr error) {
		t.Helper()
		data := make([]byte, size)
		if n, err := f.readAt(data, at); string(data[:n]) != want || !errors.Is(err, wantErr) {
			t.Errorf("%d bytes at %d: %q, %v, want %q, %v", size, at, data[:n], err, want, wantErr)
		}
	}
	check(0, 4, "0123", nil)
	check(4, 4, "4567", nil)
	check(10, 4, "abcd", nil)
	check(2, 4, "2345", nil)
	check(16, 4, "ghij", nil)
	check(16, 10, "ghij", io.EOF)
	check(20, 4, "", io.EOF)
	check(21, 4, "", io.EOF)
	check(0, 0, "", nil)

	if size, ok := f.gzipSize(); size != 20 || !ok || f.size() != 20 || !f.gzipSizeIs(20) || f.gzipSizeIs(21) || !f.gzipSizeIs(1<<32+20) {
		t.Errorf("the length is %d, %t", size, ok)
	}
	for _, size := range []int{0, 3} {
		if size, ok := gzipFile(t, content[:size]).gzipSize(); ok || size != 0 {
			t.Errorf("a file of %d bytes has the length %d", size, size)
		}
	}
	if size, ok := gzipFile(t, content[:4]).gzipSize(); !ok || size == 0 {
		t.Error("the last four bytes are the length")
	}
	f = gzipFile(t, nil)
	if f.gzipSizeIs(0) {
		t.Error("a file without a length has the length 0")
	}
	if _, err := f.readAt(make([]byte, 4), 0); err == nil {
		t.Error("an empty file is no compressed file")
	}

	// The stream is cut, or its checksum is wrong.
	f = gzipFile(t, content[:len(content)-9])
	if _, err := f.readAt(make([]byte, 100), 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a cut stream: %v", err)
	}
	broken := bytes.Clone(content)
	broken[len(broken)-5] ^= 1
	f = gzipFile(t, broken)
	if _, err := f.readAt(make([]byte, 100), 0); !errors.Is(err, gzip.ErrChecksum) && (err == nil || errors.Is(err, io.EOF)) {
		t.Errorf("a broken stream: %v", err)
	}
}

// TestCompressedFileThatWasReadIsNotUncompressed: its checkpoint is its length.
func TestCompressedFileThatWasReadIsNotUncompressed(t *testing.T) {
	content := gzipped(t, "one\ntwo\n")
	check := func(what string, resumeEnd, offset int64, skipped, gz, want bool) {
		t.Helper()
		f := gzipFile(t, content)
		f.gz, f.resumeEnd, f.offset, f.skipped = gz, resumeEnd, offset, skipped
		if got := f.isFullyRead(); got != want {
			t.Errorf("%s: read %t", what, got)
		}
	}
	check("read", 8, 8, false, true, true)
	check("read up to a line", 4, 4, false, true, false)
	check("with an open line", 8, 4, false, true, false)
	check("not read", 0, 0, false, true, false)
	check("not compressed", 8, 8, false, false, false)
	check("skipped", 0, 0, true, true, true)
	if f := gzipFile(t, gzipped(t, "")); f.isFullyRead() {
		t.Error("an empty file was read by nobody")
	}
}

// TestContentsFromBeforeTheStartAreSkipped: a plain file goes on at its end.
func TestContentsFromBeforeTheStartAreSkipped(t *testing.T) {
	f := textFile(t, "0123456789", 0)
	f.skipContents()
	if f.offset != 10 || f.readOffset.Load() != 10 || f.skipped {
		t.Errorf("offset %d, %d, skipped %t", f.offset, f.readOffset.Load(), f.skipped)
	}
	f = gzipFile(t, gzipped(t, "0123456789"))
	f.skipContents()
	if f.offset != 0 || !f.skipped {
		t.Errorf("compressed: offset %d, skipped %t", f.offset, f.skipped)
	}
}

// TestBirthOfAFileIsItsCreation, to the nanosecond, and not its last change; on a file system without birth times it is that.
func TestBirthOfAFileIsItsCreation(t *testing.T) {
	before := time.Now().Add(-time.Second)
	f := textFile(t, "x", 0)
	var st unix.Statx_t
	if err := unix.Statx(int(f.file.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(f.file.Name(), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	got, want := birthTime(f.file), time.Unix(st.Btime.Sec, int64(st.Btime.Nsec)).UnixNano()
	hasBirth := st.Mask&unix.STATX_BTIME != 0
	if hasBirth && (got != want || got < before.UnixNano()) || !hasBirth && got != time.Unix(1, 0).UnixNano() {
		t.Errorf("born at %d, want %d; the file system has birth times: %t", got, want, hasBirth)
	}
	_ = f.file.Close()
	if got := birthTime(f.file); got != 0 {
		t.Errorf("a closed file was born at %d", got)
	}
}

// TestOnlyRegularFilesAreOpened: neither a pipe, for which an open would wait, nor a link, nor a folder.
func TestOnlyRegularFilesAreOpened(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(path("file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Mkfifo(path("pipe"), 0o600), os.Symlink(path("file"), path("link")), os.Mkdir(path("folder"), 0o700)); err != nil {
		t.Fatal(err)
	}
	opened, err := openLog(dir, "file")
	if err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(opened.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("children inherit the file: %d, %v", flags, err)
	}
	if _, err := opened.Write([]byte("x")); err == nil {
		t.Error("the file can be written to")
	}
	_ = opened.Close()
	for name, want := range map[string]error{"pipe": errNotRegular, "link": unix.ELOOP, "folder": errNotRegular, "none": unix.ENOENT} {
		if opened, err := openLog(dir, name); !errors.Is(err, want) || opened != nil {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

// TestFilesThatAreNotRegularAreLoggedAndNotTriedAgain; one that cannot be opened is.
func TestFilesThatAreNotRegularAreLoggedAndNotTriedAgain(t *testing.T) {
	g := newGroupTest(t)
	tailer := g.tail("a.log")
	if err := unix.Mkfifo(tailer.path, 0o600); err != nil {
		t.Fatal(err)
	}
	tailer.scanFolder()
	if len(tailer.files) != 0 || tailer.rescanNeeded || g.errorCount("open") == 0 || g.budget.openFiles.Load() != 0 {
		t.Errorf("%d files, rescan %t, %v errors", len(tailer.files), tailer.rescanNeeded, g.errorCount("open"))
	}
	if got := g.logged.String(); strings.Count(got, "no regular file") != 1 || !strings.Contains(got, "file="+tailer.path) {
		t.Errorf("logged: %s", got)
	}
	if err := os.Remove(tailer.path); err != nil {
		t.Fatal(err)
	}
	before := g.errorCount("open")
	if f := tailer.lookupOrOpen(listedFile{name: "a.log"}, nil); f != nil || tailer.rescanNeeded || g.errorCount("open") != before {
		t.Error("a file that has vanished is an error")
	}
	if f := tailer.lookupOrOpen(listedFile{name: strings.Repeat("x", 300)}, nil); f != nil || !tailer.rescanNeeded || g.errorCount("open") != before+1 {
		t.Error("a file that cannot be opened is not tried again")
	}
	if tailer.scanShort.Load() || g.budget.openFiles.Load() != 0 {
		t.Error("a file that cannot be opened waits for a descriptor")
	}
}

// TestUnreadBytesOfAFile are those behind what was read; a compressed file counts with its size on disk.
func TestUnreadBytesOfAFile(t *testing.T) {
	g := newGroupTest(t)
	tailer := g.tail("a.log")
	check := func(what string, f *file, want int64) {
		t.Helper()
		if got := tailer.unreadBytes(f); got != want {
			t.Errorf("%s: %d bytes, want %d", what, got, want)
		}
	}
	f := textFile(t, "0123456789", 0)
	check("nothing was read", f, 10)
	f.advanceOffset(4)
	check("four bytes were read", f, 6)
	f.advanceOffset(10)
	check("the file was cut", f, 0)
	f.done = true
	f.readOffset.Store(0)
	check("done", f, 0)
	f.done, f.copyOf = false, &file{}
	check("a copy", f, 0)
	f.copyOf, f.gz = nil, true
	f.readOffset.Store(8)
	check("compressed", f, 10)
	f.gz = false
	_ = f.file.Close()
	check("not readable", f, 0)
	f.file = nil
	check("closed", f, 0)

	g.write("a.log", "0123456789")
	var st unix.Stat_t
	if err := unix.Stat(tailer.path, &st); err != nil {
		t.Fatal(err)
	}
	f.released, f.name, f.inode = true, "a.log", st.Ino
	check("released", f, 2)
	f.readOffset.Store(12)
	check("released and cut", f, 0)
	f.name, f.lastSize = "", 20
	check("released and removed", f, 8)
	f.name, f.inode = "a.log", st.Ino+1
	check("released, and its name is that of another file", f, 8)
}

// TestCopyOfAFileHasTheSameBytes: it begins with the same record, and has the bytes that were read last, unless it is still
// being made.
func TestCopyOfAFileHasTheSameBytes(t *testing.T) {
	original := textFile(t, "one\ntwo\nthree\n", 8)
	original.firstRecord = Identity{1}
	original.extendSample([]byte("two\n"), 8)
	check := func(what string, f *file, want bool) {
		t.Helper()
		f.firstRecord = Identity{1}
		if got := f.isCopyOf(original); got != want {
			t.Errorf("%s: %t", what, got)
		}
	}
	check("the same", textFile(t, "one\ntwo\n", 0), true)
	check("longer", textFile(t, "one\ntwo\nthree\nfour\n", 0), true)
	check("still being made", textFile(t, "one\ntw", 0), true)
	check("other bytes", textFile(t, "one\nTWO\n", 0), false)
	check("compressed", gzipFile(t, gzipped(t, "one\ntwo\nthree\n")), true)
	check("compressed, with other bytes", gzipFile(t, gzipped(t, "one\nTWO\nthree\n")), false)
	check("compressed and too short", gzipFile(t, gzipped(t, "one\ntw")), false)
	other := textFile(t, "one\ntwo\n", 0)
	if other.firstRecord = (Identity{2}); other.isCopyOf(original) {
		t.Error("another first record")
	}
	original.sample = collector.Sample{}
	check("nothing was read", textFile(t, "two\n", 0), true)
}

// TestFileIsResumedAtItsCheckpoint: incomplete lines of the file before are discarded if the checkpoint is behind the start.
func TestFileIsResumedAtItsCheckpoint(t *testing.T) {
	ship := logstest.NewShipper()
	resume := func(name string, checkpoint *collector.Checkpoint) (f *file, resumed bool, budget *budget) {
		t.Helper()
		producer := ship.File(name)
		if checkpoint != nil {
			log := discover.TextLog("/x", "a.log")
			if err := (shippingHandler{log}).Ship(t.Context(), producer, &Line{Text: []byte("x")}, *checkpoint); err != nil {
				t.Fatal(err)
			}
		}
		budget = newBudget()
		f = &file{}
		f.pending[0].startLine(f, &decode.Record{}, 0)
		f.pending[0].appendPart([]byte("carried"), 1<<20, budget)
		resumed = f.resumeFrom(producer, budget)
		if f.producer != producer {
			t.Error("the file has not the producer")
		}
		return f, resumed, budget
	}
	f, resumed, _ := resume("new", nil)
	if resumed || f.offset != 0 || f.resumeEnd != 0 || !f.pending[0].active {
		t.Errorf("without a checkpoint: %t, offset %d, %d", resumed, f.offset, f.resumeEnd)
	}
	f, resumed, _ = resume("start", &collector.Checkpoint{End: 100, ReadFrom: 0})
	if !resumed || f.offset != 0 || f.resumeEnd != 100 || !f.pending[0].active {
		t.Errorf("at the start: %t, offset %d, %d", resumed, f.offset, f.resumeEnd)
	}
	f, resumed, held := resume("behind", &collector.Checkpoint{End: 100, ReadFrom: 1})
	if !resumed || f.offset != 1 || f.readOffset.Load() != 1 || f.resumeEnd != 100 || f.pending[0].active || held.pendingBytes.Load() != 0 {
		t.Errorf("behind the start: %t, offset %d, %d, open %t", resumed, f.offset, f.resumeEnd, f.pending[0].active)
	}
}

func newBudget() *budget { return &budget{maxFiles: 10, maxMemory: 1 << 20} }

// TestOriginalGoesOnAsItsCopy: the position, the producer and the open lines are those of the copy, which is done.
func TestOriginalGoesOnAsItsCopy(t *testing.T) {
	held := newBudget()
	held.openFiles.Store(2)
	producer := logstest.NewShipper().File("a")
	other := textFile(t, "one\ntwo\n", 0)
	other.id, other.producer, other.sourceGone, other.resumeEnd, other.lastTime = Identity{1}, producer, true, 3, 4
	other.advanceOffset(5)
	other.pending[1].startLine(other, &decode.Record{}, 5)
	f := textFile(t, "one\ntwo\n", 0)
	f.continueCopy(other, held)
	if f.id != (Identity{1}) || f.producer != producer || !f.sourceGone || f.resumeEnd != 3 || f.lastTime != 4 || f.offset != 5 ||
		f.readOffset.Load() != 5 || !f.pending[1].active {
		t.Errorf("%+v", f)
	}
	if other.producer != nil || !other.done || other.file != nil || other.pending[1].active || held.openFiles.Load() != 1 {
		t.Errorf("the copy: %t, open %t", other.done, other.file != nil)
	}
}

// TestLaterReadBeginsAtTheFirstOpenLine, and at the start for a line of the file before.
func TestLaterReadBeginsAtTheFirstOpenLine(t *testing.T) {
	f := &file{}
	check := func(base, want int64) {
		t.Helper()
		if got := f.readFrom(base); got != want {
			t.Errorf("%d, want %d", got, want)
		}
	}
	check(100, 100)
	f.pending[1].active, f.pending[1].start = true, 50
	check(100, 50)
	check(40, 40)
	f.pending[2].active, f.pending[2].start = true, 30
	check(100, 30)
	f.pending[2].carried = true
	check(100, 0)
}

// TestBytesOfARemovedReleasedFileAreLost, and counted; its open line ends, if no file follows.
func TestBytesOfARemovedReleasedFileAreLost(t *testing.T) {
	for _, next := range []bool{false, true} {
		tailer, ship := textTailer(t, map[string]string{"a.log": "one\ntwo\n"})
		tailer.scanFolder()
		f := tailer.files[0]
		f.producer = ship.File("a")
		f.advanceOffset(4)
		f.pending[0].startLine(f, &decode.Record{Time: 1}, 0)
		f.pending[0].appendPart([]byte("open"), 100, &tailer.group.budget)
		tailer.release.Store(true)
		if tailer.releaseIfAsked(); !f.released {
			t.Fatal("the file was not released")
		}
		if next {
			tailer.files = append(tailer.files, textFile(t, "next", 0))
		}
		if err := os.Remove(tailer.path); err != nil {
			t.Fatal(err)
		}
		f.name = ""
		more, err := tailer.readAvailable(t.Context())
		if err != nil || !more || !f.done {
			t.Errorf("%t, %v, done %t", more, err, f.done)
		}
		if lost := testutil.ToFloat64(tailer.group.metrics.dropped.WithLabelValues("removed")); lost != 4 {
			t.Errorf("%v bytes are counted, want 4", lost)
		}
		if lines := ship.Count(); lines != btoi(!next) || next && !tailer.files[1].pending[0].carried {
			t.Errorf("a file follows %t: %d lines", next, lines)
		}
		tailer.group.budget.openFiles.Add(int64(btoi(next)))
		tailer.group.closeTailer(tailer)
	}

	// Everything was read.
	tailer, ship := textTailer(t, nil)
	f := &file{released: true, offset: 4, lastSize: 4, producer: ship.File("a")}
	tailer.files = []*file{f}
	if err := tailer.finishRemoved(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if lost := testutil.ToFloat64(tailer.group.metrics.dropped.WithLabelValues("removed")); lost != 0 || !f.done {
		t.Errorf("%v bytes are counted", lost)
	}
	f.done = false
	f.pending[0].active = true
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tailer.finishRemoved(ctx, f); err == nil || f.done {
		t.Errorf("the open line could not be shipped: %v, done %t", err, f.done)
	}
}
