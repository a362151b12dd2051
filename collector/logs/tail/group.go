package tail

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"tidegate/collector"
	"tidegate/collector/logs/discover"
	"tidegate/pipeline/logging"
)

const (
	rescanEvery = time.Second

	// pollUnwatchedEvery is the pause between two checks of the base names that inotify does not watch. A
	// rotation is otherwise seen at the next rescan only, when a second one may have followed.
	pollUnwatchedEvery = 200 * time.Millisecond

	// fullScanEvery is the number of rescans between two listings of a folder without reported changes.
	fullScanEvery = 30
)

// A Group tails many logs within one budget of descriptors and memory.
type Group struct {
	cfg     Config
	log     *slog.Logger
	reg     prometheus.Registerer
	metrics groupMetrics
	budget  budget
	lag     atomic.Int64 // bytes that were not read at the last rescan
	tailed  atomic.Int64 // logs
	polled  atomic.Int64 // logs whose folder is not watched
	short   atomic.Int64 // logs of which a file waits for a descriptor

	panicThrottle *logging.Throttle
	notRegular    *logging.Throttle // of the warnings of files that are not regular

	// The rest belongs to the goroutine of Run.
	ship    collector.Shipper
	watch   *watcher // nil: there is no free inotify instance
	events  chan []inotifyEvent
	tailers map[string]*Tailer // by id of the log
	ended   chan *Tailer       // whose goroutine has returned
	wg      sync.WaitGroup     // of the tailers
	rescans int

	// When the logs were listed last, how long that took, and when they are to be listed because of new names.
	listed       time.Time
	listDuration time.Duration
	listTimer    *time.Timer

	overflowed  bool      // inotify has lost events
	shortWarned time.Time // when it was logged last that descriptors are short
	watchFailed bool      // the last attempt to get an inotify instance failed, which was logged
	pruned      bool      // the checkpoints of files that no longer exist were dropped
}

// NewGroup returns a Group that reads nothing until Run is called.
func NewGroup(cfg Config, log *slog.Logger, reg prometheus.Registerer) *Group {
	group := &Group{
		cfg: cfg, log: log, reg: reg, metrics: newMetrics(reg),
		panicThrottle: logging.NewThrottle(10 * time.Second), notRegular: logging.NewThrottle(time.Minute),
		events: make(chan []inotifyEvent), tailers: map[string]*Tailer{}, ended: make(chan *Tailer),
	}
	group.budget.maxFiles, group.budget.maxMemory = int64(cfg.MaxOpen), int64(cfg.Memory)
	group.budget.overdraft = make(chan struct{}, maxOverdrafts)
	if cfg.MaxOpen == 0 {
		group.budget.maxFiles = descriptorLimit()
	}
	return group
}

// Held returns the number of open files and the bytes of incomplete lines. Both are 0 after Run.
func (g *Group) Held() (files, bytes int64) {
	return g.budget.openFiles.Load(), g.budget.pendingBytes.Load()
}

// Lag returns the bytes that were not read at the last rescan.
func (g *Group) Lag() int64 { return g.lag.Load() }

// Run tails the logs that discovery lists until ctx ends. A value from changed means that the State of
// handlers, or the list, may have changed.
func (g *Group) Run(ctx context.Context, ship collector.Shipper, discovery Discovery, changed <-chan struct{}) {
	g.ship = ship
	defer g.exportGauges(g.reg)()

	// inotify is read by a goroutine of its own, so that its queue does not fill up while folders are listed.
	watchCtx, stopWatch := context.WithCancel(ctx)
	var eventReader sync.WaitGroup
	defer func() {
		stopWatch()
		g.watch.closeWatcher()
		eventReader.Wait()
	}()
	g.startWatch(watchCtx, &eventReader)

	// Everything but reading happens in this loop: the tailers' goroutines only read.
	tick := time.NewTicker(rescanEvery)
	defer tick.Stop()
	fast := time.NewTicker(pollUnwatchedEvery)
	defer fast.Stop()
	g.listTimer = time.NewTimer(time.Hour)
	defer g.listTimer.Stop()
	g.rescan(ctx, discovery)
	for {
		select {
		case <-ctx.Done():
			g.stopTailers()
			return
		case batch := <-g.events:
			g.handleEvents(ctx, discovery, batch)
		case <-changed:
			g.followListed(ctx, discovery)
			g.applyStates()
		case <-tick.C:
			g.startWatch(watchCtx, &eventReader)
			g.rescan(ctx, discovery)
		case <-g.listTimer.C:
			g.followListed(ctx, discovery)
		case <-fast.C:
			g.pollUnwatched()
			g.releaseIdle()
		case tailer := <-g.ended:
			g.removeTailer(tailer)
		}
	}
}

