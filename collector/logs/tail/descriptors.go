package tail

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// # When descriptors are short
//
// There may be more logs than descriptors. A file that cannot be opened sets one of Tailer.scanShort and
// readShort. The Group then asks as many tailers as there are such logs to close their current file
// (releaseIdle): those that have been idle for the longest time, then those that have held it for the longest
// time. A tailer does so between two reads. The file is released: it has no descriptor, and keeps its
// position, its handle and its incomplete lines. When its size has changed, the tailer opens it again by its
// name, and compares the handle (reopen).
//
// A released file that is removed before it was opened again is lost from the position on, which is counted.

// releaseAfter is the minimum time for which a tailer that is not idle keeps a descriptor that others wait for.
const releaseAfter = 200 * time.Millisecond

// shortWarnEvery is the time between two warnings that descriptors are short.
const shortWarnEvery = time.Minute

// descriptorState is the part of a Tailer that is used when descriptors are short. The times are in ns since
// 1970.
type descriptorState struct {
	scanShort, readShort atomic.Bool  // a file waits for a descriptor: in a listing, or at its next read
	release              atomic.Bool  // the current file is to be closed
	opened               atomic.Int64 // since when the current file is open; 0: it is not
	idle                 atomic.Int64 // since when the reader waits for events; 0: it does not
	shortSince           atomic.Int64 // since when a file waits; 0: none does
	turn                 atomic.Bool  // the reader may open its file although others wait
}

// isShort reports whether a file of the log waits for a descriptor.
func (t *descriptorState) isShort() bool { return t.scanShort.Load() || t.readShort.Load() }

// isShortage reports whether err means that the process or the host has no free descriptor.
func isShortage(err error) bool { return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) }

// releaseIdle lets as many of the logs that wait for descriptors open their files as there are descriptors, and
// asks as many tailers as there are such logs to close their current files.
func (g *Group) releaseIdle() {
	var holders, waiting []*Tailer
	for _, tailer := range g.tailers {
		if tailer.isShort() {
			waiting = append(waiting, tailer)
		} else if tailer.opened.Load() != 0 {
			holders = append(holders, tailer)
		}
	}
	short := len(waiting)
	g.short.Store(int64(short))
	if short == 0 {
		return
	}

	// Those that have waited for the longest time come first.
	slices.SortFunc(waiting, func(a, b *Tailer) int { return cmp.Compare(a.shortSince.Load(), b.shortSince.Load()) })
	free := max(0, g.budget.maxFiles-g.budget.openFiles.Load())
	var scanned []*Tailer
	for _, tailer := range waiting[:min(int(free), short)] {
		if tailer.scanShort.Load() {
			scanned = append(scanned, tailer)
		} else {
			tailer.turn.Store(true)
			tailer.wakeReader()
		}
	}
	scanFolders(scanned)
	if time.Since(g.shortWarned) > shortWarnEvery {
		g.shortWarned = time.Now()
		g.log.Warn("log files wait for descriptors, and idle ones are closed; raise the process's limit of open files",
			"logs", short, "limit", g.budget.maxFiles)
	}

	slices.SortFunc(holders, func(a, b *Tailer) int {
		return cmp.Or(-cmp.Compare(min(a.idle.Load(), 1), min(b.idle.Load(), 1)), // idle ones first
			cmp.Compare(a.idle.Load(), b.idle.Load()), cmp.Compare(a.opened.Load(), b.opened.Load()))
	})
	for _, tailer := range holders[:min(short, len(holders))] {
		if tailer.idle.Load() != 0 || time.Since(time.Unix(0, tailer.opened.Load())) > releaseAfter {
			tailer.release.Store(true)
			tailer.wakeReader()
		}
	}
}

