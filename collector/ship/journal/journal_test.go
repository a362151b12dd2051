package journal

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"tidegate/collector"
	"tidegate/collector/ship/frame"
	"tidegate/pipeline/lineartest"
)

var discard = slog.New(slog.DiscardHandler)

// open opens the journal in dir without starting it.
func open(t testing.TB, dir string, options Options) *Journal {
	t.Helper()
	if options.Log == nil {
		options.Log = discard
	}
	journal, err := Open(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	return journal
}

// start opens the journal in dir and starts it, so that it can be written.
func start(t testing.TB, dir string, options Options) *Journal {
	t.Helper()
	journal := open(t, dir, options)
	if err := journal.Start(); err != nil {
		t.Fatal(err)
	}
	return journal
}

// checkpoint returns a checkpoint at end whose ReadFrom is ten bytes before.
func checkpoint(end int64) collector.Checkpoint {
	return collector.Checkpoint{End: end, ReadFrom: max(0, end-10)}
}

// batch returns a batch of the lines of one file that end behind after, up to end.
func batch(sequence uint64, file FileID, after, end int64) Batch {
	return Batch{
		ID:     BatchID{Epoch: 1 << 63, Partition: 3, Sequence: sequence},
		Ranges: []Range{{File: file, After: after, End: checkpoint(end), Events: 5}},
	}
}

func mustAppend(t testing.TB, journal *Journal, appended Batch) {
	t.Helper()
	if err := journal.Append(appended); err != nil {
		t.Fatal(err)
	}
}

// TestStateSurvives: a journal that is opened again has the same state, as it was written and after
// compaction.
func TestStateSurvives(t *testing.T) {
	dir := t.TempDir()
	journal := start(t, dir, Options{})
	journal.SetPartitions(4)
	fileA, fileB := journal.AddFile("a"), journal.AddFile("b")
	journal.AddFile("never in a batch")
	mustAppend(t, journal, batch(1, fileA, 0, 100))
	mustAppend(t, journal, batch(2, fileA, 100, 200))
	mustAppend(t, journal, batch(3, fileA, 200, 300))
	mustAppend(t, journal, batch(4, fileB, 0, 50))
	journal.Ack(BatchID{1 << 63, 3, 1})
	journal.Ack(BatchID{1 << 63, 3, 3})
	journal.Ack(BatchID{1 << 63, 3, 99}) // not known
	journal.DropFile(fileB)
	journal.Close(false)

	want := State{
		Partitions: 4,
		Files: []File{{
			ID: fileA, Name: "a", Checkpoint: checkpoint(100), HasCheckpoint: true,
			Done: []Range{{File: fileA, After: 200, End: checkpoint(300), Events: 5}},
		}},
		Batches: []Batch{batch(2, fileA, 100, 200), {ID: BatchID{1 << 63, 3, 4}}},
	}
	for _, again := range []string{"as it was written", "written anew"} {
		journal = open(t, dir, Options{})
		got := journal.State()
		if len(got.Batches) == 2 && len(got.Batches[1].Ranges) == 0 {
			got.Batches[1].Ranges = nil // the file of its range was dropped
		}
		if !reflect.DeepEqual(got, want) || journal.Unreadable() != 0 {
			t.Errorf("%s:\n got %+v\nwant %+v, unreadable %d", again, got, want, journal.Unreadable())
		}
		if err := journal.Start(); err != nil {
			t.Fatal(err)
		}
		journal.Close(true)
	}
}

// TestNameThatMeansAnotherFile: of several files with the same name only the last is not marked as replaced.
func TestNameThatMeansAnotherFile(t *testing.T) {
	dir := t.TempDir()
	journal := start(t, dir, Options{})
	old := journal.AddFile("a")
	mustAppend(t, journal, batch(1, old, 0, 100))
	older := journal.AddFile("a")
	current := journal.AddFile("a")
	mustAppend(t, journal, batch(2, current, 0, 70))
	mustAppend(t, journal, batch(3, older, 0, 50)) // its lines waited for longer than those of the newer file
	journal.Close(false)
	state := open(t, dir, Options{}).State()
	for _, file := range state.Files {
		if file.Replaced != (file.ID != current) {
			t.Errorf("file %d: %+v", file.ID, file)
		}
	}
	if len(state.Files) != 3 {
		t.Errorf("%d files", len(state.Files))
	}
}

// TestShrunkBatch: Shrink replaces the range of one file in a batch, and removes it if it is empty.
func TestShrunkBatch(t *testing.T) {
	dir := t.TempDir()
	journal := start(t, dir, Options{})
	fileA, fileB := journal.AddFile("a"), journal.AddFile("b")
	both := batch(1, fileA, 0, 100)
	both.Ranges = append(both.Ranges, Range{File: fileB, After: 20, End: checkpoint(90), Events: 4})
	mustAppend(t, journal, both)
	id := both.ID
	journal.Shrink(id, Range{File: fileA, After: 0, End: checkpoint(60), Events: 3})
	journal.Shrink(id, Range{File: fileB, After: 20, End: collector.Checkpoint{End: 20, ReadFrom: 20}})
	journal.Close(false)
	want := []Batch{{ID: id, Ranges: []Range{{File: fileA, After: 0, End: checkpoint(60), Events: 3}}}}
	if got := open(t, dir, Options{}).State().Batches; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// TestLinesThatWereInNoBatch: the checkpoint passes lines that went to Kafka without the journal.
func TestLinesThatWereInNoBatch(t *testing.T) {
	dir := t.TempDir()
	journal := start(t, dir, Options{})
	id := journal.AddFile("a")
	mustAppend(t, journal, batch(1, id, 0, 100))
	journal.Ack(BatchID{1 << 63, 3, 1})
	journal.Done(Range{File: id, After: 100, End: checkpoint(180), Events: 2})
	mustAppend(t, journal, batch(2, id, 180, 200))
	journal.Ack(BatchID{1 << 63, 3, 2})
	journal.Close(false)
	if file := open(t, dir, Options{}).State().Files[0]; file.Checkpoint != checkpoint(200) || len(file.Done) > 0 {
		t.Errorf("%+v", file)
	}
}

// TestAnyOrderOfAcks: in whatever order batches are acknowledged, the journal has exactly those that were
// not. It is compacted at random.
func TestAnyOrderOfAcks(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for range 50 {
		dir := t.TempDir()
		journal := start(t, dir, Options{CompactAt: int64(200 + rng.IntN(2000))})
		fileID := journal.AddFile("a")
		unacknowledged := map[uint64]Batch{}
		end := int64(0)
		for sequence := range uint64(60) {
			next := end + 1 + rng.Int64N(100)
			unacknowledged[sequence] = batch(sequence, fileID, end, next)
			mustAppend(t, journal, batch(sequence, fileID, end, next))
			end = next
			for id := range unacknowledged {
				if rng.IntN(4) == 0 {
					journal.Ack(unacknowledged[id].ID)
					delete(unacknowledged, id)
				}
			}
		}
		journal.Close(false)
		checkOpen(t, dir, unacknowledged, end)
	}
}

// checkOpen checks that the journal has exactly the given batches, and that their ranges, the finished ones
// and the checkpoint cover the file without overlap.
func checkOpen(t *testing.T, dir string, want map[uint64]Batch, end int64) {
	t.Helper()
	state := open(t, dir, Options{}).State()
	if len(state.Batches) != len(want) {
		t.Fatalf("%d batches, want %d", len(state.Batches), len(want))
	}
	ends := map[int64]int64{0: state.Files[0].Checkpoint.End}
	for _, got := range state.Batches {
		if !reflect.DeepEqual(got, want[got.ID.Sequence]) {
			t.Fatalf("batch %+v, want %+v", got, want[got.ID.Sequence])
		}
		ends[got.Ranges[0].After] = got.Ranges[0].End.End
	}
	for _, done := range state.Files[0].Done {
		ends[done.After] = done.End.End
	}
	at := ends[0]
	for range ends {
		if next, ok := ends[at]; ok && at > 0 {
			at = next
		}
	}
	if at != end {
		t.Fatalf("covered up to %d of %d: %v", at, end, ends)
	}
}

// TestFullDisk: a batch that cannot be written is rejected; what can wait is written later.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	var full atomic.Bool
	journal := start(t, dir, Options{Wrap: func(f frame.File) frame.File { return fullDisk{f, &full} }})
	fileID := journal.AddFile("a")
	mustAppend(t, journal, batch(1, fileID, 0, 100))
	full.Store(true)
	if err := journal.Append(batch(2, fileID, 100, 200)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("append: %v", err)
	}
	journal.Ack(BatchID{1 << 63, 3, 1})
	if journal.Errors() != 2 {
		t.Errorf("%d errors", journal.Errors())
	}
	full.Store(false)
	mustAppend(t, journal, batch(3, fileID, 200, 300))
	journal.Close(false)
	journal = open(t, dir, Options{})
	if got := journal.State().Batches; len(got) != 2 || journal.Unreadable() != 0 {
		t.Errorf("%+v, unreadable %d", got, journal.Unreadable())
	}
}

// TestJournalIsCreatedWithTheFirstBatchIfTheDiskWasFull when the process began.
func TestJournalIsCreatedWithTheFirstBatchIfTheDiskWasFull(t *testing.T) {
	dir := t.TempDir()
	fill := func() {
		t.Helper()
		if err := os.Symlink("/dev/full", filepath.Join(dir, "journal.new")); err != nil {
			t.Fatal(err)
		}
	}
	fill()
	var log bytes.Buffer
	journal := start(t, dir, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	want := `level=ERROR msg="journal cannot be written: log lines wait in their files" err="write journal: the disk is full: `
	if got := log.String(); journal.Errors() != 1 || journal.Bytes() != 0 || strings.Count(got, "\n") != 1 || !strings.Contains(got, want) {
		t.Errorf("%d errors, %d bytes, logged %s, want %s", journal.Errors(), journal.Bytes(), got, want)
	}
	fileID := journal.AddFile("a")
	fill()
	if err := journal.Append(batch(1, fileID, 0, 100)); !errors.Is(err, unix.ENOSPC) || journal.Errors() != 2 {
		t.Errorf("%v, %d errors", err, journal.Errors())
	}
	mustAppend(t, journal, batch(2, fileID, 0, 100))
	if err := journal.Close(true); err != nil {
		t.Fatal(err)
	}
	if got := open(t, dir, Options{}).State(); len(got.Batches) != 1 || got.Batches[0].ID.Sequence != 2 || len(got.Files) != 1 {
		t.Errorf("%+v", got)
	}
}

// A failingSync is a file that cannot be synced.
type failingSync struct{ frame.File }

func (failingSync) Sync() error { return unix.EIO }

// TestBatchThatIsNotOnTheDiskIsAnError where each write is synced.
func TestBatchThatIsNotOnTheDiskIsAnError(t *testing.T) {
	for _, isSynced := range []bool{true, false} {
		journal := start(t, t.TempDir(), Options{Sync: isSynced, Wrap: func(f frame.File) frame.File { return failingSync{f} }})
		size := journal.Bytes()
		err := journal.Append(batch(1, journal.AddFile("a"), 0, 100))
		batches, failures := 1, uint64(0)
		if isSynced {
			batches, failures = 0, 1
		}
		if errors.Is(err, unix.EIO) != isSynced || (err == nil) == isSynced || journal.Bytes() > size == isSynced || journal.Errors() != failures || len(journal.State().Batches) != batches {
			t.Errorf("synced %t: %v, %d bytes, %d errors", isSynced, err, journal.Bytes()-size, journal.Errors())
		}
		if err := journal.Close(true); !errors.Is(err, unix.EIO) {
			t.Errorf("closed: %v", err)
		}
	}
}

// TestRecordsBeforeTheStartAreWrittenWithIt.
func TestRecordsBeforeTheStartAreWrittenWithIt(t *testing.T) {
	dir := t.TempDir()
	journal := open(t, dir, Options{})
	journal.SetPartitions(5)
	if _, err := os.Stat(filepath.Join(dir, "journal")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the journal is there: %v", err)
	}
	if err := journal.Start(); err != nil {
		t.Fatal(err)
	}
	journal.Close(false)
	if got := open(t, dir, Options{}).State().Partitions; got != 5 {
		t.Errorf("%d partitions", got)
	}
}

// TestFailedCompactionLosesNothing: while a new file cannot be written, or cannot get the name of the journal, the
// old one is continued. The next process reads everything from it.
func TestFailedCompactionLosesNothing(t *testing.T) {
	check := func(what string, prevent func(dir string) (journalDir string)) {
		t.Helper()
		dir := t.TempDir()
		journal := start(t, dir, Options{CompactAt: 1000})
		fileID := journal.AddFile("a")
		mustAppend(t, journal, batch(1, fileID, 0, 100))
		dir = prevent(dir)
		for sequence := int64(2); sequence <= 100; sequence++ {
			mustAppend(t, journal, batch(uint64(sequence), fileID, 100*(sequence-1), 100*sequence))
		}
		for sequence := range uint64(41) {
			journal.Ack(BatchID{1 << 63, 3, sequence})
		}
		// After each failure the journal may grow to twice its size.
		if count := journal.Errors(); count == 0 || count > 6 {
			t.Errorf("%s: %d errors", what, count)
		}
		if err := journal.Close(false); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		journal = open(t, dir, Options{})
		state := journal.State()
		if len(state.Batches) != 60 || state.Files[0].Checkpoint != checkpoint(4000) || journal.Unreadable() != 0 {
			t.Errorf("%s: %d batches, files %+v, unreadable %d", what, len(state.Batches), state.Files, journal.Unreadable())
		}
	}
	check("the new file cannot be created", func(dir string) string {
		if err := os.Mkdir(filepath.Join(dir, "journal.new"), 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	})
	check("the disk is full", func(dir string) string {
		if err := os.Symlink("/dev/full", filepath.Join(dir, "journal.new")); err != nil {
			t.Fatal(err)
		}
		return dir
	})
	check("the new file cannot be renamed", func(dir string) string {
		moved := t.TempDir()
		if err := os.Rename(filepath.Join(dir, "journal"), filepath.Join(moved, "journal")); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(dir, "journal"), 0o700); err != nil {
			t.Fatal(err)
		}
		return moved
	})
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

// TestUnreadableJournalIsKept: whatever is wrong with a journal, it is counted and kept, and what can be read
// is used.
func TestUnreadableJournalIsKept(t *testing.T) {
	dir := t.TempDir()
	journal := start(t, dir, Options{})
	fileID := journal.AddFile("a")
	for i := range int64(3) {
		mustAppend(t, journal, batch(uint64(i), fileID, 100*i, 100*i+100))
	}
	journal.Close(false)
	path := filepath.Join(dir, "journal")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	scanner := frame.NewScanner(bytes.NewReader(whole), int64(len(whole)))
	last := 0 // bytes of the last record
	for found, ok := scanner.Next(); ok; found, ok = scanner.Next() {
		last = frame.HeadSize + found.Length
	}

	check := func(what string, text []byte, batches, unreadable int) {
		t.Helper()
		dir := t.TempDir()
		path := filepath.Join(dir, "journal")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		journal := start(t, dir, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		journal.Close(false)
		if count := len(journal.State().Batches); count != batches || journal.Unreadable() != uint64(unreadable) {
			t.Errorf("%s: %d batches, unreadable %d, want %d", what, count, journal.Unreadable(), unreadable)
		}
		if kept, err := os.ReadFile(path + ".unreadable"); err != nil || !bytes.Equal(kept, text) {
			t.Errorf("%s: not kept: %v", what, err)
		}
		first := fmt.Sprintf("level=WARN msg=\"part of the journal cannot be read and is kept aside; log lines may be stored twice\" file=%s bytes=%d err=",
			path, unreadable)
		second := fmt.Sprintf("level=WARN msg=\"unreadable journal kept\" file=%s.unreadable\n", path)
		if got := log.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, first) || !strings.HasSuffix(got, second) {
			t.Errorf("%s: logged %s, want %s, %s", what, got, first, second)
		}
		if start(t, dir, Options{}).Unreadable() != 0 {
			t.Errorf("%s: the new journal is unreadable too", what)
		}
	}
	damaged := bytes.Clone(whole)
	damaged[len(whole)-1] ^= 1
	check("damaged record", damaged, 2, last)
	check("torn tail", whole[:len(whole)-5], 2, last-5)
	check("trailing zeros", append(bytes.Clone(whole), make([]byte, 100)...), 3, 100)
	for i := range 6 {
		head := bytes.Clone(whole)
		head[i] ^= 0x20
		check("damaged head", head, 3, frame.FileHeaderSize)
	}
	check("head of NULs", append(make([]byte, 8), whole[8:]...), 3, frame.FileHeaderSize)
	check("lost front", whole[3:], 3, frame.FileHeaderSize-3)
	check("other file", []byte("TGJRNL1\nsomething"), 0, len("TGJRNL1\nsomething"))
	unknown := frame.Append(bytes.Clone(whole), 'Z', []byte("of a later version"))
	check("unknown record", unknown, 3, len(unknown)-len(whole))
}

// TestJournalOfANewerVersionIsRefused: it is neither read nor changed, so that the newer version finds it again.
func TestJournalOfANewerVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "journal")
	text := frame.Append(frame.AppendFileHeader(nil, magic, version+1), 'Z', []byte("of a later version"))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir, Options{Log: discard})
	if err == nil || !strings.Contains(err.Error(), "newer version") || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	if kept, err := os.ReadFile(path); err != nil || !bytes.Equal(kept, text) {
		t.Errorf("the journal was changed: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("%v", entries)
	}
}

// TestJournalOfOldVersionIsKept reads a journal that was written at commit 1b86dc3, before frames.
func TestJournalOfOldVersionIsKept(t *testing.T) {
	text, err := os.ReadFile("testdata/journal.v1")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "journal")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	journal := start(t, dir, Options{})
	journal.Close(false)
	if journal.Unreadable() != uint64(len(text)) || len(journal.State().Files) != 0 {
		t.Errorf("unreadable %d of %d, files %v", journal.Unreadable(), len(text), journal.State().Files)
	}
	if kept, err := os.ReadFile(path + ".unreadable"); err != nil || !bytes.Equal(kept, text) {
		t.Errorf("not kept: %v", err)
	}
}

