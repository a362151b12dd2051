package tail

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"

	"tidegate/collector/logs/discover"
	"tidegate/collector/logs/logstest"
)

// A groupTest is a Group that does not run: the test calls what Run calls.
type groupTest struct {
	*Group
	t        *testing.T
	dir      string
	ship     *logstest.Shipper
	logged   *strings.Builder
	logs     []discover.Log
	missing  bool // the list is not complete
	listings int
	handlers map[string]Handler // by the names of base files; others never get ready
}

func newGroupTest(t *testing.T) *groupTest {
	t.Helper()
	test := &groupTest{t: t, dir: t.TempDir(), ship: logstest.NewShipper(), logged: &strings.Builder{}, handlers: map[string]Handler{}}
	test.Group = NewGroup(testConfig, slog.New(slog.NewTextHandler(test.logged, nil)), nil)
	test.Group.ship = test.ship
	test.budget.maxFiles = 100
	test.listTimer = time.NewTimer(time.Hour)
	t.Cleanup(func() {
		test.watch.closeWatcher()
	})
	return test
}

// watchFolders gives the group an inotify instance.
func (g *groupTest) watchFolders() {
	g.t.Helper()
	watcher, err := newWatcher()
	if err != nil {
		g.t.Fatal(err)
	}
	g.watch = watcher
}

// write writes a file of the folder.
func (g *groupTest) write(name, text string) {
	g.t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, name), []byte(text), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// tail makes a tailer of a text log of the folder, without a goroutine.
func (g *groupTest) tail(base string) *Tailer {
	log := discover.TextLog(g.dir, base)
	return g.newTailer(log, shippingHandler{log})
}

func (g *groupTest) Folders() []string { return []string{g.dir} }

func (g *groupTest) List() (logs []discover.Log, complete bool) {
	g.listings++
	return g.logs, !g.missing
}

func (g *groupTest) Handler(log discover.Log) Handler {
	if handler, ok := g.handlers[log.Base]; ok {
		return handler
	}
	return neverReady{shippingHandler{log}}
}

func (g *groupTest) errorCount(call string) float64 {
	return testutil.ToFloat64(g.metrics.errors.WithLabelValues(call))
}

// isWoken reports whether the reader was woken since the last call.
func isWoken(tailer *Tailer) bool {
	select {
	case <-tailer.wake:
		return true
	default:
		return false
	}
}

