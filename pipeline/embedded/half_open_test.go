package embedded_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/config"
	"tidegate/pipeline/embedded"
	"tidegate/pipeline/retry"
)

// halfRequests are the first bytes of clients that never send a whole request.
var halfRequests = []string{
	"",
	"POST / HT",
	"POST / HTTP/1.1\r\nHost: x\r\nX-ClickHouse-User: analyst\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nSELECT",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat(" ", 100_000),
}

// A halfOpenFlood keeps a number of connections open, on each of which half a request is sent. It opens another one when
// the server closes one.
type halfOpenFlood struct {
	open, opened, closed atomic.Int64 // closed: by the server
	clients              sync.WaitGroup
	stop                 context.CancelFunc
}

func startHalfOpenFlood(t *testing.T, addr string, count int) *halfOpenFlood {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	flood := &halfOpenFlood{stop: stop}
	for i := range count {
		flood.clients.Go(func() {
			for ctx.Err() == nil {
				flood.holdConnection(ctx, addr, halfRequests[i%len(halfRequests)])
			}
		})
	}
	t.Cleanup(flood.end)
	return flood
}

func (f *halfOpenFlood) end() {
	f.stop()
	f.clients.Wait()
}

// holdConnection opens a connection and waits until the server closes it.
func (f *halfOpenFlood) holdConnection(ctx context.Context, addr, request string) {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	_, _ = io.WriteString(conn, request)
	f.opened.Add(1)
	f.open.Add(1)
	_, _ = io.Copy(io.Discard, conn)
	f.open.Add(-1)
	if ctx.Err() == nil {
		f.closed.Add(1)
		_ = retry.Sleep(ctx, 100*time.Millisecond) // it may have been refused
	}
}

// awaitConnections waits until enough reports true.
func awaitConnections(t *testing.T, what string, enough func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !enough(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within two minutes", what)
		}
	}
}

// TestHalfOpenConnectionsKeepNobodyOut: beside connections that never send a whole request, each insert and each query
// of an analyst succeeds at once, in a store of the least memory. On the port for queries there are more of them than it
// allows, on the ports of the server more than that: the engine inserts over the connection that it has.
func TestHalfOpenConnectionsKeepNobodyOut(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a ClickHouse")
	}
	reg := prometheus.NewRegistry()
	cfg := storeConfig(t.TempDir())
	cfg.TCPPort, cfg.MaxMemoryBytes = freePort(t), config.GiB
	server := startStore(t, cfg, reg)
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	store := openStore(t, server)
	analyst, err := embedded.StoreClient(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	pid, offset := server.PID(), int64(0)
	insert := func() time.Duration {
		t.Helper()
		began := time.Now()
		if err := store.Insert(t.Context(), newBlock(offset, 100), fmt.Sprint("token", offset)); err != nil {
			t.Errorf("insert: %v", err)
		}
		offset += 100
		return time.Since(began)
	}
	ask := func() time.Duration {
		t.Helper()
		began := time.Now()
		if got, err := query(analyst, "SELECT count() FROM events"); err != nil || got != fmt.Sprint(offset) {
			t.Errorf("query: %q, %v", got, err)
		}
		return time.Since(began)
	}
	check := func(name, addr string, count int, queries bool) {
		t.Helper()
		var inserts, asks time.Duration
		flood := startHalfOpenFlood(t, addr, count)
		for round := range 20 {
			if round == 0 {
				awaitConnections(t, "connections", func() bool { return flood.opened.Load() >= int64(count) })
			}
			if round == 10 {
				awaitConnections(t, "the server closes them", func() bool { return flood.closed.Load() >= int64(count) })
			}
			inserts = max(inserts, insert())
			if queries {
				asks = max(asks, ask())
			}
		}
		flood.end()
		t.Logf("%s, %d connections: an insert took %v at most, a query %v; memory %d MiB at most",
			name, count, inserts, asks, peakMemory(t, pid)>>20)
	}

	check("none", analyst.HTTPAddr, 0, true)
	check("queries", analyst.HTTPAddr, 1000, true)
	check("queries", analyst.HTTPAddr, 1500, true)
	check("server", store.Config().HTTPAddr, 400, false)
	check("native", net.JoinHostPort("127.0.0.1", strconv.Itoa(cfg.TCPPort)), 400, false)
	if metricValue(t, reg, "tidegate_embedded_store_evicted_connections_total") == 0 {
		t.Error("no connection was closed beyond the limit")
	}
	awaitConnections(t, "the server answers after the floods", func() bool {
		_, err := query(server.Config(), "SELECT 1")
		return err == nil
	})
	if ask(); server.PID() != pid {
		t.Error("the server was restarted")
	}
}
