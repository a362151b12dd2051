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
	fileWaits                   // its first record is not complete yet
	fileUnreadable              // it has no first record and will not get one
	fileLeftOut                 // it is a copy of another file
)

// copyTime is the time for which a rotated file without a complete first record is not treated as final: it
// may be a copy that is still being made.
const copyTime = 2 * time.Second

// resumeFile identifies f and sets its producer and the offset at which to resume. final is the result of
// currentFile.
func (t *Tailer) resumeFile(f *file, final bool) resumeResult {
	t.mu.Lock()
	defer t.mu.Unlock()

	// 1. Identify f by its first record. An incomplete first record is used only if nothing will be added to
	// f.
	if !f.identified {
		final = final && (f.gz || f.name == "" || t.folderGone.Load() || f.unchangedFor(copyTime))
		if identified := f.readIdentity(t.log.Format, final); !identified && final {
			return fileUnreadable
		} else if !identified {
			return fileWaits
		}
	}

	// 2. Find another file of the log with the same bytes.
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

	// 3. Resume at the checkpoint, or at the beginning of f.
	if !f.resumeFrom(t.openProducer(f), &t.group.budget) && t.isBeforeStart(f) {
		f.skipContents()
	}
	f.markSourceGone()
	if size := f.size(); !f.gz && size < f.offset {
		// f was cut short while no collector ran, and still begins with the same record: its present bytes
		// were read before.
		t.tally.truncated++
		f.offset = size
	}
	f.resample()
	return fileResumed
}

// findOriginal returns the file from which f was copied; nil: none. The original is being read, and is newer
// than f, since rotation renames the copy to an older name. t.mu is held.
func (t *Tailer) findOriginal(f *file) *file {
	for _, newer := range t.files[slices.Index(t.files, f)+1:] {
		if newer.producer != nil && !newer.done && f.isCopyOf(newer) {
			return newer
		}
	}
	return nil
}

// findIdentical returns another file of the log with the same unique first record; nil: none. t.mu is held.
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

// openProducer returns the producer of f and sets f.id, which is part of the producer's name. t.mu is held.
//
// If the first record is not unique, f may have one of several identities: those of candidateIDs, and any
// other of the log, since its handle has changed if it was compressed or copied. openProducer chooses one
// whose checkpoint is of f (storedIdentity). If there is none, f is new and gets the last of candidateIDs
// that is free: no open file has it, and it has no checkpoint.
//
// Example: three text files of a log begin with the same line, whose identity is H. H+a is H with the handle
// of file a. Files a and b existed when an earlier process ran; c is new, and b was compressed meanwhile.
//
//	earlier process  a: H+a+a, H+a and H are free             H, the last one
//	                 b: H is taken; H+b+b and H+b are free    H+b
//	this process     a: H+a+a and H+a are free; H has a       H, resumed
//	                    checkpoint of a
//	                 b: H is taken; its handle is d now, and  H+b, resumed
//	                    H+d has no checkpoint; H+b has one of b
//	                 c: H is taken; H+c+c and H+c are free    H+c, read from its beginning
func (t *Tailer) openProducer(f *file) collector.FileProducer {
	if f.unique {
		return t.group.ship.File(t.producerName(f.id))
	}

	id, stored := t.storedIdentity(f)
	if !stored {
		id = t.freeIdentity(f)
	}
	f.id = id
	return t.group.ship.File(t.producerName(id))
}

// isTaken reports whether an open file has an identity.
func (t *Tailer) isTaken(id Identity) bool {
	return slices.ContainsFunc(t.files, func(other *file) bool { return other.producer != nil && other.id == id })
}

// storedIdentity returns the identity of the furthest checkpoint whose sample f has. f is open and its first
// record is not unique. t.mu is held.
func (t *Tailer) storedIdentity(f *file) (id Identity, stored bool) {
	last := int64(-1)
	prefix := producerPrefix + t.log.ID + "/"
	for _, name := range t.group.ship.Files(prefix) {
		candidate, ok := parseIdentity(name[len(prefix):])
		if !ok || t.isTaken(candidate) {
			continue
		}
		// All files have the sample of one of which only the first record was read: the furthest checkpoint
		// decides.
		if end, ok := t.checkpointOf(f, candidate); ok && end > last {
			id, last, stored = candidate, end, true
		}
	}
	return id, stored
}