// TestDescriptorsGoToThoseThatHaveWaitedLongest, as many as are free; as many logs as wait give theirs back: first those that
// have been idle for the longest time.
func TestDescriptorsGoToThoseThatHaveWaitedLongest(t *testing.T) {
	g := newGroupTest(t)
	g.budget.maxFiles = 6
	g.budget.openFiles.Store(4)
	g.write("scan.log", "line\n")
	now := time.Now().UnixNano()
	waiting := func(base string, scan bool, since int64) *Tailer {
		tailer := g.tail(base)
		tailer.scanShort.Store(scan)
		tailer.readShort.Store(!scan)
		tailer.shortSince.Store(since)
		return tailer
	}
	holding := func(base string, idle, opened int64) *Tailer {
		tailer := g.tail(base)
		tailer.idle.Store(idle)
		tailer.opened.Store(opened)
		return tailer
	}
	last, first, scan := waiting("last.log", false, 300), waiting("first.log", false, 100), waiting("scan.log", true, 200)
	idle, idlest := holding("idle.log", 50, now), holding("idlest.log", 20, now)
	old, oldest, fresh := holding("old.log", 0, 10), holding("oldest.log", 0, 5), holding("fresh.log", 0, now)
	closed := holding("closed.log", 30, 0)

	g.releaseIdle()
	if g.short.Load() != 3 {
		t.Errorf("%d logs are short of descriptors, want 3", g.short.Load())
	}
	if !first.turn.Load() || !isWoken(first) || last.turn.Load() || isWoken(last) {
		t.Error("the descriptor is not that of the log that has waited for the longest time")
	}
	if scan.turn.Load() || scan.scanShort.Load() || len(scan.files) != 1 || g.budget.openFiles.Load() != 5 {
		t.Errorf("the folder was not listed: %d files", len(scan.files))
	}
	for _, tailer := range []*Tailer{idle, idlest, oldest} {
		if !tailer.release.Load() || !isWoken(tailer) {
			t.Errorf("%s keeps its descriptor", tailer.log.Base)
		}
	}
	for _, tailer := range []*Tailer{old, fresh, closed, first, last, scan} {
		if tailer.release.Load() {
			t.Errorf("%s is to close its file", tailer.log.Base)
		}
	}
	const warning = "log files wait for descriptors"
	if got := g.logged.String(); strings.Count(got, warning) != 1 || !strings.Contains(got, "logs=3 limit=6") {
		t.Errorf("logged: %s", got)
	}

	// A log that has just opened its file may read it, and the warning comes once a minute.
	for _, tailer := range []*Tailer{idle, idlest, old, oldest} {
		tailer.opened.Store(0)
		tailer.release.Store(false)
	}
	g.budget.openFiles.Store(10)
	first.turn.Store(false)
	g.releaseIdle()
	if fresh.release.Load() || first.turn.Load() || strings.Count(g.logged.String(), warning) != 1 {
		t.Errorf("a file that was just opened is closed, or a descriptor was given that is none: %s", g.logged)
	}
	g.shortWarned = time.Now().Add(-2 * shortWarnEvery)
	g.releaseIdle()
	if strings.Count(g.logged.String(), warning) != 2 {
		t.Errorf("logged: %s", g.logged)
	}

	// Nothing is given back when nobody waits.
	fresh.idle.Store(1)
	first.readShort.Store(false)
	last.readShort.Store(false)
	g.releaseIdle()
	if g.short.Load() != 0 || fresh.release.Load() {
		t.Errorf("%d logs wait", g.short.Load())
	}
}

// TestEventsReachTheLogsTheyAreAbout: a write wakes the reader, another change lists the folder again.
func TestEventsReachTheLogsTheyAreAbout(t *testing.T) {
	g := newGroupTest(t)
	g.watchFolders()
	g.write("a.log", "line\n")
	g.write("b.log", "line\n")
	a, b := g.tail("a.log"), g.tail("b.log")
	folder := a.folder.Load()
	if folder == nil || b.folder.Load() != folder || !isWoken(a) || !isWoken(b) {
		t.Fatal("the folder is not watched")
	}
	check := func(what string, event inotifyEvent, wokenA, wokenB bool, listings int) {
		t.Helper()
		before := g.listings
		g.handleEvents(t.Context(), g, []inotifyEvent{event})
		if gotA, gotB := isWoken(a), isWoken(b); gotA != wokenA || gotB != wokenB || g.listings != before+listings {
			t.Errorf("%s: woken %t and %t, %d listings", what, gotA, gotB, g.listings-before)
		}
	}
	check("a write", inotifyEvent{wd: folder.wd, mask: unix.IN_MODIFY, name: "b.log"}, false, true, 0)
	if len(b.files) != 0 {
		t.Error("the folder was listed after a write")
	}
	check("a rotation", inotifyEvent{wd: folder.wd, mask: unix.IN_MOVED_TO, name: "a.log.1"}, true, false, 0)
	if len(a.files) != 1 || len(b.files) != 0 {
		t.Errorf("%d and %d files are open", len(a.files), len(b.files))
	}
	check("another folder", inotifyEvent{wd: folder.wd + 1000, mask: unix.IN_MOVED_TO, name: "a.log.1"}, false, false, 0)
	check("a name of no log, where none appear", inotifyEvent{wd: folder.wd, mask: unix.IN_CREATE, name: "c.log"}, false, false, 0)
	folder.root = true
	check("a new name", inotifyEvent{wd: folder.wd, mask: unix.IN_CREATE, name: "c.log"}, false, false, 1)
	check("a renamed file", inotifyEvent{wd: folder.wd, mask: unix.IN_MOVED_TO, name: "c.log"}, false, false, 1)
	check("a removed file", inotifyEvent{wd: folder.wd, mask: unix.IN_DELETE, name: "c.log"}, false, false, 0)
	check("a new file of a log", inotifyEvent{wd: folder.wd, mask: unix.IN_CREATE, name: "a.log.2"}, true, false, 0)

	// The watch of a file is about that file, until the kernel has ended it.
	b.scanFolder()
	isWoken(b)
	if !b.watchFile(g.watch) {
		t.Fatal("the file is not watched")
	}
	var wd int32
	for wd = range g.watch.byFile {
	}
	check("a write to a watched file", inotifyEvent{wd: wd, mask: unix.IN_MODIFY}, false, true, 0)
	check("the end of its watch", inotifyEvent{wd: wd, mask: unix.IN_IGNORED}, false, true, 0)
	check("a write behind it", inotifyEvent{wd: wd, mask: unix.IN_MODIFY}, false, false, 0)

	// Lost events may have been any.
	rescans := g.rescans
	g.handleEvents(t.Context(), g, []inotifyEvent{{wd: -1, mask: unix.IN_Q_OVERFLOW}})
	if g.errorCount("overflow") != 1 || g.rescans != rescans+1 || g.overflowed || !isWoken(a) || !isWoken(b) {
		t.Errorf("%v overflows are counted, %d rescans", g.errorCount("overflow"), g.rescans-rescans)
	}

	// The folder is removed.
	if err := os.RemoveAll(g.dir); err != nil {
		t.Fatal(err)
	}
	check("the folder is removed", inotifyEvent{wd: folder.wd, mask: unix.IN_IGNORED}, true, true, 0)
	if a.folder.Load() != nil || b.folder.Load() != nil || !folder.gone || !a.folderGone.Load() || g.watch.folderOf(folder.wd) != nil {
		t.Error("the folder is still watched")
	}
}

