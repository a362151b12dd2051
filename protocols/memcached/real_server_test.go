package memcached

import (
	"bytes"
	"errors"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

// TestTranscriptsMatchTheirGoldens compares the events of each recorded connection with its golden.
func TestTranscriptsMatchTheirGoldens(t *testing.T) { protocoltest.CheckGoldens(t, list, "memcached") }

// TestTranscriptsHoldTheirProperties: cuts change nothing, and what is not partial is true, whatever was lost.
func TestTranscriptsHoldTheirProperties(t *testing.T) {
	protocoltest.CheckTranscripts(t, list, "../testdata", "memcached")
}

// TestRealServerYieldsTheRecordedEvents sends the commands of the transcript "classic" to the installed
// memcached. The events must be those of the recording.
func TestRealServerYieldsTheRecordedEvents(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a memcached")
	}
	server := startServer(t)
	recorded, err := protocoltest.ReadTranscript("../testdata/memcached/classic.txt")
	if err != nil {
		t.Fatal(err)
	}
	open := func(events *[]string) *protocols.Conn {
		set := protocols.NewSet(list, protocols.Default(), nil)
		return set.Open(recorded.Info(), func(event *pipeline.Event) { *events = append(*events, short(event)) })
	}
	var got, want []string
	live, replay := open(&got), open(&want)

	// The recording is replayed. Each step of the client is also sent to the server, whose reply is read at
	// once.
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
	buffer := make([]byte, 4096)
	_ = server.SetReadDeadline(time.Now().Add(10 * time.Second))
	for bytes.Count(reply, []byte("\n")) < bytes.Count(recorded, []byte("\n")) {
		size, err := server.Read(buffer)
		if err != nil {
			t.Fatalf("after %q: %v", reply, err)
		}
		reply = append(reply, buffer[:size]...)
	}
	return reply
}

// startServer starts memcached on a free port and connects to it. The test fails where memcached is not
// installed.
func startServer(t *testing.T, options ...string) net.Conn {
	t.Helper()
	program, err := exec.LookPath("memcached")
	if err != nil {
		t.Fatal("memcached is not installed; deploy/setup-test.sh installs it")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	listener.Close()
	cmd := exec.Command(program, append([]string{"-u", "nobody", "-l", "127.0.0.1", "-p", port, "-m", "16"}, options...)...)
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
