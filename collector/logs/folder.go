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

// listings is how often a folder is listed until nothing was renamed meanwhile; then it waits for the next look.
const listings = 16

// relist lists the folder, opens what is new, and lets go of what has no name any more.
//
// Names are gone through from the newest to the oldest: a rotation that happens meanwhile moves files towards the older names, so one
// may be met twice, which its handle shows. But one may be missed as well, while it is renamed or its copy takes its place, two
// rotations may turn their order round, and a copy may be met that is not complete. So the folder is listed until it is the same
// afterwards; the chain's goroutine waits until then. What was opened before is kept: it may have been removed by now.
func (c *chain) relist() {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := slices.Clone(c.files)
	for range listings {
		seen, copies, stable, err := c.list(known)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			// What was not seen must not be taken for gone: without descriptors not even a folder can be listed.
			c.s.met.errors.WithLabelValues("list").Inc()
			break
		}
		if err != nil {
			c.gone.Store(true)
		}
		if stable {
			for _, f := range copies {
				if !f.named {
					c.s.met.malformed.WithLabelValues("bad_gzip").Inc()
				}
			}
			c.part(seen)
			c.wakeUp()
			return
		}
		for _, f := range copies {
			f.close(&c.s.budget)
		}
		c.files = slices.DeleteFunc(c.files, func(f *file) bool { return slices.Contains(copies, f) })
	}
	c.incomplete = true
	c.wakeUp()
}

// list goes through the folder once and puts into the chain what is new. It returns the files that have a name, which of them are
// compressed ones that were not known, and whether all of them had their names from the beginning to the end. Files that are not among
// the known were put into the chain by a listing before this one, and get their place by this one. c.mu is held.
func (c *chain) list(known []*file) (seen, copies []*file, stable bool, err error) {
	before, _ := handleAt(unix.AT_FDCWD, c.path)
	list, err := c.names()
	if err != nil {
		return nil, nil, errors.Is(err, fs.ErrNotExist), err
	}
	c.incomplete, c.blind = false, false
	for _, n := range list {
		f := c.meet(n)
		if f == nil || slices.Contains(seen, f) {
			continue
		}
		if n.rank == 0 {
			c.known = f.handle
		}
		if f.gz && !slices.Contains(c.files, f) {
			copies = append(copies, f)
		}
		seen = append(seen, f)
	}
	c.files = slices.DeleteFunc(c.files, func(f *file) bool { return !slices.Contains(known, f) && slices.Contains(seen, f) })
	c.merge(seen)
	// A rotation changes the file that has the base name, all else changes names.
	again, err := c.names()
	if err != nil {
		return seen, copies, false, nil
	}
	after, _ := handleAt(unix.AT_FDCWD, c.path)
	return seen, copies, before == after && slices.Equal(list, again), nil
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
			c.incomplete, c.blind = true, true
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
		c.blind = c.blind || errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
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
			f.missed, f.hidden = time.Time{}, false
			return false
		}
		if f.f != nil && linked(f.f) {
			return false // it was moved out of the folder
		}
		hidden := c.blind && !c.gone.Load()
		if f.done {
			if f.missed.IsZero() || hidden {
				f.missed = time.Now()
			}
			if time.Since(f.missed) < missedMax && !c.gone.Load() {
				c.incomplete = true // it may be out of the folder for a moment: look again before it is forgotten
				return false
			}
			if f.lane != nil {
				f.lane.Close(false)
			}
			return true
		}
		// A compressed copy that could not be opened may be its: then its lane must outlive it. What can wait in the spool need not
		// hold a descriptor until that is known.
		if f.hidden = hidden; !hidden {
			f.name = ""
		}
		f.seal()
		return false
	})
}

// seal tells the shipper that f can not be read again. It is called while the chain's goroutine may be waiting in Ship: that is
// what it is for.
func (f *file) seal() {
	if (f.name == "" || f.hidden) && f.lane != nil && !f.sealed {
		f.sealed = true
		f.lane.Seal()
	}
}

func linked(f *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink > 0
}
