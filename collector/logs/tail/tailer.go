package tail

import (
	"context"
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

	// pollWrites is the pause between two looks at a log whose writes inotify does not report.
	pollWrites = 100 * time.Millisecond

	// quietAfterStop is how long after its last byte a line without an end is taken for complete, when its
	// writer has stopped.
	quietAfterStop = 2 * time.Second

	// drainTimeout is how long a tailer goes on after a stop with files that cannot be read again.
	drainTimeout = 2 * time.Second
)

// A Tailer reads the files of one log, oldest first. Its own goroutine (readLoop) reads; the goroutine of the
// Group finds and opens files (scanFolder, poll).
type Tailer struct {
	group   *Group
	log     discover.Log
	handler Handler
	path    string // of the base file
	slot    int    // in which rescan of fullScanEvery the folder is listed in any case
	cancel  context.CancelFunc
	wake    chan struct{}  // holds a value when there may be something to do
	folder  *watchedFolder // nil: no watch was to be had

	folderGone   atomic.Bool // the folder does not exist: no file will be added
	handlerReady atomic.Bool // Handler.Ready has returned

	mu                sync.Mutex
	files             []*file // oldest first
	baseHandle        string  // of the file that had the base name when the folder was last listed
	rescanNeeded      bool    // something could not be opened or was not stable: list again at the next poll
	listingIncomplete bool    // the file that could not be opened may be any, for want of descriptors

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
	var sum int64
	for _, f := range t.files {
		sum += f.unreadBytes()
	}
	return sum
}

// hasNoFiles reports whether the log has no files and none can have been overlooked.
func (t *Tailer) hasNoFiles() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.files) == 0 && !t.rescanNeeded
}

// closeFiles closes the files that are left when the tailer's goroutine has returned. Checkpoints of files
// that still exist are kept.
func (t *Tailer) closeFiles() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, file := range t.files {
		// A file without a name cannot be read again, so that its checkpoint is of no use.
		file.closeProducer(file.name != "" && !t.folderGone.Load())
		for i := range file.pending {
			file.pending[i].discardLine(&t.group.budget)
		}
		file.closeFile(&t.group.budget)
	}
	t.files = nil
}

// readLoop reads until the folder is gone and all is read, or ctx ends. It returns early where the shipper
// takes nothing for good; the next rescan begins the log again then.
func (t *Tailer) readLoop(ctx context.Context) {
	defer t.cancel()
	ready := t.handler.Ready(ctx, t.wake)
	t.handlerReady.Store(true)
	if !ready {
		return
	}

	// While there is more, a short pause between two reads lets lines gather: fewer system calls for a busy
	// log.
	for ctx.Err() == nil {
		more, err := t.readAvailable(ctx)
		t.group.metrics.addTally(&t.tally)
		switch {
		case err != nil && ctx.Err() == nil:
			t.group.metrics.errors.WithLabelValues("ship").Inc()
			t.group.log.Error("log lines could not be shipped, the log is begun again",
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

// drainUnlinked reads the files that have no name any more to their end, when ctx has ended: their lines end
// with this process.
func (t *Tailer) drainUnlinked(ctx context.Context) {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	for late.Err() == nil && !t.handler.State().Excluded {
		f, _ := t.currentFile()
		if f == nil || !t.isUnlinked(f) {
			return
		}
		more, err := t.readAvailable(late)
		t.group.metrics.addTally(&t.tally)
		if err != nil || !more {
			return
		}
	}
}

func (t *Tailer) isUnlinked(f *file) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return f.name == "" || f.file != nil && !isLinked(f.file)
}

// allRead reports whether nothing is left to read and nothing will come.
func (t *Tailer) allRead() bool {
	if !t.folderGone.Load() {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return !slices.ContainsFunc(t.files, func(f *file) bool { return !f.done })
}

// waitForEvents returns when there may be something to do: the log was written to, its files have changed, or
// a line has waited for its end.
func (t *Tailer) waitForEvents(ctx context.Context) {
	// A writer may write between the last read and the beginning of the watch for writes. So the watch begins
	// first, and the size of the file is compared afterwards.
	pause := time.Hour
	watched := t.folder != nil && t.group.watch.watchWrites(t.folder, true)
	switch {
	case !watched:
		pause = pollWrites
	case t.lagBytes() > 0 && t.hasUnread():
		pause = debounce // it was written to before the watch for writes began
	}
	if t.hasOpenLine() {
		pause = min(pause, time.Second)
	}

	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-t.wake:
	case <-timer.C:
	}
	if watched && !t.folderGone.Load() {
		t.group.watch.watchWrites(t.folder, false)
	}
}
