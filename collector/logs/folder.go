package logs

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// owns tells whether a name in the folder is one of the log's files.
func (c *chain) owns(name string) bool { return strings.HasPrefix(name, c.base) }

// look is the cheap look of every second: has the base name another file, has its file grown? whole lists the folder in any case.
func (c *chain) look(whole bool) {
	handle, err := handleAt(unix.AT_FDCWD, c.path)
	c.mu.Lock()
	again := c.incomplete
	c.mu.Unlock()
	if whole || again || err != nil || handle != c.known {
		c.relist()
		return
	}
	if c.lag() > 0 {
		c.wakeUp()
	}
}

// missedMax is how long the position in a file that is not seen any more is kept.
const missedMax = 10 * time.Second

// A name is a file of the folder: rank 0 is the log itself, n what rotation has moved n times.
type name struct {
	name string
	rank int
	gz   bool
}

// names lists the files of the log, newest first. A compressed file whose original is still there is not complete.
func (c *chain) names() ([]name, error) {
	d, err := os.Open(c.dir)
	if err != nil {
		return nil, err
	}
	all, err := d.Readdirnames(-1)
	_ = d.Close()
	if err != nil {
		return nil, err
	}
	var list []name
	for _, s := range all {
		rest, ok := strings.CutPrefix(s, c.base)
		if !ok {
			continue
		}
		n := name{name: s}
		if rest, n.gz = strings.CutSuffix(rest, ".gz"); n.gz && slices.Contains(all, c.base+rest) {
			continue
		}
		if rest != "" {
			r, err := strconv.ParseUint(strings.TrimPrefix(rest, "."), 10, 16)
			if err != nil || rest[0] != '.' || r == 0 {
				continue
			}
			n.rank = int(r)
		} else if n.gz {
			continue
		}
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b name) int { return cmp.Compare(a.rank, b.rank) })
	return list, nil
}

// relist lists the folder, opens what is new, and lets go of what has no name any more.
//
// Names are gone through from the newest to the oldest: a rotation that happens meanwhile moves files towards the older names, so
// one may be met twice, which its handle shows, but none is missed.
func (c *chain) relist() {
	list, err := c.names()
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			c.gone.Store(true)
		} else {
			// What was not seen must not be taken for gone: without descriptors not even a folder can be listed.
			c.s.met.errors.WithLabelValues("list").Inc()
			c.mu.Lock()
			c.incomplete = true
			c.mu.Unlock()
			return
		}
	}
	c.mu.Lock()
	c.incomplete = false
	seen := make([]*file, 0, len(list))
	for _, n := range list {
		if f := c.meet(n); f != nil && !slices.Contains(seen, f) {
			if n.rank == 0 {
				c.known = f.handle
			}
			seen = append(seen, f)
		}
	}
	c.merge(seen)
	c.part(seen)
	c.mu.Unlock()
	c.wakeUp()
}

// meet finds the file behind a name, or opens it. c.mu is held.
func (c *chain) meet(n name) *file {
	handle, err := handleAt(unix.AT_FDCWD, filepath.Join(c.dir, n.name))
	if err == nil {
		if f := c.byHandle(handle); f != nil {
			f.name = n.name
			return f
		}
		if !c.s.budget.take() {
			c.s.met.errors.WithLabelValues("no_descriptor").Inc()
			c.incomplete = true
			return nil
		}
		var fd *os.File
		if fd, err = openLog(c.dir, n.name); err == nil {
			return c.enter(n, fd)
		}
		c.s.budget.open.Add(-1)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		c.s.met.errors.WithLabelValues("open").Inc()
		c.incomplete = true
	}
	return nil
}

// enter makes a file of what was opened. It may be one that is known: under the name was another a moment ago, or it is a compressed
// copy.
func (c *chain) enter(n name, fd *os.File) *file {
	f := &file{name: n.name, f: fd, gz: n.gz}
	var err error
	if f.handle, err = handleAt(int(fd.Fd()), ""); err != nil {
		c.s.met.errors.WithLabelValues("open").Inc()
		c.incomplete = true
		f.close(&c.s.budget)
		return nil
	}
	if old := c.byHandle(f.handle); old != nil {
		f.close(&c.s.budget)
		old.name = n.name
		return old
	}
	if !n.gz {
		return f
	}
	if f.id, f.named = identifyGzip(fd, f.handle); !f.named {
		c.s.met.malformed.WithLabelValues("bad_gzip").Inc()
		f.done = true // it stays known by its handle, or it would be tried every second
		f.close(&c.s.budget)
		return f
	}
	for _, old := range c.files {
		if (old.named || old.f != nil && old.identify(false)) && old.id == f.id {
			f.close(&c.s.budget)
			old.alias, old.name = f.handle, n.name
			return old
		}
	}
	return f
}

func (c *chain) byHandle(handle string) *file {
	for _, f := range c.files {
		if f.handle == handle || f.alias == handle {
			return f
		}
	}
	return nil
}

// merge puts the files that are new, of seen (newest first), into the chain: each before the next newer one that is known, the
// newest at the end.
func (c *chain) merge(seen []*file) {
	at := len(c.files)
	for _, f := range seen {
		if i := slices.Index(c.files, f); i >= 0 {
			at = i
		} else {
			c.files = slices.Insert(c.files, at, f)
		}
	}
}

// part handles the files that were not seen: one that is read is forgotten, with its lane; one that is not is sealed.
func (c *chain) part(seen []*file) {
	c.files = slices.DeleteFunc(c.files, func(f *file) bool {
		if slices.Contains(seen, f) {
			f.missed = time.Time{}
			return false
		}
		if f.f != nil && linked(f.f) {
			return false // it was moved while we looked, or out of the folder
		}
		if f.done {
			if f.missed.IsZero() {
				f.missed = time.Now()
			}
			if time.Since(f.missed) < missedMax && !c.gone.Load() {
				c.incomplete = true // it may have been given another name while we looked: look again before it is forgotten
				return false
			}
			if f.lane != nil {
				f.lane.Close(false)
			}
			return true
		}
		f.name = ""
		f.seal()
		return false
	})
}

// seal tells the shipper that f can not be read again. It is called while the chain's goroutine may be waiting in Ship: that is
// what it is for.
func (f *file) seal() {
	if f.name == "" && f.lane != nil && !f.sealed {
		f.sealed = true
		f.lane.Seal()
	}
}

func linked(f *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink > 0
}
