package capture

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"tidegate/pipeline/lineartest"
)

// write creates a file with the contents data and returns its path.
func write(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// read returns all packets of a file, and the error that ended it or nil at io.EOF.
func read(t testing.TB, path string) ([]Packet, error) {
	t.Helper()
	file, err := OpenFile(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var out []Packet
	for {
		packet, err := file.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			if _, again := file.Next(); again == nil || again.Error() != err.Error() {
				t.Errorf("the error does not stay: %v, then %v", err, again)
			}
			return out, err
		}
		packet.Data = append([]byte(nil), packet.Data...)
		out = append(out, packet)
	}
}

var stamp = time.Unix(1_700_000_000, 123_456_789)

// pcap returns a file of three packets of 10, 20 and 30 bytes, the last one truncated to 25.
func pcap(t testing.TB, nano bool) []byte {
	t.Helper()
	var buf bytes.Buffer
	writer := pcapgo.NewWriter(&buf)
	if nano {
		writer = pcapgo.NewWriterNanos(&buf)
	}
	if err := writer.WriteFileHeader(100, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{10, 20, 30} {
		captured := min(size, 25)
		info := gopacket.CaptureInfo{Timestamp: stamp, CaptureLength: captured, Length: size}
		if err := writer.WritePacket(info, bytes.Repeat([]byte{byte(size)}, captured)); err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()
}

// pcapng returns a file of the same packets, the second one of another interface and link type.
func pcapng(t testing.TB) []byte {
	t.Helper()
	var buf bytes.Buffer
	docker0 := pcapgo.NgInterface{Name: "docker0", LinkType: layers.LinkTypeEthernet, SnapLength: 4_000_000_000}
	ngWriter, err := pcapgo.NewNgWriterInterface(&buf, docker0, pcapgo.DefaultNgWriterOptions)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ngWriter.AddInterface(pcapgo.NgInterface{Name: "tun0", LinkType: layers.LinkTypeRaw}); err != nil {
		t.Fatal(err)
	}
	for i, size := range []int{10, 20, 30} {
		captured := min(size, 25)
		info := gopacket.CaptureInfo{Timestamp: stamp, CaptureLength: captured, Length: size, InterfaceIndex: i % 2}
		if err := ngWriter.WritePacket(info, bytes.Repeat([]byte{byte(size)}, captured)); err != nil {
			t.Fatal(err)
		}
	}
	if err := ngWriter.Flush(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// zipped returns data compressed with gzip.
func zipped(data []byte) []byte {
	var buf bytes.Buffer
	writer := gzip.NewWriter(&buf)
	_, _ = writer.Write(data)
	_ = writer.Close()
	return buf.Bytes()
}

// TestFormats: both formats are read, gzipped or not, whatever the name of the file.
func TestFormats(t *testing.T) {
	check := func(name string, contents []byte, nano, ng bool) {
		t.Helper()
		packets, err := read(t, write(t, "x", contents))
		if err != nil || len(packets) != 3 {
			t.Fatalf("%s: %d packets, %v", name, len(packets), err)
		}
		for i, packet := range packets {
			size := 10 * (i + 1)
			at := stamp.UnixNano()
			if !nano {
				at = at / 1000 * 1000
			}
			if packet.At != at || packet.Length != size || len(packet.Data) != min(size, 25) || packet.Data[0] != byte(size) {
				t.Errorf("%s: packet %d: %+v", name, i+1, packet)
			}
		}
		if ng && (packets[0].Iface != "docker0" || packets[1].Iface != "tun0" ||
			packets[1].Link != layers.LinkTypeRaw || packets[2].Link != layers.LinkTypeEthernet) {
			t.Errorf("%s: interfaces %+v", name, packets)
		}
	}
	check("pcap", pcap(t, false), false, false)
	check("pcap, ns", pcap(t, true), true, false)
	check("pcapng", pcapng(t), true, true)
	check("pcap, gzipped", zipped(pcap(t, false)), false, false)
	check("pcapng, gzipped", zipped(pcapng(t)), true, true)
	big := pcap(t, false)
	swap := func(from, to int) {
		for i := from; i < to; i += 4 {
			big[i], big[i+1], big[i+2], big[i+3] = big[i+3], big[i+2], big[i+1], big[i]
		}
	}
	swap(0, 4)
	big[4], big[5], big[6], big[7] = 0, 2, 0, 4
	swap(8, 24)
	for at, size := 24, 10; size <= 30; size += 10 {
		swap(at, at+16)
		at += 16 + min(size, 25)
	}
	check("pcap, the other byte order", big, false, false)
	short := pcap(t, false)
	short[16], short[17] = 5, 0 // a snapshot length that its packets exceed
	check("pcap, small snapshot length", short, false, false)
}

// TestLinkTypesBeyondEightBits: link types above 255 are not mistaken for others.
func TestLinkTypesBeyondEightBits(t *testing.T) {
	check := func(linkType uint32, want layers.LinkType) {
		t.Helper()
		contents := pcap(t, false)
		binary.LittleEndian.PutUint32(contents[20:], linkType)
		packets, err := read(t, write(t, "x", contents))
		if err != nil || packets[0].Link != want {
			t.Errorf("link type %d: %v, %v, want %v", linkType, packets, err, want)
		}
	}
	check(276, LinkSLL2)
	check(257, LinkUnknown) // whose lower bits are Ethernet's
	check(20, LinkUnknown)
	check(0x04000001, layers.LinkTypeEthernet) // bits about the frame check sequence
}

// TestBrokenFiles: the packets before the damage are read, and the error names the file and the position.
func TestBrokenFiles(t *testing.T) {
	check := func(name string, contents []byte, packets int, want ...string) {
		t.Helper()
		path := write(t, "bad.pcap", contents)
		got, err := read(t, path)
		if len(got) != packets || err == nil {
			t.Errorf("%s: %d packets, want %d; %v", name, len(got), packets, err)
			return
		}
		for _, part := range append(want, "bad.pcap") {
			if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %q does not contain %q", name, err, part)
			}
		}
	}
	classic, ng := pcap(t, false), pcapng(t)
	check("empty", nil, 0, "empty")
	check("no capture", []byte("{\"log\":\"hello\"}"), 0, "neither pcap nor pcapng")
	check("cut header", classic[:20], 0, "truncated")
	check("three bytes", classic[:3], 0, "byte 3")
	check("cut in a packet", classic[:len(classic)-3], 2, "after packet 2", "byte 86", "truncated")
	check("cut in a packet's header", classic[:24+26+5], 1, "after packet 1", "byte 50", "truncated")
	huge := bytes.Clone(classic)
	binary.LittleEndian.PutUint32(huge[24+26+8:], 0xfffffff0)
	check("huge packet", huge, 1, "after packet 1", "byte 50", "4294967280 bytes")
	gzipped := zipped(classic)
	check("cut gzip", gzipped[:len(gzipped)-4], 3, "after packet 3", "unzipped byte 127")
	check("cut pcapng", ng[:len(ng)-3], 2, "after packet 2", "truncated")
	// The last block of the file: 28 bytes of header, 25 bytes of packet, padding and the trailing length.
	at := len(ng) - 32 - 28
	hugeNg := bytes.Clone(ng)
	binary.LittleEndian.PutUint32(hugeNg[at+4:], 0xfffffff0)
	check("huge block", hugeNg, 2, "after packet 2")
	lie := bytes.Clone(ng)
	binary.LittleEndian.PutUint32(lie[at+20:], 4000)
	check("packet longer than its block", lie, 2, "after packet 2", "4000")
	iface := bytes.Clone(ng)
	binary.LittleEndian.PutUint32(iface[at+8:], 7)
	check("unknown interface", iface, 2, "interface 7")
	_, err := OpenFile(filepath.Join(t.TempDir(), "none.pcap"))
	if err == nil || !strings.Contains(err.Error(), "none.pcap") {
		t.Errorf("no file: %v", err)
	}
}

// TestSharedCaptures reads every capture of the shared data to its end.
func TestSharedCaptures(t *testing.T) {
	dir := os.Getenv("TIDEGATE_SHARED")
	if dir == "" {
		dir = "../../../shared"
	}
	files, _ := filepath.Glob(filepath.Join(dir, "data", "pcaps", "*.pcap*"))
	if len(files) == 0 {
		t.Skip("no shared data: set TIDEGATE_SHARED")
	}
	count := 0
	for _, path := range files {
		packets, err := read(t, path)
		if err != nil {
			t.Logf("%v", err)
		}
		count += len(packets)
	}
	if len(files) < 500 || count < 29_000 {
		t.Errorf("%d files with %d packets, want at least 500 with 29,000", len(files), count)
	}
	t.Logf("%d files, %d packets", len(files), count)
}

// FuzzFile: no file causes a panic, an endless read or a packet above maxPacket.
func FuzzFile(f *testing.F) {
	f.Add(pcap(f, false))
	f.Add(pcap(f, true))
	f.Add(pcapng(f))
	f.Add(zipped(pcapng(f)))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		lineartest.Default.Check(t, len(data), func() {
			path := filepath.Join(dir, "fuzz.pcap")
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			file, err := OpenFile(path)
			if err != nil {
				return
			}
			defer func() { _ = file.Close() }()
			for range len(data) + 1<<20 {
				packet, err := file.Next()
				if err != nil {
					if !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "fuzz.pcap") {
						t.Fatalf("%v does not name the file", err)
					}
					return
				}
				if len(packet.Data) > maxPacket+64<<10 || packet.Length < len(packet.Data) {
					t.Fatalf("a packet of %d bytes, %d on the wire", len(packet.Data), packet.Length)
				}
			}
			t.Fatal("it has no end")
		})
	})
}

// TestTimesOfEveryResolution: a time stamp of any resolution and offset is the time that integers of any size give.
func TestTimesOfEveryResolution(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for resolution := range 256 {
		base := int64(10)
		if resolution&0x80 != 0 {
			base = 2
		}
		units := new(big.Int).Exp(big.NewInt(base), big.NewInt(int64(resolution&0x7f)), nil)
		if units.BitLen() > 64 {
			if _, err := unitsASecond(byte(resolution)); !errors.Is(err, errMalformed) {
				t.Errorf("resolution %#x: %v", resolution, err)
			}
			continue
		}

		// One section with one interface and some packets.
		offset := random.Int64N(4e9) - 2e9
		file := pcapngBlock(0x0a0d0d0a, 0x1a2b3c4d, 1, math.MaxUint32, math.MaxUint32)
		file = append(file, pcapngBlock(1, 1, 1000, optionResolution|1<<16, uint32(resolution),
			optionOffset|8<<16, uint32(offset), uint32(offset>>32), 0)...)
		var stamps []uint64
		for range 20 {
			stamp := random.Uint64() >> random.IntN(64)
			stamps = append(stamps, stamp)
			file = append(file, pcapngBlock(6, 0, uint32(stamp>>32), uint32(stamp), 4, 4, 0xaabbccdd)...)
		}
		packets, err := read(t, write(t, "x", file))
		if err != nil || len(packets) != len(stamps) {
			t.Fatalf("resolution %#x: %d packets, %v", resolution, len(packets), err)
		}
		last := int64(0)
		for i, stamp := range stamps {
			want := new(big.Int).Mul(new(big.Int).SetUint64(stamp), big.NewInt(1e9))
			want.Div(want, units).Add(want, new(big.Int).Mul(big.NewInt(offset), big.NewInt(1e9)))
			if want.IsInt64() && want.Int64() < math.MaxInt64-2e9 && want.Int64() > math.MinInt64+2e9 && want.Sign() != 0 {
				last = want.Int64()
			} // else no time at all instead of a wrong one: that of the packet before it
			if got := packets[i].At; got != last {
				t.Fatalf("resolution %#x, stamp %d, offset %d: %d, want %d", resolution, stamp, offset, got, last)
			}
		}
	}
}

// pcapngBlock returns a pcapng block in little-endian byte order.
func pcapngBlock(kind uint32, words ...uint32) []byte {
	size := uint32(12 + 4*len(words))
	out := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, kind), size)
	for _, word := range words {
		out = binary.LittleEndian.AppendUint32(out, word)
	}
	return binary.LittleEndian.AppendUint32(out, size)
}
