package spool

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

	"tidegate/collector/ship/frame"
)

var discard = slog.New(slog.DiscardHandler)

// A stored is a batch that Open found.
type stored struct {
	header   Header
	ref      Ref
	readable bool
}

func open(t testing.TB, dir string, options Options) (*Spool, []stored) {
	t.Helper()
	if options.Log == nil {
		options.Log = discard
	}
	if options.Limit == 0 {
		options.Limit = 64 << 20
	}
	var found []stored
	s, err := Open(dir, options, func(h *Header, ref Ref, readable bool) { found = append(found, stored{*h, ref, readable}) })
	if err != nil {
		t.Fatal(err)
	}
	return s, found
}

func header(sequence uint64) *Header {
	return &Header{Epoch: 1 << 63, Partition: 7, Sequence: sequence, Packets: sequence%2 == 0, Counts: []uint32{0, 3, uint32(sequence)}}
}

func mustAppend(t testing.TB, s *Spool, sequence uint64, batch []byte) Ref {
	t.Helper()
	ref, err := s.Append(header(sequence), batch)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func segments(t testing.TB, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestBatchesSurvive(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 1))
	s, _ := open(t, dir, Options{})
	var batches [][]byte
	for i := range uint64(60) { // more than a segment
		batch := bytes.Repeat([]byte{byte(i)}, 1+r.IntN(600<<10))
		ref := mustAppend(t, s, i, batch)
		batches = append(batches, batch)
		if got, err := s.Read(ref); err != nil || !bytes.Equal(got, batch) {
			t.Fatalf("batch %d: %v", i, err)
		}
	}
	s.Close(false)
	if n := len(segments(t, dir, "*.seg")); n < 2 {
		t.Errorf("%d segments", n)
	}

	s, found := open(t, dir, Options{})
	if len(found) != len(batches) || s.Unreadable() != 0 {
		t.Fatalf("%d batches, unreadable %d", len(found), s.Unreadable())
	}
	for i, f := range found {
		got, err := s.Read(f.ref)
		if err != nil || !bytes.Equal(got, batches[i]) || !reflect.DeepEqual(f.header, *header(uint64(i))) || !f.readable {
			t.Fatalf("batch %d: %+v, %v", i, f.header, err)
		}
		s.Release(f.ref)
	}
	if n := s.Bytes(); n != 0 || len(segments(t, dir, "*")) != 0 {
		t.Errorf("%d bytes, files %v", n, segments(t, dir, "*"))
	}
	s.Close(false)
}

func TestFullSpoolRefuses(t *testing.T) {
	s, _ := open(t, t.TempDir(), Options{Limit: 1000})
	ref := mustAppend(t, s, 1, make([]byte, 600))
	if _, err := s.Append(header(2), make([]byte, 600)); !errors.Is(err, ErrFull) || s.Condition() != Full || s.Errors() != 0 {
		t.Errorf("%v, condition %d, errors %d", err, s.Condition(), s.Errors())
	}
	s.Release(ref)
	mustAppend(t, s, 3, make([]byte, 600))
	if s.Condition() != Accepting {
		t.Errorf("condition %d", s.Condition())
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

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	var full atomic.Bool
	s, _ := open(t, dir, Options{Wrap: func(f frame.File) frame.File { return fullDisk{f, &full} }})
	full.Store(true) // also for the header of the first segment
	if _, err := s.Append(header(1), []byte("one")); !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
	full.Store(false)
	mustAppend(t, s, 2, []byte("two"))
	full.Store(true)
	if _, err := s.Append(header(3), []byte("three")); !errors.Is(err, unix.ENOSPC) || s.Condition() != Failing || s.Errors() != 2 {
		t.Errorf("%v, condition %d, errors %d", err, s.Condition(), s.Errors())
	}
	full.Store(false)
	mustAppend(t, s, 4, []byte("four"))
	s.Close(false)
	s, found := open(t, dir, Options{})
	if len(found) != 2 || found[1].header.Sequence != 4 || s.Unreadable() != 0 {
		t.Errorf("%+v, unreadable %d", found, s.Unreadable())
	}
}

// TestDamageIsKept: whatever is damaged, the other batches are used, the headers say what was lost, and the
// segment is kept when its batches have been released.
func TestDamageIsKept(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 100 {
		dir := t.TempDir()
		s, _ := open(t, dir, Options{})
		for i := range uint64(10) {
			mustAppend(t, s, i, bytes.Repeat([]byte{byte(i)}, 50+r.IntN(100)))
		}
		s.Close(false)
		path := segments(t, dir, "*.seg")[0]
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := frame.FileHeaderSize + r.IntN(len(text)-frame.FileHeaderSize)
		text[at] ^= byte(1 + r.IntN(255))
		if r.IntN(2) == 0 {
			text = text[:len(text)-1-r.IntN(40)]
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}

		s, found := open(t, dir, Options{})
		intact := 0
		for _, f := range found {
			if !f.readable {
				continue
			}
			if batch, err := s.Read(f.ref); err == nil {
				intact++
				if len(batch) == 0 || batch[0] != byte(f.header.Sequence) {
					t.Fatalf("batch %d holds %x", f.header.Sequence, batch)
				}
			} else if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			s.Release(f.ref)
		}
		if intact < 8 || len(found) < 8 || s.Unreadable() == 0 {
			t.Errorf("damage at %d: %d batches, %d intact, %d bytes unreadable", at, len(found), intact, s.Unreadable())
		}
		if kept, err := os.ReadFile(path + ".unreadable"); err != nil || !bytes.Equal(kept, text) {
			t.Fatalf("not kept: %v, %v", err, segments(t, dir, "*"))
		}
		if s.Bytes() != 0 || len(segments(t, dir, "*")) != 1 {
			t.Errorf("%d bytes, files %v", s.Bytes(), segments(t, dir, "*"))
		}
		s.Close(false)
	}
}

// TestOtherNumberOfDatasets: a spool of a version with more or fewer datasets is read.
func TestOtherNumberOfDatasets(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir, Options{})
	for _, n := range []int{0, 1, 10, 11, 200} {
		h := header(uint64(n))
		h.Counts = make([]uint32, n)
		for i := range h.Counts {
			h.Counts[i] = uint32(i * i)
		}
		if _, err := s.Append(h, []byte("batch")); err != nil {
			t.Fatal(err)
		}
	}
	s.Close(false)
	_, found := open(t, dir, Options{})
	for i, n := range []int{0, 1, 10, 11, 200} {
		if counts := found[i].header.Counts; len(counts) != n || n > 0 && counts[n-1] != uint32((n-1)*(n-1)) {
			t.Errorf("%d counts: %v", n, counts)
		}
	}
}

