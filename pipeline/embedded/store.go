package embedded

import (
	"context"
	"errors"
	"fmt"
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
)

// StoreConfig is the embedded ClickHouse.
type StoreConfig struct {
	Dir       string `yaml:"dir"`        // its data, passwords and log
	Library   string `yaml:"library"`    // libchdb.so; "" is where deploy/fetch-libchdb.sh puts it
	Program   string `yaml:"program"`    // tidegate-clickhouse, which loads it; "" is the one beside this program
	HTTPPort  int    `yaml:"http_port"`  // HTTP and /play, on 127.0.0.1; 0 takes a free one
	TCPPort   int    `yaml:"tcp_port"`   // native protocol, on 127.0.0.1; 0 is none, see below
	Database  string `yaml:"database"`   // which the analyst may read and the cap on disk counts
	MaxMemory int64  `yaml:"max_memory"` // of the child, bytes
	MaxDisk   int64  `yaml:"max_disk"`   // of the store, bytes: above it the oldest events go; 0 is no cap
	MaxLog    int64  `yaml:"max_log"`    // of the child's console, bytes, twice

	DiskInterval time.Duration `yaml:"disk_interval"` // between looks at the disk
}

// DefaultStore is a store that a small host bears. It has no native port: libchdb lets an exception that leaves the handler of a native
// connection end the process, so that there a wrong password, or a client that is killed in the middle, aborts the server (wrong
// passwords did repeatedly; twenty over HTTP did not). The port is for tools that know nothing else, on hosts where everybody is trusted.
func DefaultStore() StoreConfig {
	return StoreConfig{
		HTTPPort: 18123, Database: "tidegate",
		MaxMemory: 2 << 30, MaxDisk: 10 << 30, MaxLog: 8 << 20, DiskInterval: 30 * time.Second,
	}
}

// Check names every key that cannot be right.
func (c StoreConfig) Check() []error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("embedded.store.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if c.Dir == "" {
		bad("dir", "is empty")
	}
	for key, p := range map[string]int{"tcp_port": c.TCPPort, "http_port": c.HTTPPort} {
		if p < 0 || p > 65535 {
			bad(key, "%d is no port", p)
		}
	}
	if c.TCPPort != 0 && c.TCPPort == c.HTTPPort {
		bad("http_port", "%d is tcp_port too", c.HTTPPort)
	}
	if c.MaxMemory < 512<<20 {
		bad("max_memory", "%d bytes is too little: the server alone takes 220 MB, 536870912 is the least", c.MaxMemory)
	}
	if c.MaxDisk != 0 && c.MaxDisk < 64<<20 {
		bad("max_disk", "%d bytes is too little: 0 (no cap) or at least 67108864", c.MaxDisk)
	}
	if c.MaxLog < 64<<10 {
		bad("max_log", "%d bytes is too little: 65536 is the least", c.MaxLog)
	}
	if c.DiskInterval <= 0 {
		bad("disk_interval", "%s is no interval", c.DiskInterval)
	}
	return errs
}

// The users. Ours may do everything; the analyst reads our database, with limits.
const (
	storeUser   = "tidegate"
	analystUser = "analyst"
)

// StoreServer is a running embedded ClickHouse.
type StoreServer struct {
	cfg     StoreConfig
	log     *slog.Logger
	lock    *os.File
	console *cappedLog
	metrics storeMetrics

	stop    context.CancelFunc
	stopped chan struct{} // the supervisor is done
	watcher sync.WaitGroup

	mu    sync.Mutex
	child *os.Process // nil between two lives
}

type storeMetrics struct {
	restarts, droppedRows, droppedBytes prometheus.Counter
	bytes, up                           prometheus.Gauge
}