// releaseIfAsked closes the current file if releaseIdle has asked for it. A file that a rotation has renamed is
// kept open, since it may be removed soon.
func (t *Tailer) releaseIfAsked() {
	if !t.release.Swap(false) {
		return
	}
	file, final := t.currentFile()
	if file == nil || final {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if file.released || file.file == nil || file.gz || file.name == "" {
		return
	}
	var st unix.Stat_t
	if unix.Fstat(int(file.file.Fd()), &st) != nil || st.Nlink == 0 {
		return
	}
	file.released, file.inode, file.lastSize = true, st.Ino, st.Size
	file.closeFile(&t.group.budget)
	t.opened.Store(0)
}

// reopenResult is the result of reopen.
type reopenResult int

const (
	fileOpen        reopenResult = iota
	fileUnchanged                // it is released, and has no new bytes
	fileUnavailable              // it is released, and cannot be opened now
	fileRemoved                  // it was removed
)

// reopen opens f, which may be released. final is the result of currentFile.
func (t *Tailer) reopen(f *file, final bool) reopenResult {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !f.released {
		t.noteOpened(f)
		return fileOpen
	}
	if f.name == "" || t.folderGone.Load() {
		t.readShort.Store(false)
		return fileRemoved
	}

	// Without a size the name belongs to another file now: the next listing finds the new one.
	size, ok := t.sizeByName(f)
	if !ok {
		t.rescanNeeded = true
		return fileUnavailable
	}
	if !final && size == f.examined {
		t.readShort.Store(false)
		return fileUnchanged
	}

	// While others wait, one tailer after the other gets its turn.
	if t.group.short.Load() > 0 && !t.turn.Swap(false) || !t.group.budget.acquireDescriptor() {
		t.noteShortage(&t.readShort)
		return fileUnavailable
	}
	fd, err := openLog(t.log.Dir, f.name)
	if err == nil {
		var handle string
		if handle, err = handleAt(int(fd.Fd()), ""); err == nil && handle == f.handle {
			f.file, f.released = fd, false
			t.readShort.Store(false)
			t.noteOpened(f)
			return fileOpen
		}
		_ = fd.Close()
	}
	t.group.budget.releaseDescriptor()
	if isShortage(err) {
		t.noteShortage(&t.readShort)
	} else {
		t.rescanNeeded = true
	}
	return fileUnavailable
}

// noteOpened stores that the log holds a descriptor from now on, unless it has held one before. t.mu is held.
func (t *Tailer) noteOpened(f *file) {
	if f.file != nil && t.opened.Load() == 0 {
		t.opened.Store(time.Now().UnixNano())
	}
	if t.shortSince.Load() != 0 && !t.isShort() {
		t.shortSince.Store(0)
	}
}

// noteShortage counts an attempt to open a file without a free descriptor.
func (t *Tailer) noteShortage(short *atomic.Bool) {
	t.group.metrics.errors.WithLabelValues("no_descriptor").Inc()
	short.Store(true)
	t.shortSince.CompareAndSwap(0, time.Now().UnixNano())
}

// sizeByName returns the size of a released file; ok is false if its name belongs to another file, or to none.
// t.mu is held.
func (t *Tailer) sizeByName(f *file) (size int64, ok bool) {
	if f.name == "" {
		return f.lastSize, false
	}
	var st unix.Stat_t
	if unix.Lstat(joinPath(t.log.Dir, f.name), &st) != nil || st.Ino != f.inode {
		return f.lastSize, false
	}
	f.lastSize = st.Size
	return st.Size, true
}

// adoptCompressed continues f, which is released, as its compressed copy, whose descriptor is fd. t.mu is held.
func (f *file) adoptCompressed(fd *os.File) {
	f.file, f.gz, f.released = fd, true, false
}

// finishRemoved ends a released file that was removed, and counts the bytes that were not read.
func (t *Tailer) finishRemoved(ctx context.Context, f *file) error {
	if t.nextFile(f) == nil {
		if err := t.flushOpenLines(ctx, f); err != nil {
			return err
		}
	}
	if left := f.lastSize - f.offset; left > 0 {
		t.group.metrics.dropped.WithLabelValues("removed").Add(float64(left))
	}
	t.finishFile(f)
	return nil
}
