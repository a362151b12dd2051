// Package logs follows what containers write to their logs: the json-file logs of dockerd become events of dataset log.
//
// In flow the files <root>/containers/<id>/<id>-json.log with what rotation makes of them (.1, .2, .2.gz, …). Out flows one event a
// line, on a lane a file. cmd/tidegate starts a Source beside the others; package containers tells it who a container is.
//
// # How nothing is lost
//
// One inotify instance has a watch on each container's folder. A new file is opened at once and its descriptor held until it has
// been read to its end, so rotation can rename and unlink as fast as it likes. Each container has a chain of its files, oldest
// first, and one goroutine that reads them in that order; a file is at its end when a newer one stood behind it before its last byte
// was read. Every second everything is looked at again, for what inotify did not tell. A listing counts only when nothing was
// renamed while it was made (relist): a file that was missed would be read behind the one that follows it, or be taken for gone. A
// lane that is stuck stops its own chain only. A held file that has no name any more is sealed (Lane.Seal): its lines may go to the
// spool.
//
// # How nothing comes twice
//
// A file is known by its first record (identity): the record's time, of a nanosecond, and text make it unique within a container,
// and survive renaming, compression, copying of Docker's folder and the reuse of an inode, which ext4 does at once. While the process
// runs, names are told apart by file handle. Position and event.id are those of the uncompressed bytes. The lane knows the mark from which to
// resume; lines up to Mark.At are read again but not shipped again.
//
// # Lines of several records
//
// dockerd cuts lines after 16,384 bytes: the parts have no newline and share one time. A line ends with a record that has a
// newline, that is shorter than that (the stream ended without one), or before one that has another time (a container was
// started again on the same log): all this is in the bytes, so a second reading decides the same. Only when nothing follows at all
// does the clock decide: a while after the container ended, or after Config.PartialTimeout. What follows then is a line of its own. The number
// of such a flush lies within the record that comes next, whose own numbers are its end and the byte before its end.
package logs

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"tidegate/collector"
	"tidegate/collector/containers"
	"tidegate/pipeline"
)

// Config says where the logs are and how they are read.
type Config struct {
	Enabled        bool          `yaml:"enabled"`
	Root           string        `yaml:"root"`            // Docker's data-root, as this process sees it
	Start          string        `yaml:"start"`           // beginning, or end: lines older than the collector itself are left out
	LineMax        int           `yaml:"line_max"`        // bytes of a line that are kept
	PartialTimeout time.Duration `yaml:"partial_timeout"` // after how long a line whose end does not come is told as it is
	Redact         bool          `yaml:"redact"`          // take secrets out of lines before they leave the host
	MaxOpen        int           `yaml:"max_open"`        // descriptors; 0: what the process may have, less a reserve
	Memory         int           `yaml:"memory"`          // bytes for buffers and for lines that are not complete

	// Born is when the collector's state was made: with start: end, what was written before is not read. Zero: now.
	Born time.Time `yaml:"-"`
}

// Default reads all there is, at Docker's usual place.
func Default() Config {
	return Config{
		Enabled: true, Root: "/var/lib/docker", Start: "beginning", LineMax: 1 << 20, PartialTimeout: time.Minute, Redact: true, Memory: 64 << 20,
	}
}

// Check reports every problem of c.
func (c Config) Check() []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("logs."+format, args...)) }
	if c.Root == "" {
		bad("root: is empty")
	}
	if c.Start != "beginning" && c.Start != "end" {
		bad("start: %q is neither beginning nor end", c.Start)
	}
	if c.LineMax < 1024 || c.LineMax > 16<<20 {
		bad("line_max: %d is not within 1024 and 16777216", c.LineMax)
	}
	if c.PartialTimeout < time.Second {
		bad("partial_timeout: %s is less than 1s", c.PartialTimeout)
	}
	if c.MaxOpen < 0 {
		bad("max_open: %d is negative", c.MaxOpen)
	}
	if c.Memory < 4<<20 {
		bad("memory: %d is less than 4194304", c.Memory)
	}
	return errs
}

// Containers is what a Source asks of the registry of containers.
type Containers interface {
	Enabled() bool
	ByID(id string) *pipeline.Container
	Status(id string) containers.Status
	Logs() []containers.LogFile
	Subscribe() <-chan struct{}
}

const (
	debounce      = 10 * time.Millisecond // between two looks at a file that is being written
	rescanEvery   = time.Second
	fullScanEvery = 30 // rescans between two listings of a folder in which nothing seemed to happen
	// introduction is how long a new container's lines wait for its name; its files are held meanwhile.
	metadataTimeout = 2 * time.Second
	// quietAfterEnd is how long after the end of a container, and its last byte, a line without newline is taken as complete.
	quietAfterEnd       = 2 * time.Second
	reservedDescriptors = 256 // descriptors that are left to the rest of the process
)

