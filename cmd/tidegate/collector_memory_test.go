//go:build linux

package main

import (
	wire "encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tidegate/pipeline/netnstest"
)

// A floodNet is a host that the collector watches, and a second namespace on the other end of its eth0, from which
// forged packets come.
type floodNet struct {
	t           *testing.T
	host, other string // namespaces
	dir         string
	collector   *exec.Cmd
}

const (
	floodedHost  = "10.77.0.1"
	numFloodLogs = 2000
)

// floodNets numbers the floodNets of the process.
var floodNets atomic.Int64

func newFloodNet(t *testing.T) *floodNet {
	if os.Geteuid() != 0 {
		t.Skip("namespaces and packet sockets need root")
	}
	number := floodNets.Add(1)
	f := &floodNet{
		t: t, dir: t.TempDir(),
		host: fmt.Sprintf("tgmh%d-%d", os.Getpid(), number), other: fmt.Sprintf("tgmo%d-%d", os.Getpid(), number),
	}
	run := func(line string) { words := strings.Fields(line); netnstest.Run(t, words[0], words[1:]...) }
	for _, ns := range []string{f.host, f.other} {
		run("ip netns add " + ns)
		t.Cleanup(func() { run("ip netns del " + ns) })
		run("ip -n " + ns + " link set lo up")
	}
	run("ip link add eth0 netns " + f.host + " type veth peer name eth0 netns " + f.other)
	run("ip -n " + f.host + " addr add " + floodedHost + "/8 dev eth0")
	run("ip -n " + f.host + " link set eth0 up")
	run("ip -n " + f.other + " link set eth0 up")

	// The connections are tracked. Nothing is answered, so that all of them stay half-open.
	run("ip netns exec " + f.host + " iptables -A INPUT -m conntrack --ctstate NEW -i eth0 -j ACCEPT")
	run("ip netns exec " + f.host + " iptables -A OUTPUT -o eth0 -j DROP")
	return f
}

