package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/config"
	"tidegate/pipeline/metrics"
	"tidegate/pipeline/statedir"
)

// The users of the embedded ClickHouse: storeUser may do everything, analystUser reads our database within
// limits.
const (
	storeUser   = "tidegate"
	analystUser = "analyst"
)

// StoreServer is a running embedded ClickHouse.
type StoreServer struct {
	cfg         StoreConfig
	log         *slog.Logger
	newPassword bool // of the analyst, created by this start
	lock        *statedir.Lock
	console     *cappedLog
	metrics     storeMetrics
	listener    net.Listener // of queries; its port is cfg.HTTPPort
	queries     *queryPort
	serverPort  int // HTTP port of the child, for this program
	damaged     int // folders that reportDamage has logged; of watchDisk

	stop    context.CancelFunc
	stopped chan struct{} // closed when the supervisor has ended
	watcher sync.WaitGroup

	mu    sync.Mutex
	child *storeChild // nil while no child runs; guarded by mu
}

type storeMetrics struct {
	restarts, droppedRows, droppedBytes, evicted prometheus.Counter
	bytes, up, damaged                           prometheus.Gauge
}

func newStoreMetrics(reg prometheus.Registerer) storeMetrics {
	factory := metrics.With(reg)
	return storeMetrics{
		restarts: factory.Counter("tidegate_embedded_store_restarts_total",
			"Times that the embedded ClickHouse ended by itself and was restarted."),
		droppedRows: factory.Counter("tidegate_embedded_store_dropped_rows_total",
			"Events that the embedded ClickHouse dropped, oldest first, to stay below its cap on disk."),
		droppedBytes: factory.Counter("tidegate_embedded_store_dropped_bytes_total",
			"Bytes on disk of the events that the embedded ClickHouse dropped to stay below its cap."),
		evicted: factory.Counter("tidegate_embedded_store_evicted_connections_total",
			"Connections without a request that the query port of the embedded ClickHouse closed because there were too many."),
		bytes: factory.Gauge("tidegate_embedded_store_disk_bytes",
			"Size of the embedded ClickHouse on disk, in bytes."),
		damaged: factory.Gauge("tidegate_embedded_store_damaged_folders",
			"Folders of parts and tables that the embedded ClickHouse leaves out because they are damaged."),
		up: factory.Gauge("tidegate_embedded_store_up", "1 while the embedded ClickHouse runs, else 0."),
	}
}

// ErrMissing is returned when the library or the program of the embedded ClickHouse is not on this machine.
var ErrMissing = errors.New("no embedded ClickHouse")

// StartStore starts the child and waits until it answers queries. Until Stop, the supervisor restarts a child
// that ends. An error of StartStore is one sentence for a person: the library is missing, a port is taken,
// the folder is in use.
func StartStore(
	ctx context.Context, cfg StoreConfig, log *slog.Logger, reg prometheus.Registerer,
) (*StoreServer, error) {
	if cfg.Library == "" {
		cfg.Library = LibraryPath()
	}
	if err := config.Join("embedded.store", cfg.Check()); err != nil {
		return nil, err
	}
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("the embedded ClickHouse exists for linux/amd64 only, this is %s/%s; "+
			"give the address of a server in clickhouse.addr", runtime.GOOS, runtime.GOARCH)
	}
	if cfg.Program == "" {
		cfg.Program = ProgramPath()
	}
	if _, err := os.Stat(cfg.Program); err != nil {
		return nil, fmt.Errorf("%w: it needs the program tidegate-clickhouse, and %s is not there; "+
			"`make build` makes it, or give the address of a server in clickhouse.addr", ErrMissing, cfg.Program)
	}
	if _, err := os.Stat(cfg.Library); err != nil {
		return nil, fmt.Errorf("%w: it needs %s, which is not there; "+
			"deploy/fetch-libchdb.sh fetches it, or give the address of a server in clickhouse.addr",
			ErrMissing, cfg.Library)
	}

	// Lock the folder before anything starts in it.
	server := &StoreServer{cfg: cfg, log: log, stopped: make(chan struct{})}
	if err := server.prepareFolder(ctx); err != nil {
		server.releaseResources()
		return nil, err
	}
	server.metrics = newStoreMetrics(reg)

	// The supervisor owns the child from here on. Wait for the result of its first start.
	run, stop := context.WithCancel(context.Background())
	server.stop = stop
	first := make(chan error, 1)
	go server.supervise(run, first)
	select {
	case err := <-first:
		if err != nil {
			stop()
			<-server.stopped
			server.releaseResources()
			return nil, err
		}
	case <-ctx.Done():
		stop()
		server.killChild()
		<-server.stopped
		server.releaseResources()
		return nil, fmt.Errorf("start the embedded ClickHouse: %w", ctx.Err())
	}
	server.queries = newQueryPort(server.listener, server.serverPort, server.metrics.evicted, log)
	server.watcher.Go(func() { server.watchDisk(run) })
	return server, nil
}

