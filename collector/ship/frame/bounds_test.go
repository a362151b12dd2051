package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// headOf returns an intact head of a frame.
func headOf(kind byte, length uint32) []byte {
	head := append([]byte{0xF7, 'T', 'G', kind}, make([]byte, 12)...)
	binary.LittleEndian.PutUint32(head[4:], length)
	binary.LittleEndian.PutUint32(head[8:], 0x01020304)
	binary.LittleEndian.PutUint32(head[12:], crc32.Checksum(head[:12], crc32.MakeTable(crc32.Castagnoli)))
	return head
}

// TestHeadOfAFrameIsWholeAndOfABoundedLength.
func TestHeadOfAFrameIsWholeAndOfABoundedLength(t *testing.T) {
	check := func(what string, head []byte, want bool) {
		t.Helper()
		frame, ok := parseHead(head)
		if ok != want || ok && (frame.Kind != 'k' || frame.crc != 0x01020304) {
			t.Errorf("%s: %+v, %t", what, frame, ok)
		}
	}
	check("a frame", headOf('k', 5), true)
	check("an empty frame", headOf('k', 0), true)
	check("the longest frame", headOf('k', MaxLength), true)
	check("a longer one", headOf('k', MaxLength+1), false)
	check("a cut head", headOf('k', 5)[:HeadSize-1], false)
	check("more bytes", append(headOf('k', 5), 1, 2), true)
	for i := range HeadSize {
		damaged := headOf('k', 5)
		damaged[i] ^= 1
		check("a damaged head", damaged, false)
	}

	// What Append writes is laid out as the package says.
	written := Append([]byte("before"), 'k', []byte("abc"))
	want := append([]byte("before\xf7TGk\x03\x00\x00\x00"), make([]byte, 8)...)
	binary.LittleEndian.PutUint32(want[14:], crc32.Checksum([]byte("abc"), crc32.MakeTable(crc32.Castagnoli)))
	binary.LittleEndian.PutUint32(want[18:], crc32.Checksum(want[6:18], crc32.MakeTable(crc32.Castagnoli)))
	if want = append(want, "abc"...); !bytes.Equal(written, want) {
		t.Errorf("%x, want %x", written, want)
	}
	if got := SealedFrame(written, 6, 100); got.Offset != 100+HeadSize || got.Length != 3 || got.Kind != 'k' || !got.Complete {
		t.Errorf("%+v", got)
	}
}

// TestHeaderNamesItsVersion: a newer one is told from a foreign file and from an old one.
func TestHeaderNamesItsVersion(t *testing.T) {
	check := func(header string, want error, text string) {
		t.Helper()
		err := CheckFileHeader([]byte(header), magic, 3)
		if want != nil && !errors.Is(err, want) || (err == nil) != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v, want %v, %s", header, err, want, text)
		}
	}
	check(magic+"\x03\x00", nil, "")
	check(magic+"\x03\x00more", nil, "")
	check(magic+"\x02\x00", nil, "version 2 of the file format, this program reads version 3")
	check(magic+"\x04\x00", ErrNewer, "version 4 of the file format, this program reads version 3")
	check(magic+"\x00\x01", ErrNewer, "version 256")
	check(magic+"1\n", nil, "version 1 of the file format")
	if errors.Is(CheckFileHeader([]byte(magic+"1\n"), magic, 3), ErrNewer) {
		t.Error("the first version is a newer one")
	}
	check(magic+"\x03", ErrForeign, "not a file of this kind")
	check("TGTESX\x03\x00", ErrForeign, "not a file of this kind")
	check("", ErrForeign, "not a file of this kind")
	if got := AppendFileHeader([]byte("x"), "TGTESTmore", 0x0102); string(got) != "xTGTEST\x02\x01" {
		t.Errorf("%q", got)
	}
}

// A failingReader fails behind its content.
type failingReader struct {
	content []byte
	err     error
}

func (r failingReader) ReadAt(b []byte, at int64) (int, error) {
	n := copy(b, r.content[min(int(at), len(r.content)):])
	if n < len(b) {
		return n, r.err
	}
	return n, nil
}