// startCollector starts the collector with the given lines of configuration.
func (f *floodNet) startCollector(extra string) {
	f.t.Helper()
	logs := filepath.Join(f.dir, "logs")
	for _, folder := range []string{logs, filepath.Join(f.dir, "root", "containers")} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			f.t.Fatal(err)
		}
	}
	config := filepath.Join(f.dir, "collect.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `data_dir: %s/state
kafka:
  brokers: [127.0.0.1:9]
logs:
  docker_data_root: %s/root
  files: [%s/*.log]
containers:
  docker_host: ""
%s`, f.dir, f.dir, logs, extra), 0o600); err != nil {
		f.t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(f.dir, "collect.log"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.collector = exec.Command("ip", "netns", "exec", f.host, binary(f.t), "collect", "--config", config)
	f.collector.Stdout, f.collector.Stderr = log, log
	if err := f.collector.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		_ = f.collector.Process.Kill()
		_ = f.collector.Wait()
		_ = log.Close()
		if f.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			f.t.Logf("%s", tail(text, 4000))
		}
	})
}

// writeLogs appends lines to 2,000 files until stop, at most 512 MiB: most of some hundred bytes, some of 100
// KB without an end.
func (f *floodNet) writeLogs(stop *atomic.Bool) {
	random := rand.New(rand.NewPCG(1, 2))
	line := strings.Repeat("some words of a log line, with a number: 12345; ", 6) + "\n"
	long := strings.Repeat("x", 100_000)
	written := 0
	for number := 0; !stop.Load() && written < 512<<20; number++ {
		name := filepath.Join(f.dir, "logs", fmt.Sprintf("%04d.log", number%numFloodLogs))
		file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			f.t.Error(err)
			return
		}
		text := strings.Repeat(line, random.IntN(20))
		if random.IntN(10) == 0 {
			text += long
		}
		_, _ = file.WriteString(text)
		written += len(text)
		_ = file.Close()
	}
}

// mostResident returns the resident memory of a process at most, in bytes.
func mostResident(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if match == nil {
		t.Fatalf("no VmHWM in %s", status)
	}
	kibibytes, _ := strconv.ParseInt(string(match[1]), 10, 64)
	return kibibytes << 10
}

// metrics returns the metrics of the collector.
func (f *floodNet) metrics() (text string) {
	<-netnstest.Start(f.t, f.host, func() {
		conn, err := net.Dial("tcp", "127.0.0.1:9464")
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.WriteString(conn, "GET /metrics HTTP/1.0\r\n\r\n")
		body, _ := io.ReadAll(conn)
		text = string(body)
	})
	return text
}

// waitFor waits until the metrics of the collector are as said, and returns them.
func (f *floodNet) waitFor(what string, holds func(metrics string) bool) (text string) {
	f.t.Helper()
	for start := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		if text = f.metrics(); holds(text) {
			return text
		}
		if time.Since(start) > 5*time.Minute {
			f.t.Fatalf("it takes more than five minutes until %s", what)
		}
	}
}

// A forger writes frames to the other end of eth0.
type forger struct {
	fd     int
	buf    []byte
	random *rand.Rand
	next   map[uint32]uint32 // sequence numbers by connection
	sent   int
}

// flood sends packets of every kind that makes the collector keep something, until stop.
func (f *floodNet) flood(stop *atomic.Bool) (sent int) {
	<-netnstest.Start(f.t, f.other, func() {
		iface, err := net.InterfaceByName("eth0")
		if err != nil {
			f.t.Error(err)
			return
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			f.t.Error(err)
			return
		}
		defer func() { _ = unix.Close(fd) }()
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: iface.Index, Protocol: 0x0008}); err != nil {
			f.t.Error(err)
			return
		}
		forger := &forger{fd: fd, random: rand.New(rand.NewPCG(3, 4)), next: map[uint32]uint32{}}
		for round := 0; !stop.Load(); round++ {
			forger.sendRound(round)
		}
		sent = forger.sent
	})
	return sent
}

// sendRound sends one packet of each kind: SYNs from anywhere, commands and requests that wait for answers that never
// come, with short and with long texts, the halves of heads and messages, and fragments.
func (f *forger) sendRound(round int) {
	const syn = 2
	anybody := f.random.IntN(1 << 24)
	f.tcp(floodAddress(byte(100+anybody>>16&63), anybody), uint16(f.random.IntN(1<<16)), 80, syn, 0, "")
	f.stream(2, 3000, round, 80, strings.Repeat("GET /a HTTP/1.1\r\nHost: x\r\n\r\n", 40))
	f.stream(3, 300, round, 6379, blockingRead+strings.Repeat("*1\r\n$4\r\nPING\r\n", 99))
	f.stream(4, 3000, round, 8080, strings.Repeat("g", 1400))
	f.stream(7, 1000, round, 6379, strings.Repeat(longCommand, 3))
	f.stream(8, 1000, round, 80, longRequestPart(round/1000))
	f.stream(9, 3000, round, 53, "\x20\x00\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"+strings.Repeat("\x03abc", 300))

	query := wire.BigEndian.AppendUint16(nil, uint16(round))
	query = append(query, "\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"...)
	query = fmt.Appendf(query, "\x07q%06d\x07example\x00\x00\x01\x00\x01", round%1000000)
	f.udp(floodAddress(5, round%3000), 5000, 53, uint16(round), 0, query)
	f.udp(floodAddress(6, round%3000), 6000, 9999, uint16(round/3000), 0x2000, []byte(strings.Repeat("f", 1392)))
}

// blockingRead is a command that Redis answers when there is something to read; the commands behind it wait.
const blockingRead = "*3\r\n$5\r\nBLPOP\r\n$1\r\nk\r\n$1\r\n0\r\n"

// longCommand is a command of 16 arguments.
var longCommand = "*16\r\n$4\r\nMGET\r\n" + strings.Repeat("$20\r\nkkkkkkkkkkkkkkkkkkkk\r\n", 15)

// longRequestPart returns one of the six segments of a request whose target has 8 KB.
func longRequestPart(number int) string {
	const size = 1400
	request := "GET /" + strings.Repeat("u", 6*size-30) + " HTTP/1.1\r\nHost: x\r\n\r\n"
	at := number % 6 * size
	return request[at:min(at+size, len(request))]
}

func floodAddress(net byte, i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, net, byte(i >> 8), byte(i)})
}

// stream sends a segment on one of count connections in turn, each one in sequence.
func (f *forger) stream(net byte, count, round int, port uint16, payload string) {
	const ack = 16
	key := uint32(net)<<16 | uint32(round%count)
	f.tcp(floodAddress(net, round%count), 2000, port, ack, f.next[key], payload)
	f.next[key] += uint32(len(payload))
}

// ip writes the headers of Ethernet and IPv4.
func (f *forger) ip(src netip.Addr, proto uint8, id, fragment uint16, size int) {
	f.buf = append(f.buf[:0], 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0)
	f.buf = wire.BigEndian.AppendUint16(f.buf, uint16(20+size))
	f.buf = wire.BigEndian.AppendUint16(f.buf, id)
	f.buf = wire.BigEndian.AppendUint16(f.buf, fragment)
	f.buf = append(f.buf, 64, proto, 0, 0)
	f.buf = append(f.buf, src.AsSlice()...)
	f.buf = append(f.buf, netip.MustParseAddr(floodedHost).AsSlice()...)
	wire.BigEndian.PutUint16(f.buf[24:], ^sum16(f.buf[14:34], 0))
}

func (f *forger) tcp(src netip.Addr, sport, dport uint16, flags byte, seq uint32, payload string) {
	f.ip(src, 6, uint16(f.sent), 0, 20+len(payload))
	f.buf = wire.BigEndian.AppendUint16(f.buf, sport)
	f.buf = wire.BigEndian.AppendUint16(f.buf, dport)
	f.buf = wire.BigEndian.AppendUint32(f.buf, seq)
	f.buf = append(f.buf, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0)
	f.buf = append(f.buf, payload...)
	f.send(6, 50)
}

func (f *forger) udp(src netip.Addr, sport, dport, id, fragment uint16, payload []byte) {
	f.ip(src, 17, id, fragment, 8+len(payload))
	f.buf = wire.BigEndian.AppendUint16(f.buf, sport)
	f.buf = wire.BigEndian.AppendUint16(f.buf, dport)
	f.buf = wire.BigEndian.AppendUint16(f.buf, uint16(8+len(payload)))
	f.buf = append(f.buf, 0, 0)
	f.buf = append(f.buf, payload...)
	f.send(17, 40)
}

// send fills the checksum in, at an offset of the frame, and sends the frame.
func (f *forger) send(proto uint64, checksum int) {
	pseudo := proto + uint64(len(f.buf)-34) + uint64(sum16(f.buf[26:34], 0))
	wire.BigEndian.PutUint16(f.buf[checksum:], ^sum16(f.buf[34:], pseudo))
	if unix.Send(f.fd, f.buf, 0) == nil {
		f.sent++
	}
}

// sum16 returns the sum of RFC 1071.
func sum16(data []byte, sum uint64) uint16 {
	for ; len(data) > 1; data = data[2:] {
		sum += uint64(wire.BigEndian.Uint16(data))
	}
	if len(data) == 1 {
		sum += uint64(data[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// TestCollectorStaysWithinItsMemory: rings, 2,000 logs that grow, events that wait because Kafka is away, and
// a flood of packets that all make the collector keep something stay together within collector.memory, as the
// resident memory of the process, and what was given up is counted. With rings of the largest size the rest
// has to do with less.
func TestCollectorStaysWithinItsMemory(t *testing.T) {
	t.Run("default", func(t *testing.T) { floodCollector(t, "") })
	if !testing.Short() {
		t.Run("large rings", func(t *testing.T) { floodCollector(t, "capture:\n  ring_bytes: 32MiB\n") })
	}
}

func floodCollector(t *testing.T, config string) {
	const limit = 256 << 20
	duration := 15 * time.Second
	if !testing.Short() {
		duration = time.Minute
	}
	f := newFloodNet(t)
	f.startCollector(config)
	f.waitFor("the collector captures", func(text string) bool {
		return strings.Contains(text, "tidegate_capture_workers{")
	})
	var stop atomic.Bool
	var work sync.WaitGroup
	sent, start := 0, time.Now()
	work.Go(func() { f.writeLogs(&stop) })
	work.Go(func() { sent = f.flood(&stop) })
	defer work.Wait()
	defer stop.Store(true)
	text := f.waitFor("something is given up for the memory", func(text string) bool {
		return sumSamples(text, "tidegate_memory_given_up_bytes_total") > 0 && time.Since(start) > duration
	})
	stop.Store(true)
	work.Wait()

	most := mostResident(t, f.collector.Process.Pid)
	t.Logf("%d packets were sent, %v were read; %d MiB were resident", sent,
		sumSamples(text, "tidegate_capture_packets_total"), most>>20)
	if most > limit {
		t.Errorf("%d MiB were resident, more than %d", most>>20, limit>>20)
	}
	budget := sumSamples(text, "tidegate_memory_budget_bytes")
	if held := sumSamples(text, "tidegate_memory_held_bytes"); held < budget/2 || held > budget*9/8 {
		t.Errorf("%.0f bytes are held, of %.0f", held, budget)
	}
}