// TestListingsTakeAFifthOfTheTime: new names are listed at once, unless the last listing was expensive.
func TestListingsTakeAFifthOfTheTime(t *testing.T) {
	g := newGroupTest(t)
	g.listed, g.listDuration = time.Now(), time.Hour
	g.followSoon(t.Context(), g)
	if g.listings != 0 {
		t.Error("listed although the last listing took an hour")
	}
	g.listed, g.listDuration = time.Now().Add(-3*time.Hour), time.Hour
	g.followSoon(t.Context(), g)
	if g.listings != 0 {
		t.Error("listed after three times what the last listing took")
	}
	g.listed = time.Now().Add(-5 * time.Hour)
	g.followSoon(t.Context(), g)
	if g.listings != 1 || time.Since(g.listed) > time.Minute || g.listDuration > time.Minute {
		t.Errorf("%d listings, %s ago", g.listings, time.Since(g.listed))
	}
	g.listed, g.listDuration = time.Now(), 5*time.Millisecond
	g.followSoon(t.Context(), g)
	select {
	case <-g.listTimer.C:
	case <-time.After(20 * time.Second):
		t.Error("the names are not listed later")
	}
}

// TestListedLogsAreTailed until they are listed no more and have no files. Only a complete list shows that.
func TestListedLogsAreTailed(t *testing.T) {
	g := newGroupTest(t)
	g.write("a.log", "line\n")
	g.logs = []discover.Log{discover.TextLog(g.dir, "a.log"), discover.TextLog(g.dir, "none.log"), discover.TextLog(g.dir, "later.log")}
	g.handlers["later.log"] = nil
	ctx, cancel := context.WithCancel(t.Context())
	g.followListed(ctx, g)
	a, none := g.tailers[g.logs[0].ID], g.tailers[g.logs[1].ID]
	if len(g.tailers) != 2 || g.tailed.Load() != 2 || a == nil || none == nil {
		t.Fatalf("%d logs are tailed, want 2", len(g.tailers))
	}
	if len(a.files) != 1 || a.slot == none.slot {
		t.Errorf("%d files, slots %d and %d", len(a.files), a.slot, none.slot)
	}
	if g.ship.Pruned() != 1 {
		t.Errorf("checkpoints were dropped %d times, want once", g.ship.Pruned())
	}
	g.followListed(ctx, g)
	if len(g.tailers) != 2 || g.tailers[g.logs[0].ID] != a || g.ship.Pruned() != 1 {
		t.Error("a log is tailed twice, or checkpoints are dropped twice")
	}

	// The tailers have ended, since their handlers are not ready.
	for range 2 {
		<-g.ended
	}
	ended := map[*Tailer]bool{}
	for _, tailer := range []*Tailer{a, none} {
		tailer.cancel = func() { ended[tailer] = true }
	}
	g.logs, g.missing = nil, true
	if g.followListed(ctx, g); len(ended) != 0 {
		t.Error("a log has ended that the list may lack")
	}
	g.missing = false
	if g.followListed(ctx, g); len(ended) != 1 || !ended[none] {
		t.Errorf("%d logs have ended, want the one without files", len(ended))
	}
	g.removeTailer(none)
	if len(g.tailers) != 1 || g.tailed.Load() != 1 {
		t.Errorf("%d logs are tailed, %d exported", len(g.tailers), g.tailed.Load())
	}
	g.removeTailer(a)
	if files, _ := g.Held(); files != 0 || len(g.tailers) != 0 {
		t.Errorf("%d files are open", files)
	}
	cancel()
	g.stopTailers()
	g.ship.Check(t)
}