// startWatch begins to watch with inotify, unless it has begun. Instances are counted for each user of the
// host, in all containers: any process with the collector's user id can take them all. Until one is free,
// the logs are polled.
func (g *Group) startWatch(ctx context.Context, eventReader *sync.WaitGroup) {
	if g.watch != nil {
		return
	}
	watch, err := newWatcher()
	if err != nil {
		g.metrics.errors.WithLabelValues("inotify_init").Inc()
		if !g.watchFailed {
			g.log.Warn("log files cannot be watched and are polled, trying again every second: another process may have "+
				"taken all inotify instances of this user (fs.inotify.max_user_instances)", "err", err)
		}
		g.watchFailed = true
		return
	}
	if g.watchFailed {
		g.log.Info("log files are watched again")
	}
	g.watch, g.watchFailed = watch, false
	eventReader.Go(func() { watch.readEvents(ctx, g.events) })
}

// watchUnwatched tries again to watch the folders of the tailers that are polled.
func (g *Group) watchUnwatched() {
	polled := 0
	for _, tailer := range g.tailers {
		if tailer.folder.Load() == nil && !tailer.folderGone.Load() && !g.watchTailer(tailer) {
			polled++
		}
	}
	g.polled.Store(int64(polled))
}

// watchTailer watches the folder of a tailer and reports whether it could.
func (g *Group) watchTailer(tailer *Tailer) bool {
	if g.watch == nil {
		return false
	}
	folder, err := g.watch.addTailer(tailer.log.Dir, tailer)
	if err != nil {
		g.metrics.errors.WithLabelValues("watch").Inc()
		return false
	}
	tailer.folder.Store(folder)
	tailer.wakeReader()
	return true
}

// pollUnwatched scans the folders that are not watched and in which the base name has another file.
func (g *Group) pollUnwatched() {
	if g.polled.Load() == 0 {
		return
	}
	var rotated []*Tailer
	for _, tailer := range g.tailers {
		if tailer.folder.Load() == nil && tailer.isRotated() {
			rotated = append(rotated, tailer)
		}
	}
	scanFolders(rotated)
}

// rescan lists the logs and polls every tailer, whether or not inotify has reported changes.
func (g *Group) rescan(ctx context.Context, discovery Discovery) {
	g.rescans++
	for _, folder := range discovery.Folders() {
		_ = g.watch.watchRoot(folder) // List reports a folder that does not exist
	}
	g.followListed(ctx, discovery)
	g.watchUnwatched()
	g.applyStates()

	// A log in which nothing has happened costs two system calls; a scan lists its folder.
	var changed []*Tailer
	for _, tailer := range g.tailers {
		if g.overflowed || g.rescans%fullScanEvery == tailer.slot || tailer.hasChanged() {
			changed = append(changed, tailer)
		}
	}
	scanFolders(changed)
	g.overflowed = false

	var sum int64
	for _, tailer := range g.tailers {
		lag := tailer.lagBytes()
		if lag > 0 {
			tailer.wakeReader()
		}
		sum += lag
	}
	g.lag.Store(sum)
}

// followListed begins to tail the logs that are new, and ends the tailers of logs that exist no more and have
// no files left.
func (g *Group) followListed(ctx context.Context, discovery Discovery) {
	begun := time.Now()
	logs, complete := discovery.List()
	listed := make(map[string]bool, len(logs))
	var created []*Tailer
	for _, log := range logs {
		listed[log.ID] = true
		if g.tailers[log.ID] != nil {
			continue
		}
		if handler := discovery.Handler(log); handler != nil {
			created = append(created, g.newTailer(log, handler))
		}
	}

	// Files are opened here rather than by the readers, which may have to wait before they begin.
	scanFolders(created)
	for _, tailer := range created {
		g.startTailer(ctx, tailer)
	}
	g.listed, g.listDuration = time.Now(), time.Since(begun)

	// Logs of a folder that is gone end by themselves (allRead). Others have no files left at some time.
	if complete {
		for id, tailer := range g.tailers {
			if !listed[id] && tailer.hasNoFiles() {
				tailer.cancel()
			}
		}
		g.pruneOnce(listed)
	}
	g.tailed.Store(int64(len(g.tailers)))
}

// newTailer returns the tailer of a log, whose folder is watched from now on. startTailer starts it.
func (g *Group) newTailer(log discover.Log, handler Handler) *Tailer {
	tailer := newTailer(g, log, handler, len(g.tailers)%fullScanEvery)
	g.tailers[log.ID] = tailer
	g.watchTailer(tailer)
	return tailer
}

// startTailer starts the reader of a tailer.
func (g *Group) startTailer(ctx context.Context, tailer *Tailer) {
	ctx, tailer.cancel = context.WithCancel(ctx)
	g.wg.Go(func() {
		tailer.readLoop(ctx)
		g.ended <- tailer
	})
}

