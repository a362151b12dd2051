package journal

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNewestFileHasItsName, in whatever order the files are recorded; its number is given to no other one.
func TestNewestFileHasItsName(t *testing.T) {
	s := newState()
	first := s.nextFile
	s.addFile(0, "zero")
	s.addFile(maxFileID, "most")
	if len(s.files) != 0 || s.nextFile != first {
		t.Errorf("%d files, next %d", len(s.files), s.nextFile)
	}
	s.addFile(7, "a")
	s.addFile(7, "again")
	if len(s.files) != 1 || s.files[7].name != "a" || !s.files[7].recorded || s.nextFile != 8 {
		t.Errorf("%+v, next %d", s.files[7], s.nextFile)
	}
	s.addFile(9, "a")
	s.addFile(3, "a")
	if !s.files[7].replaced || s.files[9].replaced || !s.files[3].replaced || s.names["a"] != 9 || s.nextFile != 10 {
		t.Errorf("7 %+v, 9 %+v, 3 %+v", s.files[7], s.files[9], s.files[3])
	}
	s.claimName(9, "a")
	if s.files[9].replaced {
		t.Error("a file has replaced itself")
	}
	s.reserveNumber(maxFileID)
	s.reserveNumber(2)
	if s.reserveNumber(20); s.nextFile != 21 {
		t.Errorf("the next number is %d", s.nextFile)
	}
	s.dropFile(3)
	if s.names["a"] != 9 {
		t.Error("the name of another file was dropped")
	}
	s.dropFile(9)
	s.dropFile(9)
	if _, taken := s.names["a"]; taken || len(s.files) != 1 {
		t.Errorf("%d files, names %v", len(s.files), s.names)
	}
}

// TestCheckpointMovesOverFinishedRanges that touch it; others wait, joined with their neighbours.
func TestCheckpointMovesOverFinishedRanges(t *testing.T) {
	s := newState()
	s.addFile(1, "a")
	check := func(after, end, wantCheckpoint int64, want ...[2]int64) {
		t.Helper()
		s.finishRange(Range{File: 1, After: after, End: checkpoint(end), Events: 1})
		file := s.files[1]
		var got [][2]int64
		for _, lines := range file.done {
			got = append(got, [2]int64{lines.After, lines.End.End})
		}
		if file.checkpoint.End != wantCheckpoint || !slices.Equal(got, want) || !file.hasCheckpoint {
			t.Errorf("%d to %d: checkpoint %d, %v, want %d, %v", after, end, file.checkpoint.End, got, wantCheckpoint, want)
		}
	}
	check(20, 30, 0, [2]int64{20, 30})
	check(50, 60, 0, [2]int64{20, 30}, [2]int64{50, 60})
	check(30, 40, 0, [2]int64{20, 40}, [2]int64{50, 60})
	check(22, 35, 0, [2]int64{20, 40}, [2]int64{50, 60})
	check(1, 5, 0, [2]int64{1, 5}, [2]int64{20, 40}, [2]int64{50, 60})
	check(0, 10, 10, [2]int64{20, 40}, [2]int64{50, 60})
	check(0, 3, 10, [2]int64{20, 40}, [2]int64{50, 60})
	check(10, 20, 40, [2]int64{50, 60})
	check(40, 49, 49, [2]int64{50, 60})
	check(49, 50, 60)
	if s.finishRange(Range{File: 9, After: 0, End: checkpoint(5)}); s.files[9] != nil {
		t.Error("lines of an unknown file make one")
	}
	if f := (&fileState{done: []Range{{After: 5, End: checkpoint(9), Events: 2}, {After: 9, End: checkpoint(12), Events: 3}}}); true {
		if f.advanceCheckpoint(); len(f.done) != 1 || f.done[0].Events != 5 {
			t.Errorf("joined %+v", f.done)
		}
	}
}

// TestRangeOfABatchIsShrunkByItsStart.
func TestRangeOfABatchIsShrunkByItsStart(t *testing.T) {
	s := newState()
	s.addFile(1, "a")
	s.addFile(2, "b")
	id := BatchID{Sequence: 4}
	s.addBatch(id, []Range{{File: 1, After: 0, End: checkpoint(10), Events: 5}, {File: 2, After: 0, End: checkpoint(10), Events: 5}, {File: 1, After: 10, End: checkpoint(20), Events: 5}})
	if !s.files[1].hasCheckpoint || !s.files[2].hasCheckpoint {
		t.Error("a file with lines in a batch is new")
	}
	events := func() (list []uint32) {
		for _, lines := range s.batches[id] {
			list = append(list, uint32(lines.Events))
		}
		return list
	}
	s.shrinkRange(id, Range{File: 1, After: 10, End: checkpoint(15), Events: 2})
	if got := fmt.Sprint(events()); got != "[5 5 2]" {
		t.Errorf("events %s", got)
	}
	s.shrinkRange(id, Range{File: 1, After: 5, Events: 0})
	s.shrinkRange(BatchID{Sequence: 5}, Range{File: 1, After: 10, Events: 0})
	if got := fmt.Sprint(events()); got != "[5 5 2]" {
		t.Errorf("another range was shrunk: %s", got)
	}
	if s.shrinkRange(id, Range{File: 2, After: 0}); fmt.Sprint(events()) != "[5 2]" {
		t.Errorf("events %v", events())
	}
}

