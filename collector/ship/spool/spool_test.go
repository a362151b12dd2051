package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tidegate/collector/ship/frame"
	"tidegate/pipeline/lineartest"
)

var discard = slog.New(slog.DiscardHandler)

// A stored is a batch that Open found.
type stored struct {
	header   Header
	ref      Ref
	readable bool
}

// open opens the spool in dir and returns the batches that it found.
func open(t testing.TB, dir string, options Options) (*Spool, []stored) {
	t.Helper()
	if options.Log == nil {
		options.Log = discard
	}
	if options.Limit == 0 {
		options.Limit = 64 << 20
	}
	var found []stored
	spool, err := Open(dir, options, func(h *Header, ref Ref, readable bool) {
		found = append(found, stored{*h, ref, readable})
	})
	if err != nil {
		t.Fatal(err)
	}
	return spool, found
}

// header returns a header whose fields depend on sequence.
func header(sequence uint64) *Header {
	return &Header{
		Epoch:     1 << 63,
		Partition: 7,
		Sequence:  sequence,
		Packets:   sequence%2 == 0,
		Counts:    []uint32{0, 3, uint32(sequence)},
	}
}

func mustAppend(t testing.TB, spool *Spool, sequence uint64, batch []byte) Ref {
	t.Helper()
	ref, err := spool.Append(header(sequence), batch)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// segments returns the files in dir that match pattern.
func segments(t testing.TB, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestBatchesSurvive: a spool that is opened again has every batch, and its files are removed when all
// batches have been released.
func TestBatchesSurvive(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 1))
	spool, _ := open(t, dir, Options{})
	var batches [][]byte
	for i := range uint64(60) { // more than a segment
		batch := bytes.Repeat([]byte{byte(i)}, 1+rng.IntN(600<<10))
		ref := mustAppend(t, spool, i, batch)
		batches = append(batches, batch)
		if got, err := spool.Read(ref); err != nil || !bytes.Equal(got, batch) {
			t.Fatalf("batch %d: %v", i, err)
		}
	}
	spool.Close(false)
	if count := len(segments(t, dir, "*.seg")); count < 2 {
		t.Errorf("%d segments", count)
	}

	spool, found := open(t, dir, Options{})
	if len(found) != len(batches) || spool.Unreadable() != 0 {
		t.Fatalf("%d batches, unreadable %d", len(found), spool.Unreadable())
	}
	for i, stored := range found {
		got, err := spool.Read(stored.ref)
		if err != nil || !bytes.Equal(got, batches[i]) || !reflect.DeepEqual(stored.header, *header(uint64(i))) ||
			!stored.readable {
			t.Fatalf("batch %d: %+v, %v", i, stored.header, err)
		}
		spool.Release(stored.ref)
	}
	if size := spool.Bytes(); size != 0 || len(segments(t, dir, "*")) != 0 {
		t.Errorf("%d bytes, files %v", size, segments(t, dir, "*"))
	}
	spool.Close(false)
}

// TestFullSpoolRejects: Append rejects a batch beyond the limit, until another batch is released.
func TestFullSpoolRejects(t *testing.T) {
	spool, _ := open(t, t.TempDir(), Options{Limit: 1000})
	ref := mustAppend(t, spool, 1, make([]byte, 600))
	_, err := spool.Append(header(2), make([]byte, 600))
	if !errors.Is(err, ErrFull) || spool.Condition() != Full ||
		spool.Errors() != 0 {
		t.Errorf("%v, condition %d, errors %d", err, spool.Condition(), spool.Errors())
	}
	spool.Release(ref)
	mustAppend(t, spool, 3, make([]byte, 600))
	if spool.Condition() != Accepting {
		t.Errorf("condition %d", spool.Condition())
	}
}

// A fullDisk is a file whose writes fail half-way while the disk is full.
type fullDisk struct {
	frame.File
	full *atomic.Bool
}