// pruneOnce makes the shipper drop the checkpoints of files that were removed while no collector ran, and end
// the wait for their lines. It is called after each complete listing of the logs, and acts on each log once,
// when its folder has been listed completely. Checkpoints of logs that exist but are not tailed are kept.
func (g *Group) pruneOnce(listed map[string]bool) {
	if g.pruned {
		return
	}
	existing, incomplete := map[string]bool{}, map[string]bool{}
	for id, tailer := range g.tailers {
		if !tailer.addProducerNames(existing) {
			incomplete[id] = true
		}
	}
	g.pruned = len(incomplete) == 0
	g.ship.Prune(func(name string) bool {
		file, ok := strings.CutPrefix(name, producerPrefix)
		if !ok || existing[name] {
			return true
		}
		log := file[:max(0, strings.LastIndexByte(file, '/'))]
		return listed[log] && (g.tailers[log] == nil || incomplete[log])
	})
}

// applyStates ends the tailers of logs that are excluded now, and wakes those that wait for their handler.
func (g *Group) applyStates() {
	for _, tailer := range g.tailers {
		if tailer.handler.State().Excluded {
			tailer.cancel()
		}
		if !tailer.handlerReady.Load() {
			tailer.wakeReader()
		}
	}
}

// handleEvents handles a batch of inotify events.
func (g *Group) handleEvents(ctx context.Context, discovery Discovery, batch []inotifyEvent) {
	newNames := false
	var changed []*Tailer
	for _, event := range batch {
		if event.mask&unix.IN_Q_OVERFLOW != 0 {
			g.metrics.errors.WithLabelValues("overflow").Inc()
			g.overflowed = true
			continue
		}
		if tailer := g.watch.fileOf(event); tailer != nil {
			tailer.wakeReader()
			continue
		}
		folder := g.watch.folderOf(event.wd)
		if folder == nil {
			continue // events of a folder whose watch was removed are still in the queue
		}

		// Several logs may have files in the folder. A name that belongs to none of them may be that of a new
		// log.
		owners := folder.owners(event)
		for _, tailer := range owners {
			if event.mask&unix.IN_MODIFY != 0 {
				tailer.wakeReader()
			} else {
				changed = append(changed, tailer)
			}
		}
		if event.mask&unix.IN_IGNORED != 0 {
			g.watch.dropFolder(folder)
			for _, tailer := range folder.tailers {
				tailer.folder.Store(nil) // a folder that was made anew is watched at the next rescan
			}
		} else if folder.root && len(owners) == 0 && event.mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0 {
			newNames = true
		}
	}

	// One scan and one listing for the whole batch are enough.
	slices.SortFunc(changed, func(a, b *Tailer) int { return strings.Compare(a.log.ID, b.log.ID) })
	scanFolders(slices.Compact(changed))
	switch {
	case g.overflowed:
		g.rescan(ctx, discovery)
	case newNames:
		g.followSoon(ctx, discovery)
	}
}

// followSoon lists the logs, unless the last listing was so expensive that the next one has to wait: while
// thousands of files are created one after the other, a fifth of the time is spent on listings.
func (g *Group) followSoon(ctx context.Context, discovery Discovery) {
	if wait := g.listDuration*4 - time.Since(g.listed); wait > 0 {
		g.listTimer.Reset(wait)
		return
	}
	g.followListed(ctx, discovery)
}

// removeTailer removes a tailer whose goroutine has returned.
func (g *Group) removeTailer(tailer *Tailer) {
	if folder := tailer.folder.Load(); folder != nil {
		g.watch.removeTailer(folder, tailer)
	}
	g.closeTailer(tailer)
	delete(g.tailers, tailer.log.ID)
	g.tailed.Store(int64(len(g.tailers)))
}

// closeTailer closes the files of a tailer whose goroutine has returned. It scans the folder first, because a
// file may have been renamed or compressed since the last scan: only checkpoints of removed files are
// dropped.
func (g *Group) closeTailer(tailer *Tailer) {
	g.closeTailers([]*Tailer{tailer})
}

// closeTailers closes the files of tailers whose goroutines have returned. See closeTailer.
func (g *Group) closeTailers(tailers []*Tailer) {
	scanFolders(slices.DeleteFunc(slices.Clone(tailers), func(tailer *Tailer) bool {
		return tailer.handler.State().Excluded
	}))
	for _, tailer := range tailers {
		tailer.closeFiles()
	}
}

// stopTailers waits for the tailers, which see that the context of Run has ended, and closes their files.
func (g *Group) stopTailers() {
	done := make(chan struct{})
	go func() { g.wg.Wait(); close(done) }()
	for {
		select {
		case <-g.ended: // it is closed below, with the others
		case <-done:
			g.closeTailers(slices.Collect(maps.Values(g.tailers)))
			return
		}
	}
}