// checkpointOf returns the end of the checkpoint under an identity that no open file has, if f has the bytes
// that were read by then. A checkpoint of an earlier version has no sample of them: it is of f if it is
// within f, and f has the same first record.
func (t *Tailer) checkpointOf(f *file, id Identity) (end int64, ok bool) {
	producer := t.group.ship.File(t.producerName(id))
	checkpoint, isStored := producer.Resume()
	producer.Close(isStored)
	if !isStored || checkpoint.End > f.size()+minPartRecord { // flushOpenLines numbers lines behind the end
		return 0, false
	}
	if checkpoint.Sample.Size == 0 {
		return checkpoint.End, slices.Contains(f.candidateIDs(), id)
	}
	return checkpoint.End, f.hasSample(checkpoint.Sample)
}

// freeIdentity returns the identity for f, of which there is no checkpoint.
func (t *Tailer) freeIdentity(f *file) Identity {
	candidates := f.candidateIDs()
	for _, id := range slices.Backward(candidates) {
		if t.isTaken(id) {
			continue
		}
		producer := t.group.ship.File(t.producerName(id))
		_, isStored := producer.Resume()
		producer.Close(isStored)
		if !isStored {
			return id
		}
	}
	// None of the candidates is free: an identity behind all of them.
	free := candidates[0].withHandle(f.handle)
	for t.isTaken(free) {
		free = free.withHandle(f.handle)
	}
	return free
}

// producerPrefix begins the names of the producers of log files.
const producerPrefix = "log/"

// producerName returns the name of the producer of a file, under which its checkpoint is kept.
func (t *Tailer) producerName(id Identity) string {
	return producerPrefix + t.log.ID + "/" + id.String()
}

// addProducerNames adds the names of producers under which files of the log may have checkpoints. It returns
// false if the names are not complete yet, because the last scan was not.
func (t *Tailer) addProducerNames(names map[string]bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rescanNeeded {
		return false
	}
	for i, file := range t.files {
		final := i < len(t.files)-1
		if !file.identified && file.released {
			return false // it may have got a first record since
		}
		if !file.identified && (file.file == nil || !file.readIdentity(t.log.Format, final)) {
			continue // without a first record it has no checkpoint
		}
		for _, id := range file.candidateIDs() {
			names[t.producerName(id)] = true
		}
		if file.unique || file.producer != nil {
			continue
		}
		if file.file == nil {
			return false // it cannot be compared with the checkpoints of other names
		}
		if id, stored := t.storedIdentity(file); stored {
			names[t.producerName(id)] = true
		}
	}
	return true
}

// finishFile closes a file that was read to its end and moves its incomplete lines to the next file.
func (t *Tailer) finishFile(f *file) {
	next := t.nextFile(f)
	t.mu.Lock()
	defer t.mu.Unlock()

	// A line is carried into the next file only if no earlier process has read from that file.
	for i := range f.pending {
		line := &f.pending[i]
		if line.active && next != nil && next.offset == 0 && !next.pending[i].active {
			next.pending[i] = *line
			next.pending[i].carried, next.pending[i].unshipped = true, 0
			*line = pendingLine{}
		} else if line.active {
			t.tally.cut += line.bytes
		}
		line.discardLine(&t.group.budget)
	}
	f.done = true
	f.closeFile(&t.group.budget)
	t.opened.Store(0)

	// Copies of f have no bytes that f did not have: they are done too.
	for _, other := range t.files {
		if other.copyOf == f {
			t.tally.copies++
			other.copyOf, other.done = nil, true
			other.closeFile(&t.group.budget)
		}
	}

	// If the folder was removed, f cannot reappear and is dropped now. Otherwise dropMissing drops it later:
	// its compressed copy may not be listed yet.
	if t.folderGone.Load() {
		f.closeProducer(false)
		t.files = slices.DeleteFunc(t.files, func(other *file) bool { return other == f })
	}
}

// handleTruncation handles a file that was truncated in place: the file under its handle has new contents.
// Bytes that were not read before the truncation are in the copy, if rotation made one (copytruncate), else
// lost.
func (t *Tailer) handleTruncation(f *file) {
	// The copy was made before the truncation, so that this scan finds it.
	t.scanFolder()
	t.mu.Lock()

	// fresh stands for the new contents. It is inserted behind f and read from its beginning.
	fresh := &file{handle: f.handle, name: f.name, file: f.file}
	index := slices.Index(t.files, f)
	t.files = slices.Insert(t.files, index+1, fresh)

	for _, older := range t.files[:index] {
		if older.released {
			continue
		}
		identified := older.identified || !older.done && older.readIdentity(t.log.Format, false)
		if older.done || older.producer != nil || !identified || !older.isCopyOf(f) {
			continue
		}
		// f continues as the copy; fresh has the truncated file.
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
