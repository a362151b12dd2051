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
	// maxListings is the maximum number of listings in one scan until a stable one is found. If none is
	// stable, the next poll scans again.
	maxListings = 16

	// missingTimeout is the time for which the checkpoint of a file is kept after the file was removed.
	missingTimeout = 10 * time.Second
)

// joinPath returns the path of a file of a folder.
func joinPath(dir, name string) string { return filepath.Join(dir, name) }

// ownsName reports whether a file of the folder belongs to the log.
func (t *Tailer) ownsName(name string) bool {
	_, ok := t.log.Rank(name)
	return ok
}

// poll scans the folder if the base name has another file, and wakes the reader if the files have unread
// bytes. With full it always scans.
func (t *Tailer) poll(full bool) {
	// After a rotation the base name belongs to another file.
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

// isRotated reports whether the base name belongs to another file than at the last listing.
func (t *Tailer) isRotated() bool {
	handle, err := handleAt(unix.AT_FDCWD, t.path)
	t.mu.Lock()
	defer t.mu.Unlock()
	return err == nil && handle != t.baseHandle
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
		// A compressed file is incomplete while its original exists.
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

// scanFolder lists the folder, opens new files, and drops files that were removed.
//
// Names are visited from the newest to the oldest. A concurrent rotation moves files towards the older names:
// a file may be found twice, which its handle shows. A file may also be missed while it is renamed or
// replaced by its copy, two rotations may reverse the order of two files, and a copy may be found that is
// incomplete. The folder is therefore listed until a listing is stable: the names are the same after it. The
// reader waits for t.mu meanwhile. A file that an unstable listing has opened is kept, since it may have been
// removed since.
func (t *Tailer) scanFolder() {
	t.mu.Lock()
	defer t.mu.Unlock()

	// Invariant: t.files holds the files of known, in their order, and files that earlier rounds have opened.
	known := slices.Clone(t.files)
	for range maxListings {
		listing, err := t.scanOnce(known)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			// Without a listing no file may be dropped. The usual cause is a lack of descriptors.
			t.group.metrics.errors.WithLabelValues("list").Inc()
			if isShortage(err) {
				t.scanShort.Store(true)
			}
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
		// A compressed file may have been incomplete: the next listing opens it again.
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
	compressed []*file // the compressed files of found that were not known before
	stable     bool    // no name changed during the listing
}

// scanOnce lists the folder once and adds the new files to t.files. Files that are not in known were added by
// an earlier, unstable listing: they are moved to their position in this one. t.mu is held.
func (t *Tailer) scanOnce(known []*file) (listing, error) {
	before, _ := handleAt(unix.AT_FDCWD, t.path)
	names, err := t.listNames()
	if err != nil {
		return listing{stable: errors.Is(err, fs.ErrNotExist)}, err
	}

	// 1. Find the file of each name.
	t.rescanNeeded, t.listingIncomplete, t.unopened = false, false, 0
	t.scanShort.Store(false)
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

	// 2. Insert the new files in order.
	t.files = slices.DeleteFunc(t.files, func(f *file) bool {
		return !slices.Contains(known, f) && slices.Contains(found.found, f)
	})
	t.insertByRank(found.found)

	// 3. Check that the listing is stable. A rotation changes the file of the base name; every other change
	// changes the names.
	again, err := t.listNames()
	if err != nil {
		return found, nil
	}
	after, _ := handleAt(unix.AT_FDCWD, t.path)
	found.stable = before == after && slices.Equal(names, again)
	return found, nil
}

// lookupOrOpen returns the file of a name and opens it if it is neither known nor among found; nil: it cannot
// be opened. t.mu is held.
func (t *Tailer) lookupOrOpen(name listedFile, found []*file) *file {
	handle, err := handleAt(unix.AT_FDCWD, joinPath(t.log.Dir, name.name))
	if err == nil {
		// A known file, perhaps under a new name.
		if f := t.fileByHandle(handle, found); f != nil {
			f.name = name.name
			return f
		}

		// Another file is opened at once. Without a free descriptor the next poll tries again.
		if !t.group.budget.acquireDescriptor() {
			t.leaveUnopened(name)
			return nil
		}
		var fd *os.File
		if fd, err = openLog(t.log.Dir, name.name); err == nil {
			return t.registerFile(name, fd, found)
		}
		t.group.budget.releaseDescriptor()
	}

	// A file that has vanished meanwhile is no error. Other errors are counted, and most are tried again.
	if !errors.Is(err, fs.ErrNotExist) {
		t.group.metrics.errors.WithLabelValues("open").Inc()
		if errors.Is(err, errNotRegular) || errors.Is(err, unix.ELOOP) {
			return nil // a pipe or a symbolic link has no lines, and trying again changes nothing
		}
		t.rescanNeeded = true
		if isShortage(err) {
			t.leaveUnopened(name)
		}
	}
	return nil
}

// leaveUnopened notes that a file could not be opened for lack of descriptors. Its bytes count as not read,
// although an earlier process may have read them. t.mu is held.
func (t *Tailer) leaveUnopened(name listedFile) {
	t.noteShortage(&t.scanShort)
	t.rescanNeeded, t.listingIncomplete = true, true
	var st unix.Stat_t
	if unix.Lstat(joinPath(t.log.Dir, name.name), &st) == nil {
		t.unopened += st.Size
	}
}

// registerFile returns the file of a descriptor that was opened by name. It is a known file if a rotation
// changed the name after lookupOrOpen, or if fd is the compressed copy of a known file. t.mu is held.
func (t *Tailer) registerFile(name listedFile, fd *os.File, found []*file) *file {
	f := &file{name: name.name, file: fd, gz: name.rank.Compressed}

	// The name may have got another file since lookupOrOpen: use the handle of the descriptor.
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
		f.done = true // it is kept, so that it is not opened again every second
		f.closeFile(&t.group.budget)
		return f
	}
	for _, known := range t.files {
		if known.isCompressedAs(f, t.log.Format) {
			if known.released {
				known.adoptCompressed(f.file)
			} else {
				f.closeFile(&t.group.budget)
			}
			known.gzipHandle, known.name = f.handle, name.name
			return known
		}
	}
	return f
}

// fileByHandle returns the file with that handle, among the files of the log and those that the current
// listing has found; nil: there is none. t.mu is held.
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

// insertByRank inserts the new files of found (newest first) into t.files (oldest first): each before the
// next newer file of found, the newest at the end. t.mu is held.
func (t *Tailer) insertByRank(found []*file) {
	// Invariant: t.files[position] is the last handled file of found; the next one is older and goes before
	// it.
	position := len(t.files)
	for _, f := range found {
		if i := slices.Index(t.files, f); i >= 0 {
			position = i
		} else {
			t.files = slices.Insert(t.files, position, f)
		}
	}
}

// dropMissing handles the files that a stable listing has not found. A file that is done is dropped with its
// checkpoint after missingTimeout. A file that is not done loses its name, and SourceGone is called for it.
// t.mu is held.
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

		// The file may have a compressed copy that could not be opened: its checkpoint is then still needed.
		maybeListed := t.listingIncomplete && !t.folderGone.Load()
		if f.done {
			if f.missingSince.IsZero() || maybeListed {
				f.missingSince = time.Now()
			}
			if time.Since(f.missingSince) < missingTimeout && !t.folderGone.Load() {
				t.rescanNeeded = true // it may be missing for a moment only
				return false
			}
			f.closeProducer(false)
			return true
		}

		// Lines that can wait in the spool release the descriptor sooner, so SourceGone is called before it
		// is certain that the file has no copy.
		if f.maybeListed = maybeListed; !maybeListed {
			f.name = ""
		}
		f.markSourceGone()
		return false
	})
}

// isLinked reports whether a name still refers to the open file f.
func isLinked(f *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink > 0
}
