package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFullDiskOrQuotaIsOne; another error is that error.
func TestFullDiskOrQuotaIsOne(t *testing.T) {
	for cause, want := range map[error]bool{
		unix.ENOSPC: true, unix.EDQUOT: true, unix.EIO: false, unix.EACCES: false, error(&fs.PathError{Op: "write", Err: unix.ENOSPC}): true,
	} {
		err := diskFull(cause)
		if errors.Is(err, errDiskFull) != want || !errors.Is(err, cause) {
			t.Errorf("%v: %v", cause, err)
		}
	}
	if diskFull(nil) != nil {
		t.Error("no error is one")
	}
}

// TestJournalIsMissingOrEmpty where no process has written one.
func TestJournalIsMissingOrEmpty(t *testing.T) {
	check := func(what string, content []byte, missing bool, unreadable uint64) {
		t.Helper()
		dir := t.TempDir()
		if content != nil {
			if err := os.WriteFile(filepath.Join(dir, fileName), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		journal := open(t, dir, Options{})
		if journal.Missing() != missing || journal.Unreadable() != unreadable || journal.Bytes() != 0 || journal.Errors() != 0 {
			t.Errorf("%s: missing %t, %d bytes are unreadable, size %d", what, journal.Missing(), journal.Unreadable(), journal.Bytes())
		}
		if err := journal.Close(true); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if journal.Append(batch(1, 1, 0, 10)) == nil {
			t.Errorf("%s: a closed journal takes a batch", what)
		}
	}
	check("none", nil, true, 0)
	check("empty", []byte{}, true, 0)
	check("NULs", make([]byte, 100), true, 0)
	check("another file", []byte("something else"), false, 14)
	if _, err := Open(filepath.Join(t.TempDir(), strings.Repeat("x", 300)), Options{}); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that cannot be read: %v", err)
	}
}

// TestSizeOfTheJournalIsThatOfItsFile, and an unknown batch or file writes nothing.
func TestSizeOfTheJournalIsThatOfItsFile(t *testing.T) {
	dir := t.TempDir()
	journal := start(t, dir, Options{Sync: true})
	size := func() int64 {
		t.Helper()
		info, err := os.Stat(filepath.Join(dir, fileName))
		if err != nil {
			t.Fatal(err)
		}
		if journal.Bytes() != info.Size() {
			t.Errorf("%d bytes, the file has %d", journal.Bytes(), info.Size())
		}
		return info.Size()
	}
	grows := func(what string, want bool, write func()) {
		t.Helper()
		before := size()
		write()
		if after := size(); after > before != want {
			t.Errorf("%s: %d bytes, %d before", what, after, before)
		}
	}
	id := journal.AddFile("a")
	grows("a batch", true, func() { mustAppend(t, journal, batch(1, id, 0, 10)) })
	grows("an unknown batch", false, func() { journal.Ack(batch(9, id, 0, 10).ID) })
	grows("its acknowledgement", true, func() { journal.Ack(batch(1, id, 0, 10).ID) })
	grows("a second one", false, func() { journal.Ack(batch(1, id, 0, 10).ID) })
	grows("lines of an unknown file", false, func() { journal.Done(Range{File: id + 7, End: checkpoint(20)}) })
	grows("lines", true, func() { journal.Done(Range{File: id, After: 10, End: checkpoint(20)}) })
	grows("partitions", true, func() { journal.SetPartitions(3) })
	grows("the same partitions", false, func() { journal.SetPartitions(3) })
	grows("a file that was not written", false, func() { journal.DropFile(journal.AddFile("b")) })
	grows("an unknown file", false, func() { journal.DropFile(id + 7) })
	grows("a file", true, func() { journal.DropFile(id) })
	if state := journal.State(); len(state.Files) != 0 || len(state.Batches) != 0 || state.Partitions != 3 {
		t.Errorf("%+v", state)
	}
	if err := journal.Close(false); err != nil {
		t.Fatal(err)
	}
	if err := journal.Close(false); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	if journal.SetPartitions(4); journal.Errors() != 0 {
		t.Error("a closed journal counts what it does not write")
	}
}