// TestCheckpointsOfGoneFilesAreDroppedOnce: those of a log that is not tailed or not listed completely are kept.
func TestCheckpointsOfGoneFilesAreDroppedOnce(t *testing.T) {
	g := newGroupTest(t)
	g.write("a.log", "line\n")
	g.write("b.log", "line\n")
	a, b := g.tail("a.log"), g.tail("b.log")
	scanFolders([]*Tailer{a, b})
	b.rescanNeeded = true
	var exists func(name string) bool
	calls := 0
	g.Group.ship = pruneShipper{g.ship, func(f func(string) bool) { exists = f; calls++ }}
	listed := map[string]bool{a.log.ID: true, b.log.ID: true, g.dir + "/waits.log": true}
	check := func(name string, want bool) {
		t.Helper()
		if got := exists(name); got != want {
			t.Errorf("the file of %s exists: %t, want %t", name, got, want)
		}
	}
	g.pruneOnce(listed)
	check(a.producerName(a.files[0].id), true)
	check("log/"+a.log.ID+"/0123", false)
	check("log/"+b.log.ID+"/0123", true)
	check("log/"+g.dir+"/waits.log/0123", true)
	check("log/"+g.dir+"/gone.log/0123", false)
	check("log/0123", false)
	check("packets/eth0", true)
	b.rescanNeeded = false
	g.pruneOnce(listed)
	check("log/"+b.log.ID+"/0123", false)
	check(b.producerName(b.files[0].id), true)
	if g.pruneOnce(listed); calls != 2 {
		t.Errorf("checkpoints were dropped %d times, want twice", calls)
	}
	g.closeTailers([]*Tailer{a, b})
}

// A pruneShipper hands the argument of Prune to the test.
type pruneShipper struct {
	*logstest.Shipper
	prune func(exists func(string) bool)
}

func (s pruneShipper) Prune(exists func(string) bool) { s.prune(exists) }

// TestStatesAreApplied: an excluded log ends, and one that waits for its handler is woken.
func TestStatesAreApplied(t *testing.T) {
	g := newGroupTest(t)
	waits, reads, excluded := g.tail("waits.log"), g.tail("reads.log"), g.tail("excluded.log")
	excluded.handler = excludedHandler{excluded.handler}
	reads.handlerReady.Store(true)
	excluded.handlerReady.Store(true)
	ended := map[*Tailer]bool{}
	for _, tailer := range g.tailers {
		tailer.cancel = func() { ended[tailer] = true }
	}
	g.applyStates()
	if !isWoken(waits) || isWoken(reads) || isWoken(excluded) || len(ended) != 1 || !ended[excluded] {
		t.Errorf("%d logs have ended", len(ended))
	}
}

