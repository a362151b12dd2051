package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// TestMain runs the tests, or the workload in TIDEGATE_WORK: the static test binary is also the program in
// the containers of the end-to-end test.
func TestMain(m *testing.M) {
	if spec := os.Getenv("TIDEGATE_WORK"); spec != "" {
		if err := runWorkload(spec); err != nil {
			fmt.Fprintln(os.Stderr, "workload:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if dir := builtDir.Load(); dir != nil {
		_ = os.RemoveAll(*dir)
	}
	os.Exit(code)
}

// A workload is the task of one client container: to answer HTTP at ListenAddr, to write Lines log lines, or
// to make Transactions with each server whose address is set. Each line and each transaction has Case and a
// number in it, by which a test finds the event.
type workload struct {
	Case         string
	Transactions int
	Interval     time.Duration // between two transactions or lines

	HTTP, Redis, DNS, MySQL string // addresses of servers, host:port
	QueryName               string // DNS queries have this name instead of numbered ones
	SourcePort              int    // all HTTP requests are sent from this port, on one connection
	SpoofedSource           string // one DNS query is sent with this source address

	Lines int

	ListenAddr string
	BodyFile   string // the bodies of received requests are appended to it, behind their Idempotency-Key
}

// String returns the value of TIDEGATE_WORK for a workload.
func (w workload) String() string {
	text, _ := json.Marshal(w)
	return string(text)
}

// runWorkload does the work that spec describes, a workload as JSON.
func runWorkload(spec string) error {
	var task workload
	if err := json.Unmarshal([]byte(spec), &task); err != nil {
		return err
	}
	switch {
	case task.ListenAddr != "":
		return http.ListenAndServe(task.ListenAddr, http.HandlerFunc(task.serveRequest))
	case task.Lines > 0:
		return task.writeLines()
	case task.SpoofedSource != "":
		return task.sendSpoofedQuery()
	}
	var errs []error
	for _, client := range []struct {
		addr string
		send func() error
	}{
		{task.HTTP, task.sendHTTP},
		{task.Redis, task.sendRedis},
		{task.DNS, task.sendDNS},
		{task.MySQL, task.sendMySQL},
	} {
		if client.addr != "" {
			errs = append(errs, client.send())
		}
	}
	return errors.Join(errs...)
}

// serveRequest answers a request, after its body is in the body file, if there is one.
func (w workload) serveRequest(response http.ResponseWriter, request *http.Request) {
	if w.BodyFile == "" {
		_, _ = fmt.Fprintf(response, "seen %s\n", request.RemoteAddr)
		return
	}
	body, err := io.ReadAll(request.Body)
	file, openErr := os.OpenFile(w.BodyFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil || openErr != nil {
		http.Error(response, "not kept", http.StatusInternalServerError)
		return
	}
	_, err = fmt.Fprintf(file, "%s %s\n", request.Header.Get("Idempotency-Key"), body)
	if errors.Join(err, file.Close()) != nil {
		http.Error(response, "not kept", http.StatusInternalServerError)
	}
}

// writeLines writes numbered lines to both streams, some longer than the 16 KiB at which dockerd splits
// lines.
func (w workload) writeLines() error {
	stdout, stderr := bufio.NewWriter(os.Stdout), bufio.NewWriter(os.Stderr)
	for number := range w.Lines {
		out := stdout
		if number%3 == 2 {
			out = stderr
		}
		padding := ""
		if number%100 == 99 {
			padding = " " + strings.Repeat("x", 40000)
		}
		if _, err := fmt.Fprintf(out, "%s line %d%s\n", w.Case, number, padding); err != nil {
			return err
		}
		// Lines without an interval are flushed in blocks.
		if w.Interval > 0 || number%64 == 63 {
			if err := errors.Join(stdout.Flush(), stderr.Flush()); err != nil {
				return err
			}
			time.Sleep(w.Interval)
		}
	}
	return errors.Join(stdout.Flush(), stderr.Flush())
}

// sendHTTP sends requests on a connection that is kept open, and every tenth on a connection of its own.
func (w workload) sendHTTP() error {
	keptOpen := &http.Client{Timeout: 10 * time.Second}
	singleUse := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	if w.SourcePort != 0 {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{Port: w.SourcePort}, Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) {
				_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
			})
		}}
		keptOpen.Transport = &http.Transport{DialContext: dialer.DialContext}
		singleUse = keptOpen
	}
	for number := range w.Transactions {
		client := keptOpen
		if number%10 == 0 {
			client = singleUse
		}
		resp, err := client.Get(fmt.Sprintf("http://%s/e2e/%s/%d", w.HTTP, w.Case, number))
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("GET %d: status %d, %w", number, resp.StatusCode, err)
		}
		time.Sleep(w.Interval)
	}
	return nil
}

