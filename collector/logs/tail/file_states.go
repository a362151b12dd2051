package tail

import (
	"slices"
	"time"

	"tidegate/collector"
)

// resumeResult is the result of resumeFile.
type resumeResult int

const (
	fileResumed    resumeResult = iota
	fileWaits                   // its first record is not there yet
	fileUnreadable              // it has no first record and will not get one
	fileLeftOut                 // it is a copy of another file
)

// copyTime is how long a rotated file may be without a first record: it may be a copy that is just being
// made.
const copyTime = 2 * time.Second

// resumeFile identifies f, which is final or not, and finds where to go on.
func (t *Tailer) resumeFile(f *file, final bool) resumeResult {
	t.mu.Lock()
	defer t.mu.Unlock()
	// A first record that is not complete must be waited for, unless nothing will be added to it.
	if !f.identified {
		final = final && (f.gz || f.name == "" || t.folderGone.Load() || f.unchangedFor(copyTime))
		if identified := f.readIdentity(t.log.Format, final); !identified && final {
			return fileUnreadable
		} else if !identified {
			return fileWaits
		}
	}

	// Another file of the log may hold the same bytes.
	if original := t.findOriginal(f); original != nil {
		f.copyOf = original
		return fileLeftOut
	}
	if other := t.findIdentical(f); other != nil && (f.gz || other.gz) {
		t.tally.copies++
		f.done = true
		f.closeFile(&t.group.budget)
		return fileLeftOut
	} else if other != nil {
		f.continueCopy(other, &t.group.budget)
		return fileResumed
	}

	// Go on at the checkpoint.
	if !f.resumeFrom(t.openProducer(f), &t.group.budget) && t.isBeforeStart(f) {
		f.skipContents()
	}
	f.markSourceGone()
	if size := f.size(); !f.gz && size < f.offset {
		// It was cut short while no collector ran and has the same first record: what is there now has been
		// read.
		t.tally.truncated++
		f.offset = size
	}
	f.resample()
	return fileResumed
}

// findOriginal returns the file from which f was copied. It is being read, and newer: rotation gives a copy
// an older name. t.mu is held.
func (t *Tailer) findOriginal(f *file) *file {
	for _, newer := range t.files[slices.Index(t.files, f)+1:] {
		if newer.producer != nil && !newer.done && f.isCopyOf(newer) {
			return newer
		}
	}
	return nil
}

// findIdentical returns another file that is known to hold the same bytes; t.mu is held.
func (t *Tailer) findIdentical(f *file) *file {
	for _, other := range t.files {
		if other != f && f.unique && other.producer != nil && other.firstRecord == f.firstRecord {
			return other
		}
	}
	return nil
}

// isBeforeStart reports whether f, which has no checkpoint, is older than Config.NotBefore in a format whose
// records need not have times.
func (t *Tailer) isBeforeStart(f *file) bool {
	return t.group.cfg.NotBefore > 0 && !t.log.Format.Dated && birthTime(f.file) < t.group.cfg.NotBefore
}

// openProducer returns the producer of f and sets f.id, which names it. Where the first record is not unique,
// the name that f had in an earlier process is the one with a checkpoint that lies within f. t.mu is held.
func (t *Tailer) openProducer(f *file) collector.FileProducer {
	if f.unique {
		return t.group.ship.File(t.producerName(f.id))
	}

	isTaken := func(id Identity) bool {
		return slices.ContainsFunc(t.files, func(other *file) bool {
			return other.producer != nil && other.id == id
		})
	}

	// free is the identity to be used if there is no checkpoint: the most common candidate that is not taken.
	candidates := f.candidateIDs()
	free := candidates[0].withHandle(f.handle)
	for isTaken(free) {
		free = free.withHandle(f.handle)
	}
	size := f.size()
	for _, id := range candidates {
		if isTaken(id) {
			continue
		}
		producer := t.group.ship.File(t.producerName(id))
		checkpoint, ok := producer.Resume()
		if ok && checkpoint.End <= size+minPartRecord { // flushOpenLines numbers lines behind the end
			f.id = id
			return producer
		}
		producer.Close(ok) // a checkpoint beyond the end is that of another file
		if !ok {
			free = id
		}
	}
	f.id = free
	return t.group.ship.File(t.producerName(free))
}

