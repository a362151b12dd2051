package main

import (
	"bytes"
	"context"
	order "encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeCapture writes a pcap file of frames.
func writeCapture(t *testing.T, name string, link uint32, frames ...string) string {
	t.Helper()
	data := order.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	for _, field := range []uint32{4<<16 | 2, 0, 0, 65535, link} {
		data = order.LittleEndian.AppendUint32(data, field)
	}
	for i, frame := range frames {
		for _, field := range []uint32{1_700_000_000, uint32(i), uint32(len(frame)), uint32(len(frame))} {
			data = order.LittleEndian.AppendUint32(data, field)
		}
		data = append(data, frame...)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestReplayNamesWhatItDoesNotDecode: in the table, or on standard error; a link type that is not read is an error.
func TestReplayNamesWhatItDoesNotDecode(t *testing.T) {
	const eth = "\x02\x02\x02\x02\x02\x02\x04\x04\x04\x04\x04\x04"
	ip := func(proto byte, fragment string) string {
		return eth + "\x08\x00\x45\x00\x00\x1c\x00\x07" + fragment + "\x09" + string([]byte{proto}) +
			"\x00\x00\xc0\x00\x02\x01\xc0\x00\x02\x02\x00\x01\x00\x02\x00\x08\x00\x00"
	}
	whole := "\x00\x00"
	check := func(path string, wantTable, wantSummary, wantErr string) {
		t.Helper()
		for _, printEvents := range []bool{false, true} {
			job := replay{printEvents: printEvents}
			var stdout, stderr bytes.Buffer
			err := job.readFiles(context.Background(), []string{path}, &stdout, &stderr)
			if got := strings.ReplaceAll(fmt.Sprint(err), filepath.Dir(path)+"/", ""); !strings.HasPrefix(got, wantErr) {
				t.Errorf("error %q, want %q", got, wantErr)
			}
			_, table, _ := strings.Cut(stdout.String(), "\n\n")
			if !printEvents && table != wantTable {
				t.Errorf("table:\n%s\nwant:\n%s", table, wantTable)
			}
			if printEvents && stderr.String() != wantSummary {
				t.Errorf("summary %q, want %q", stderr.String(), wantSummary)
			}
		}
	}
	arp := eth + "\x08\x06" + strings.Repeat("\x00", 28)
	check(writeCapture(t, "a.pcap", 1, arp, arp, arp, ip(132, whole), ip(1, whole), eth+"\x88\xcc\x00", ip(17, whole)),
		"NOT DECODED              PACKETS\nEtherType 0x0806 (arp)   3\nEtherType 0x88cc (lldp)  1\n"+
			"IP protocol 1 (icmp)     1\nIP protocol 132 (sctp)   1\n",
		"tidegate: 6 packets not decoded: EtherType 0x0806 (arp) 3, EtherType 0x88cc (lldp) 1, IP protocol 1 (icmp) 1, "+
			"IP protocol 132 (sctp) 1\n", "<nil>")
	check(writeCapture(t, "b.pcap", 147, "abc", "def", "ghi"),
		"NOT DECODED    PACKETS\nlink type 147  3\n", "tidegate: 3 packets not decoded: link type 147 3\n",
		"read b.pcap: link type 147 is not read: 3 packets")
	check(writeCapture(t, "c.pcap", 290, "abc"), "NOT DECODED    PACKETS\nlink type 290  1\n",
		"tidegate: 1 packet not decoded: link type 290 1\n", "read c.pcap: link type 290 is not read: 1 packet")
	check(writeCapture(t, "d.pcap", 1, ip(17, "\x20\x00")), "NOT DECODED                         PACKETS\n"+
		"fragment of an incomplete datagram  1\n", "tidegate: 1 packet not decoded: fragment of an incomplete datagram 1\n", "<nil>")
	check(writeCapture(t, "e.pcap", 1, eth, eth+"\x08\x00\x45"), "NOT DECODED  PACKETS\ntruncated    2\n",
		"tidegate: 2 packets not decoded: truncated 2\n", "<nil>")
	check(writeCapture(t, "f.pcap", 1, ip(17, whole)), "", "", "<nil>")
}

// TestDifferentHeadersThatAreNotDecodedAreBounded: a capture may have every EtherType.
func TestDifferentHeadersThatAreNotDecodedAreBounded(t *testing.T) {
	counts := undecodedPackets{}
	for i := range 1000 {
		counts.add(fmt.Sprint(i), 1)
	}
	counts.add("7", 1)
	if len(counts) > maxUndecoded+1 || counts["7"] != 2 || counts[otherHeaders] != 1000-maxUndecoded {
		t.Errorf("%d, %v", len(counts), counts[otherHeaders])
	}
}
