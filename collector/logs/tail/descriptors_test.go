package tail

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"

	"tidegate/collector/logs/decode"
	"tidegate/collector/logs/discover"
	"tidegate/collector/logs/logstest"
)

// textTailer returns a tailer of the text log a.log in a new folder, which holds files of these names and contents.
func textTailer(t *testing.T, contents map[string]string) (*Tailer, *logstest.Shipper) {
	t.Helper()
	dir, ship := t.TempDir(), logstest.NewShipper()
	for name, text := range contents {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	group := NewGroup(testConfig, slog.New(slog.DiscardHandler), nil)
	group.ship = ship
	log := discover.TextLog(dir, "a.log")
	return newTailer(group, log, shippingHandler{log}, 0), ship
}

// withoutDescriptors calls f while the process can open no file.
func withoutDescriptors(t *testing.T, f func()) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}

// TestFileWithoutADescriptorWaits: the kernel refuses to open the file. Its bytes are not read yet, the log waits
// for a descriptor, and the descriptor of the budget is free again.
func TestFileWithoutADescriptorWaits(t *testing.T) {
	tailer, _ := textTailer(t, map[string]string{"a.log": "line\nline\n"})
	rank, _ := tailer.log.Rank("a.log")
	withoutDescriptors(t, func() {
		tailer.mu.Lock()
		defer tailer.mu.Unlock()
		if f := tailer.lookupOrOpen(listedFile{"a.log", rank}, nil); f != nil {
			t.Error("the file was opened")
		}
	})
	if !tailer.scanShort.Load() || !tailer.rescanNeeded || !tailer.listingIncomplete || tailer.shortSince.Load() == 0 {
		t.Errorf("the log does not wait: %v, %v, %v", tailer.scanShort.Load(), tailer.rescanNeeded,
			tailer.listingIncomplete)
	}
	if lag := tailer.lagBytes(); lag != 10 {
		t.Errorf("%d bytes are not read, want 10", lag)
	}
	if count := tailer.group.budget.openFiles.Load(); count != 0 {
		t.Errorf("%d descriptors are in use", count)
	}

	// The folder cannot be listed either.
	withoutDescriptors(t, tailer.scanFolder)
	if !tailer.scanShort.Load() || !tailer.rescanNeeded {
		t.Error("the log does not wait for the descriptor of the listing")
	}
	tailer.scanFolder()
	if tailer.scanShort.Load() || tailer.rescanNeeded || tailer.listingIncomplete || tailer.lagBytes() != 10 {
		t.Errorf("the log waits: %v, %v, %v, lag %d", tailer.scanShort.Load(), tailer.rescanNeeded,
			tailer.listingIncomplete, tailer.lagBytes())
	}
	tailer.group.closeTailer(tailer)
}