// TestRescanFindsWhatInotifyHasNotReported.
func TestRescanFindsWhatInotifyHasNotReported(t *testing.T) {
	g := newGroupTest(t)
	g.watchFolders()
	g.write("a.log", "12345\n")
	g.write("b.log", "123\n")
	a, b := g.tail("a.log"), g.tail("b.log")
	a.slot, b.slot = 7, 8
	a.handlerReady.Store(true)
	b.handlerReady.Store(true)
	g.logs = []discover.Log{a.log, b.log}
	g.rescan(t.Context(), g)
	if g.Lag() != 10 || len(a.files) != 1 || len(b.files) != 1 || !isWoken(a) || !isWoken(b) {
		t.Errorf("lag %d, %d and %d files", g.Lag(), len(a.files), len(b.files))
	}
	if folder := a.folder.Load(); folder == nil || !folder.root || g.polled.Load() != 0 {
		t.Errorf("the folder is not watched, %d logs are polled", g.polled.Load())
	}

	excluded := g.tail("c.log")
	excluded.handler = excludedHandler{excluded.handler}
	ended := false
	excluded.cancel = func() { ended = true }
	g.rescan(t.Context(), g)
	delete(g.tailers, excluded.log.ID)
	isWoken(b)
	if !ended {
		t.Error("an excluded log has not ended")
	}

	// A log without unread bytes is not woken, and its folder not listed.
	b.files[0].done = true
	b.files = nil
	g.rescan(t.Context(), g)
	if g.Lag() != 6 || !isWoken(a) || isWoken(b) || len(b.files) != 0 {
		t.Errorf("lag %d, %d files", g.Lag(), len(b.files))
	}
	for name, set := range map[string]func(){
		"its turn":           func() { g.rescans = fullScanEvery + b.slot - 1 },
		"lost events":        func() { g.overflowed = true },
		"an incomplete scan": func() { b.rescanNeeded = true },
		"a rotation":         func() { b.baseHandle = "another" },
		"no base file":       func() { b.path += ".missing" },
	} {
		b.files, g.rescans = nil, 100
		path := b.path
		set()
		g.rescan(t.Context(), g)
		b.path = path
		if len(b.files) != 1 || g.overflowed {
			t.Errorf("%s: the folder was not listed", name)
		}
	}

	// A rotation is seen before the next rescan, where inotify does not report it.
	a.folder.Store(nil)
	b.folder.Store(nil)
	a.files, b.files = nil, nil
	a.baseHandle = "another"
	g.polled.Store(0)
	if g.pollUnwatched(); len(a.files) != 0 {
		t.Error("logs are polled although all are watched")
	}
	g.polled.Store(2)
	if g.pollUnwatched(); len(a.files) != 1 || len(b.files) != 0 {
		t.Errorf("%d and %d files", len(a.files), len(b.files))
	}
	if a.isRotated() || b.isRotated() {
		t.Error("rotated since the listing")
	}
	a.folder.Store(&watchedFolder{})
	a.files, a.baseHandle = nil, "another"
	if g.pollUnwatched(); len(a.files) != 0 {
		t.Error("a watched log is polled")
	}
	b.path += ".missing"
	if b.isRotated() {
		t.Error("a base file that is missing for a moment is no rotation")
	}
}

// TestLogsArePolledWithoutInotify, which is counted and logged, and watched once an instance is free.
func TestLogsArePolledWithoutInotify(t *testing.T) {
	g := newGroupTest(t)
	g.write("a.log", "line\n")
	a, gone := g.tail("a.log"), g.tail("gone.log")
	gone.folderGone.Store(true)
	var reader sync.WaitGroup
	for range 2 {
		withoutDescriptors(t, func() { g.startWatch(t.Context(), &reader) })
	}
	if g.watch != nil || g.errorCount("inotify_init") != 2 {
		t.Errorf("inotify without a descriptor, or %v errors", g.errorCount("inotify_init"))
	}
	g.watchUnwatched()
	if g.polled.Load() != 1 {
		t.Errorf("%d logs are polled, want 1", g.polled.Load())
	}
	if got := g.logged.String(); strings.Count(got, "cannot be watched") != 1 || strings.Contains(got, "watched again") {
		t.Errorf("logged: %s", got)
	}
	g.startWatch(t.Context(), &reader)
	watch := g.watch
	if watch == nil || !strings.Contains(g.logged.String(), "watched again") {
		t.Fatalf("logged: %s", g.logged)
	}
	g.startWatch(t.Context(), &reader)
	g.watchUnwatched()
	if g.watch != watch || g.polled.Load() != 0 || a.folder.Load() == nil || gone.folder.Load() != nil {
		t.Errorf("%d logs are polled", g.polled.Load())
	}

	// The events come from a goroutine of their own.
	g.write("b.log", "")
	for found := false; !found; {
		batch := <-g.events
		found = slices.Contains(batch, inotifyEvent{wd: a.folder.Load().wd, mask: unix.IN_CREATE, name: "b.log"})
	}
	g.watch.closeWatcher()
	reader.Wait()
}

