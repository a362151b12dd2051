package logs

import (
	"context"
	"errors"
	"io"
	"time"
)

// recordMax is the longest record that is read as one: dockerd's own are at most 16 KiB of payload, six times that with escapes,
// and attrs.
const recordMax = 1 << 20

// pass reads the oldest file of the chain that is not done, up to where it ends now. more tells that there was something to read,
// or that the next file is due.
func (c *chain) pass(ctx context.Context) (more bool, err error) {
	f, final := c.current()
	if f == nil {
		return false, nil
	}
	if f.lane == nil && !c.openFile(f, final) {
		if final {
			c.finish(f)
		}
		return final, nil
	}
	if f.overwritten() {
		c.restart(f)
		return true, nil
	}
	n, err := c.pump(ctx, f, final)
	if err != nil {
		return false, err
	}
	if n > 0 {
		c.lastRead = time.Now()
	}
	if final {
		if c.successor(f) == nil {
			if err := c.flush(ctx, f); err != nil {
				return false, err
			}
		}
		c.finish(f)
		return true, nil
	}
	if n == 0 && c.due(f) {
		err = c.flush(ctx, f)
	}
	return n > 0, err
}

// current returns the file to be read and whether nothing will be added to it: asked before its last byte is read, so that what
// is written before a rotation is not missed.
func (c *chain) current() (f *file, final bool) {
	gone := c.gone.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, f := range c.files {
		if !f.done {
			return f, gone || f.gz || i < len(c.files)-1
		}
	}
	return nil, false
}

func (c *chain) successor(f *file) *file {
	c.mu.Lock()
	defer c.mu.Unlock()
	past := false
	for _, g := range c.files {
		if past && !g.done {
			return g
		}
		past = past || g == f
	}
	return nil
}

// openFile finds out which file f is, and where to go on. False: its first record is not there yet, or it is a copy of another.
func (c *chain) openFile(f *file, final bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !f.named {
		if !f.identify(final) {
			return false
		}
	}
	for _, g := range c.files {
		if g != f && g.lane != nil && g.named && g.id == f.id {
			c.tally.duplicate++
			f.done = true
			f.close(&c.s.budget)
			return false
		}
	}
	f.opened(c.s.ship, c.id, &c.s.budget)
	f.seal()
	if fi, err := f.f.Stat(); err == nil && !f.gz && fi.Size() < f.offset {
		// It was cut short while we were away and has the same first record: what is there now has been read.
		c.tally.truncated++
		f.offset = fi.Size()
	}
	return true
}

// finish closes a file that is read to its end and gives its open lines to the next.
func (c *chain) finish(f *file) {
	next := c.successor(f)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range f.pend {
		p := &f.pend[i]
		if p.active && next != nil && next.offset == 0 && !next.pend[i].active {
			next.pend[i] = *p
			next.pend[i].carried = true
			*p = pending{}
		} else {
			if p.active {
				c.tally.cut += p.bytes
			}
			p.clear(&c.s.budget)
		}
	}
	f.done = true
	f.close(&c.s.budget)
	if c.gone.Load() { // else part forgets it: its compressed copy may not have shown up yet
		if f.lane != nil {
			f.lane.Close(false)
			f.lane = nil
		}
		for i, g := range c.files {
			if g == f {
				c.files = append(c.files[:i], c.files[i+1:]...)
				break
			}
		}
	}
}

// restart puts a new file in the place of one that was truncated in place: the same handle, other contents.
func (c *chain) restart(f *file) {
	c.tally.truncated++
	c.mu.Lock()
	g := &file{handle: f.handle, name: f.name, f: f.f}
	for i := range c.files {
		if c.files[i] == f {
			c.files = append(c.files[:i+1], append([]*file{g}, c.files[i+1:]...)...)
			break
		}
	}
	f.f, f.name, f.handle = nil, "", ""
	c.mu.Unlock()
	c.finish(f)
}

// open tells whether a line waits for its end.
func (c *chain) open() bool {
	f, _ := c.current()
	return f != nil && (f.pend[stdout].active || f.pend[stderr].active)
}

// unread tells whether there is more in the current file than was read, other than a record that is not complete.
func (c *chain) unread() bool {
	f, final := c.current()
	if f == nil || final {
		return f != nil
	}
	fi, err := f.f.Stat()
	return err == nil && fi.Size() != f.seen
}

// due tells whether the lines that are open in f are to be told as they are.
func (c *chain) due(f *file) bool {
	if !f.pend[stdout].active && !f.pend[stderr].active {
		return false
	}
	quiet := time.Since(c.lastRead)
	if st := c.status(); st.Known && !st.Running && quiet > quietAfterEnd {
		return true
	}
	return quiet > c.s.cfg.PartialTimeout
}

// pump reads f to where it ends now and returns how many bytes were new.
func (c *chain) pump(ctx context.Context, f *file, final bool) (total int64, err error) {
	if f.consumed() {
		return 0, nil
	}
	buf := c.s.budget.buffer()
	defer func() { c.s.budget.release(buf) }()
	have, sinceLook := 0, 0
	c.who = c.container()
	for {
		if have == len(buf) {
			if have >= recordMax {
				c.tally.tooLong++
				if err := c.text(ctx, f, buf[:have], f.offset, f.offset+int64(have)); err != nil {
					return total, err
				}
				f.advance(int64(have))
				have = 0
			} else {
				buf = append(buf, make([]byte, len(buf))...)
			}
		}
		n, rerr := f.fill(buf[have:], f.offset+int64(have))
		have += n
		used, err := c.records(ctx, f, buf[:have])
		f.advance(int64(used))
		total += int64(used)
		c.tally.bytes += uint64(used)
		if err != nil {
			return total, err
		}
		have = copy(buf, buf[used:have])
		f.seen = f.offset + int64(have)
		if rerr != nil || n == 0 {
			if rerr != nil && !errors.Is(rerr, io.EOF) {
				c.s.met.errors.WithLabelValues("read").Inc()
				f.broken = rerr
			}
			if final && have > 0 {
				err = c.tail(ctx, f, buf[:have])
			}
			return total, err
		}
		if sinceLook += n; sinceLook > recordMax {
			sinceLook = 0
			c.who = c.container()
			c.s.met.settle(&c.tally)
		}
	}
}

func (f *file) advance(n int64) {
	f.offset += n
	f.read.Store(f.offset)
}
