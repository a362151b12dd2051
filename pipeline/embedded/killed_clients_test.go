package embedded_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/clickhouse"
)

// badHTTP are requests of clients that disconnect, or that speak no HTTP. $LOGIN is a login of storeUser.
var badHTTP = []string{
	"", // an idle connection
	"POST /?query=SELECT+1 HTTP/1.1\r\nHost",
	strings.Repeat("\x00garbage: \r\n", 80) + "\r\n\r\n",
	"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", // TLS
	"GET /ping HTTP/9.9\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nSELECT 1\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\n$LOGINTransfer-Encoding: chunked\r\n\r\n40\r\nSELECT ",
	"POST /?query=SELECT+1 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n$LOGINContent-Length: 10\r\n\r\n",
	"POST /?query=SELECT+1 HTTP/1.1\r\nHost: x\r\nX-ClickHouse-User: tidegate\r\nX-ClickHouse-Key: wrong\r\nContent-Length: 9\r\n\r\n",
	"POST /?query=INSERT+INTO+noise+FORMAT+TSV HTTP/1.1\r\nHost: x\r\n$LOGINContent-Length: 100000\r\n\r\n" +
		strings.Repeat("1\tx\n", 2000),
	strings.Repeat("POST /?query=SELECT+1 HTTP/1.1\r\nHost: x\r\n$LOGINContent-Length: 0\r\n\r\n", 8),
	"POST /?send_progress_in_http_headers=1&http_headers_progress_interval_ms=1 HTTP/1.1\r\nHost: x\r\n" +
		"$LOGINContent-Length: 65\r\n\r\nSELECT sleepEachRow(0.01) FROM numbers(9) SETTINGS max_block_size=1",
	"POST /?wait_end_of_query=1 HTTP/1.1\r\nHost: x\r\n$LOGINContent-Length: 19\r\n\r\nSELECT * FROM noise",
	"POST / HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n$LOGINContent-Length: 19\r\n\r\nSELECT * FROM noise",
	"POST /?compress=1 HTTP/1.1\r\nHost: x\r\n$LOGINContent-Length: 37\r\n\r\nSELECT throwIf(a = 90000) FROM noise ",
}

// badNative are first bytes of clients of the native protocol that disconnect, log in wrongly or send anything else.
var badNative = []string{
	"", "GET / HTTP/1.1\r\n\r\n", "\x00",
	"\x00\x04test\x01\x01\xa9\xaa\x03\x00\x08tidegate\x05wrong", // a hello
	"\x00\xff\xff\xff\xff\xff\xff\xff\xff\x7f",                  // a name without end
	strings.Repeat("\x04", 1000),
}

// disconnectRudely opens connections to addr until count is used up, sends one of the requests on each, and closes it a
// moment later: in the middle of the request, before the answer or within it, by FIN or RST.
func disconnectRudely(addr string, requests []string, count int) {
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for range count / 16 {
				conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
				if err != nil {
					continue
				}
				request := requests[rand.IntN(len(requests))]
				if rand.IntN(4) == 0 {
					request = request[:rand.IntN(len(request)+1)]
				}
				_, _ = io.WriteString(conn, request)
				if rand.IntN(2) == 0 {
					_ = conn.SetReadDeadline(time.Now().Add(time.Duration(rand.IntN(30)) * time.Millisecond))
					_, _ = io.CopyN(io.Discard, conn, rand.Int64N(300_000))
				} else {
					time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
				}
				if rand.IntN(2) == 0 {
					_ = conn.(*net.TCPConn).SetLinger(0) // RST, as of a process that is killed before it has read all
				}
				_ = conn.Close()
			}
		})
	}
	clients.Wait()
}

// TestDisconnectingClientsDoNotEndTheServer has clients of both protocols that disconnect anywhere, or that send no
// request at all. Before the library ran an interactive session, each kind of them ended the server within seconds.
// TIDEGATE_DISCONNECTS sets the number of connections.
func TestDisconnectingClientsDoNotEndTheServer(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a ClickHouse")
	}
	count := 4000
	if text := os.Getenv("TIDEGATE_DISCONNECTS"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	cfg := storeConfig(t.TempDir())
	cfg.TCPPort = freePort(t)
	reg := prometheus.NewRegistry()
	server := startStore(t, cfg, reg)
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	store := openStore(t, server)
	admin := store.Config()
	for _, sql := range []string{
		"CREATE TABLE noise (a UInt64, b String) ENGINE = MergeTree ORDER BY a",
		"INSERT INTO noise SELECT number, repeat('x', 100) FROM numbers(100000)",
	} {
		if _, err := query(admin, sql); err != nil {
			t.Fatal(err)
		}
	}
	password, err := os.ReadFile(admin.PasswordFile)
	if err != nil {
		t.Fatal(err)
	}
	login := "X-ClickHouse-User: " + admin.Username + "\r\nX-ClickHouse-Key: " + string(bytes.TrimSpace(password)) + "\r\n"
	requests := make([]string, len(badHTTP))
	for i, request := range badHTTP {
		requests[i] = strings.ReplaceAll(request, "$LOGIN", login)
	}

	// Blocks are inserted meanwhile.
	pid, stop := server.PID(), make(chan struct{})
	var clients, inserts sync.WaitGroup
	inserts.Go(func() {
		for i := int64(0); ; i++ {
			if err := store.Insert(t.Context(), newBlock(i*10, 10), fmt.Sprint("token", i)); err != nil {
				t.Errorf("insert %d beside the clients: %v", i, err)
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	clients.Go(func() { disconnectRudely(admin.HTTPAddr, requests, count) })
	clients.Go(func() { disconnectRudely(net.JoinHostPort("127.0.0.1", strconv.Itoa(cfg.TCPPort)), badNative, count/4) })
	clients.Wait()
	close(stop)
	inserts.Wait()

	// The server may need a moment for the connections that are closed.
	answers := func() bool { _, err := query(admin, "SELECT 1"); return err == nil }
	for deadline := time.Now().Add(20 * time.Second); !answers(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the server does not answer after the clients")
		}
	}
	if restarts := metricValue(t, reg, "tidegate_embedded_store_restarts_total"); restarts != 0 || server.PID() != pid {
		t.Errorf("the server was restarted %v times", restarts)
	}
	// The native protocol refuses a wrong password, and serves on.
	native := admin
	native.Protocol, native.Password, native.PasswordFile = "native", "wrong", ""
	for range 20 {
		if store, err := clickhouse.Open(t.Context(), native, quiet, nil); err == nil {
			store.Close()
			t.Fatal("the native protocol accepts a wrong password")
		}
	}
	if server.PID() != pid {
		t.Error("wrong passwords have ended the server")
	}
}

// freePort returns a free port of loopback.
func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}
