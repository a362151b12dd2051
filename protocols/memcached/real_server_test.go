package memcached

import (
	"bytes"
	"errors"
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

var update = flag.Bool("update", false, "rewrite the goldens")

// TestTranscripts compares the events of each recorded connection with its golden in testdata.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("../testdata/memcached/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts")
	}
	for _, path := range files {
		c, err := protocoltest.ReadTranscript(path)
		if err != nil {
			t.Fatal(err)
		}
		events, _ := c.Play(list)
		got := strings.Join(events, "\n") + "\n"
		golden := filepath.Join("testdata", strings.TrimSuffix(filepath.Base(path), ".txt")+".golden")
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(golden)
		if err != nil || string(want) != got {
			t.Errorf("%s is stale (go test ./protocols/memcached -update): %v\n%s", golden, err, got)
		}
	}
}

// TestRealServer sends the commands of the transcripts to a memcached of this machine and reads both
// directions: the classic commands have the same events as when they were recorded.
func TestRealServer(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a memcached")
	}
	server := startServer(t)
	recorded, err := protocoltest.ReadTranscript("../testdata/memcached/classic.txt")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	live := protocols.NewSet(list, protocols.Default(), nil).Open(recorded.Info(), func(e *pipeline.Event) { got = append(got, short(e)) })
	var want []string
	replay := protocols.NewSet(list, protocols.Default(), nil).Open(recorded.Info(), func(e *pipeline.Event) { want = append(want, short(e)) })

	at := protocoltest.Start
	for i, step := range recorded.Steps {
		at += 1e6
		replay.Data(step.Dir, step.Data, at)
		if step.Dir == protocols.Server {
			continue
		}
		if _, err := server.Write(step.Data); err != nil {
			t.Fatal(err)
		}
		live.Data(protocols.Client, step.Data, at)
		if i+1 < len(recorded.Steps) && recorded.Steps[i+1].Dir == protocols.Server {
			live.Data(protocols.Server, readReply(t, server, recorded.Steps[i+1].Data), at)
		}
	}
	live.Close(at)
	replay.Close(at)
	if !slices.Equal(got, want) {
		t.Errorf("got\n\t%s\nrecorded\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// readReply reads as many lines as the recorded reply has.
func readReply(t *testing.T, server net.Conn, recorded []byte) []byte {
	t.Helper()
	var reply []byte
	buf := make([]byte, 4096)
	_ = server.SetReadDeadline(time.Now().Add(10 * time.Second))
	for bytes.Count(reply, []byte("\n")) < bytes.Count(recorded, []byte("\n")) {
		n, err := server.Read(buf)
		if err != nil {
			t.Fatalf("after %q: %v", reply, err)
		}
		reply = append(reply, buf[:n]...)
	}
	return reply
}

// startServer starts memcached on a free port and connects to it. The test fails where memcached is not
// installed.
func startServer(t *testing.T) net.Conn {
	t.Helper()
	program, err := exec.LookPath("memcached")
	if err != nil {
		t.Fatal("memcached is not installed; deploy/setup-test.sh installs it")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	cmd := exec.Command(program, "-u", "nobody", "-l", "127.0.0.1", "-p", port, "-m", "16")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var conn net.Conn
	for range 100 {
		if conn, err = net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			t.Cleanup(func() { conn.Close() })
			return conn
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal(errors.New("memcached does not answer"), err)
	return nil
}