// sendRedis sends its commands in pipelines of four.
func (w workload) sendRedis() error {
	conn, err := net.DialTimeout("tcp", w.Redis, 5*time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	replies := bufio.NewReader(conn)
	for sent := 0; sent < w.Transactions; {
		commands := min(4, w.Transactions-sent)
		var pipelined []byte
		for index := range commands {
			key := fmt.Sprintf("e2e:%s:%d", w.Case, sent+index)
			pipelined = fmt.Appendf(pipelined, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$1\r\nv\r\n", len(key), key)
		}
		if _, err := conn.Write(pipelined); err != nil {
			return err
		}
		for range commands {
			if line, err := replies.ReadString('\n'); err != nil || line != "+OK\r\n" {
				return fmt.Errorf("SET: %q, %w", line, err)
			}
		}
		sent += commands
		time.Sleep(w.Interval)
	}
	return nil
}

// sendDNS sends queries over UDP, each after the answer to the previous one.
func (w workload) sendDNS() error {
	conn, err := net.DialTimeout("udp", w.DNS, 5*time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	for number := range w.Transactions {
		text := fmt.Sprintf("n%d.%s.e2e.example.", number, w.Case)
		if w.QueryName != "" {
			text = w.QueryName + "."
		}
		name, err := dnsmessage.NewName(text)
		if err != nil {
			return err
		}
		message := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: uint16(number + 1), RecursionDesired: true},
			Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		}
		query, err := message.Pack()
		if err != nil {
			return err
		}
		if _, err := conn.Write(query); err != nil {
			return err
		}
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		var buf [1500]byte
		if _, err := conn.Read(buf[:]); err != nil {
			return fmt.Errorf("look up %d: %w", number, err)
		}
		time.Sleep(w.Interval)
	}
	return nil
}

// sendMySQL runs the client of MariaDB, which sends all statements on one connection.
func (w workload) sendMySQL() error {
	host, port, err := net.SplitHostPort(w.MySQL)
	if err != nil {
		return err
	}
	var sql strings.Builder
	for number := range w.Transactions {
		fmt.Fprintf(&sql, "SELECT 'e2e-%s-%d';\n", w.Case, number)
	}
	cmd := exec.Command("mariadb", "--no-defaults", "-h", host, "-P", port, "-u", "root", "--protocol=tcp", "-N")
	cmd.Stdin = strings.NewReader(sql.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("mariadb: %w: %s", err, out)
	}
	return nil
}

// runClient runs a workload in a container.
func (h *dockerHost) runClient(task workload, options ...string) string {
	h.t.Helper()
	self, err := os.Executable()
	h.check(err)
	args := append([]string{"-v", self + ":/work:ro", "-e", "TIDEGATE_WORK=" + task.String()}, options...)
	return h.runContainer(append(args, "--", "/work")...)
}

// visitorCommand returns a command that runs a workload in the namespace outside.
func (h *dockerHost) visitorCommand(task workload) *exec.Cmd {
	self, err := os.Executable()
	h.check(err)
	cmd := h.outsideCommand(self)
	cmd.Env = append(os.Environ(), "TIDEGATE_WORK="+task.String())
	return cmd
}
