//go:build linux

package differential

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector/capture"
	"tidegate/collector/sessions"
	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/all"
)

// A lab is a folder with running servers and a capture of their connections.
type lab struct {
	t       *testing.T
	dir     string
	tcpdump *exec.Cmd
	output  chan string // what tcpdump has printed, when it has ended
}

// newLab starts the capture of the namespace's loopback interface.
func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, dir: t.TempDir(), output: make(chan string, 1)}
	l.tcpdump = l.command("tcpdump", "-i", "lo", "-w", l.captureFile(), "-s", "0", "-U", "-B", "131072", "-Z", "root")
	stderr, err := l.tcpdump.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.tcpdump.Start(); err != nil {
		t.Fatalf("start tcpdump: %v", err)
	}
	started := make(chan struct{})
	go func() {
		var text bytes.Buffer
		buf := make([]byte, 4096)
		var once sync.Once
		for {
			n, err := stderr.Read(buf)
			text.Write(buf[:n])
			if bytes.Contains(text.Bytes(), []byte("listening on")) {
				once.Do(func() { close(started) })
			}
			if err != nil {
				l.output <- text.String()
				return
			}
		}
	}()
	select {
	case <-started:
	case <-time.After(20 * time.Second):
		t.Fatal("tcpdump does not listen")
	}
	return l
}

func (l *lab) captureFile() string { return filepath.Join(l.dir, "wire.pcap") }

