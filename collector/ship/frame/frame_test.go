package frame

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline/lineartest"
)

const magic = "TGTEST"

// build returns a file with frames of random payloads, the payloads, and the offset of each frame.
func build(rng *rand.Rand, count int) (file []byte, payloads [][]byte, at []int) {
	file = AppendFileHeader(nil, magic, 2)
	for i := range count {
		payload := make([]byte, rng.IntN(200))
		for k := range payload {
			payload[k] = byte(rng.Uint32())
		}
		if rng.IntN(3) == 0 { // the payload ends with bytes that look like a frame
			payload = Append(payload, 'X', []byte("forged"))
		}
		payloads, at = append(payloads, payload), append(at, len(file))
		file = Append(file, byte('a'+i%26), payload)
	}
	return file, payloads, at
}

// scan returns the readable payloads of a file, and the number of bytes that belong to none.
func scan(file []byte) (payloads [][]byte, unreadable int64) {
	reader := bytes.NewReader(file)
	scanner := NewScanner(reader, int64(len(file)))
	for frame, ok := scanner.Next(); ok; frame, ok = scanner.Next() {
		if !frame.Complete {
			continue
		}
		payload, err := frame.Read(reader)
		if err != nil {
			unreadable += HeadSize + int64(frame.Length)
			continue
		}
		payloads = append(payloads, payload)
	}
	return payloads, unreadable + scanner.Skipped()
}

func TestFramesAreReadAsTheyWereWritten(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		file, want, _ := build(rng, rng.IntN(20))
		got, unreadable := scan(file)
		if unreadable != 0 || !slices.EqualFunc(got, want, bytes.Equal) {
			t.Fatalf("%d frames of %d, %d bytes unreadable", len(got), len(want), unreadable)
		}
	}
}

// TestDamageCostsOnlyTheFrameThatItHits: every undamaged frame is found, and no other.
func TestDamageCostsOnlyTheFrameThatItHits(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for range 500 {
		file, payloads, at := build(rng, 1+rng.IntN(20))
		hit := FileHeaderSize + rng.IntN(len(file)-FileHeaderSize)
		length := 1 + rng.IntN(60)
		for i := hit; i < min(hit+length, len(file)); i++ {
			file[i] ^= byte(1 + rng.IntN(255))
		}
		var want [][]byte
		for i, payload := range payloads {
			end := at[i] + HeadSize + len(payload)
			if end <= hit || at[i] >= hit+length {
				want = append(want, payload)
			}
		}
		got, unreadable := scan(file)
		got = slices.DeleteFunc(got, func(b []byte) bool { return string(b) == "forged" })
		if unreadable == 0 || !slices.EqualFunc(got, want, bytes.Equal) {
			t.Fatalf("damage at %d to %d: %d frames, want %d, %d bytes unreadable", hit, hit+length, len(got),
				len(want), unreadable)
		}
	}
}

// TestDamagedPayloadHidesWhatItHolds: bytes within a payload are never taken for frames while the head is
// intact.
func TestDamagedPayloadHidesWhatItHolds(t *testing.T) {
	payload := Append([]byte("text "), 'X', []byte("forged"))
	file := Append(AppendFileHeader(nil, magic, 2), 'a', payload)
	file = Append(file, 'b', []byte("next"))
	file[FileHeaderSize+HeadSize] ^= 1
	if got, _ := scan(file); len(got) != 1 || string(got[0]) != "next" {
		t.Errorf("%q", got)
	}
}

// TestTornTail: whatever part of the last frame a killed writer has written, the frames before it are read.
func TestTornTail(t *testing.T) {
	file, payloads, at := build(rand.New(rand.NewPCG(3, 3)), 5)
	for end := at[4] + 1; end < len(file); end++ {
		got, unreadable := scan(file[:end])
		if !slices.EqualFunc(got, payloads[:4], bytes.Equal) || unreadable != int64(end-at[4]) {
			t.Fatalf("cut at %d: %d frames, %d bytes unreadable", end, len(got), unreadable)
		}
	}
}

