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
)

var discard = slog.New(slog.DiscardHandler)

func open(t testing.TB, dir string, options Options) *Journal {
	t.Helper()
	if options.Log == nil {
		options.Log = discard
	}
	j, err := Open(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func start(t testing.TB, dir string, options Options) *Journal {
	t.Helper()
	j := open(t, dir, options)
	if err := j.Start(); err != nil {
		t.Fatal(err)
	}
	return j
}

func checkpoint(end int64) collector.Checkpoint {
	return collector.Checkpoint{End: end, ReadFrom: max(0, end-10)}
}

// batch makes a batch of the lines of one file that end behind after, up to end.
func batch(sequence uint64, file FileID, after, end int64) Batch {
	return Batch{
		ID:     BatchID{Epoch: 1 << 63, Partition: 3, Sequence: sequence},
		Ranges: []Range{{File: file, After: after, End: checkpoint(end), Events: 5}},
	}
}

func mustAppend(t testing.TB, j *Journal, b Batch) {
	t.Helper()
	if err := j.Append(b); err != nil {
		t.Fatal(err)
	}
}

func TestStateSurvives(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Options{})
	j.SetPartitions(4)
	a, b := j.AddFile("a"), j.AddFile("b")
	j.AddFile("never in a batch")
	mustAppend(t, j, batch(1, a, 0, 100))
	mustAppend(t, j, batch(2, a, 100, 200))
	mustAppend(t, j, batch(3, a, 200, 300))
	mustAppend(t, j, batch(4, b, 0, 50))
	j.Ack(BatchID{1 << 63, 3, 1})
	j.Ack(BatchID{1 << 63, 3, 3})
	j.Ack(BatchID{1 << 63, 3, 99}) // not known
	j.DropFile(b)
	j.Close(false)

	want := State{
		Partitions: 4,
		Files: []File{{
			ID: a, Name: "a", Checkpoint: checkpoint(100), HasCheckpoint: true,
			Done: []Range{{File: a, After: 200, End: checkpoint(300), Events: 5}},
		}},
		Batches: []Batch{batch(2, a, 100, 200), {ID: BatchID{1 << 63, 3, 4}}},
	}
	for _, again := range []string{"as it was written", "written anew"} {
		j = open(t, dir, Options{})
		got := j.State()
		if len(got.Batches) == 2 && len(got.Batches[1].Ranges) == 0 {
			got.Batches[1].Ranges = nil // nobody knows of which file they were
		}
		if !reflect.DeepEqual(got, want) || j.Unreadable() != 0 {
			t.Errorf("%s:\n got %+v\nwant %+v, unreadable %d", again, got, want, j.Unreadable())
		}
		if err := j.Start(); err != nil {
			t.Fatal(err)
		}
		j.Close(true)
	}
}

func TestNameThatMeansAnotherFile(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Options{})
	old := j.AddFile("a")
	mustAppend(t, j, batch(1, old, 0, 100))
	older := j.AddFile("a")
	current := j.AddFile("a")
	mustAppend(t, j, batch(2, current, 0, 70))
	mustAppend(t, j, batch(3, older, 0, 50)) // its lines waited for longer than those of the newer file
	j.Close(false)
	state := open(t, dir, Options{}).State()
	for _, f := range state.Files {
		if f.Replaced != (f.ID != current) {
			t.Errorf("file %d: %+v", f.ID, f)
		}
	}
	if len(state.Files) != 3 {
		t.Errorf("%d files", len(state.Files))
	}
}

func TestShrunkBatch(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Options{})
	a, b := j.AddFile("a"), j.AddFile("b")
	both := batch(1, a, 0, 100)
	both.Ranges = append(both.Ranges, Range{File: b, After: 20, End: checkpoint(90), Events: 4})
	mustAppend(t, j, both)
	id := both.ID
	j.Shrink(id, Range{File: a, After: 0, End: checkpoint(60), Events: 3})
	j.Shrink(id, Range{File: b, After: 20, End: collector.Checkpoint{End: 20, ReadFrom: 20}})
	j.Close(false)
	want := []Batch{{ID: id, Ranges: []Range{{File: a, After: 0, End: checkpoint(60), Events: 3}}}}
	if got := open(t, dir, Options{}).State().Batches; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// TestLinesThatWereInNoBatch: the checkpoint passes lines that went to Kafka without the journal.
