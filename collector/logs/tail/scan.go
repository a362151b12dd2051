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

// hasChanged reports whether the folder is to be scanned: the base name has another file, as after a rotation,
// or none, or the last scan was not complete.
func (t *Tailer) hasChanged() bool {
	handle, err := handleAt(unix.AT_FDCWD, t.path)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rescanNeeded || err != nil || handle != t.baseHandle
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

// folderNames are the names of the files of a folder.
type folderNames struct {
	all    []string
	byBase map[string][]string // by the base names of logs; nil: all names may belong to any log
}

// listFolder lists a folder in which the tailers have their files.
func listFolder(dir string, tailers []*Tailer) (folderNames, error) {
	folder, err := os.Open(dir)
	if err != nil {
		return folderNames{}, err
	}
	names, err := folder.Readdirnames(-1)
	_ = folder.Close()
	listed := folderNames{all: names}
	if baseOf := tailers[0].log.BaseOf; baseOf != nil && len(tailers) > 1 {
		listed.byBase = make(map[string][]string, len(tailers))
		for _, name := range names {
			base := baseOf(name)
			listed.byBase[base] = append(listed.byBase[base], name)
		}
	}
	return listed, err
}

// ownNames returns the files of the log among the names of the folder, newest first.
func (t *Tailer) ownNames(folder folderNames) []listedFile {
	names := folder.all
	if folder.byBase != nil && t.log.BaseOf != nil {
		names = folder.byBase[t.log.Base]
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
	return list
}

// scanFolder lists the folder, opens new files, and drops files that were removed.
func (t *Tailer) scanFolder() { scanTogether(t.log.Dir, []*Tailer{t}) }

// scanFolders scans the folders of tailers, each folder once.
func scanFolders(tailers []*Tailer) {
	byDir := map[string][]*Tailer{}
	for _, tailer := range tailers {
		byDir[tailer.log.Dir] = append(byDir[tailer.log.Dir], tailer)
	}
	for dir, inDir := range byDir {
		// The first tailer decides if names are grouped, so that one with BaseOf comes first.
		slices.SortStableFunc(inDir, func(a, b *Tailer) int {
			return cmp.Compare(btoi(a.log.BaseOf == nil), btoi(b.log.BaseOf == nil))
		})
		scanTogether(dir, inDir)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// scanTogether lists a folder for all tailers of tailers, opens new files, and drops files that were removed.
//
// Names are visited from the newest to the oldest. A concurrent rotation moves files towards the older names:
// a file may be found twice, which its handle shows. A file may also be missed while it is renamed or
// replaced by its copy, two rotations may reverse the order of two files, and a copy may be found that is
// incomplete. The folder is therefore listed until a listing is stable: the names of the log are the same
// after it. The reader waits for t.mu meanwhile. A file that an unstable listing has opened is kept, since it
// may have been removed since.
//
// The tailers share each listing of the folder: with a listing for each of them, thousands of logs in one
// folder cost the square of their number. Only the goroutine of the Group holds the locks of several tailers.
func scanTogether(dir string, tailers []*Tailer) {
	scans := make([]*scan, len(tailers))
	for i, tailer := range tailers {
		tailer.mu.Lock()
		defer tailer.mu.Unlock()
		scans[i] = &scan{Tailer: tailer, known: slices.Clone(tailer.files)}
	}
	for range maxListings {
		before, err := listFolder(dir, tailers)
		if err == nil {
			for _, scan := range scans {
				scan.openFiles(before)
			}
			var after folderNames
			if after, err = listFolder(dir, tailers); err == nil {
				for _, scan := range scans {
					scan.checkStable(after)
				}
			}
		}
		scans = slices.DeleteFunc(scans, func(scan *scan) bool { return scan.endListing(err) })
		if len(scans) == 0 {
			return
		}
	}
	for _, scan := range scans {
		scan.rescanNeeded = true
		scan.wakeReader()
	}
}

// A scan is the state of one tailer in scanTogether. Its lock is held.
//
// Invariant: files holds the files of known, in their order, and files that earlier listings have opened.
type scan struct {
	*Tailer
	known []*file

	// Of the current listing.
	handle     string       // of the base name, before the files were opened
	names      []listedFile // newest first
	found      []*file      // newest first
	compressed []*file      // the compressed files of found that were not known before
	stable     bool         // no name changed during the listing
}

// openFiles finds or opens the files of the names of folder, and adds the new files to t.files. Files that are
// not in known were added by an earlier, unstable listing: they are moved to their position in this one.
func (t *scan) openFiles(folder folderNames) {
	t.handle, _ = handleAt(unix.AT_FDCWD, t.path)
	t.names, t.found, t.compressed, t.stable = t.ownNames(folder), nil, nil, false
	t.rescanNeeded, t.listingIncomplete, t.unopened = false, false, 0
	t.scanShort.Store(false)
	for _, name := range t.names {
		f := t.lookupOrOpen(name, t.found)
		if f == nil || slices.Contains(t.found, f) {
			continue
		}
		if name.name == t.log.Base {
			t.baseHandle = f.handle
		}
		if f.gz && !slices.Contains(t.files, f) {
			t.compressed = append(t.compressed, f)
		}
		t.found = append(t.found, f)
	}

	// Insert the new files in order.
	t.files = slices.DeleteFunc(t.files, func(f *file) bool {
		return !slices.Contains(t.known, f) && slices.Contains(t.found, f)
	})
	t.insertByRank(t.found)
}

// checkStable compares the listing with a later one. A rotation changes the file of the base name; every other
// change changes the names.
func (t *scan) checkStable(folder folderNames) {
	handle, _ := handleAt(unix.AT_FDCWD, t.path)
	t.stable = handle == t.handle && slices.EqualFunc(t.names, t.ownNames(folder), func(a, b listedFile) bool {
		return a.name == b.name
	})
}

// endListing ends a listing, which may have failed with err, and reports whether the scan is over.
func (t *scan) endListing(err error) (over bool) {
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		// Without a listing no file may be dropped. The usual cause is a lack of descriptors.
		t.group.metrics.errors.WithLabelValues("list").Inc()
		if isShortage(err) {
			t.scanShort.Store(true)
		}
		t.discardCompressed()
		t.rescanNeeded = true
		t.wakeReader()
		return true
	}
	if err != nil {
		t.folderGone.Store(true)
		t.found, t.stable = nil, true
	}
	if t.stable {
		for _, f := range t.compressed {
			if !f.identified {
				t.group.metrics.malformed.WithLabelValues("bad_gzip").Inc()
			}
		}
		t.dropMissing(t.found)
		t.wakeReader()
		return true
	}

	t.discardCompressed()
	return false
}

// discardCompressed removes the compressed files that the listing has opened. They may have been incomplete: the
// next listing opens them again.
func (t *scan) discardCompressed() {
	for _, f := range t.compressed {
		f.closeFile(&t.group.budget)
	}
	t.files = slices.DeleteFunc(t.files, func(f *file) bool { return slices.Contains(t.compressed, f) })
	t.compressed = nil
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
			// A pipe or a symbolic link has no lines, and trying again changes nothing.
			if suppressed, ok := t.group.notRegular.Allow(); ok {
				t.group.log.Warn("log file is not read, it is no regular file", "log", t.log.ID, "file", joinPath(t.log.Dir, name.name),
					"suppressed", suppressed)
			}
			return nil
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