func (f fullDisk) WriteAt(data []byte, at int64) (int, error) {
	if !f.full.Load() {
		return f.File.WriteAt(data, at)
	}
	written, _ := f.File.WriteAt(data[:len(data)/2], at)
	return written, unix.ENOSPC
}

// TestFullDisk: a batch that cannot be written is rejected, and the batches before and after it are read.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	var full atomic.Bool
	spool, _ := open(t, dir, Options{Wrap: func(f frame.File) frame.File { return fullDisk{f, &full} }})
	full.Store(true) // also for the header of the first segment
	if _, err := spool.Append(header(1), []byte("one")); !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
	full.Store(false)
	mustAppend(t, spool, 2, []byte("two"))
	full.Store(true)
	_, err := spool.Append(header(3), []byte("three"))
	if !errors.Is(err, unix.ENOSPC) || spool.Condition() != Failing ||
		spool.Errors() != 2 {
		t.Errorf("%v, condition %d, errors %d", err, spool.Condition(), spool.Errors())
	}
	full.Store(false)
	mustAppend(t, spool, 4, []byte("four"))
	spool.Close(false)
	spool, found := open(t, dir, Options{})
	if len(found) != 2 || found[1].header.Sequence != 4 || spool.Unreadable() != 0 {
		t.Errorf("%+v, unreadable %d", found, spool.Unreadable())
	}
}

// TestDamageIsKept: damage in one place of a segment costs at most two batches, and the segment is kept on
// disk when the others have been released.
func TestDamageIsKept(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for range 100 {
		dir := t.TempDir()
		spool, _ := open(t, dir, Options{})
		for i := range uint64(10) {
			mustAppend(t, spool, i, bytes.Repeat([]byte{byte(i)}, 50+rng.IntN(100)))
		}
		spool.Close(false)
		path := segments(t, dir, "*.seg")[0]
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := frame.FileHeaderSize + rng.IntN(len(text)-frame.FileHeaderSize)
		text[at] ^= byte(1 + rng.IntN(255))
		if rng.IntN(2) == 0 {
			text = text[:len(text)-1-rng.IntN(40)]
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}

		spool, found := open(t, dir, Options{})
		intact := 0
		for _, stored := range found {
			if !stored.readable {
				continue
			}
			if batch, err := spool.Read(stored.ref); err == nil {
				intact++
				if len(batch) == 0 || batch[0] != byte(stored.header.Sequence) {
					t.Fatalf("batch %d holds %x", stored.header.Sequence, batch)
				}
			} else if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			spool.Release(stored.ref)
		}
		if intact < 8 || len(found) < 8 || spool.Unreadable() == 0 {
			t.Errorf("damage at %d: %d batches, %d intact, %d bytes unreadable", at, len(found), intact,
				spool.Unreadable())
		}
		if kept, err := os.ReadFile(path + ".unreadable"); err != nil || !bytes.Equal(kept, text) {
			t.Fatalf("not kept: %v, %v", err, segments(t, dir, "*"))
		}
		if spool.Bytes() != 0 || len(segments(t, dir, "*")) != 1 {
			t.Errorf("%d bytes, files %v", spool.Bytes(), segments(t, dir, "*"))
		}
		spool.Close(false)
	}
}

// A failingSync is a file that cannot be synced.
type failingSync struct{ frame.File }

func (failingSync) Sync() error { return unix.EIO }

