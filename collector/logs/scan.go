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

// ownsName tells whether a name in the folder is one of the log's files.
func (c *tailer) ownsName(name string) bool { return strings.HasPrefix(name, c.base) }

// poll is the cheap look of every second: has the base name another file, has its file grown? whole lists the folder in any case.
func (c *tailer) poll(whole bool) {
	handle, err := handleAt(unix.AT_FDCWD, c.path)
	c.mu.Lock()
	again := c.rescanNeeded
	c.mu.Unlock()
	if whole || again || err != nil || handle != c.baseHandle {
		c.scanFolder()
		return
	}
	if c.lagBytes() > 0 {
		c.wakeReader()
	}
}

// missingTimeout is how long the position in a file that is not seen any more is kept.
const missingTimeout = 10 * time.Second

// A listedFile is a file of the folder: rank 0 is the log itself, n what rotation has moved n times.
type listedFile struct {
	name string
	rank int
	gz   bool
}

// listNames lists the files of the log, newest first. A compressed file whose original is still there is not complete.
func (c *tailer) listNames() ([]listedFile, error) {
	d, err := os.Open(c.dir)
	if err != nil {
		return nil, err
	}
	all, err := d.Readdirnames(-1)
	_ = d.Close()
	if err != nil {
		return nil, err
	}
	var list []listedFile
	for _, s := range all {
		rest, ok := strings.CutPrefix(s, c.base)
		if !ok {
			continue
		}
		n := listedFile{name: s}
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
	slices.SortFunc(list, func(a, b listedFile) int { return cmp.Compare(a.rank, b.rank) })
	return list, nil
}

// maxListings is how often a folder is listed until nothing was renamed meanwhile; then it waits for the next look.
const maxListings = 16

// scanFolder lists the folder, opens what is new, and lets go of what has no name any more.
//
// Names are gone through from the newest to the oldest: a rotation that happens meanwhile moves files towards the older names, so one
// may be met twice, which its handle shows. But one may be missed as well, while it is renamed or its copy takes its place, two
// rotations may turn their order round, and a copy may be met that is not complete. So the folder is listed until it is the same
// afterwards; the chain's goroutine waits until then. What was opened before is kept: it may have been removed by now.
func (c *tailer) scanFolder() {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := slices.Clone(c.files)
	for range maxListings {
		seen, copies, stable, err := c.scanOnce(known)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			// What was not seen must not be taken for gone: without descriptors not even a folder can be listed.
			c.s.metrics.errors.WithLabelValues("list").Inc()
			break
		}
		if err != nil {
			c.folderGone.Store(true)
		}
		if stable {
			for _, f := range copies {
				if !f.identified {
					c.s.metrics.malformed.WithLabelValues("bad_gzip").Inc()
				}
			}
			c.dropMissing(seen)
			c.wakeReader()
			return
		}
		for _, f := range copies {
			f.closeFile(&c.s.budget)
		}
		c.files = slices.DeleteFunc(c.files, func(f *file) bool { return slices.Contains(copies, f) })
	}
	c.rescanNeeded = true
	c.wakeReader()
}

// scanOnce goes through the folder once and puts into the chain what is new. It returns the files that have a name, which of them are
// compressed ones that were not known, and whether all of them had their names from the beginning to the end. Files that are not among
// the known were put into the chain by a listing before this one, and get their place by this one. c.mu is held.
func (c *tailer) scanOnce(known []*file) (seen, copies []*file, stable bool, err error) {
	before, _ := handleAt(unix.AT_FDCWD, c.path)
	list, err := c.listNames()
	if err != nil {
		return nil, nil, errors.Is(err, fs.ErrNotExist), err
	}
	c.rescanNeeded, c.listingIncomplete = false, false
	for _, n := range list {
		f := c.lookupOrOpen(n)
		if f == nil || slices.Contains(seen, f) {
			continue
		}
		if n.rank == 0 {
			c.baseHandle = f.handle
		}
		if f.gz && !slices.Contains(c.files, f) {
			copies = append(copies, f)
		}
		seen = append(seen, f)
	}
	c.files = slices.DeleteFunc(c.files, func(f *file) bool { return !slices.Contains(known, f) && slices.Contains(seen, f) })
	c.insertByRank(seen)
	// A rotation changes the file that has the base name, all else changes names.
	again, err := c.listNames()
	if err != nil {
		return seen, copies, false, nil
	}
	after, _ := handleAt(unix.AT_FDCWD, c.path)
	return seen, copies, before == after && slices.Equal(list, again), nil
}

