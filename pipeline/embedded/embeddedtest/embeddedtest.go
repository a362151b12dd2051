// Package embeddedtest runs a real ClickHouse for tests: one embedded server for each test binary. It fetches
// the library of ClickHouse where it is missing.
//
// The TestMain of a package calls os.Exit(embeddedtest.Run(m)), and its tests call Store. The server starts
// at the first call of Store or Server, and ends with Run.
package embeddedtest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded"
)

// shared is the server of this test binary. once guards the other fields.
var shared struct {
	once   sync.Once
	dir    string
	server *embedded.StoreServer
	err    error
}

// Run runs the tests and then stops the shared server. Before the tests it builds the program that loads the
// library. Processes that the tests start find the program by an environment variable.
func Run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tidegate-program-")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		program := filepath.Join(dir, "tidegate-clickhouse")
		if err = Build(program); err == nil {
			err = os.Setenv("TIDEGATE_CLICKHOUSE", program)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if server := shared.server; server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := server.Stop(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	if shared.dir != "" {
		os.RemoveAll(shared.dir)
	}
	return code
}

// Server returns the shared server, and starts it at the first call. It skips the test in short mode.
func Server(tb testing.TB) *embedded.StoreServer {
	tb.Helper()
	if testing.Short() {
		tb.Skip("it starts a ClickHouse")
	}
	shared.once.Do(func() {
		if shared.err = Fetch(); shared.err != nil {
			return
		}
		if shared.dir, shared.err = os.MkdirTemp("", "tidegate-store-"); shared.err != nil {
			return
		}
		cfg := embedded.DefaultStore()
		cfg.Dir, cfg.HTTPPort = shared.dir, 0
		if cfg.TCPPort, shared.err = freePort(); shared.err != nil {
			return
		}
		shared.server, shared.err = embedded.StartStore(context.Background(), cfg, slog.New(slog.DiscardHandler), nil)
	})
	if shared.err != nil {
		tb.Fatal(shared.err)
	}
	return shared.server
}

// freePort returns a free TCP port. The embedded server serves the native protocol only if the configuration
// names a port for it.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// Store returns a database on the shared server with the tables of tidegate. The test closes it at its end.
// protocol is native or http.
func Store(tb testing.TB, database, protocol string) *clickhouse.Store {
	tb.Helper()
	cfg := Server(tb).Config()
	cfg.Database, cfg.Protocol = database, protocol
	store, err := clickhouse.Open(context.Background(), cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { store.Close() })
	if err := store.Migrate(context.Background()); err != nil {
		tb.Fatal(err)
	}
	return store
}

// Build builds the program that loads the library of ClickHouse.
func Build(path string) error {
	cmd := exec.Command("go", "build", "-o", path, "tidegate/cmd/tidegate-clickhouse")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build tidegate-clickhouse: %w: %s", err, out)
	}
	return nil
}

// Fetch fetches the library of ClickHouse where it is missing.
func Fetch() error {
	if _, err := os.Stat(embedded.LibraryPath()); err == nil {
		return nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		script := filepath.Join(dir, "deploy", "fetch-libchdb.sh")
		if _, err := os.Stat(script); err == nil {
			out, err := exec.Command(script).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %w: %s", script, err, out)
			}
			return nil
		}
	}
	return fmt.Errorf("deploy/fetch-libchdb.sh is not above the working directory")
}