// TestSegmentOfOldVersionIsKept reads a segment that was written at commit 1b86dc3, before frames, and one of
// a later version.
func TestSegmentOfOldVersionIsKept(t *testing.T) {
	old, err := os.ReadFile("testdata/segment.v1")
	if err != nil {
		t.Fatal(err)
	}
	later := frame.Append(frame.AppendFileHeader(nil, magic, version+1), kindHeader, []byte("?"))
	for _, text := range [][]byte{old, later} {
		dir := t.TempDir()
		path := filepath.Join(dir, "00000001.seg")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		s, found := open(t, dir, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		if len(found) != 0 || s.Unreadable() != uint64(len(text)) {
			t.Errorf("%d batches, unreadable %d of %d", len(found), s.Unreadable(), len(text))
		}
		if n := strings.Count(log.String(), "cannot be read"); n != 1 {
			t.Errorf("logged %d times: %s", n, log.String())
		}
		if kept, err := os.ReadFile(path + ".unreadable"); err != nil || !bytes.Equal(kept, text) {
			t.Errorf("not kept: %v", err)
		}
		mustAppend(t, s, 1, []byte("new"))
		s.Close(false)
		if _, found := open(t, dir, Options{}); len(found) != 1 {
			t.Errorf("%d batches in the new segment", len(found))
		}
	}
}

func FuzzSegment(f *testing.F) {
	one := func(sequence uint64, batch string) []byte {
		b := frame.Append(nil, kindHeader, header(sequence).appendPayload(nil))
		return frame.Append(b, kindBatch, []byte(batch))
	}
	start := frame.AppendFileHeader(nil, magic, version)
	f.Add(append(append(bytes.Clone(start), one(1, "hello")...), one(2, "world")...))
	f.Add(append(bytes.Clone(start), one(1, "hello")[:60]...))
	f.Add(append(bytes.Clone(start), frame.Append(nil, kindBatch, []byte("alone"))...))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, "00000001.seg")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		s, found := open(t, dir, Options{})
		for _, b := range found {
			if !b.readable {
				continue
			}
			if _, err := s.Read(b.ref); err != nil && !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			s.Release(b.ref)
		}
		s.Close(false)
		if s.Unreadable() == 0 {
			return
		}
		if kept, err := os.ReadFile(path + ".unreadable"); err != nil || !bytes.Equal(kept, text) {
			t.Errorf("%d bytes are unreadable and not kept: %v", s.Unreadable(), err)
		}
	})
}

func TestHeaderIsReadAsItWasWritten(t *testing.T) {
	for _, h := range []*Header{header(1), header(1<<64 - 1), {}, {Partition: 1<<32 - 1, Counts: []uint32{1<<32 - 1}}} {
		got, err := parseHeader(h.appendPayload(nil))
		if err != nil || fmt.Sprint(*got) != fmt.Sprint(*h) {
			t.Errorf("%+v, %v, want %+v", got, err, h)
		}
		for n := range h.appendPayload(nil) {
			if _, err := parseHeader(h.appendPayload(nil)[:n]); err == nil {
				t.Errorf("%d bytes of %+v were read", n, h)
			}
		}
	}
}