// TestPayloadIsDamagedOrCannotBeRead: only the former is for good.
func TestPayloadIsDamagedOrCannotBeRead(t *testing.T) {
	written := Append(nil, 'k', []byte("abcdef"))
	found := SealedFrame(written, 0, 0)
	check := func(what string, reader io.ReaderAt, want error, damaged bool) {
		t.Helper()
		payload, err := found.Read(reader)
		if want == nil && (err != nil || string(payload) != "abcdef") || want != nil && (!errors.Is(err, want) || payload != nil) || errors.Is(err, ErrDamaged) != damaged {
			t.Errorf("%s: %q, %v", what, payload, err)
		}
	}
	check("whole", failingReader{written, io.EOF}, nil, false)
	check("cut", failingReader{written[:len(written)-1], io.EOF}, ErrDamaged, true)
	check("closed", failingReader{written[:len(written)-1], os.ErrClosed}, os.ErrClosed, false)
	changed := bytes.Clone(written)
	changed[len(changed)-1]++
	check("changed", failingReader{changed, io.EOF}, ErrDamaged, true)
}

// TestFramesAreFoundBehindDamage, also where a marker lies over the end of the buffer of the search.
func TestFramesAreFoundBehindDamage(t *testing.T) {
	for _, damaged := range []int{0, 1, 2, 3, 100, 64<<10 - 4, 64<<10 - 3, 64<<10 - 2, 64<<10 - 1, 64 << 10, 64<<10 + 1, 200_000} {
		file := append(make([]byte, damaged), Append(nil, 'k', []byte("abc"))...)
		scanner := ScanAll(bytes.NewReader(file), int64(len(file)))
		found, ok := scanner.Next()
		if !ok || found.Offset != int64(damaged)+HeadSize || found.Length != 3 || !found.Complete || scanner.Skipped() != int64(damaged) {
			t.Errorf("%d damaged bytes: %+v, %t, %d skipped", damaged, found, ok, scanner.Skipped())
		}
		if _, ok := scanner.Next(); ok || scanner.Skipped() != int64(damaged) {
			t.Errorf("%d damaged bytes: a frame behind the end, %d skipped", damaged, scanner.Skipped())
		}
	}
	file := Append(AppendFileHeader(nil, magic, 2), 'k', []byte("abc"))
	for cut := 1; cut <= 3; cut++ { // within the payload
		scanner := NewScanner(bytes.NewReader(file), int64(len(file)-cut))
		found, ok := scanner.Next()
		if !ok || found.Complete || scanner.Skipped() != int64(len(file)-cut-FileHeaderSize) {
			t.Errorf("without %d bytes: %+v, %d skipped", cut, found, scanner.Skipped())
		}
		if _, ok := scanner.Next(); ok {
			t.Error("a frame behind an incomplete one")
		}
	}
	for cut := 4; cut < 4+HeadSize; cut++ { // within the head
		scanner := NewScanner(bytes.NewReader(file), int64(len(file)-cut))
		if _, ok := scanner.Next(); ok || scanner.Skipped() != int64(len(file)-cut-FileHeaderSize) {
			t.Errorf("without %d bytes: %d skipped", cut, scanner.Skipped())
		}
	}
}

// TestCopyThatFailsLeavesNothing, and one that is made is whole.
func TestCopyThatFailsLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := copyFile(from, to); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := os.Stat(to); err == nil {
		t.Error("a copy of nothing")
	}
	if err := os.WriteFile(from, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := copyFile(from, to); err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(to); err != nil || string(content) != "content" {
		t.Errorf("%q, %v", content, err)
	}
	if err := copyFile(from, to); !errors.Is(err, os.ErrExist) {
		t.Errorf("a copy replaces a file: %v", err)
	}
	if err := copyFile(dir, filepath.Join(dir, "folder")); err == nil {
		t.Error("a folder was copied")
	}
	if _, err := os.Stat(filepath.Join(dir, "folder")); err == nil {
		t.Error("a copy that failed is left")
	}
	if isSameFile(from, to) || !isSameFile(from, from) || isSameFile(from, filepath.Join(dir, "none")) || isSameFile(filepath.Join(dir, "none"), from) {
		t.Error("names of files")
	}
	if _, err := SetAside(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file is set aside: %v", err)
	}
	for i, want := range []string{".unreadable", ".unreadable.2", ".unreadable.3"} {
		path := filepath.Join(dir, "damaged")
		if err := os.WriteFile(path, []byte{byte(i)}, 0o600); err != nil {
			t.Fatal(err)
		}
		if name, err := SetAside(path); err != nil || name != path+want {
			t.Errorf("%s, %v, want %s", name, err, path+want)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