// prepareFolder creates and locks the folder, picks the ports and writes the server's configuration.
func (s *StoreServer) prepareFolder(ctx context.Context) error {
	dir, err := filepath.Abs(s.cfg.Dir)
	if err != nil {
		return err
	}
	s.cfg.Dir = dir
	failed := func(err error) error {
		return fmt.Errorf("start the embedded ClickHouse: %w", describeFolderError(dir, err))
	}
	for _, d := range []string{"", "data", "work", "log"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return failed(err)
		}
	}
	if s.lock, err = lockFolder(ctx, dir, LockFile, time.Second); err != nil {
		return failed(err)
	}
	if err := checkFolder(dir); err != nil {
		return failed(err)
	}

	// The child of a parent that was just killed may still hold its ports. It holds child.lock until it ends.
	old, err := lockFolder(ctx, dir, "child.lock", 10*time.Second)
	if err = describeFolderError(dir, err); err != nil {
		return fmt.Errorf("start the embedded ClickHouse: one of an earlier run has not ended: %w", err)
	}
	_ = old.Unlock()
	if s.cfg.TCPPort != 0 {
		if _, err = freePort("ClickHouse", "embedded.store.tcp_port", s.cfg.TCPPort); err != nil {
			return err
		}
	}
	if s.listener, err = listenForQueries(ctx, s.cfg.HTTPPort); err != nil {
		return err
	}
	s.cfg.HTTPPort = s.listener.Addr().(*net.TCPAddr).Port
	if s.serverPort, err = freePort("ClickHouse", "", 0); err != nil {
		return err
	}
	if err := s.writeConfig(); err != nil {
		return failed(err)
	}
	if err := s.writeFormat(); err != nil {
		return failed(err)
	}
	s.console, err = openCappedLog(s.logPath(), int64(s.cfg.MaxLogBytes))
	return err
}

func (s *StoreServer) releaseResources() {
	if s.queries != nil {
		s.queries.Close()
	} else if s.listener != nil {
		_ = s.listener.Close()
	}
	if s.console != nil {
		s.console.Close()
	}
	if s.lock != nil {
		_ = s.lock.Unlock()
	}
}

// Config returns the configuration with which this process reaches the store: over HTTP, as a user who may
// insert, at the server's own port.
func (s *StoreServer) Config() clickhouse.Config {
	return clientConfig(s.cfg.Dir, s.cfg.Database, s.cfg.TCPPort, s.serverPort)
}

func clientConfig(dir, database string, tcp, http int) clickhouse.Config {
	cfg := clickhouse.Default()
	cfg.Addr = nil
	if tcp != 0 {
		cfg.Addr = []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp))}
	}
	cfg.HTTPAddr = net.JoinHostPort("127.0.0.1", strconv.Itoa(http))
	cfg.Protocol, cfg.Database = "http", database
	cfg.Username, cfg.PasswordFile = storeUser, filepath.Join(dir, storeUser+".password")
	return cfg
}

// StoreAdmin returns the configuration of a user who may insert to another process of the same user. It reads the ports
// that the store in dir uses, or used last. The port is that for queries: the server has another one at each start.
func StoreAdmin(dir string) (clickhouse.Config, error) {
	data, err := os.ReadFile(filepath.Join(dir, "ports"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return clickhouse.Config{}, fmt.Errorf("read the ports of the embedded ClickHouse: %w", err)
	}
	if err != nil {
		return clickhouse.Config{}, fmt.Errorf("no embedded ClickHouse has run in %s: %w", dir, err)
	}
	var tcp, http int
	var database string
	if _, err := fmt.Sscan(string(data), &tcp, &http, &database); err != nil {
		return clickhouse.Config{}, fmt.Errorf("read %s: %w", filepath.Join(dir, "ports"), err)
	}
	return clientConfig(dir, database, tcp, http), nil
}

// StoreClient returns the configuration of the read-only analyst; `tidegate query` uses it.
func StoreClient(dir string) (clickhouse.Config, error) {
	cfg, err := StoreAdmin(dir)
	cfg.Username, cfg.PasswordFile = analystUser, filepath.Join(dir, analystUser+".password")
	return cfg, err
}

// An Analyst is the login of the read-only user, to be shown to a person.
type Analyst struct {
	User, Password string
	PasswordFile   string // holds the password; only the user of tidegate may read it
	New            bool   // the password was created by this start of the store
}

// Analyst returns the login of the read-only user.
func (s *StoreServer) Analyst() Analyst {
	file := filepath.Join(s.cfg.Dir, analystUser+".password")
	password, _ := os.ReadFile(file)
	return Analyst{analystUser, strings.TrimSpace(string(password)), file, s.newPassword}
}

// PlayURL returns the address of ClickHouse's SQL page.
func (s *StoreServer) PlayURL() string {
	return fmt.Sprintf("http://127.0.0.1:%d/play?user=%s", s.cfg.HTTPPort, analystUser)
}

// PID returns the process ID of the child, 0 while none runs.
func (s *StoreServer) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child == nil {
		return 0
	}
	return s.child.command.Process.Pid
}

// stopGrace is the time that the child may take to end. ClickHouse itself would wait 5 s for every open
// connection, also for an idle one such as that of a browser on /play. Acknowledged data is on disk already,
// so the child need not have that time.
const stopGrace = 3 * time.Second

// Stop stops the child by request, and kills it after stopGrace or when ctx ends. The child has ended when
// Stop returns.
func (s *StoreServer) Stop(ctx context.Context) error {
	// End the supervisor's restarts and the disk watcher before the child.
	s.stop()
	s.watcher.Wait()
	s.awaitStop(ctx)
	s.killChild()
	<-s.stopped
	s.releaseResources()
	return nil
}

// awaitStop requests the child to end and waits until it has ended, stopGrace is over or ctx ends. It repeats the
// request, because a session that is just starting drops it.
func (s *StoreServer) awaitStop(ctx context.Context) {
	grace := time.After(stopGrace)
	repeat := time.NewTicker(100 * time.Millisecond)
	defer repeat.Stop()
	for {
		s.requestStop()
		select {
		case <-s.stopped:
			return
		case <-grace:
			s.log.Info("embedded clickhouse still has connections, killing it")
			return
		case <-ctx.Done():
			return
		case <-repeat.C:
		}
	}
}