// TestWatchOfAFolderEndsWithItsLastLog. Two paths of one folder share its watch, and a folder in which logs appear is always
// watched.
func TestWatchOfAFolderEndsWithItsLastLog(t *testing.T) {
	g := newGroupTest(t)
	g.watchFolders()
	a := g.tail("a.log")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(g.dir, link); err != nil {
		t.Fatal(err)
	}
	g.dir = link
	b := g.tail("b.log")
	folder := a.folder.Load()
	if b.folder.Load() != folder || len(g.watch.byWatch) != 1 || len(g.watch.folders) != 2 {
		t.Errorf("%d watches, %d paths", len(g.watch.byWatch), len(g.watch.folders))
	}
	if folder.watchWrites(true) {
		t.Error("writes to a shared folder are watched")
	}
	if !folder.watchWrites(false) {
		t.Error("the watch of a shared folder could not be set")
	}
	g.removeTailer(a)
	if g.watch.folderOf(folder.wd) != folder || folder.gone {
		t.Error("the folder is not watched for its other log")
	}
	if !folder.watchWrites(true) {
		t.Error("writes to a folder of one log are not watched")
	}
	g.removeTailer(b)
	if g.watch.folderOf(folder.wd) != nil || len(g.watch.byWatch)+len(g.watch.folders) != 0 || !folder.gone {
		t.Error("the folder is watched without a log")
	}
	if folder.watchWrites(true) {
		t.Error("a folder that is not watched reports writes")
	}
	if _, err := unix.InotifyRmWatch(g.watch.fd, uint32(folder.wd)); err == nil {
		t.Error("the kernel still watches the folder")
	}

	// The root stays.
	if err := g.watch.watchRoot(g.dir); err != nil {
		t.Fatal(err)
	}
	a = g.tail("a.log")
	root := a.folder.Load()
	g.removeTailer(a)
	if g.watch.folderOf(root.wd) != root || len(root.tailers) != 0 {
		t.Error("the folder in which logs appear is not watched")
	}
	g.watch.dropFolder(root)
	if g.watch.folderOf(root.wd) != nil || len(g.watch.folders) != 0 || !root.gone {
		t.Error("a dropped folder is watched")
	}
	if err := (*watcher)(nil).watchRoot(g.dir); err != nil {
		t.Errorf("without inotify: %v", err)
	}
	if (*watchedFolder)(nil).watchWrites(true) {
		t.Error("a folder that is not watched reports writes")
	}
}

// TestEventsOfAFolderGoToTheLogOfTheName; its end goes to all of them.
func TestEventsOfAFolderGoToTheLogOfTheName(t *testing.T) {
	g := newGroupTest(t)
	text := g.tail("a.log")
	dockerLog := discover.DockerLog("id", g.dir, "id-json.log")
	docker := g.newTailer(dockerLog, shippingHandler{dockerLog})
	folder := &watchedFolder{}
	folder.addTailer(docker)
	check := func(name string, mask uint32, want ...*Tailer) {
		t.Helper()
		if got := folder.owners(inotifyEvent{name: name, mask: mask}); !slices.Equal(got, want) {
			t.Errorf("%s: %d logs, want %d", name, len(got), len(want))
		}
	}
	check("a.log", unix.IN_CREATE)
	folder.addTailer(text)
	check("a.log.1", unix.IN_CREATE, text)
	check("id-json.log.1", unix.IN_CREATE, docker)
	check("b.log", unix.IN_CREATE)
	check("", unix.IN_IGNORED, docker, text)
	folder.removeTailer(docker)
	check("id-json.log.1", unix.IN_CREATE)
	check("a.log", unix.IN_CREATE, text)
	check("", unix.IN_IGNORED, text)
}