func newStoreMetrics() storeMetrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "tidegate_embedded_store_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "tidegate_embedded_store_" + name, Help: help})
	}
	m := storeMetrics{
		restarts:     counter("restarts_total", "Times that the embedded ClickHouse ended by itself and was started again."),
		droppedRows:  counter("dropped_rows_total", "Events dropped, the oldest first, to stay below the cap on disk."),
		droppedBytes: counter("dropped_bytes_total", "Bytes on disk that these took."),
		bytes:        gauge("disk_bytes", "Bytes of the store on disk."),
		up:           gauge("up", "1 while the embedded ClickHouse runs."),
	}
	return m
}

// ErrMissing is that what the embedded ClickHouse is made of is not on this machine.
var ErrMissing = errors.New("no embedded ClickHouse")

// StartStore starts the child and waits until it answers. What cannot work is one sentence: no library, a busy port, a folder in
// use. After that the child is kept running until Stop.
func StartStore(ctx context.Context, cfg StoreConfig, log *slog.Logger, reg prometheus.Registerer) (*StoreServer, error) {
	if cfg.Library == "" {
		cfg.Library = LibraryPath()
	}
	if errs := cfg.Check(); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("the embedded ClickHouse exists for linux/amd64 only, this is %s/%s; give the address of a server in clickhouse.addr", runtime.GOOS, runtime.GOARCH)
	}
	if cfg.Program == "" {
		cfg.Program = ProgramPath()
	}
	if _, err := os.Stat(cfg.Program); err != nil {
		return nil, fmt.Errorf("%w: it needs the program tidegate-clickhouse, and %s is not there; `make build` makes it, or give the address of a server in clickhouse.addr", ErrMissing, cfg.Program)
	}
	if _, err := os.Stat(cfg.Library); err != nil {
		return nil, fmt.Errorf("%w: it needs %s, which is not there; deploy/fetch-libchdb.sh fetches it, or give the address of a server in clickhouse.addr", ErrMissing, cfg.Library)
	}
	s := &StoreServer{cfg: cfg, log: log, stopped: make(chan struct{})}
	if err := s.prepareFolder(); err != nil {
		s.releaseResources()
		return nil, err
	}
	s.metrics = newStoreMetrics()
	run, stop := context.WithCancel(context.Background())
	s.stop = stop
	first := make(chan error, 1)
	go s.supervise(run, first)
	select {
	case err := <-first:
		if err != nil {
			stop()
			<-s.stopped
			s.releaseResources()
			return nil, err
		}
	case <-ctx.Done():
		stop()
		s.killChild()
		<-s.stopped
		s.releaseResources()
		return nil, fmt.Errorf("start the embedded ClickHouse: %w", ctx.Err())
	}
	if reg != nil {
		reg.MustRegister(s.metrics.restarts, s.metrics.droppedRows, s.metrics.droppedBytes, s.metrics.bytes, s.metrics.up)
	}
	s.watcher.Go(func() { s.watchDisk(run) })
	return s, nil
}

// prepareFolder makes the folder, takes its lock, finds the ports and writes the configuration.
func (s *StoreServer) prepareFolder() error {
	dir, err := filepath.Abs(s.cfg.Dir)
	if err != nil {
		return err
	}
	s.cfg.Dir = dir
	for _, d := range []string{"", "data", "work", "log"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return fmt.Errorf("start the embedded ClickHouse: %w", err)
		}
	}
	if s.lock, err = lockFile(filepath.Join(dir, "lock"), time.Second); err != nil {
		return fmt.Errorf("start the embedded ClickHouse: %w", err)
	}
	// A child whose parent was just killed lets go of its ports when it dies: its lock tells when.
	old, err := lockFile(filepath.Join(dir, "child.lock"), 10*time.Second)
	if err != nil {
		return fmt.Errorf("start the embedded ClickHouse: one of an earlier run has not ended: %w", err)
	}
	old.Close()
	if s.cfg.TCPPort != 0 {
		if _, err = freePort("ClickHouse", "embedded.store.tcp_port", s.cfg.TCPPort); err != nil {
			return err
		}
	}
	if s.cfg.HTTPPort, err = freePort("ClickHouse", "embedded.store.http_port", s.cfg.HTTPPort); err != nil {
		return err
	}
	if err := s.writeConfig(); err != nil {
		return fmt.Errorf("start the embedded ClickHouse: %w", err)
	}
	s.console, err = openCappedLog(filepath.Join(dir, "log", "clickhouse.log"), s.cfg.MaxLog)
	return err
}