// TestBatchThatIsNotOnTheDiskIsAnError where each write is synced.
func TestBatchThatIsNotOnTheDiskIsAnError(t *testing.T) {
	for _, isSynced := range []bool{true, false} {
		var log bytes.Buffer
		spool, _ := open(t, t.TempDir(), Options{
			Sync: isSynced, Log: slog.New(slog.NewTextHandler(&log, nil)), Wrap: func(f frame.File) frame.File { return failingSync{f} },
		})
		_, err := spool.Append(header(1), []byte("batch"))
		line := strings.Contains(log.String(), `level=ERROR msg="spool cannot be written: packet events stay in memory" err="sync spool `)
		if errors.Is(err, unix.EIO) != isSynced || (err == nil) == isSynced || (spool.Condition() == Failing) != isSynced || spool.Errors() != uint64(strings.Count(log.String(), "\n")) || line != isSynced {
			t.Errorf("synced %t: %v, condition %d, %d errors, logged %s", isSynced, err, spool.Condition(), spool.Errors(), &log)
		}
		if err := spool.Close(true); !errors.Is(err, unix.EIO) {
			t.Errorf("closed: %v", err)
		}
	}
}

// TestSpoolThatIsOffTakesNoBatch, and reports no condition.
func TestSpoolThatIsOffTakesNoBatch(t *testing.T) {
	var log bytes.Buffer
	spool, err := Open(t.TempDir(), Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if ref, err := spool.Append(header(1), nil); !errors.Is(err, ErrFull) || ref != (Ref{}) || spool.Condition() != Accepting || spool.Errors() != 0 || log.Len() > 0 {
		t.Errorf("%v, condition %d, logged %s", err, spool.Condition(), &log)
	}
	spool.Release(Ref{})
	spool.Close(true)
}

// TestSegmentsAreOfABoundedSize: a full one is followed by another, and goes with its last batch.
func TestSegmentsAreOfABoundedSize(t *testing.T) {
	dir := t.TempDir()
	spool, _ := open(t, dir, Options{})
	large := make([]byte, segmentBytes/2)
	first := mustAppend(t, spool, 1, large)
	second := mustAppend(t, spool, 2, large)
	if got := segments(t, dir, "*"); len(got) != 2 || filepath.Base(got[1]) != "00000002.seg" {
		t.Errorf("segments %q", got)
	}
	spool.Release(second)
	third := mustAppend(t, spool, 3, large)
	if got := segments(t, dir, "*"); len(got) != 2 || filepath.Base(got[1]) != "00000003.seg" {
		t.Errorf("segments %q", got)
	}
	size := spool.Bytes()
	spool.Release(first)
	if got := segments(t, dir, "*"); len(got) != 1 || spool.Bytes() >= size {
		t.Errorf("segments %q, %d bytes of %d", got, spool.Bytes(), size)
	}
	if batch, err := spool.Read(third); err != nil || len(batch) != len(large) {
		t.Errorf("%d bytes, %v", len(batch), err)
	}
	spool.Close(false)
}

// TestOtherNumberOfDatasets: a spool of a version with more or fewer datasets is read.
func TestOtherNumberOfDatasets(t *testing.T) {
	dir := t.TempDir()
	spool, _ := open(t, dir, Options{})
	for _, datasets := range []int{0, 1, 10, 11, 200} {
		head := header(uint64(datasets))
		head.Counts = make([]uint32, datasets)
		for i := range head.Counts {
			head.Counts[i] = uint32(i * i)
		}
		if _, err := spool.Append(head, []byte("batch")); err != nil {
			t.Fatal(err)
		}
	}
	spool.Close(false)
	_, found := open(t, dir, Options{})
	for i, datasets := range []int{0, 1, 10, 11, 200} {
		if counts := found[i].header.Counts; len(counts) != datasets ||
			datasets > 0 && counts[datasets-1] != uint32((datasets-1)*(datasets-1)) {
			t.Errorf("%d counts: %v", datasets, counts)
		}
	}
}

// TestClosedSpoolKeepsItsBatches: what is released after Close has its segment still, and nothing is written.
func TestClosedSpoolKeepsItsBatches(t *testing.T) {
	for _, flush := range []bool{false, true} {
		dir := t.TempDir()
		spool, _ := open(t, dir, Options{})
		ref := mustAppend(t, spool, 1, []byte("batch"))
		if err := spool.Close(flush); err != nil {
			t.Fatal(err)
		}
		if _, err := spool.Append(header(2), []byte("late")); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("a closed spool takes a batch: %v", err)
		}
		if _, err := spool.Read(ref); err == nil || errors.Is(err, ErrDamaged) {
			t.Errorf("a closed spool is read: %v", err)
		}
		spool.Release(ref)
		spool, found := open(t, dir, Options{})
		if len(found) != 1 || found[0].header.Sequence != 1 {
			t.Errorf("flush %v: %d batches", flush, len(found))
		}
		spool.Close(false)
	}
}

