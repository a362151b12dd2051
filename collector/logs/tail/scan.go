package tail

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"tidegate/collector/logs/discover"
)

const (
	// maxListings is how often a folder is listed until nothing was renamed meanwhile; then it waits for the
	// next poll.
	maxListings = 16

	// missingTimeout is how long the checkpoint of a file is kept that is not found in the folder any more.
	missingTimeout = 10 * time.Second
)

func joinPath(dir, name string) string { return filepath.Join(dir, name) }

// ownsName reports whether a file of the folder belongs to the log.
func (t *Tailer) ownsName(name string) bool {
	_, ok := t.log.Rank(name)
	return ok
}

// poll looks whether the base name has another file or its file has grown. full lists the folder in any case.
func (t *Tailer) poll(full bool) {
	// A rotation gives the base name another file.
	handle, err := handleAt(unix.AT_FDCWD, t.path)
	t.mu.Lock()
	changed := t.rescanNeeded || err != nil || handle != t.baseHandle
	t.mu.Unlock()
	if full || changed {
		t.scanFolder()
		return
	}
	if t.lagBytes() > 0 {
		t.wakeReader()
	}
}

// A listedFile is a name of the log in the folder.
type listedFile struct {
	name string
	rank discover.Rank
}

// listNames lists the files of the log, newest first.
func (t *Tailer) listNames() ([]listedFile, error) {
	dir, err := os.Open(t.log.Dir)
	if err != nil {
		return nil, err
	}
	names, err := dir.Readdirnames(-1)
	_ = dir.Close()
	if err != nil {
		return nil, err
	}

	var list []listedFile
	for _, name := range names {
		rank, ok := t.log.Rank(name)
		// A compressed file whose original is still there is not complete.
		if !ok || rank.Compressed && slices.Contains(names, rank.Plain) {
			continue
		}
		list = append(list, listedFile{name, rank})
	}
	slices.SortFunc(list, func(a, b listedFile) int {
		return cmp.Or(cmp.Compare(a.rank.Age, b.rank.Age), cmp.Compare(a.name, b.name))
	})
	return list, nil
}

// scanFolder lists the folder, opens the files that are new, and drops those that have no name any more.
//
// Names are visited from the newest to the oldest. A rotation that happens meanwhile moves files towards the
// older names, so a file may be found twice, which its handle shows. But a file may be missed as well while
// it is renamed or its copy takes its place, two rotations may reverse the order of two files, and a copy may
// be found that is not complete. So the folder is listed until it is the same afterwards; the reader waits
// for t.mu until then. A file that was opened by a listing that does not count is kept: it may have been
// removed by now.
func (t *Tailer) scanFolder() {
	t.mu.Lock()
	defer t.mu.Unlock()

	// Invariant of the loop: t.files holds known, in its order, and what earlier rounds have opened.
	known := slices.Clone(t.files)
	for range maxListings {
		listing, err := t.scanOnce(known)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			// What was not listed must not be taken for gone: without descriptors not even a folder can be
			// listed.
			t.group.metrics.errors.WithLabelValues("list").Inc()
			break
		}
		if err != nil {
			t.folderGone.Store(true)
		}

		if listing.stable {
			for _, f := range listing.compressed {
				if !f.identified {
					t.group.metrics.malformed.WithLabelValues("bad_gzip").Inc()
				}
			}
			t.dropMissing(listing.found)
			t.wakeReader()
			return
		}
		// A compressed file may not have been complete: the next listing opens it anew.
		for _, f := range listing.compressed {
			f.closeFile(&t.group.budget)
		}
		t.files = slices.DeleteFunc(t.files, func(f *file) bool {
			return slices.Contains(listing.compressed, f)
		})
	}
	t.rescanNeeded = true
	t.wakeReader()
}

// A listing is the result of listing the folder once.
type listing struct {
	found      []*file // newest first
	compressed []*file // of found: those that were not known before
	stable     bool    // all had their names from the beginning to the end
}

// scanOnce lists the folder once and adds the new files to t.files. Files that are not in known were added by
// an earlier listing, which was not stable: their place is taken from this one. t.mu is held.
func (t *Tailer) scanOnce(known []*file) (listing, error) {
	before, _ := handleAt(unix.AT_FDCWD, t.path)
	names, err := t.listNames()
	if err != nil {
		return listing{stable: errors.Is(err, fs.ErrNotExist)}, err
	}

	// Find the file behind each name.
	t.rescanNeeded, t.listingIncomplete = false, false
	var found listing
	for _, name := range names {
		f := t.lookupOrOpen(name, found.found)
		if f == nil || slices.Contains(found.found, f) {
			continue
		}
		if name.name == t.log.Base {
			t.baseHandle = f.handle
		}
		if f.gz && !slices.Contains(t.files, f) {
			found.compressed = append(found.compressed, f)
		}
		found.found = append(found.found, f)
	}

	// Put them in order.
	t.files = slices.DeleteFunc(t.files, func(f *file) bool {
		return !slices.Contains(known, f) && slices.Contains(found.found, f)
	})
	t.insertByRank(found.found)

	// A rotation changes the file that has the base name; all else changes names.
	again, err := t.listNames()
	if err != nil {
		return found, nil
	}
	after, _ := handleAt(unix.AT_FDCWD, t.path)
	found.stable = before == after && slices.Equal(names, again)
	return found, nil
}