// TestInotifyEventsAreParsed as inotify(7) describes them: the name is padded with NULs.
func TestInotifyEventsAreParsed(t *testing.T) {
	event := func(wd int32, mask uint32, name string, size int) []byte {
		data := make([]byte, 0, unix.SizeofInotifyEvent+size)
		for _, number := range []uint32{uint32(wd), mask, 99, uint32(size)} {
			data = binary.NativeEndian.AppendUint32(data, number)
		}
		return append(append(data, name...), make([]byte, size-len(name))...)
	}
	data := slices.Concat(event(1, 2, "", 0), event(3, 4, "a.log", 16), event(5, 6, "0123456789abcdef", 16))
	want := []inotifyEvent{{1, 2, ""}, {3, 4, "a.log"}, {5, 6, "0123456789abcdef"}}
	if got := parseEvents(data); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := parseEvents(event(1, 2, "", 0)); !slices.Equal(got, want[:1]) {
		t.Errorf("an event without a name: %v", got)
	}
	for cut := 1; cut < 32; cut++ {
		if got := parseEvents(data[:len(data)-cut]); !slices.Equal(got, want[:2]) {
			t.Errorf("without the last %d bytes: %v", cut, got)
		}
	}
}

// TestGroupExportsWhatItHolds until it ends.
func TestGroupExportsWhatItHolds(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	g := newGroupTest(t)
	g.lag.Store(1)
	g.budget.openFiles.Store(2)
	g.tailed.Store(3)
	g.short.Store(4)
	g.polled.Store(5)
	stop := g.exportGauges(reg)
	values := func() map[string]float64 {
		t.Helper()
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]float64{}
		for _, family := range families {
			values[strings.TrimPrefix(family.GetName(), "tidegate_logs_")] = family.GetMetric()[0].GetGauge().GetValue()
		}
		return values
	}
	want := map[string]float64{"lag_bytes": 1, "open_files": 2, "tailed": 3, "short_of_descriptors": 4, "polled": 5}
	if got := values(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	stop()
	for name, value := range values() {
		if value != 0 {
			t.Errorf("%s is %v behind the end", name, value)
		}
	}
}