// TestSnapshotHoldsTheState: what is read from it is what it was made of, in a fixed order.
func TestSnapshotHoldsTheState(t *testing.T) {
	s := newState()
	s.partitions = 3
	for id, name := range map[FileID]string{5: "b", 2: "a", 9: "a", 11: "new"} {
		s.addFile(id, name)
	}
	s.files[12] = &fileState{name: "not recorded"}
	s.finishRange(Range{File: 5, After: 0, End: checkpoint(10), Events: 1})
	s.finishRange(Range{File: 5, After: 20, End: checkpoint(30), Events: 4})
	for _, sequence := range []uint64{30, 10, 20} {
		s.addBatch(BatchID{Epoch: 1, Sequence: sequence}, []Range{{File: 9, After: int64(sequence), End: checkpoint(int64(sequence) + 5), Events: 1}, {File: 77, Events: 1}})
	}
	exported := s.exportState()
	var ids []FileID
	for _, file := range exported.Files {
		ids = append(ids, file.ID)
	}
	var sequences []uint64
	for _, batch := range exported.Batches {
		sequences = append(sequences, batch.ID.Sequence)
		if len(batch.Ranges) != 1 || batch.Ranges[0].File != 9 {
			t.Errorf("ranges %+v", batch.Ranges)
		}
	}
	if fmt.Sprint(ids, sequences) != "[2 5 9 11 12] [10 20 30]" || exported.Partitions != 3 {
		t.Errorf("files %v, batches %v", ids, sequences)
	}
	if file := exported.Files[1]; file.Name != "b" || file.Checkpoint != checkpoint(10) || !file.HasCheckpoint || len(file.Done) != 1 || file.Replaced {
		t.Errorf("%+v", file)
	}
	if !exported.Files[0].Replaced || exported.Files[2].Replaced || exported.Files[3].HasCheckpoint {
		t.Errorf("%+v", exported.Files)
	}

	read := newState()
	if unreadable, err := read.readRecords(s.appendSnapshot(nil)); unreadable != 0 || err != nil {
		t.Fatalf("%d bytes cannot be read: %v", unreadable, err)
	}
	delete(s.files, 12)
	if got, want := read.exportState(), s.exportState(); !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, want %+v", got, want)
	}
	if read.nextFile != 78 { // a file of a batch, whose name is not there, had 77
		t.Errorf("the next number is %d", read.nextFile)
	}

	// A cut record is told from a damaged one by its reason only.
	whole := s.appendSnapshot(nil)
	for cut, want := range map[int]string{1: "damaged, or not written to its end"} {
		if unreadable, err := newState().readRecords(whole[:len(whole)-cut]); unreadable == 0 || err == nil || err.Error() != want {
			t.Errorf("without %d bytes: %d, %v", cut, unreadable, err)
		}
	}
}

// TestFailedWriteIsLoggedOnceAndCounted.
func TestFailedWriteIsLoggedOnceAndCounted(t *testing.T) {
	var logged bytes.Buffer
	journal := start(t, t.TempDir(), Options{Log: slog.New(slog.NewTextHandler(&logged, nil))})
	for range 3 {
		journal.reportWriteError(errors.New("failed"))
	}
	if journal.Errors() != 3 || strings.Count(logged.String(), "journal cannot be written") != 1 || !strings.Contains(logged.String(), "level=ERROR") {
		t.Errorf("%d errors: %s", journal.Errors(), &logged)
	}
	if err := journal.Close(false); err != nil {
		t.Fatal(err)
	}
}

// openFiles returns the number of descriptors of the process.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestCompactionThatFailsLeavesNothing, and one that succeeds holds one descriptor.
func TestCompactionThatFailsLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	journal := start(t, dir, Options{})
	before := openFiles(t)
	for range 3 {
		if err := journal.compact(); err != nil {
			t.Fatal(err)
		}
	}
	if now := openFiles(t); now != before {
		t.Errorf("%d descriptors, %d before", now, before)
	}
	path := filepath.Join(dir, fileName)
	if err := errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "full"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := journal.compact(); err == nil || errors.Is(err, errDiskFull) || !strings.HasPrefix(err.Error(), "write journal: ") {
		t.Errorf("a journal that cannot be replaced: %v", err)
	}
	if now := openFiles(t); now != before {
		t.Errorf("%d descriptors, %d before", now, before)
	}
	if _, err := os.Stat(path + ".new"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("the new file is left: %v", err)
	}
	if err := journal.Close(false); err != nil {
		t.Fatal(err)
	}
}