// Source follows the log files of all containers. It implements collector.Source.
type Source struct {
	cfg       Config
	registry  Containers
	collector pipeline.ID
	log       *slog.Logger
	metrics   metrics
	budget    budget
	notBefore int64 // ns; records before it are left out, 0: none are

	ship           collector.Shipper
	watch          *watcher
	tailers        map[string]*tailer // by container id
	tailersByWatch map[int32]*tailer  // by watch
	ended          chan *tailer
	wg             sync.WaitGroup
	logged         map[string]bool // container ids whose driver was logged
	ticks          int
}

var _ collector.Source = (*Source)(nil)

// New returns a Source that reads nothing until Run is called. who may be nil: then containers have ids only.
func New(cfg Config, who Containers, collectorID pipeline.ID, log *slog.Logger, reg prometheus.Registerer) *Source {
	s := &Source{
		cfg: cfg, registry: who, collector: collectorID, log: log, metrics: newMetrics(reg),
		tailers: map[string]*tailer{}, tailersByWatch: map[int32]*tailer{}, ended: make(chan *tailer), logged: map[string]bool{},
	}
	s.budget.maxFiles = int64(cfg.MaxOpen)
	if s.budget.maxFiles == 0 {
		s.budget.maxFiles = descriptorLimit()
	}
	s.budget.maxMemory = int64(cfg.Memory)
	if cfg.Start == "end" {
		s.notBefore = time.Now().UnixNano()
		if !cfg.Born.IsZero() {
			s.notBefore = cfg.Born.UnixNano()
		}
	}
	return s
}

// descriptorLimit is how many files the process may open, less a reserve.
func descriptorLimit() int64 {
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) != nil {
		return 1024 - reservedDescriptors
	}
	return max(64, min(int64(lim.Cur), 1<<20)-reservedDescriptors)
}

// Run follows the logs until ctx ends. It returns an error only where nothing could ever be read.
func (s *Source) Run(ctx context.Context, ship collector.Shipper) error {
	s.ship = ship
	w, err := newWatcher()
	if err != nil {
		return fmt.Errorf("watch log files: %w", err)
	}
	s.watch = w
	events := make(chan []inotifyEvent)
	readCtx, stop := context.WithCancel(ctx)
	var reader sync.WaitGroup
	reader.Go(func() { w.readEvents(readCtx, events) })
	defer func() {
		stop()
		w.closeWatcher()
		reader.Wait()
	}()

	var changed <-chan struct{}
	if s.registry != nil {
		changed = s.registry.Subscribe()
	}
	tick := time.NewTicker(rescanEvery)
	defer tick.Stop()
	s.rescan(ctx)
	for {
		select {
		case <-ctx.Done():
			s.stopTailers()
			return nil
		case batch := <-events:
			s.handleEvents(ctx, batch)
		case <-changed:
			s.applyMetadata(ctx)
		case <-tick.C:
			s.rescan(ctx)
		case c := <-s.ended:
			s.removeTailer(c)
		}
	}
}

// stopTailers waits for the chains, which see that ctx has ended, and closes their lanes: their files will still be there.
func (s *Source) stopTailers() {
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	for {
		select {
		case <-s.ended:
		case <-done:
			for _, c := range s.tailers {
				s.closeTailer(c)
			}
			return
		}
	}
}

func (s *Source) containersFolder() string { return filepath.Join(s.cfg.Root, "containers") }

// rescan looks at everything again.
func (s *Source) rescan(ctx context.Context) {
	s.ticks++
	dir := s.containersFolder()
	if err := s.watch.watchRoot(dir); err != nil && !s.logged[dir] {
		s.logged[dir] = true
		s.log.Warn("folder of container logs is not there: it is tried again every second", "folder", dir, "error", err)
	}
	entries, err := os.ReadDir(dir)
	if err == nil && s.logged[dir] {
		delete(s.logged, dir)
		s.log.Info("folder of container logs is there", "folder", dir)
	}
	for _, e := range entries {
		if e.IsDir() && isContainerID(e.Name()) {
			s.followLog(ctx, e.Name(), filepath.Join(dir, e.Name()), e.Name()+"-json.log")
		}
	}
	if s.registry != nil {
		s.applyMetadata(ctx)
	}
	var lag int64
	for id, c := range s.tailers {
		if c.excluded {
			if !isDir(c.dir) {
				delete(s.tailers, id)
			}
			continue
		}
		if s.watch.overflowed {
			c.scanFolder()
		} else {
			c.poll(s.ticks%fullScanEvery == c.slot%fullScanEvery)
		}
		lag += c.lagBytes()
	}
	s.watch.overflowed = false
	s.metrics.lag.Set(float64(lag))
	s.metrics.tailers.Set(float64(len(s.tailers)))
	s.metrics.open.Set(float64(s.budget.openFiles.Load()))
}