// TestTallyIsAddedOnce: every count to its metric.
func TestTallyIsAddedOnce(t *testing.T) {
	m := newMetrics(nil)
	counts := tally{
		bytes: 1, records: 2, lines: 3, parts: 4, resumed: 5, overCap: 6, nul: 7, cut: 8, blank: 9, beforeStart: 10,
		malformed: 11, tooLong: 12, torn: 13, noTime: 14, truncated: 15, copies: 16, panics: 17,
	}
	for range 2 {
		m.addTally(&counts) // is cleared
	}
	check := func(what string, counter prometheus.Counter, want float64) {
		t.Helper()
		if got := testutil.ToFloat64(counter); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	check("bytes", m.bytes, 1)
	check("records", m.records, 2)
	check("lines", m.lines, 3)
	check("parts", m.parts, 4)
	check("resumed", m.resumed, 5)
	for reason, want := range map[string]float64{
		"over_cap": 6, "nul": 7, "cut": 8, "blank": 9, "before_start": 10, "copy_of_a_file": 16, "removed": 0,
	} {
		check(reason, m.dropped.WithLabelValues(reason), want)
	}
	for reason, want := range map[string]float64{
		"not_a_record": 11, "too_long": 12, "torn": 13, "no_time": 14, "file_truncated": 15, "decoder_panic": 17, "bad_gzip": 0,
	} {
		check(reason, m.malformed.WithLabelValues(reason), want)
	}
}

// TestReaderWaitsAsLongAsNothingCanCome: an hour for a log whose writes are watched, and less for one that is polled, waits
// for the end of a line or was written to before the watch began.
func TestReaderWaitsAsLongAsNothingCanCome(t *testing.T) {
	g := newGroupTest(t)
	g.watchFolders()
	g.write("a.log", "line\n")
	a := g.tail("a.log")
	a.scanFolder()
	if _, err := a.readAvailable(t.Context()); err != nil {
		t.Fatal(err)
	}
	folder := a.folder.Load()
	check := func(what string, want time.Duration) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			a.wake = make(chan struct{}, 1) // of this bubble
			begun := time.Now()
			idle := int64(0)
			go func() {
				time.Sleep(time.Millisecond)
				idle = a.idle.Load()
			}()
			a.waitForEvents(t.Context())
			if got := time.Since(begun); got != want {
				t.Errorf("%s: waited for %s, want %s", what, got, want)
			}
			if idle != begun.UnixNano() || a.idle.Load() != 0 {
				t.Errorf("%s: idle since %d, then %d", what, idle, a.idle.Load())
			}
		})
	}
	check("watched", time.Hour)
	a.readShort.Store(true)
	check("without a descriptor", pollWrites)
	a.readShort.Store(false)
	a.files[0].pending[0].active = true
	check("an open line", time.Second)
	a.folder.Store(nil)
	check("an open line of a log that is polled", pollWrites)
	a.files[0].pending[0].active = false
	check("polled", pollWrites)
	a.folder.Store(folder)
	if err := appendTo(a.path, "more\n"); err != nil {
		t.Fatal(err)
	}
	check("written to before the watch", debounce)
	a.wake = make(chan struct{}, 1)
	g.closeTailer(a)
}

// TestLogsAreReadUntilTheGroupEnds: new logs and lines are found, ended logs are left, and nothing is open behind the end.
func TestLogsAreReadUntilTheGroupEnds(t *testing.T) {
	g := newGroupTest(t)
	root := g.dir
	dockerOf := func(dockerd *logstest.Dockerd) discover.Log {
		return discover.DockerLog(dockerd.ID, dockerd.Dir, dockerd.ID+"-json.log")
	}
	docker := dockerDiscovery{discover.Docker{Root: root}}
	first := logstest.NewDockerd(t, root, 1)
	first.WriteLog("stdout", "one\n")
	reg := prometheus.NewPedanticRegistry()
	g.reg = reg
	g.listTimer.Stop()
	g.listTimer = nil // Run makes its own
	openFiles := func() float64 {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() == "tidegate_logs_open_files" {
				return family.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return -1
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.Run(ctx, g.ship, docker, nil)
	}()
	g.ship.Wait(t, 1)
	second := logstest.NewDockerd(t, root, 2)
	second.WriteLog("stdout", "two\n")
	g.ship.Wait(t, 2)
	first.WriteLog("stdout", "three\n")
	g.ship.Wait(t, 3)
	second.WriteLog("stdout", "four\n")
	second.Remove()
	g.ship.Wait(t, 4)
	for g.tailed.Load() != 1 {
		time.Sleep(time.Millisecond)
	}
	if got := openFiles(); got != 1 {
		t.Errorf("%v open files are exported, want 1", got)
	}
	cancel()
	<-ended
	g.ship.Check(t)
	if files, bytes := g.Held(); files != 0 || bytes != 0 {
		t.Errorf("%d files and %d bytes are held", files, bytes)
	}
	if len(g.tailers) != 1 || len(g.tailers[dockerOf(first).ID].files) != 0 {
		t.Errorf("%d tailers", len(g.tailers))
	}
	if err := g.watch.watchRoot(t.TempDir()); err == nil {
		t.Error("the inotify instance is open")
	}
}

// A dockerDiscovery lists the logs of a data-root.
type dockerDiscovery struct{ discover.Docker }

func (d dockerDiscovery) List() (logs []discover.Log, complete bool) {
	logs, err := d.Docker.List()
	return logs, err == nil
}

func (d dockerDiscovery) Handler(log discover.Log) Handler { return shippingHandler{log} }