// producerPrefix begins the names of the producers of log files.
const producerPrefix = "log/"

// producerName returns the name of the producer of a file, under which its checkpoint is kept.
func (t *Tailer) producerName(id Identity) string {
	return producerPrefix + t.log.ID + "/" + id.String()
}

// addProducerNames adds to names those under which files of the log may have checkpoints. It returns false
// where that is not known yet: a file was not found, or its first record cannot be read.
func (t *Tailer) addProducerNames(names map[string]bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rescanNeeded {
		return false
	}
	for i, file := range t.files {
		final := i < len(t.files)-1
		if !file.identified && (file.file == nil || !file.readIdentity(t.log.Format, final)) {
			continue // without a first record it has no checkpoint
		}
		for _, id := range file.candidateIDs() {
			names[t.producerName(id)] = true
		}
	}
	return true
}

// finishFile closes a file that was read to its end and moves its open lines to the next.
func (t *Tailer) finishFile(f *file) {
	next := t.nextFile(f)
	t.mu.Lock()
	defer t.mu.Unlock()

	// A line is carried into the next file only if nothing of that was read by an earlier process.
	for i := range f.pending {
		p := &f.pending[i]
		if p.active && next != nil && next.offset == 0 && !next.pending[i].active {
			next.pending[i] = *p
			next.pending[i].carried = true
			*p = pendingLine{}
			continue
		}
		if p.active {
			t.tally.cut += p.bytes
		}
		p.discardLine(&t.group.budget)
	}
	f.done = true
	f.closeFile(&t.group.budget)

	// What was copied from f holds nothing more.
	for _, other := range t.files {
		if other.copyOf == f {
			t.tally.copies++
			other.copyOf, other.done = nil, true
			other.closeFile(&t.group.budget)
		}
	}

	// Without the folder nothing will have a name again. Otherwise dropMissing drops f: its compressed copy
	// may not have been listed yet.
	if t.folderGone.Load() {
		f.closeProducer(false)
		t.files = slices.DeleteFunc(t.files, func(other *file) bool { return other == f })
	}
}

// handleTruncation goes on with a file that was truncated in place. The file that is there now has the same
// handle and other contents. What was not read before the truncation is in the copy, if rotation made one
// (copytruncate), and lost otherwise.
func (t *Tailer) handleTruncation(f *file) {
	// The copy is older than the truncation, so that this listing finds it.
	t.scanFolder()
	t.mu.Lock()

	// fresh is the file that is there now. It stands behind f and is read from its beginning.
	fresh := &file{handle: f.handle, name: f.name, file: f.file}
	place := slices.Index(t.files, f)
	t.files = slices.Insert(t.files, place+1, fresh)

	for _, older := range t.files[:place] {
		identified := older.identified || !older.done && older.readIdentity(t.log.Format, false)
		if older.done || older.producer != nil || !identified || !older.isCopyOf(f) {
			continue
		}
		// f goes on as the copy, and fresh takes its place.
		f.handle, f.gzipHandle, f.name = older.handle, older.gzipHandle, older.name
		f.file, f.gz, f.gzipReader, f.gzipOffset = older.file, older.gz, older.gzipReader, older.gzipOffset
		t.files = slices.DeleteFunc(t.files, func(other *file) bool { return other == older })
		t.mu.Unlock()
		return
	}

	// Without a copy f ends here; its descriptor belongs to fresh.
	t.tally.truncated++
	f.file, f.name, f.handle, f.gzipHandle = nil, "", "", ""
	t.mu.Unlock()
	t.finishFile(f)
}