// lookupOrOpen finds the file behind a name, or opens it. c.mu is held.
func (c *tailer) lookupOrOpen(n listedFile) *file {
	handle, err := handleAt(unix.AT_FDCWD, filepath.Join(c.dir, n.name))
	if err == nil {
		if f := c.fileByHandle(handle); f != nil {
			f.name = n.name
			return f
		}
		if !c.s.budget.acquireDescriptor() {
			c.s.metrics.errors.WithLabelValues("no_descriptor").Inc()
			c.rescanNeeded, c.listingIncomplete = true, true
			return nil
		}
		var fd *os.File
		if fd, err = openLog(c.dir, n.name); err == nil {
			return c.registerFile(n, fd)
		}
		c.s.budget.openFiles.Add(-1)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		c.s.metrics.errors.WithLabelValues("open").Inc()
		c.rescanNeeded = true
		c.listingIncomplete = c.listingIncomplete || errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
	}
	return nil
}

// registerFile makes a file of what was opened. It may be one that is known: under the name was another a moment ago, or it is a compressed
// copy.
func (c *tailer) registerFile(n listedFile, fd *os.File) *file {
	f := &file{name: n.name, file: fd, gz: n.gz}
	var err error
	if f.handle, err = handleAt(int(fd.Fd()), ""); err != nil {
		c.s.metrics.errors.WithLabelValues("open").Inc()
		c.rescanNeeded = true
		f.closeFile(&c.s.budget)
		return nil
	}
	if old := c.fileByHandle(f.handle); old != nil {
		f.closeFile(&c.s.budget)
		old.name = n.name
		return old
	}
	if !n.gz {
		return f
	}
	if f.id, f.identified = identifyGzip(fd, f.handle); !f.identified {
		f.done = true // it stays known by its handle, or it would be tried every second
		f.closeFile(&c.s.budget)
		return f
	}
	for _, old := range c.files {
		if (old.identified || old.file != nil && old.readIdentity(false)) && old.id == f.id {
			f.closeFile(&c.s.budget)
			old.gzipHandle, old.name = f.handle, n.name
			return old
		}
	}
	return f
}

func (c *tailer) fileByHandle(handle string) *file {
	for _, f := range c.files {
		if f.handle == handle || f.gzipHandle == handle {
			return f
		}
	}
	return nil
}

// insertByRank puts the files that are new, of seen (newest first), into the chain: each before the next newer one that is known, the
// newest at the end.
func (c *tailer) insertByRank(seen []*file) {
	at := len(c.files)
	for _, f := range seen {
		if i := slices.Index(c.files, f); i >= 0 {
			at = i
		} else {
			c.files = slices.Insert(c.files, at, f)
		}
	}
}

// dropMissing handles the files that were not seen: one that is read is forgotten, with its lane; one that is not is sealed.
func (c *tailer) dropMissing(seen []*file) {
	c.files = slices.DeleteFunc(c.files, func(f *file) bool {
		if slices.Contains(seen, f) {
			f.missingSince, f.maybeListed = time.Time{}, false
			return false
		}
		if f.file != nil && linked(f.file) {
			return false // it was moved out of the folder
		}
		hidden := c.listingIncomplete && !c.folderGone.Load()
		if f.done {
			if f.missingSince.IsZero() || hidden {
				f.missingSince = time.Now()
			}
			if time.Since(f.missingSince) < missingTimeout && !c.folderGone.Load() {
				c.rescanNeeded = true // it may be out of the folder for a moment: look again before it is forgotten
				return false
			}
			if f.lane != nil {
				f.lane.Close(false)
			}
			return true
		}
		// A compressed copy that could not be opened may be its: then its lane must outlive it. What can wait in the spool need not
		// hold a descriptor until that is known.
		if f.maybeListed = hidden; !hidden {
			f.name = ""
		}
		f.markSourceGone()
		return false
	})
}

// markSourceGone tells the shipper that f can not be read again. It is called while the chain's goroutine may be waiting in Ship: that is
// what it is for.
func (f *file) markSourceGone() {
	if (f.name == "" || f.maybeListed) && f.lane != nil && !f.sealed {
		f.sealed = true
		f.lane.SourceGone()
	}
}

func linked(f *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink > 0
}