// TestSegmentOfANewerVersionIsRefused: it is neither read nor renamed, so that the newer version finds it again.
func TestSegmentOfANewerVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "00000001.seg")
	text := frame.Append(frame.AppendFileHeader(nil, magic, version+1), kindHeader, []byte("?"))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir, Options{Log: discard}, func(*Header, Ref, bool) { t.Error("a batch was read") })
	if !errors.Is(err, frame.ErrNewer) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	if kept, err := os.ReadFile(path); err != nil || !bytes.Equal(kept, text) {
		t.Errorf("the segment was changed: %v", err)
	}
}

// TestSegmentThatCannotBeOpenedIsAnError: its batches are neither skipped nor deleted.
func TestSegmentThatCannotBeOpenedIsAnError(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "00000001.seg")
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, program, 0o700); err != nil {
		t.Fatal(err)
	}
	// The file of a program that runs cannot be opened for writing, by root neither.
	running := exec.Command(path, "-test.run=^TestThatSleeps$")
	running.Env = append(os.Environ(), "SPOOL_TEST_SLEEPS=1")
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		running.Process.Kill()
		running.Wait()
	}()
	_, err = Open(dir, Options{Log: discard}, func(*Header, Ref, bool) { t.Error("a batch was read") })
	if !errors.Is(err, unix.ETXTBSY) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	if left := segments(t, dir, "*"); len(left) != 1 || left[0] != path {
		t.Errorf("files %v", left)
	}
	_, err = Open(path, Options{Log: discard}, nil)
	if !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("a file instead of the folder: %v", err)
	}
}

// TestThatSleeps is the program that TestSegmentThatCannotBeOpenedIsAnError runs.
func TestThatSleeps(*testing.T) {
	if os.Getenv("SPOOL_TEST_SLEEPS") != "" {
		time.Sleep(time.Minute)
	}
}