// TestNothingIsKeptOfAFileOfZeros: a power cut may leave a file whose content was never written.
func TestNothingIsKeptOfAFileOfZeros(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "journal"), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if journal := start(t, dir, Options{}); journal.Unreadable() != 0 {
		t.Errorf("unreadable %d", journal.Unreadable())
	}
}

// TestRecordsAreReadAsTheyWereWritten: parsePayload is the inverse of appendPayload for each kind of record.
func TestRecordsAreReadAsTheyWereWritten(t *testing.T) {
	check := func(want record) {
		t.Helper()
		var got record
		if err := got.parsePayload(want.frameKind(), want.appendPayload(nil)); err != nil {
			t.Error(err)
		}
		if len(got.ranges) == 0 {
			got.ranges = nil
		}
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
	}
	lines := Range{File: 3, After: 100, End: collector.Checkpoint{End: 300, ReadFrom: 200}, Events: 7}
	check(record{kind: recordFile, file: 3, name: "a/b"})
	check(record{kind: recordCheckpoint, ranges: []Range{lines}})
	check(record{kind: recordDone, ranges: []Range{lines}})
	check(record{kind: recordBatch, batch: BatchID{1 << 63, 7, 9}, ranges: []Range{lines, lines}})
	check(record{kind: recordAck, batch: BatchID{1 << 63, 7, 9}})
	check(record{kind: recordShrink, batch: BatchID{1, 7, 9}, ranges: []Range{lines}})
	sampled := lines
	sampled.End.Sample = collector.Sample{Start: 44, Size: 256, Hash: 1<<64 - 1}
	check(record{kind: recordCheckpoint, ranges: []Range{sampled}})
	check(record{kind: recordDone, ranges: []Range{sampled}})
	check(record{kind: recordBatch, batch: BatchID{1 << 63, 7, 9}, ranges: []Range{lines, sampled}})
	check(record{kind: recordShrink, batch: BatchID{1, 7, 9}, ranges: []Range{sampled}})
	check(record{kind: recordDrop, file: 9})
	check(record{kind: recordPartitions, partitions: 12})
}