func TestLinesThatWereInNoBatch(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Options{})
	a := j.AddFile("a")
	mustAppend(t, j, batch(1, a, 0, 100))
	j.Ack(BatchID{1 << 63, 3, 1})
	j.Done(Range{File: a, After: 100, End: checkpoint(180), Events: 2})
	mustAppend(t, j, batch(2, a, 180, 200))
	j.Ack(BatchID{1 << 63, 3, 2})
	j.Close(false)
	if f := open(t, dir, Options{}).State().Files[0]; f.Checkpoint != checkpoint(200) || len(f.Done) > 0 {
		t.Errorf("%+v", f)
	}
}

// TestAnyOrderOfAcks: whatever the order in which batches become safe, the journal knows exactly what is not,
// and the journal as it was written and the one that is written anew say the same.
func TestAnyOrderOfAcks(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for range 50 {
		dir := t.TempDir()
		j := start(t, dir, Options{CompactAt: int64(200 + r.IntN(2000))})
		a := j.AddFile("a")
		open := map[uint64]Batch{}
		end := int64(0)
		for sequence := range uint64(60) {
			next := end + 1 + r.Int64N(100)
			open[sequence] = batch(sequence, a, end, next)
			mustAppend(t, j, batch(sequence, a, end, next))
			end = next
			for id := range open {
				if r.IntN(4) == 0 {
					j.Ack(open[id].ID)
					delete(open, id)
				}
			}
		}
		j.Close(false)
		checkOpen(t, dir, open, end)
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
	for _, b := range state.Batches {
		if !reflect.DeepEqual(b, want[b.ID.Sequence]) {
			t.Fatalf("batch %+v, want %+v", b, want[b.ID.Sequence])
		}
		ends[b.Ranges[0].After] = b.Ranges[0].End.End
	}
	for _, done := range state.Files[0].Done {
		ends[done.After] = done.End.End
	}
	at := ends[0]
	for n := range ends {
		_ = n
		if next, ok := ends[at]; ok && at > 0 {
			at = next
		}
	}
	if at != end {
		t.Fatalf("covered up to %d of %d: %v", at, end, ends)
	}
}

// TestFullDisk: a batch that cannot be written is refused; what can wait is written later.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	var full atomic.Bool
	j := start(t, dir, Options{Wrap: func(f frame.File) frame.File { return fullDisk{f, &full} }})
	a := j.AddFile("a")
	mustAppend(t, j, batch(1, a, 0, 100))
	full.Store(true)
	if err := j.Append(batch(2, a, 100, 200)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("append: %v", err)
	}
	j.Ack(BatchID{1 << 63, 3, 1})
	if j.Errors() != 2 {
		t.Errorf("%d errors", j.Errors())
	}
	full.Store(false)
	mustAppend(t, j, batch(3, a, 200, 300))
	j.Close(false)
	j = open(t, dir, Options{})
	if got := j.State().Batches; len(got) != 2 || j.Unreadable() != 0 {
		t.Errorf("%+v, unreadable %d", got, j.Unreadable())
	}
}

type fullDisk struct {
	frame.File
	full *atomic.Bool
}

func (f fullDisk) WriteAt(b []byte, at int64) (int, error) {
	if !f.full.Load() {
		return f.File.WriteAt(b, at)
	}
	n, _ := f.File.WriteAt(b[:len(b)/2], at)
	return n, unix.ENOSPC
}

