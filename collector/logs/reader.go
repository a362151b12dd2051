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

// readAvailable reads the oldest file of the chain that is not done, up to where it ends now. more tells that there was something to read,
// or that the next file is due.
func (c *tailer) readAvailable(ctx context.Context) (more bool, err error) {
	f, final := c.currentFile()
	if f == nil {
		return false, nil
	}
	if f.lane == nil && !c.resumeFile(f, final) {
		if final {
			c.finishFile(f)
		}
		return final, nil
	}
	if f.isTruncated() {
		c.restartTruncated(f)
		return true, nil
	}
	n, err := c.readToEnd(ctx, f, final)
	if err != nil {
		return false, err
	}
	if n > 0 {
		c.lastRead = time.Now()
	}
	if final {
		if c.nextFile(f) == nil {
			if err := c.flushOpenLines(ctx, f); err != nil {
				return false, err
			}
		}
		c.finishFile(f)
		return true, nil
	}
	if n == 0 && c.flushDue(f) {
		err = c.flushOpenLines(ctx, f)
	}
	return n > 0, err
}

// currentFile returns the file to be read and whether nothing will be added to it: asked before its last byte is read, so that what
// is written before a rotation is not missed.
func (c *tailer) currentFile() (f *file, final bool) {
	gone := c.folderGone.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, f := range c.files {
		if !f.done {
			return f, gone || f.gz || i < len(c.files)-1
		}
	}
	return nil, false
}

func (c *tailer) nextFile(f *file) *file {
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

// resumeFile finds out which file f is, and where to go on. False: its first record is not there yet, or it is a copy of another.
func (c *tailer) resumeFile(f *file, final bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !f.identified {
		if !f.readIdentity(final) {
			return false
		}
	}
	for _, g := range c.files {
		if g != f && g.lane != nil && g.identified && g.id == f.id {
			c.tally.duplicate++
			f.done = true
			f.closeFile(&c.s.budget)
			return false
		}
	}
	f.openProducer(c.s.ship, c.id, &c.s.budget)
	f.markSourceGone()
	if fi, err := f.file.Stat(); err == nil && !f.gz && fi.Size() < f.offset {
		// It was cut short while we were away and has the same first record: what is there now has been read.
		c.tally.truncated++
		f.offset = fi.Size()
	}
	return true
}

// finishFile closes a file that is read to its end and gives its open lines to the next.
func (c *tailer) finishFile(f *file) {
	next := c.nextFile(f)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range f.pending {
		p := &f.pending[i]
		if p.active && next != nil && next.offset == 0 && !next.pending[i].active {
			next.pending[i] = *p
			next.pending[i].carried = true
			*p = pendingLine{}
		} else {
			if p.active {
				c.tally.cut += p.bytes
			}
			p.discardLine(&c.s.budget)
		}
	}
	f.done = true
	f.closeFile(&c.s.budget)
	if c.folderGone.Load() { // else part forgets it: its compressed copy may not have shown up yet
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

// restartTruncated puts a new file in the place of one that was truncated in place: the same handle, other contents.
func (c *tailer) restartTruncated(f *file) {
	c.tally.truncated++
	c.mu.Lock()
	g := &file{handle: f.handle, name: f.name, file: f.file}
	for i := range c.files {
		if c.files[i] == f {
			c.files = append(c.files[:i+1], append([]*file{g}, c.files[i+1:]...)...)
			break
		}
	}
	f.file, f.name, f.handle = nil, "", ""
	c.mu.Unlock()
	c.finishFile(f)
}

// hasOpenLine tells whether a line waits for its end.
func (c *tailer) hasOpenLine() bool {
	f, _ := c.currentFile()
	return f != nil && (f.pending[stdout].active || f.pending[stderr].active)
}

// hasUnread tells whether there is more in the current file than was read, other than a record that is not complete.
func (c *tailer) hasUnread() bool {
	f, final := c.currentFile()
	if f == nil || final {
		return f != nil
	}
	fi, err := f.file.Stat()
	return err == nil && fi.Size() != f.examined
}

// flushDue tells whether the lines that are open in f are to be told as they are.
func (c *tailer) flushDue(f *file) bool {
	if !f.pending[stdout].active && !f.pending[stderr].active {
		return false
	}
	quiet := time.Since(c.lastRead)
	if st := c.containerStatus(); st.Known && !st.Running && quiet > quietAfterEnd {
		return true
	}
	return quiet > c.s.cfg.PartialTimeout
}

// readToEnd reads f to where it ends now and returns how many bytes were new.
func (c *tailer) readToEnd(ctx context.Context, f *file, final bool) (total int64, err error) {
	if f.isFullyRead() {
		return 0, nil
	}
	buf := c.s.budget.getBuffer()
	defer func() { c.s.budget.putBuffer(buf) }()
	have, sinceLook := 0, 0
	c.metadata = c.currentMetadata()
	for {
		if have == len(buf) {
			if have >= recordMax {
				c.tally.tooLong++
				if err := c.shipPlain(ctx, f, buf[:have], f.offset, f.offset+int64(have)); err != nil {
					return total, err
				}
				f.advanceOffset(int64(have))
				have = 0
			} else {
				buf = append(buf, make([]byte, len(buf))...)
			}
		}
		n, rerr := f.readAt(buf[have:], f.offset+int64(have))
		have += n
		used, err := c.splitRecords(ctx, f, buf[:have])
		f.advanceOffset(int64(used))
		total += int64(used)
		c.tally.bytes += uint64(used)
		if err != nil {
			return total, err
		}
		have = copy(buf, buf[used:have])
		f.examined = f.offset + int64(have)
		if rerr != nil || n == 0 {
			if rerr != nil && !errors.Is(rerr, io.EOF) {
				c.s.metrics.errors.WithLabelValues("read").Inc()
				f.readErr = rerr
			}
			if final && have > 0 {
				err = c.readRemainder(ctx, f, buf[:have])
			}
			return total, err
		}
		if sinceLook += n; sinceLook > recordMax {
			sinceLook = 0
			c.metadata = c.currentMetadata()
			c.s.metrics.addTally(&c.tally)
		}
	}
}

func (f *file) advanceOffset(n int64) {
	f.offset += n
	f.readOffset.Store(f.offset)
}
