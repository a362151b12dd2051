// Command generate writes the scenario of the demo: shop.pcap, the traffic on the bridge of a small shop of
// containers while one of them is broken into, and the log lines that its containers write meanwhile. `go
// generate ./cmd/tidegate/demo` runs it. Its output is the same to the byte each time, and is checked in.
//
// story.go holds the steps of the scenario, packets.go the messages and packets of each step.
package main

import (
	"bytes"
	"encoding/json"
	"log"
	"math/rand"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// epoch is the time at which the scenario starts in the files; the demo moves it to now. All other times are
// durations since epoch.
var epoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func main() {
	dir := "."
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	shop := &scenario{rng: rand.New(rand.NewSource(1)), logs: map[string][]logLine{}}
	shop.addStory()
	if err := shop.writeFiles(dir); err != nil {
		log.Fatal(err)
	}
}

// A scenario collects packets and log lines out of order and writes them in order of time.
type scenario struct {
	rng     *rand.Rand // DNS ids and initial sequence numbers
	packets []packet
	logs    map[string][]logLine // by container name
	port    uint16               // counts the client ports
	ipID    uint16               // identification of the last IP packet
}

type packet struct {
	at   time.Time
	data []byte
}

type logLine struct {
	at     time.Time
	stream string
	text   string
}

// writeFiles writes the capture and the log files.
func (s *scenario) writeFiles(dir string) error {
	if err := s.writeCapture(filepath.Join(dir, "shop.pcap")); err != nil {
		return err
	}
	for name, lines := range s.logs {
		sort.SliceStable(lines, func(i, j int) bool { return lines[i].at.Before(lines[j].at) })
		if err := writeLog(filepath.Join(dir, name+".log"), lines); err != nil {
			return err
		}
	}
	return nil
}

// writeCapture writes the packets as a pcap file.
func (s *scenario) writeCapture(path string) error {
	sort.SliceStable(s.packets, func(i, j int) bool { return s.packets[i].at.Before(s.packets[j].at) })
	var buf bytes.Buffer
	writer := pcapgo.NewWriter(&buf)
	if err := writer.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
		return err
	}
	for _, packet := range s.packets {
		size := len(packet.data)
		info := gopacket.CaptureInfo{Timestamp: packet.at, CaptureLength: size, Length: size}
		if err := writer.WritePacket(info, packet.data); err != nil {
			return err
		}
	}
	return os.WriteFile(path, buf.Bytes(), 0o644)
}

// writeLog writes lines in the form of Docker's json-file driver.
func writeLog(path string, lines []logLine) error {
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	for _, line := range lines {
		err := encoder.Encode(struct {
			Log    string `json:"log"`
			Stream string `json:"stream"`
			Time   string `json:"time"`
		}{line.text + "\n", line.stream, line.at.Format(time.RFC3339Nano)})
		if err != nil {
			return err
		}
	}
	return os.WriteFile(path, buf.Bytes(), 0o644)
}