func TestWrittenFrameIsRead(t *testing.T) {
	buf := Append([]byte("before"), 'k', []byte("payload"))
	frame := SealedFrame(buf, len("before"), int64(len("before")))
	got, err := frame.Read(bytes.NewReader(buf))
	if err != nil || string(got) != "payload" || frame.Kind != 'k' || !frame.Complete {
		t.Errorf("%q, %v, %+v", got, err, frame)
	}
	if _, err := frame.Read(bytes.NewReader(buf[:len(buf)-1])); !errors.Is(err, ErrDamaged) {
		t.Errorf("a file that is too short: %v", err)
	}
}

func TestFileHeader(t *testing.T) {
	header := AppendFileHeader(nil, magic, 2)
	if err := CheckFileHeader(header, magic, 2); err != nil {
		t.Error(err)
	}
	for _, err := range []error{
		CheckFileHeader(header, magic, 3), CheckFileHeader(header, "TGOTHR", 2), CheckFileHeader(header[:7], magic, 2),
		CheckFileHeader(nil, magic, 2),
	} {
		if err == nil {
			t.Error("a wrong header was accepted")
		}
	}
}

// TestSetAsideNeverReplaces: each file that is set aside has a name of its own.
func TestSetAsideNeverReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	for run := 1; run <= 3; run++ {
		if err := os.WriteFile(path, []byte(fmt.Sprint(run)), 0o600); err != nil {
			t.Fatal(err)
		}
		name, err := SetAside(path)
		if err != nil {
			t.Fatal(err)
		}
		os.Remove(path)
		text, err := os.ReadFile(name)
		if err != nil || string(text) != fmt.Sprint(run) || !strings.Contains(name, ".unreadable") {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}

// TestSetAsideTwiceIsOneFile: a file that was set aside and could not be replaced, as on a full disk, is not
// set aside under another name at the next start.
func TestSetAsideTwiceIsOneFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	for _, text := range []string{"older", "newer"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		first, err := SetAside(path)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if name, err := SetAside(path); err != nil || name != first {
				t.Errorf("%s, %v; want %s", name, err, first)
			}
		}
		os.Remove(path)
	}
	if names, _ := filepath.Glob(path + "*"); len(names) != 2 {
		t.Errorf("%q", names)
	}
}

// FuzzScanner: the frames of any file do not overlap, and every byte is in a frame or counted as skipped.
func FuzzScanner(f *testing.F) {
	file, _, at := build(rand.New(rand.NewPCG(4, 4)), 6)
	f.Add(file)
	f.Add(file[:len(file)-3])
	f.Add(append(slices.Clone(file[:at[2]]), file[at[2]+5:]...))
	f.Add(bytes.Repeat(marker, 50))
	f.Fuzz(func(t *testing.T, file []byte) {
		lineartest.CheckRepeated(t, lineartest.Default, file, func(file []byte) {
			reader := bytes.NewReader(file)
			scanner := NewScanner(reader, int64(len(file)))
			end, inFrames := int64(FileHeaderSize), int64(0)
			for frame, ok := scanner.Next(); ok; frame, ok = scanner.Next() {
				if frame.Offset-HeadSize < end {
					t.Fatalf("a frame at %d overlaps the one that ends at %d", frame.Offset, end)
				}
				if _, err := frame.Read(reader); !frame.Complete && err == nil {
					t.Fatal("an incomplete frame was read")
				}
				end = frame.Offset + int64(frame.Length)
				if frame.Complete {
					inFrames += HeadSize + int64(frame.Length)
				}
			}
			if total := int64(len(file)) - FileHeaderSize; total > 0 && inFrames+scanner.Skipped() != total {
				t.Errorf("%d bytes in frames and %d skipped of %d", inFrames, scanner.Skipped(), total)
			}
		})
	})
}
