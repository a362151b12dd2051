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

// A chain is the log files of one container, oldest first. Its goroutine (run) reads them; the Source's goroutine finds them
// (relist, look), so that a file is opened at once whatever the reading waits for.
type chain struct {
	s         *Source
	id        string
	dir, base string
	path      string // log.file.path of every line, whatever its file is called by now
	slot      int
	found     time.Time
	cancel    context.CancelFunc
	wake      chan struct{}

	// of the Source's goroutine
	wd       int32
	watched  bool // inotify tells of this folder
	polled   bool // it does not: no watch was to be had
	excluded bool
	known    string // handle of what had the base name when last looked

	gone       atomic.Bool // the folder is no more: what is held is all there will be
	introduced atomic.Bool // it was decided who the container is

	mu         sync.Mutex
	files      []*file
	incomplete bool // something could not be opened: look again
	blind      bool // what could not be opened may be any file, for want of descriptors

	// of the chain's goroutine
	who      *pipeline.Container
	nameless *pipeline.Container // what stands for a container that the registry does not know
	lastRead time.Time
	rec      record
	clock    clock
	redact   redactor
	arena    []byte
	tally    tally
}

func newChain(s *Source, id, dir, base string, slot int) *chain {
	c := &chain{
		s: s, id: id, dir: dir, base: base, path: filepath.Join(dir, base), slot: slot % relistEvery, found: time.Now(),
		wake: make(chan struct{}, 1), nameless: &pipeline.Container{Id: id}, lastRead: time.Now(), cancel: func() {},
	}
	if id == "" {
		c.nameless = nil // a file that is read by itself
	}
	return c
}

func (c *chain) wakeUp() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// lag is how many bytes the chain has not read yet.
func (c *chain) lag() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var n int64
	for _, f := range c.files {
		n += f.lag()
	}
	return n
}

// close ends what is left when the chain's goroutine has returned. Lanes of files that are still there are kept.
func (c *chain) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.files {
		if f.lane != nil {
			f.lane.Close(f.name != "" && !c.gone.Load())
			f.lane = nil
		}
		for i := range f.pend {
			f.pend[i].clear(&c.s.budget)
		}
		f.close(&c.s.budget)
	}
	c.files = nil
}

// run reads the chain until the container's folder is gone and all is read, or ctx ends.
func (c *chain) run(ctx context.Context) {
	defer c.cancel()
	if !c.introduction(ctx) {
		return
	}
	for ctx.Err() == nil {
		more, err := c.pass(ctx)
		c.s.met.settle(&c.tally)
		if err != nil {
			if ctx.Err() == nil {
				c.s.met.errors.WithLabelValues("ship").Inc()
				c.s.log.Error("lines of a container could not be shipped: it is begun again", "container", c.id, "error", err)
				return
			}
			break
		}
		if !more && c.finished() {
			return
		}
		if more {
			c.sleep(ctx, debounce)
			continue
		}
		c.rest(ctx)
	}
	c.last(ctx)
}

// lastWords is how long a chain that is told to stop goes on with files that nobody can read again.
const lastWords = 2 * time.Second

// last reads files that have no name any more to their end, when ctx has ended: with this process their lines are gone.
func (c *chain) last(ctx context.Context) {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	for late.Err() == nil && !c.status().Excluded {
		f, _ := c.current()
		if f == nil || !c.unlinked(f) {
			return
		}
		more, err := c.pass(late)
		c.s.met.settle(&c.tally)
		if err != nil || !more {
			return
		}
	}
}

func (c *chain) unlinked(f *file) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return f.name == "" || f.f != nil && !linked(f.f)
}

// introduction waits until the registry knows the container, so that its first lines carry its name, but not for long. False: it
// is not to be followed.
func (c *chain) introduction(ctx context.Context) bool {
	defer c.introduced.Store(true)
	timeout := time.NewTimer(introduction - time.Since(c.found))
	defer timeout.Stop()
	for c.s.who != nil && c.s.who.Enabled() && !c.s.who.Status(c.id).Known {
		select {
		case <-ctx.Done():
			return false
		case <-timeout.C:
			return true
		case <-c.wake:
		}
	}
	return ctx.Err() == nil && !c.status().Excluded
}

func (c *chain) status() (st containers.Status) {
	if c.s.who != nil {
		st = c.s.who.Status(c.id)
	}
	return st
}

// container is who the lines are of, as far as it is known now.
func (c *chain) container() *pipeline.Container {
	if c.s.who != nil {
		if who := c.s.who.ByID(c.id); who != nil {
			return who
		}
	}
	return c.nameless
}

func (c *chain) finished() bool {
	if !c.gone.Load() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return !slices.ContainsFunc(c.files, func(f *file) bool { return !f.done })
}

func (c *chain) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// rest waits until there is something to do. It asks inotify to tell of writes, then looks whether one came just before.
func (c *chain) rest(ctx context.Context) {
	wait := time.Hour
	if c.polled {
		wait = 100 * time.Millisecond
	} else {
		_, _ = c.s.watch.add(c.dir, true)
		if c.lag() > 0 && c.unread() {
			wait = debounce
		}
	}
	if c.open() {
		wait = min(wait, time.Second)
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-c.wake:
	case <-t.C:
	}
	if !c.polled && !c.gone.Load() {
		_, _ = c.s.watch.add(c.dir, false)
	}
}
