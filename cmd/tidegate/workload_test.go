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
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// TestMain lets the static test binary also be the program that runs in the containers of the end-to-end test.
func TestMain(m *testing.M) {
	if spec := os.Getenv("TIDEGATE_WORK"); spec != "" {
		if err := runWorkload(spec); err != nil {
			fmt.Fprintln(os.Stderr, "work:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if dir := builtIn.Load(); dir != nil {
		_ = os.RemoveAll(*dir)
	}
	os.Exit(code)
}

// A workload is the task of one client container: N transactions with each server whose address is set. Each
// transaction carries Case and a number, by which it is found again.
type workload struct {
	Case  string
	N     int
	HTTP  string // host:port
	Redis string
	DNS   string
	MySQL string
	Name  string // queried name, instead of numbered ones

	Lines int           // log lines to write instead
	Every time.Duration // interval between lines or transactions
	Serve string        // address to answer HTTP on instead
	Sink  string        // file to which the bodies of received requests are appended, with their Idempotency-Key
}

func (w workload) String() string {
	b, _ := json.Marshal(w)
	return string(b)
}

func runWorkload(spec string) error {
	var w workload
	if err := json.Unmarshal([]byte(spec), &w); err != nil {
		return err
	}
	switch {
	case w.Serve != "":
		return http.ListenAndServe(w.Serve, http.HandlerFunc(w.serve))
	case w.Lines > 0:
		return w.writeLines()
	}
	var errs []error
	for _, do := range []struct {
		addr string
		f    func() error
	}{{w.HTTP, w.http}, {w.Redis, w.redis}, {w.DNS, w.dns}, {w.MySQL, w.mysql}} {
		if do.addr != "" {
			errs = append(errs, do.f())
		}
	}
	return errors.Join(errs...)
}

func (w workload) serve(rw http.ResponseWriter, r *http.Request) {
	if w.Sink == "" {
		_, _ = fmt.Fprintf(rw, "seen %s\n", r.RemoteAddr)
		return
	}
	body, err := io.ReadAll(r.Body)
	f, openErr := os.OpenFile(w.Sink, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil || openErr != nil {
		http.Error(rw, "not kept", http.StatusInternalServerError)
		return
	}
	_, err = fmt.Fprintf(f, "%s %s\n", r.Header.Get("Idempotency-Key"), body)
	if errors.Join(err, f.Close()) != nil {
		http.Error(rw, "not kept", http.StatusInternalServerError)
	}
}

// writeLines writes numbered lines to both streams, some longer than the 16 KiB at which dockerd splits lines.
func (w workload) writeLines() error {
	out, errs := bufio.NewWriter(os.Stdout), bufio.NewWriter(os.Stderr)
	for i := range w.Lines {
		to := out
		if i%3 == 2 {
			to = errs
		}
		long := ""
		if i%100 == 99 {
			long = " " + strings.Repeat("x", 40000)
		}
		if _, err := fmt.Fprintf(to, "%s line %d%s\n", w.Case, i, long); err != nil {
			return err
		}
		if w.Every > 0 || i%64 == 63 {
			if err := errors.Join(out.Flush(), errs.Flush()); err != nil {
				return err
			}
			time.Sleep(w.Every)
		}
	}
	return errors.Join(out.Flush(), errs.Flush())
}

// http sends requests on a connection that is kept open, and every tenth on a connection of its own.
func (w workload) http() error {
	kept, single := &http.Client{Timeout: 10 * time.Second}, &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for i := range w.N {
		c := kept
		if i%10 == 0 {
			c = single
		}
		resp, err := c.Get(fmt.Sprintf("http://%s/e2e/%s/%d", w.HTTP, w.Case, i))
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("GET %d: status %d, %w", i, resp.StatusCode, err)
		}
		time.Sleep(w.Every)
	}
	return nil
}

// redis sends its commands in pipelines of four.
func (w workload) redis() error {
	c, err := net.DialTimeout("tcp", w.Redis, 5*time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReader(c)
	for i := 0; i < w.N; {
		n := min(4, w.N-i)
		var b []byte
		for k := range n {
			key := fmt.Sprintf("e2e:%s:%d", w.Case, i+k)
			b = fmt.Appendf(b, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$1\r\nv\r\n", len(key), key)
		}
		if _, err := c.Write(b); err != nil {
			return err
		}
		for range n {
			if line, err := r.ReadString('\n'); err != nil || line != "+OK\r\n" {
				return fmt.Errorf("SET: %q, %w", line, err)
			}
		}
		i += n
		time.Sleep(w.Every)
	}
	return nil
}

func (w workload) dns() error {
	c, err := net.DialTimeout("udp", w.DNS, 5*time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	for i := range w.N {
		asked := fmt.Sprintf("n%d.%s.e2e.example.", i, w.Case)
		if w.Name != "" {
			asked = w.Name + "."
		}
		name, err := dnsmessage.NewName(asked)
		if err != nil {
			return err
		}
		m := dnsmessage.Message{Header: dnsmessage.Header{ID: uint16(i + 1), RecursionDesired: true}, Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
		b, err := m.Pack()
		if err != nil {
			return err
		}
		if _, err := c.Write(b); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		var buf [1500]byte
		if _, err := c.Read(buf[:]); err != nil {
			return fmt.Errorf("look up %d: %w", i, err)
		}
		time.Sleep(w.Every)
	}
	return nil
}

// mysql runs the real client: one connection, one statement for each number.
func (w workload) mysql() error {
	host, port, err := net.SplitHostPort(w.MySQL)
	if err != nil {
		return err
	}
	var sql strings.Builder
	for i := range w.N {
		fmt.Fprintf(&sql, "SELECT 'e2e-%s-%d';\n", w.Case, i)
	}
	cmd := exec.Command("mariadb", "--no-defaults", "-h", host, "-P", port, "-u", "root", "--protocol=tcp", "-N")
	cmd.Stdin = strings.NewReader(sql.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("mariadb: %w: %s", err, out)
	}
	return nil
}

// client runs w in a container.
func (h *dockerHost) client(w workload, options ...string) string {
	h.t.Helper()
	self, err := os.Executable()
	h.check(err)
	args := append([]string{"-v", self + ":/work:ro", "-e", "TIDEGATE_WORK=" + w.String()}, options...)
	return h.run(append(args, "--", "/work")...)
}

// visitor runs w in the namespace outside.
func (h *dockerHost) visitor(w workload) *exec.Cmd {
	self, err := os.Executable()
	h.check(err)
	cmd := h.outside(self)
	cmd.Env = append(os.Environ(), "TIDEGATE_WORK="+w.String())
	return cmd
}