func (s *StoreServer) releaseResources() {
	if s.console != nil {
		s.console.Close()
	}
	if s.lock != nil {
		s.lock.Close()
	}
}

// Config is how clients reach the store: by HTTP.
func (s *StoreServer) Config() clickhouse.Config {
	return clientConfig(s.cfg.Dir, s.cfg.Database, s.cfg.TCPPort, s.cfg.HTTPPort)
}

func clientConfig(dir, database string, tcp, http int) clickhouse.Config {
	c := clickhouse.Default()
	c.Addr = nil
	if tcp != 0 {
		c.Addr = []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp))}
	}
	c.HTTPAddr = net.JoinHostPort("127.0.0.1", strconv.Itoa(http))
	c.Protocol, c.Database = "http", database
	c.Username, c.PasswordFile = storeUser, filepath.Join(dir, storeUser+".password")
	return c
}

// StoreAdmin is how another process of this user reaches the store that runs, or ran last, in dir, as we do: to insert.
func StoreAdmin(dir string) (clickhouse.Config, error) {
	b, err := os.ReadFile(filepath.Join(dir, "ports"))
	if err != nil {
		return clickhouse.Config{}, fmt.Errorf("no embedded ClickHouse has run in %s: %w", dir, err)
	}
	var tcp, http int
	var database string
	if _, err := fmt.Sscan(string(b), &tcp, &http, &database); err != nil {
		return clickhouse.Config{}, fmt.Errorf("read %s: %w", filepath.Join(dir, "ports"), err)
	}
	return clientConfig(dir, database, tcp, http), nil
}

// StoreClient is the same as the analyst: to ask. `tidegate query` goes by it.
func StoreClient(dir string) (clickhouse.Config, error) {
	c, err := StoreAdmin(dir)
	c.Username, c.PasswordFile = analystUser, filepath.Join(dir, analystUser+".password")
	return c, err
}

// Analyst is the read-only login, for a person.
func (s *StoreServer) Analyst() (user, password string) {
	b, _ := os.ReadFile(filepath.Join(s.cfg.Dir, analystUser+".password"))
	return analystUser, strings.TrimSpace(string(b))
}

// PlayURL is ClickHouse's own page for SQL.
func (s *StoreServer) PlayURL() string {
	return fmt.Sprintf("http://127.0.0.1:%d/play?user=%s", s.cfg.HTTPPort, analystUser)
}

// PID is the child's process id, 0 while there is none.
func (s *StoreServer) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child == nil {
		return 0
	}
	return s.child.Pid
}

// stopGrace is how long the child may take to end. It waits for every open connection for 5 s, idle ones too, such as a browser's on
// /play; what is acknowledged is on disk by then, so it is not waited for.
const stopGrace = 3 * time.Second

// Stop ends the store: in order, or, after stopGrace or when ctx is over, by force. No process is left.
func (s *StoreServer) Stop(ctx context.Context) error {
	s.stop()
	s.watcher.Wait()
	err := s.requestStop(ctx)
	grace := time.After(stopGrace)
	if err != nil {
		s.log.Warn("embedded clickhouse could not be asked to end and is killed", "err", err)
		s.killChild()
	}
	select {
	case <-s.stopped:
	case <-grace:
		s.log.Info("embedded clickhouse still has connections and is killed")
	case <-ctx.Done():
	}
	s.killChild()
	<-s.stopped
	s.releaseResources()
	return nil
}