// command returns a command that is killed when this process ends.
func (l *lab) command(name string, args ...string) *exec.Cmd {
	if _, err := exec.LookPath(name); err != nil {
		if _, err := os.Stat("/usr/sbin/" + name); err != nil {
			l.t.Fatalf("%s is missing; deploy/setup-test.sh installs it", name)
		}
		name = "/usr/sbin/" + name
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = l.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// start starts a server whose output goes to a file in the lab's folder, and stops it at the end of the test.
func (l *lab) start(output, name string, args ...string) *exec.Cmd {
	l.t.Helper()
	file, err := os.Create(filepath.Join(l.dir, output))
	if err != nil {
		l.t.Fatal(err)
	}
	defer file.Close()
	cmd := l.command(name, args...)
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Start(); err != nil {
		l.t.Fatalf("start %s: %v", name, err)
	}
	l.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// waitTCP waits until a server accepts connections.
func (l *lab) waitTCP(port int) { l.waitTCPAt(hosts[0], port) }

func (l *lab) waitTCPAt(host string, port int) {
	l.t.Helper()
	for range 2400 {
		conn, err := net.Dial("tcp", address(host, port))
		if err == nil {
			conn.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	l.t.Fatalf("nothing listens on port %d", port)
}

// hosts are the addresses of the servers.
var hosts = [...]string{"127.0.0.1", "::1"}

// extensionHost is the address of a further server, also of the loopback interface.
const extensionHost = "fd00::2"

func address(host string, port int) string { return net.JoinHostPort(host, fmt.Sprint(port)) }

func (l *lab) write(name, text string) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
	return path
}

func (l *lab) read(name string) []byte {
	l.t.Helper()
	text, err := os.ReadFile(filepath.Join(l.dir, name))
	if err != nil {
		l.t.Fatal(err)
	}
	return text
}

// waitCaptured waits until the capture has what was sent so far: the kernel hands packets over a block at a time.
func (l *lab) waitCaptured() {
	l.t.Helper()
	const port, mark = 9, "the end of the capture"
	for range 600 {
		conn, err := net.Dial("udp", address(hosts[0], port))
		if err != nil {
			l.t.Fatal(err)
		}
		_, _ = conn.Write([]byte(mark))
		_ = conn.Close()
		time.Sleep(100 * time.Millisecond)
		file, err := os.Open(l.captureFile())
		if err != nil {
			l.t.Fatal(err)
		}
		end := make([]byte, 16<<10)
		if size, err := file.Seek(0, io.SeekEnd); err == nil {
			_, _ = file.ReadAt(end, max(0, size-int64(len(end))))
		}
		_ = file.Close()
		if bytes.Contains(end, []byte(mark)) {
			return
		}
	}
	l.t.Fatal("tcpdump has not written what was sent a minute ago")
}

// stopCapture ends tcpdump. It fails the test if the kernel dropped packets.
func (l *lab) stopCapture() {
	l.t.Helper()
	l.waitCaptured()
	_ = l.tcpdump.Process.Signal(os.Interrupt)
	text := <-l.output
	if err := l.tcpdump.Wait(); err != nil {
		l.t.Fatalf("tcpdump: %v", err)
	}
	if !strings.Contains(text, "\n0 packets dropped by kernel") {
		l.t.Fatalf("the capture has gaps: %s", text)
	}
	if keep := os.Getenv("TIDEGATE_KEEP"); keep != "" {
		text := l.read("wire.pcap")
		if err := os.WriteFile(filepath.Join(keep, "differential.pcap"), text, 0o644); err != nil {
			l.t.Error(err)
		}
	}
}

// An observed is the part of an event that is compared.
type observed struct {
	dataset    pipeline.Dataset
	text       string // what was executed, in the words of the server's log
	refused    bool   // the server answered that it did not execute it
	unanswered bool   // the server did not answer
	partial    bool
	unlogged   bool // the server's log leaves out what it executed
	tags       []string
}

func (o observed) String() string {
	text := fmt.Sprintf("\n      %v %q", o.dataset, shorten(o.text, 300))
	for _, flag := range []struct {
		name string
		set  bool
	}{{"refused", o.refused}, {"unanswered", o.unanswered}, {"partial", o.partial}} {
		if flag.set {
			text += " " + flag.name
		}
	}
	return text + " " + strings.Join(o.tags, " ")
}

// observe runs the capture through the session table. It returns the events by their server and
// client.
func (l *lab) observe(servers map[netip.AddrPort]*subject) map[*subject]map[clientKey][]observed {
	l.t.Helper()
	file, err := capture.OpenFile(l.captureFile())
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	events := map[*subject]map[clientKey][]observed{}
	for _, s := range servers {
		events[s] = map[clientKey][]observed{}
	}
	reg := prometheus.NewRegistry()
	set := protocols.NewSet(all.Protocols, protocols.Default(), reg)
	set.Panicked = func(protocol string, value any, _ []byte) { l.t.Errorf("panic in %s: %v", protocol, value) }
	table := sessions.New(sessions.Default(), sessions.Deps{Protocols: set, Emit: func(e *pipeline.Event) {
		client, server := endpointOf(e.Source), endpointOf(e.Destination)
		if servers[server] == nil {
			client, server = server, client
		}
		if seen, ok := observedOf(e); ok && servers[server] != nil {
			seenBy := events[servers[server]]
			seenBy[keyOfClient(client)] = append(seenBy[keyOfClient(client)], seen)
		}
	}}, reg)
	packets := 0
	for ; ; packets++ {
		packet, err := file.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			l.t.Fatal(err)
		}
		table.Packet(packet.Iface, packet.Link, packet.At, packet.Data, packet.Length)
	}
	table.Close()
	l.t.Logf("%d packets", packets)
	return events
}

func endpointOf(end *pipeline.Endpoint) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(end.GetIp())
	return netip.AddrPortFrom(ip.Unmap(), uint16(end.GetPort()))
}

// observedOf returns the compared part of an event; ok is false for a session.
func observedOf(e *pipeline.Event) (observed, bool) {
	seen := observed{dataset: e.Dataset, partial: e.Partial, tags: slices.Clone(e.Tags)}
	switch e.Dataset {
	case pipeline.Dataset_HTTP:
		seen.text = e.Http.Method + " " + e.Http.UrlOriginal
		seen.refused, seen.unanswered = e.Http.StatusCode >= 400, e.Http.StatusCode == 0
	case pipeline.Dataset_REDIS:
		seen.text = strings.Join(append([]string{e.Redis.Command}, e.Redis.Args...), " ")
		seen.refused, seen.unanswered = e.Redis.Error != "", e.Redis.ReplyType == "" || e.Redis.Reply == "QUEUED"
	case pipeline.Dataset_MEMCACHED:
		switch e.Memcached.Command {
		case "set", "add", "ms":
			seen.text = "store " + e.Memcached.Key
		}
		seen.refused, seen.unanswered = e.Memcached.Error != "", e.Memcached.Error+e.Memcached.Status == ""
	case pipeline.Dataset_MYSQL:
		seen.text = e.Mysql.Query
		seen.refused = e.Mysql.ErrorCode != 0
	case pipeline.Dataset_DNS:
		seen.text = e.Dns.QuestionName
		seen.unlogged = e.Dns.QuestionType == "TYPE0" || e.Dns.OpCode != "QUERY"
		seen.refused, seen.unanswered = e.Dns.ResponseCode == "FORMERR" || e.Dns.ResponseCode == "NOTIMP", e.Dns.ResponseCode == ""
	case pipeline.Dataset_TLS:
		seen.text = e.Tls.ServerName
	default:
		return seen, false
	}
	return seen, true
}