// followLog begins to follow a container, unless it is followed already.
func (s *Source) followLog(ctx context.Context, id, dir, base string) {
	if s.tailers[id] != nil {
		return
	}
	c := newTailer(s, id, dir, base, len(s.tailers))
	s.tailers[id] = c
	if s.registry != nil && s.registry.Status(id).Excluded {
		c.excluded = true
		return
	}
	wd, err := s.watch.watchFolder(dir, false)
	if err != nil {
		s.metrics.errors.WithLabelValues("watch").Inc()
		c.polled = true
	} else {
		c.watched = true
		s.tailersByWatch[wd] = c
		c.wd = wd
	}
	c.scanFolder()
	ctx, c.cancel = context.WithCancel(ctx)
	s.wg.Go(func() {
		c.readLoop(ctx)
		s.ended <- c
	})
}

// applyMetadata takes what the registry has learnt: names for chains that wait for theirs, containers that are not to be followed, log
// files elsewhere than in the folder of logs, and drivers that keep no file which could be read.
func (s *Source) applyMetadata(ctx context.Context) {
	for _, lf := range s.registry.Logs() {
		if lf.Driver != "json-file" {
			if lf.Driver != "" && !s.logged[lf.ContainerID] {
				s.logged[lf.ContainerID] = true
				s.metrics.unread.WithLabelValues(driverLabel(lf.Driver)).Inc()
				s.log.Warn("log of a container is not read: its driver keeps no json-file", "container", lf.ContainerID, "driver", lf.Driver)
			}
			continue
		}
		if s.tailers[lf.ContainerID] == nil && lf.Path != "" {
			if dir := filepath.Dir(lf.Path); isDir(dir) {
				s.followLog(ctx, lf.ContainerID, dir, filepath.Base(lf.Path))
			}
		}
	}
	for id, c := range s.tailers {
		if !c.excluded && s.registry.Status(id).Excluded {
			c.excluded = true
			c.cancel()
		}
		if !c.metadataReady.Load() {
			c.wakeReader()
		}
	}
}

func driverLabel(d string) string {
	switch d {
	case "local", "journald", "syslog", "none", "fluentd", "gelf", "awslogs", "splunk", "gcplogs", "etwlogs":
		return d
	}
	return "other"
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

// handleEvents takes what inotify told.
func (s *Source) handleEvents(ctx context.Context, batch []inotifyEvent) {
	for _, e := range batch {
		c := s.tailersByWatch[e.wd]
		switch {
		case e.mask&unix.IN_Q_OVERFLOW != 0:
			s.metrics.errors.WithLabelValues("overflow").Inc()
			s.watch.overflowed = true
			s.rescan(ctx)
		case s.watch.isRoot(e.wd):
			if e.mask&unix.IN_IGNORED != 0 {
				s.watch.dropRoot()
			} else if e.mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0 && isContainerID(e.name) {
				s.followLog(ctx, e.name, filepath.Join(s.containersFolder(), e.name), e.name+"-json.log")
			}
		case c == nil:
		case e.mask&unix.IN_IGNORED != 0:
			delete(s.tailersByWatch, e.wd)
			c.scanFolder()
		case e.mask&unix.IN_MODIFY != 0:
			c.wakeReader()
		case c.ownsName(e.name):
			c.scanFolder()
		}
	}
}

// removeTailer takes a chain out whose goroutine has returned. One that was excluded stays known, so that it is not begun again.
func (s *Source) removeTailer(c *tailer) {
	if c.watched {
		s.watch.unwatch(c.wd)
		delete(s.tailersByWatch, c.wd)
	}
	s.closeTailer(c)
	if !c.excluded {
		delete(s.tailers, c.id)
		delete(s.logged, c.id)
	}
}

// closeTailer closes a chain whose goroutine has returned. It looks at the folder before: a lane is forgotten only if its file has no name now,
// and one that was being compressed may have got another name since the last look.
func (s *Source) closeTailer(c *tailer) {
	if !c.excluded {
		c.scanFolder()
	}
	c.closeFiles()
}

// isContainerID tells whether a folder is a container's: its name is 64 hex digits.
func isContainerID(s string) bool {
	if len(s) != 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
