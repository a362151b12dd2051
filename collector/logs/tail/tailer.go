package tail

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tidegate/collector/logs/decode"
	"tidegate/collector/logs/discover"
	"tidegate/pipeline/retry"
)

const (
	// debounce is the pause between two reads of a file that is being written.
	debounce = 10 * time.Millisecond

	// pollWrites is the pause between two checks of a log whose writes inotify does not report.
	pollWrites = 100 * time.Millisecond

	// quietAfterStop is the time after which an incomplete line is flushed when its writer has stopped.
	quietAfterStop = 2 * time.Second
)

// A Tailer reads the files of one log, oldest first. Its own goroutine (readLoop) reads; the goroutine of the
// Group finds and opens files (scanFolder, poll).
type Tailer struct {
	group   *Group
	log     discover.Log
	handler Handler
	path    string // of the base file
	slot    int    // the rescan, of fullScanEvery, in which the folder is always listed
	cancel  context.CancelFunc
	wake    chan struct{} // wakes readLoop; holds one signal

	folder       atomic.Pointer[watchedFolder] // nil: inotify does not watch the folder
	folderGone   atomic.Bool                   // the folder does not exist: no file will be added
	handlerReady atomic.Bool                   // Handler.Ready has returned
	descriptorState

	mu                sync.Mutex
	files             []*file // oldest first
	baseHandle        string  // of the file that had the base name when the folder was last listed
	rescanNeeded      bool    // the last listing was incomplete or unstable: list again at the next poll
	listingIncomplete bool    // a file could not be opened for lack of descriptors: it may be any file
	unopened          int64   // bytes of the files that could not be opened

	// The rest belongs to the tailer's goroutine.
	decoder  decode.Decoder
	record   decode.Record
	line     Line
	lastRead time.Time // when a byte was read last
	tally    tally
}

func newTailer(g *Group, log discover.Log, handler Handler, slot int) *Tailer {
	return &Tailer{
		group: g, log: log, handler: handler, path: joinPath(log.Dir, log.Base), slot: slot,
		cancel: func() {}, wake: make(chan struct{}, 1), decoder: log.Format.New(), lastRead: time.Now(),
	}
}

func (t *Tailer) wakeReader() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// lagBytes returns how many bytes the tailer has not read yet.
func (t *Tailer) lagBytes() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := t.unopened
	for _, f := range t.files {
		sum += t.unreadBytes(f)
	}
	return sum
}

// hasNoFiles reports whether the log has no files and none can have been overlooked.
func (t *Tailer) hasNoFiles() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.files) == 0 && !t.rescanNeeded
}

// closeFiles closes the remaining files after the tailer's goroutine has returned. Their checkpoints are kept
// while the folder exists: a file without a name may have been compressed or moved a moment ago. The next
// process prunes those of which it finds no file.
func (t *Tailer) closeFiles() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.countUnread()
	for _, file := range t.files {
		file.closeProducer(!t.folderGone.Load())
		for i := range file.pending {
			file.pending[i].discardLine(&t.group.budget)
		}
		file.closeFile(&t.group.budget)
	}
	t.files = nil
}

// readLoop reads the files of the log until ctx ends, or until the folder was removed and all files were
// read. It also returns when the shipper rejects a line; the next rescan then starts a new tailer.
func (t *Tailer) readLoop(ctx context.Context) {
	defer t.cancel()
	ready := t.handler.Ready(ctx, t.wake)
	t.handlerReady.Store(true)
	if !ready {
		return
	}

	// A short pause between two reads of a busy log lets lines gather, which saves system calls.
	for ctx.Err() == nil {
		more, err := t.readAvailable(ctx)
		t.group.metrics.addTally(&t.tally)
		t.releaseIfAsked()
		switch {
		case err != nil && ctx.Err() == nil:
			t.group.metrics.errors.WithLabelValues("ship").Inc()
			t.group.log.Error("log lines could not be shipped, the log is read again from its checkpoints",
				"log", t.log.ID, "err", err)
			return
		case err != nil:
		case more:
			_ = retry.Sleep(ctx, debounce)
		case t.allRead():
			return
		default:
			t.waitForEvents(ctx)
		}
	}
	t.drainUnlinked(ctx)
}