// TestUnreadableJournalIsKept: whatever is wrong with a journal, it is counted and kept, and what can be read
// is used.
func TestUnreadableJournalIsKept(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Options{})
	a := j.AddFile("a")
	for i := range int64(3) {
		mustAppend(t, j, batch(uint64(i), a, 100*i, 100*i+100))
	}
	j.Close(false)
	path := filepath.Join(dir, "journal")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	check := func(what string, text []byte, batches int) {
		t.Helper()
		dir := t.TempDir()
		path := filepath.Join(dir, "journal")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		j := start(t, dir, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		j.Close(false)
		if n := len(j.State().Batches); n != batches || j.Unreadable() == 0 {
			t.Errorf("%s: %d batches, unreadable %d", what, n, j.Unreadable())
		}
		if kept, err := os.ReadFile(path + ".unreadable"); err != nil || !bytes.Equal(kept, text) {
			t.Errorf("%s: not kept: %v", what, err)
		}
		if n := strings.Count(log.String(), "cannot be read"); n != 1 {
			t.Errorf("%s: logged %d times", what, n)
		}
		if start(t, dir, Options{}).Unreadable() != 0 {
			t.Errorf("%s: the new journal is unreadable too", what)
		}
	}
	damaged := bytes.Clone(whole)
	damaged[len(whole)-1] ^= 1
	check("damaged record", damaged, 2)
	check("torn tail", whole[:len(whole)-5], 2)
	check("trailing zeros", append(bytes.Clone(whole), make([]byte, 100)...), 3)
	later := bytes.Clone(whole)
	later[6]++
	check("later version", later, 0)
	check("other file", []byte("TGJRNL1\nsomething"), 0)
	unknown := frame.Append(bytes.Clone(whole), 'Z', []byte("of a later version"))
	check("unknown record", unknown, 3)
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
	j := start(t, dir, Options{})
	j.Close(false)
	if j.Unreadable() != uint64(len(text)) || len(j.State().Files) != 0 {
		t.Errorf("unreadable %d of %d, files %v", j.Unreadable(), len(text), j.State().Files)
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
	if j := start(t, dir, Options{}); j.Unreadable() != 0 {
		t.Errorf("unreadable %d", j.Unreadable())
	}
}

func TestRecordsAreReadAsTheyWereWritten(t *testing.T) {
	check := func(want record) {
		t.Helper()
		var got record
		if err := got.parsePayload(want.kind, want.appendPayload(nil)); err != nil {
			t.Error(err)
		}
		if len(got.ranges) == 0 {
			got.ranges = nil
		}
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
	}
	r := Range{File: 3, After: 100, End: collector.Checkpoint{End: 300, ReadFrom: 200}, Events: 7}
	check(record{kind: recordFile, file: 3, name: "a/b"})
	check(record{kind: recordCheckpoint, ranges: []Range{r}})
	check(record{kind: recordDone, ranges: []Range{r}})
	check(record{kind: recordBatch, batch: BatchID{1 << 63, 7, 9}, ranges: []Range{r, r}})
	check(record{kind: recordAck, batch: BatchID{1 << 63, 7, 9}})
	check(record{kind: recordShrink, batch: BatchID{1, 7, 9}, ranges: []Range{r}})
	check(record{kind: recordDrop, file: 9})
	check(record{kind: recordPartitions, partitions: 12})
}

// FuzzState: whatever the records are, what is written anew says the same.
func FuzzState(f *testing.F) {
	ranges := []Range{{File: 1, After: 0, End: collector.Checkpoint{End: 100, ReadFrom: 50}, Events: 3}}
	text := frame.AppendFileHeader(nil, magic, version)
	for _, r := range []record{
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
		text = appendRecord(text, &r)
		f.Add(bytes.Clone(text), byte(0))
		f.Add(r.appendPayload(nil), r.kind)
	}
	f.Fuzz(func(t *testing.T, text []byte, kind byte) {
		if kind != 0 { // a payload with a right CRC, which bytes at random hardly ever have
			payload := text
			text = appendRecord(frame.AppendFileHeader(nil, magic, version), &record{kind: recordFile, file: 1, name: "a"})
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
		a, b := first.exportState(), second.exportState()
		if len(a.Files) != len(b.Files) || len(a.Batches) != len(b.Batches) {
			t.Fatalf("snapshot:\n%+v\n%+v", a, b)
		}
		for i := range a.Files {
			if x, y := a.Files[i], b.Files[i]; x.ID != y.ID || x.Checkpoint != y.Checkpoint || len(x.Done) != len(y.Done) || x.HasCheckpoint != y.HasCheckpoint {
				t.Fatalf("snapshot:\n%+v\n%+v", x, y)
			}
		}
	})
}