// lookupOrOpen returns the file behind a name, and opens it if it is not known and not among found. It
// returns nil where that is not possible; t.mu is held.
func (t *Tailer) lookupOrOpen(name listedFile, found []*file) *file {
	handle, err := handleAt(unix.AT_FDCWD, joinPath(t.log.Dir, name.name))
	if err == nil {
		if f := t.fileByHandle(handle, found); f != nil {
			f.name = name.name
			return f
		}
		if !t.group.budget.acquireDescriptor() {
			t.group.metrics.errors.WithLabelValues("no_descriptor").Inc()
			t.rescanNeeded, t.listingIncomplete = true, true
			return nil
		}
		var fd *os.File
		if fd, err = openLog(t.log.Dir, name.name); err == nil {
			return t.registerFile(name, fd, found)
		}
		t.group.budget.releaseDescriptor()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.group.metrics.errors.WithLabelValues("open").Inc()
		t.rescanNeeded = true
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			t.listingIncomplete = true
		}
	}
	return nil
}

// registerFile returns the file of a descriptor that was opened by name. It may be a known one: the name had
// another file a moment ago, or fd is the compressed copy of a known file. t.mu is held.
func (t *Tailer) registerFile(name listedFile, fd *os.File, found []*file) *file {
	f := &file{name: name.name, file: fd, gz: name.rank.Compressed}

	// The name may have got another file since lookupOrOpen looked: the descriptor decides.
	var err error
	if f.handle, err = handleAt(int(fd.Fd()), ""); err != nil {
		t.group.metrics.errors.WithLabelValues("open").Inc()
		t.rescanNeeded = true
		f.closeFile(&t.group.budget)
		return nil
	}
	if known := t.fileByHandle(f.handle, found); known != nil {
		f.closeFile(&t.group.budget)
		known.name = name.name
		return known
	}
	if !f.gz {
		return f
	}

	// A compressed file has a handle of its own, and is a known file if it holds the same bytes.
	if !f.readGzipIdentity(t.log.Format) {
		f.done = true // it stays known by its handle, or it would be tried every second
		f.closeFile(&t.group.budget)
		return f
	}
	for _, known := range t.files {
		if known.isCompressedAs(f, t.log.Format) {
			f.closeFile(&t.group.budget)
			known.gzipHandle, known.name = f.handle, name.name
			return known
		}
	}
	return f
}

// fileByHandle returns the file with that handle, among those of the log and those that the current listing
// has found: a file that is renamed during the listing is found twice. t.mu is held.
func (t *Tailer) fileByHandle(handle string, found []*file) *file {
	for _, list := range [...][]*file{t.files, found} {
		for _, f := range list {
			if f.handle == handle || f.gzipHandle == handle {
				return f
			}
		}
	}
	return nil
}

// insertByRank adds the files that are new, of found (newest first), to t.files: each before the next newer
// one that is known, the newest at the end. t.mu is held.
func (t *Tailer) insertByRank(found []*file) {
	// place is where a file goes that is older than those of found that were handled so far.
	place := len(t.files)
	for _, f := range found {
		if i := slices.Index(t.files, f); i >= 0 {
			place = i
		} else {
			t.files = slices.Insert(t.files, place, f)
		}
	}
}

// dropMissing handles the files that a stable listing has not found. A file that is done is dropped after a
// while, with its checkpoint; the source of a file that is not is gone. t.mu is held.
func (t *Tailer) dropMissing(found []*file) {
	t.files = slices.DeleteFunc(t.files, func(f *file) bool {
		if slices.Contains(found, f) {
			f.missingSince, f.maybeListed = time.Time{}, false
			return false
		}
		if f.file != nil && isLinked(f.file) {
			return false // it was moved out of the folder
		}
		if f.copyOf != nil {
			f.closeFile(&t.group.budget)
			return true
		}

		// A compressed copy that could not be opened may be this file's: then the checkpoint must outlive it.
		maybeListed := t.listingIncomplete && !t.folderGone.Load()
		if f.done {
			if f.missingSince.IsZero() || maybeListed {
				f.missingSince = time.Now()
			}
			if time.Since(f.missingSince) < missingTimeout && !t.folderGone.Load() {
				t.rescanNeeded = true // it may be out of the folder for a moment only
				return false
			}
			f.closeProducer(false)
			return true
		}

		// What can wait in the spool need not hold a descriptor until it is known whether the file has a
		// copy.
		if f.maybeListed = maybeListed; !maybeListed {
			f.name = ""
		}
		f.markSourceGone()
		return false
	})
}

func isLinked(f *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink > 0
}