// FuzzState: the snapshot of any state, read again, is the same state.
func FuzzState(f *testing.F) {
	ranges := []Range{{File: 1, After: 0, End: collector.Checkpoint{End: 100, ReadFrom: 50}, Events: 3}}
	ranges[0].End.Sample = collector.Sample{Start: 10, Size: 90, Hash: 7}
	text := frame.AppendFileHeader(nil, magic, version)
	for _, rec := range []record{
		{kind: recordPartitions, partitions: 4},
		{kind: recordFile, file: 1, name: "a"},
		{kind: recordCheckpoint, ranges: []Range{{File: 1, End: collector.Checkpoint{End: 10, ReadFrom: 10}}}},
		{kind: recordBatch, batch: BatchID{1, 2, 3}, ranges: ranges},
		{kind: recordShrink, batch: BatchID{1, 2, 3}, ranges: ranges},
		{kind: recordFile, file: 2, name: "a"},
		{kind: recordDone, ranges: ranges},
		{kind: recordAck, batch: BatchID{1, 2, 3}},
		{kind: recordDrop, file: 1},
	} {
		text = appendRecord(text, &rec)
		f.Add(bytes.Clone(text), byte(0))
		f.Add(rec.appendPayload(nil), rec.kind)
	}
	f.Fuzz(func(t *testing.T, text []byte, kind byte) {
		lineartest.CheckRepeated(t, lineartest.Default, text, func(text []byte) {
			if kind != 0 { // a payload with a right CRC, which bytes at random hardly ever have
				payload := text
				text = appendRecord(
					frame.AppendFileHeader(nil, magic, version),
					&record{kind: recordFile, file: 1, name: "a"},
				)
				text = frame.Append(text, kind, payload)
				text = frame.Append(text, kind, payload)
			}
			first := newState()
			if unreadable, _ := first.readRecords(text); unreadable < 0 || unreadable > int64(len(text)) {
				t.Fatalf("%d bytes of %d are unreadable", unreadable, len(text))
			}
			second := newState()
			if unreadable, err := second.readRecords(first.appendSnapshot(nil)); unreadable != 0 {
				t.Fatalf("the snapshot is unreadable: %v", err)
			}
			before, after := first.exportState(), second.exportState()
			if len(before.Files) != len(after.Files) || len(before.Batches) != len(after.Batches) {
				t.Fatalf("snapshot:\n%+v\n%+v", before, after)
			}
			for i := range before.Files {
				if oldFile, newFile := before.Files[i], after.Files[i]; oldFile.ID != newFile.ID ||
					oldFile.Checkpoint != newFile.Checkpoint ||
					len(oldFile.Done) != len(newFile.Done) ||
					oldFile.HasCheckpoint != newFile.HasCheckpoint {
					t.Fatalf("snapshot:\n%+v\n%+v", oldFile, newFile)
				}
			}
		})
	})
}