// drainUnlinked reads unlinked files to their end after ctx has ended: no later process can read them. What
// is left after DrainTimeout is lost, and countUnread counts it.
func (t *Tailer) drainUnlinked(ctx context.Context) {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.group.cfg.DrainTimeout)
	defer cancel()
	for late.Err() == nil && !t.handler.State().Excluded {
		f, _ := t.currentFile()
		if f == nil || !t.isUnlinked(f) {
			return
		}
		more, err := t.readAvailable(late)
		if err == nil && !more && f.producer != nil {
			// Nothing will be added that could be read: an incomplete line ends here.
			err = t.flushOpenLines(late, f)
		}
		t.group.metrics.addTally(&t.tally)
		if err != nil || !more {
			return
		}
	}
}

// countUnread counts the bytes that no later process can read: what is left of the files without a name,
// which are about to be closed, and their incomplete lines. t.mu is held, and the reader has returned.
func (t *Tailer) countUnread() {
	if t.handler.State().Excluded {
		return
	}
	var left int64
	for _, f := range t.files {
		if f.name != "" && !t.folderGone.Load() && (f.file == nil || isLinked(f.file)) {
			continue
		}
		for i := range f.pending {
			if f.pending[i].active {
				left += int64(f.pending[i].bytes)
			}
		}
		switch {
		case f.done || f.copyOf != nil:
		case f.released:
			left += max(0, f.lastSize-f.offset)
		case f.file != nil:
			left += max(0, f.size()-f.offset)
		}
	}
	if left > 0 {
		t.group.metrics.dropped.WithLabelValues("removed").Add(float64(left))
		t.group.log.Warn("removed log files were not read to their end", "log", t.log.ID, "bytes", left)
	}
}

func (t *Tailer) isUnlinked(f *file) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return f.name == "" || f.file != nil && !isLinked(f.file)
}

// allRead reports whether the folder was removed and all files were read.
func (t *Tailer) allRead() bool {
	if !t.folderGone.Load() {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return !slices.ContainsFunc(t.files, func(f *file) bool { return !f.done })
}

// watchFile makes the next write to the current file wake the reader, and reports whether it could.
func (t *Tailer) watchFile(watcher *watcher) bool {
	file, _ := t.currentFile()
	if file == nil || t.folderGone.Load() {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case file.file != nil: // its name may have changed
		return watcher.watchFile(fmt.Sprintf("/proc/self/fd/%d", file.file.Fd()), t)
	case file.name != "":
		return watcher.watchFile(joinPath(t.log.Dir, file.name), t)
	}
	return false
}

// waitForEvents waits until the log was written to, its files have changed, or an incomplete line may be due.
func (t *Tailer) waitForEvents(ctx context.Context) {
	// The watch for writes begins before the size of the file is checked: a write between the last read and
	// the watch would be missed otherwise.
	pause := time.Hour
	folder := t.folder.Load()
	watchedFolder := folder.watchWrites(true)
	watched := watchedFolder || folder != nil && t.watchFile(folder.watcher)
	switch {
	case !watched:
		pause = pollWrites
	case t.lagBytes() > 0 && t.hasUnread():
		pause = debounce // the file was written to before the watch began
	}
	if t.hasOpenLine() {
		pause = min(pause, time.Second)
	}
	if t.readShort.Load() {
		pause = pollWrites
	}

	t.idle.Store(time.Now().UnixNano())
	defer t.idle.Store(0)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-t.wake:
	case <-timer.C:
	}
	if watchedFolder && !t.folderGone.Load() {
		folder.watchWrites(false)
	}
}
