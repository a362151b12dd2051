package logs

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tidegate/collector/containers"
	"tidegate/pipeline"
)

// A tailer is the log files of one container, oldest first. Its goroutine (run) reads them; the Source's goroutine finds them
// (relist, look), so that a file is opened at once whatever the reading waits for.
type tailer struct {
	s         *Source
	id        string
	dir, base string
	path      string // log.file.path of every line, whatever its file is called by now
	slot      int
	foundAt   time.Time
	cancel    context.CancelFunc
	wake      chan struct{}

	// of the Source's goroutine
	wd         int32
	watched    bool // inotify tells of this folder
	polled     bool // it does not: no watch was to be had
	excluded   bool
	baseHandle string // handle of what had the base name when last looked

	folderGone    atomic.Bool // the folder is no more: what is held is all there will be
	metadataReady atomic.Bool // it was decided who the container is

	mu                sync.Mutex
	files             []*file
	rescanNeeded      bool // something could not be opened: look again
	listingIncomplete bool // what could not be opened may be any file, for want of descriptors

	// of the chain's goroutine
	metadata *pipeline.Container
	idOnly   *pipeline.Container // what stands for a container that the registry does not know
	lastRead time.Time
	rec      record
	clock    timeParser
	redact   redactor
	arena    []byte
	tally    tally
}

func newTailer(s *Source, id, dir, base string, slot int) *tailer {
	c := &tailer{
		s: s, id: id, dir: dir, base: base, path: filepath.Join(dir, base), slot: slot % fullScanEvery, foundAt: time.Now(),
		wake: make(chan struct{}, 1), idOnly: &pipeline.Container{Id: id}, lastRead: time.Now(), cancel: func() {},
	}
	if id == "" {
		c.idOnly = nil // a file that is read by itself
	}
	return c
}

func (c *tailer) wakeReader() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// lagBytes is how many bytes the chain has not read yet.
func (c *tailer) lagBytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var n int64
	for _, f := range c.files {
		n += f.unreadBytes()
	}
	return n
}

// closeFiles ends what is left when the chain's goroutine has returned. Lanes of files that are still there are kept.
func (c *tailer) closeFiles() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.files {
		if f.lane != nil {
			f.lane.Close(f.name != "" && !c.folderGone.Load())
			f.lane = nil
		}
		for i := range f.pending {
			f.pending[i].discardLine(&c.s.budget)
		}
		f.closeFile(&c.s.budget)
	}
	c.files = nil
}

// readLoop reads the chain until the container's folder is gone and all is read, or ctx ends.
func (c *tailer) readLoop(ctx context.Context) {
	defer c.cancel()
	if !c.waitForMetadata(ctx) {
		return
	}
	for ctx.Err() == nil {
		more, err := c.readAvailable(ctx)
		c.s.metrics.addTally(&c.tally)
		if err != nil {
			if ctx.Err() == nil {
				c.s.metrics.errors.WithLabelValues("ship").Inc()
				c.s.log.Error("lines of a container could not be shipped: it is begun again", "container", c.id, "error", err)
				return
			}
			break
		}
		if !more && c.allRead() {
			return
		}
		if more {
			c.sleep(ctx, debounce)
			continue
		}
		c.waitForEvents(ctx)
	}
	c.drainUnlinked(ctx)
}

// drainTimeout is how long a chain that is told to stop goes on with files that nobody can read again.
const drainTimeout = 2 * time.Second

// drainUnlinked reads files that have no name any more to their end, when ctx has ended: with this process their lines are gone.
func (c *tailer) drainUnlinked(ctx context.Context) {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	for late.Err() == nil && !c.containerStatus().Excluded {
		f, _ := c.currentFile()
		if f == nil || !c.isUnlinked(f) {
			return
		}
		more, err := c.readAvailable(late)
		c.s.metrics.addTally(&c.tally)
		if err != nil || !more {
			return
		}
	}
}

func (c *tailer) isUnlinked(f *file) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return f.name == "" || f.file != nil && !linked(f.file)
}

// waitForMetadata waits until the registry knows the container, so that its first lines carry its name, but not for long. False: it
// is not to be followed.
func (c *tailer) waitForMetadata(ctx context.Context) bool {
	defer c.metadataReady.Store(true)
	timeout := time.NewTimer(metadataTimeout - time.Since(c.foundAt))
	defer timeout.Stop()
	for c.s.registry != nil && c.s.registry.Enabled() && !c.s.registry.Status(c.id).Known {
		select {
		case <-ctx.Done():
			return false
		case <-timeout.C:
			return true
		case <-c.wake:
		}
	}
	return ctx.Err() == nil && !c.containerStatus().Excluded
}

func (c *tailer) containerStatus() (st containers.Status) {
	if c.s.registry != nil {
		st = c.s.registry.Status(c.id)
	}
	return st
}

// currentMetadata is who the lines are of, as far as it is known now.
func (c *tailer) currentMetadata() *pipeline.Container {
	if c.s.registry != nil {
		if who := c.s.registry.ByID(c.id); who != nil {
			return who
		}
	}
	return c.idOnly
}

func (c *tailer) allRead() bool {
	if !c.folderGone.Load() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return !slices.ContainsFunc(c.files, func(f *file) bool { return !f.done })
}

func (c *tailer) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// waitForEvents waits until there is something to do. It asks inotify to tell of writes, then looks whether one came just before.
func (c *tailer) waitForEvents(ctx context.Context) {
	wait := time.Hour
	if c.polled {
		wait = 100 * time.Millisecond
	} else {
		_, _ = c.s.watch.watchFolder(c.dir, true)
		if c.lagBytes() > 0 && c.hasUnread() {
			wait = debounce
		}
	}
	if c.hasOpenLine() {
		wait = min(wait, time.Second)
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-c.wake:
	case <-t.C:
	}
	if !c.polled && !c.folderGone.Load() {
		_, _ = c.s.watch.watchFolder(c.dir, false)
	}
}