// TestReleasedFileIsOpenedAgain: a file without a descriptor is opened when it has new bytes, when it is the log's
// turn, and when its name still belongs to it.
func TestReleasedFileIsOpenedAgain(t *testing.T) {
	tailer, ship := textTailer(t, map[string]string{"a.log": "one\n"})
	readAll := func() {
		t.Helper()
		for more := true; more; {
			var err error
			if more, err = tailer.readAvailable(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	tailer.scanFolder()
	readAll()
	f := tailer.files[0]
	release := func() {
		t.Helper()
		tailer.release.Store(true)
		tailer.releaseIfAsked()
		if !f.released || f.file != nil || tailer.opened.Load() != 0 || tailer.group.budget.openFiles.Load() != 0 {
			t.Fatal("the file was not released")
		}
	}
	check := func(what string, final bool, want reopenResult) {
		t.Helper()
		if got := tailer.reopen(f, final); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
		if open := tailer.group.budget.openFiles.Load(); open != int64(btoi(want == fileOpen)) {
			t.Errorf("%s: %d descriptors are in use", what, open)
		}
	}
	check("not released", false, fileOpen)
	release()
	tailer.readShort.Store(true)
	check("no new bytes", false, fileUnchanged)
	if tailer.readShort.Load() {
		t.Error("a file without new bytes waits for a descriptor")
	}
	check("no new bytes, and none will come", true, fileOpen)
	release()

	if err := appendTo(filepath.Join(tailer.log.Dir, "a.log"), "two\n"); err != nil {
		t.Fatal(err)
	}
	tailer.group.short.Store(1)
	check("others wait", false, fileUnavailable)
	if !tailer.readShort.Load() || tailer.shortSince.Load() == 0 {
		t.Error("the file does not wait for a descriptor")
	}
	tailer.turn.Store(true)
	check("others wait, but it is its turn", false, fileOpen)
	if tailer.readShort.Load() || tailer.turn.Load() {
		t.Error("the file waits still, or has its turn for ever")
	}
	release()
	tailer.group.short.Store(0)
	tailer.group.budget.maxFiles = 0
	check("the budget has no descriptor", false, fileUnavailable)
	tailer.group.budget.maxFiles = 10
	withoutDescriptors(t, func() { check("the kernel has none", false, fileUnavailable) })
	if !tailer.readShort.Load() || tailer.rescanNeeded {
		t.Error("the file does not wait for a descriptor, or is looked for elsewhere")
	}
	readAll()
	if events := ship.All(); len(events) != 2 || events[1].Message != "two" {
		t.Errorf("%v", events)
	}

	// Another file has got the name, and then nothing has it.
	release()
	path := filepath.Join(tailer.log.Dir, "a.log")
	if err := os.Rename(path, path+".elsewhere"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("one\ntwo\nthree\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("the name has another file", false, fileUnavailable)
	if !tailer.rescanNeeded {
		t.Error("the other file is not looked for")
	}
	name := f.name
	f.name = ""
	check("removed", false, fileRemoved)
	f.name = name
	tailer.folderGone.Store(true)
	check("the folder is removed", false, fileRemoved)
}

// appendTo appends text to a file.
func appendTo(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = io.WriteString(file, text)
	_ = file.Close()
	return err
}

// TestFileWithTwoNamesIsOneFile: a listing meets a file twice if it is renamed meanwhile, or linked.
func TestFileWithTwoNamesIsOneFile(t *testing.T) {
	tailer, ship := textTailer(t, map[string]string{"a.log.1": "one\ntwo\n"})
	if err := os.Link(filepath.Join(tailer.log.Dir, "a.log.1"), filepath.Join(tailer.log.Dir, "a.log")); err != nil {
		t.Fatal(err)
	}
	tailer.scanFolder()
	if len(tailer.files) != 1 || tailer.group.budget.openFiles.Load() != 1 {
		t.Errorf("%d files, %d descriptors", len(tailer.files), tailer.group.budget.openFiles.Load())
	}
	for more := true; more; {
		var err error
		if more, err = tailer.readAvailable(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if lines := ship.All(); len(lines) != 2 {
		t.Errorf("%d lines, want each once", len(lines))
	}
	tailer.group.closeTailer(tailer)
}

// TestFileThatIsGoneBeforeItsFirstReadIsSaidToBe: its lines cannot be read again, so the shipper need not wait with
// them for Kafka. The file is removed after it was opened, and before it was identified.
func TestFileThatIsGoneBeforeItsFirstReadIsSaidToBe(t *testing.T) {
	tailer, ship := textTailer(t, map[string]string{"a.log": "one\ntwo\n"})
	never := make(chan struct{})
	ship.Gate = func(string) <-chan struct{} { return never } // the shipper waits, but not for a file that is gone
	tailer.scanFolder()
	if err := os.Remove(filepath.Join(tailer.log.Dir, "a.log")); err != nil {
		t.Fatal(err)
	}
	tailer.scanFolder()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := tailer.readAvailable(ctx); err != nil {
		t.Errorf("the lines wait: %v", err)
	}
	if lines := ship.All(); len(lines) != 2 {
		t.Errorf("%d lines", len(lines))
	}
	tailer.group.closeTailer(tailer)
	ship.Check(t)
}

// TestNamesOfCheckpointsAreComplete: checkpoints are dropped of files that are gone, so that every name under which
// a file may have one is known before.
func TestNamesOfCheckpointsAreComplete(t *testing.T) {
	tailer, _ := textTailer(t, map[string]string{
		"a.log": "no end", "a.log.1": "no end either", "a.log.2": "same\n", "a.log.3": "same\n",
	})
	names := map[string]bool{}
	tailer.rescanNeeded = true
	if tailer.addProducerNames(names) || len(names) != 0 {
		t.Error("the listing was not complete")
	}
	tailer.scanFolder()
	if !tailer.addProducerNames(names) {
		t.Error("the listing was complete")
	}
	want := map[string]bool{}
	for _, f := range tailer.files[:3] {
		second := f.firstRecord.withHandle(f.handle)
		for _, id := range []Identity{f.firstRecord, second, second.withHandle(f.handle)} {
			want[tailer.producerName(id)] = true
		}
	}
	if len(want) != 3*2+2 || !maps.Equal(names, want) { // two files share the name of their first record
		t.Errorf("%q, want %q", slices.Sorted(maps.Keys(names)), slices.Sorted(maps.Keys(want)))
	}

	// The base file may get its first line while it has no descriptor.
	base := tailer.files[3]
	if base.identified {
		t.Fatal("the base file has no first line yet")
	}
	file := base.file
	base.released, base.file = true, nil
	if tailer.addProducerNames(map[string]bool{}) {
		t.Error("the names are complete without the base file's")
	}
	base.released = false
	if !tailer.addProducerNames(map[string]bool{}) {
		t.Error("a file that cannot be read has no checkpoint")
	}
	base.file = file
	tailer.group.closeTailer(tailer)
}

// TestExcludedLogIsClosedWithoutAListing: the other logs are listed once more, because a rotation may have given
// their files other names.
func TestExcludedLogIsClosedWithoutAListing(t *testing.T) {
	dockerd, ship := logstest.NewDockerd(t, t.TempDir(), 1), logstest.NewShipper()
	dockerd.WriteLog("stdout", strings.Repeat("x", decode.DockerPartBytes)+"\n")
	excluded := tailerOf(dockerd, ship)
	excluded.handler = excludedHandler{excluded.handler}
	other, _ := textTailer(t, map[string]string{"a.log": "one\n"})
	other.group = excluded.group
	scanFolders([]*Tailer{excluded, other})

	// Neither folder can be listed any more.
	for _, tailer := range []*Tailer{excluded, other} {
		if err := os.RemoveAll(tailer.log.Dir); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(tailer.log.Dir, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	metrics := excluded.group.metrics
	for want, tailer := range []*Tailer{excluded, other} {
		excluded.group.closeTailer(tailer)
		if listed := testutil.ToFloat64(metrics.errors.WithLabelValues("list")); listed != float64(want) {
			t.Errorf("%v listings failed, want that of the other log", listed)
		}
	}
	if left := testutil.ToFloat64(metrics.dropped.WithLabelValues("removed")); left != 4 {
		t.Errorf("%v bytes are counted, want those of the other log", left)
	}
	if len(excluded.files)+len(other.files) != 0 || excluded.group.budget.openFiles.Load() != 0 {
		t.Error("files are open")
	}
}

// excludedHandler is the handler of a log that is not to be read.
type excludedHandler struct{ Handler }

func (excludedHandler) State() State { return State{Excluded: true} }

// TestWriteToAWatchedFileWakesItsReader: the file is found by its descriptor, or by its name if it has none.
func TestWriteToAWatchedFileWakesItsReader(t *testing.T) {
	tailer, _ := textTailer(t, map[string]string{"a.log": "one\n"})
	watcher, err := newWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.closeWatcher()
	events := make(chan []inotifyEvent)
	go watcher.readEvents(t.Context(), events)
	woken := func(what string) {
		t.Helper()
		if err := appendTo(filepath.Join(tailer.log.Dir, "a.log"), "more\n"); err != nil {
			t.Fatal(err)
		}
		for {
			for _, event := range <-events {
				if event.mask&unix.IN_MODIFY == 0 {
					continue
				}
				if watcher.fileOf(event) != tailer {
					t.Errorf("%s: the event is not that of the log", what)
				}
				return
			}
		}
	}
	if tailer.watchFile(watcher) {
		t.Error("a log without files is watched")
	}
	tailer.scanFolder()
	if !tailer.watchFile(watcher) {
		t.Fatal("the file is not watched")
	}
	woken("by its descriptor")

	f := tailer.files[0]
	file := f.file
	f.file = nil
	if !tailer.watchFile(watcher) {
		t.Fatal("the file without a descriptor is not watched")
	}
	woken("by its name")
	f.name = ""
	if tailer.watchFile(watcher) {
		t.Error("a file with neither a descriptor nor a name is watched")
	}
	f.file = file
	tailer.folderGone.Store(true)
	if tailer.watchFile(watcher) {
		t.Error("a log that is gone is watched")
	}

	// Two names of one file: the first log has the watch.
	tailer.folderGone.Store(false)
	other, _ := textTailer(t, map[string]string{"a.log": ""})
	if !tailer.watchFile(watcher) {
		t.Fatal("the file is not watched")
	}
	if watcher.watchFile(filepath.Join(tailer.log.Dir, "a.log"), other) {
		t.Error("two logs watch one file")
	}
	if watcher.watchFile(filepath.Join(tailer.log.Dir, "missing"), other) {
		t.Error("a missing file is watched")
	}
}