// TestSegmentThatIsNoFileIsReported: a link is not followed and a folder is not read. They stay, and their number is
// not given to a new segment.
func TestSegmentThatIsNoFileIsReported(t *testing.T) {
	dir := t.TempDir()
	link, folder := filepath.Join(dir, "00000007.seg"), filepath.Join(dir, "00000003.seg")
	if err := errors.Join(os.Symlink("/elsewhere", link), os.Mkdir(folder, 0o700)); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	spool, found := open(t, dir, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if len(found) != 0 || strings.Count(log.String(), "not a regular file") != 2 {
		t.Errorf("%d batches, log %s", len(found), log.String())
	}
	mustAppend(t, spool, 1, []byte("one"))
	if left := segments(t, dir, "*"); len(left) != 3 || left[2] != filepath.Join(dir, "00000008.seg") {
		t.Errorf("files %v", left)
	}
}

// TestSegmentWithADamagedHeadIsRead: each frame has a checksum of its own.
func TestSegmentWithADamagedHeadIsRead(t *testing.T) {
	dir := t.TempDir()
	spool, _ := open(t, dir, Options{})
	mustAppend(t, spool, 1, []byte("one"))
	mustAppend(t, spool, 2, []byte("two"))
	spool.Close(false)
	path := filepath.Join(dir, "00000001.seg")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[0] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	again, found := open(t, dir, Options{})
	if len(found) != 2 || again.Unreadable() != frame.FileHeaderSize {
		t.Errorf("%d batches, unreadable %d", len(found), again.Unreadable())
	}
}

// TestSegmentOfOldVersionIsKept reads a segment that was written at commit 1b86dc3, before frames.
func TestSegmentOfOldVersionIsKept(t *testing.T) {
	old, err := os.ReadFile("testdata/segment.v1")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range [][]byte{old} {
		dir := t.TempDir()
		path := filepath.Join(dir, "00000001.seg")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		spool, found := open(t, dir, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		if len(found) != 0 || spool.Unreadable() != uint64(len(text)) {
			t.Errorf("%d batches, unreadable %d of %d", len(found), spool.Unreadable(), len(text))
		}
		first := fmt.Sprintf("level=WARN msg=\"part of the spool cannot be read and is kept aside\" file=%s bytes=%d err=", path, len(text))
		second := fmt.Sprintf("level=WARN msg=\"unreadable spool segment kept\" file=%s.unreadable\n", path)
		if got := log.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, first) || !strings.HasSuffix(got, second) {
			t.Errorf("logged %s, want %s, %s", got, first, second)
		}
		if kept, err := os.ReadFile(path + ".unreadable"); err != nil || !bytes.Equal(kept, text) {
			t.Errorf("not kept: %v", err)
		}
		mustAppend(t, spool, 1, []byte("new"))
		spool.Close(false)
		if _, found := open(t, dir, Options{}); len(found) != 1 {
			t.Errorf("%d batches in the new segment", len(found))
		}
	}
}

// FuzzSegment: any segment is opened without an error, and kept if a byte of it is unreadable.
func FuzzSegment(f *testing.F) {
	one := func(sequence uint64, batch string) []byte {
		file := frame.Append(nil, kindHeader, header(sequence).appendPayload(nil))
		return frame.Append(file, kindBatch, []byte(batch))
	}
	start := frame.AppendFileHeader(nil, magic, version)
	f.Add(append(append(bytes.Clone(start), one(1, "hello")...), one(2, "world")...))
	f.Add(append(bytes.Clone(start), one(1, "hello")[:60]...))
	f.Add(append(bytes.Clone(start), frame.Append(nil, kindBatch, []byte("alone"))...))
	f.Fuzz(func(t *testing.T, text []byte) {
		lineartest.Default.Check(t, len(text), func() {
			dir := t.TempDir()
			path := filepath.Join(dir, "00000001.seg")
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if errors.Is(frame.CheckFileHeader(text, magic, version), frame.ErrNewer) {
				return
			}
			spool, found := open(t, dir, Options{})
			for _, stored := range found {
				if !stored.readable {
					continue
				}
				if _, err := spool.Read(stored.ref); err != nil && !errors.Is(err, ErrDamaged) {
					t.Fatal(err)
				}
				spool.Release(stored.ref)
			}
			spool.Close(false)
			if spool.Unreadable() == 0 {
				return
			}
			if kept, err := os.ReadFile(path + ".unreadable"); err != nil || !bytes.Equal(kept, text) {
				t.Errorf("%d bytes are unreadable and not kept: %v", spool.Unreadable(), err)
			}
		})
	})
}

// TestHeaderIsReadAsItWasWritten: parseHeader is the inverse of appendPayload and rejects a part of a header.
func TestHeaderIsReadAsItWasWritten(t *testing.T) {
	for _, want := range []*Header{header(1), header(1<<64 - 1), {}, {Partition: 1<<32 - 1, Counts: []uint32{1<<32 - 1}}} {
		got, err := parseHeader(want.appendPayload(nil))
		if err != nil || fmt.Sprint(*got) != fmt.Sprint(*want) {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
		for size := range want.appendPayload(nil) {
			if _, err := parseHeader(want.appendPayload(nil)[:size]); err == nil {
				t.Errorf("%d bytes of %+v were read", size, want)
			}
		}
	}
}
