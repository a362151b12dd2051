package tail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/collector"
	"tidegate/collector/logs/decode"
	"tidegate/collector/logs/discover"
	"tidegate/collector/logs/logstest"
	"tidegate/pipeline"
)

// A shippingHandler ships an event for each line, without level or redaction.
type shippingHandler struct{ log discover.Log }

func (shippingHandler) Ready(context.Context, <-chan struct{}) bool { return true }
func (shippingHandler) Refresh()                                    {}
func (shippingHandler) State() State                                { return State{} }

func (h shippingHandler) Ship(
	ctx context.Context, producer collector.FileProducer, line *Line, checkpoint collector.Checkpoint,
) error {
	id := pipeline.LogID(pipeline.ID{1}, h.log.ID, line.File[:], uint64(line.Start))
	return producer.Ship(ctx, &pipeline.Event{
		Id: id[:], Dataset: pipeline.Dataset_LOG, Timestamp: line.Time, Partial: line.Partial,
		Log: &pipeline.LogLine{
			Message: string(line.Text), Offset: uint64(line.Start), Bytes: line.Bytes, Truncated: line.Truncated,
		},
	}, checkpoint)
}

var testConfig = Config{LineMax: 1 << 20, PartialTimeout: time.Minute, Memory: 64 << 20}

// tailerOf returns a tailer of the log of dockerd. Its Group does not run: the test calls scanFolder and
// readAvailable.
func tailerOf(dockerd *logstest.Dockerd, ship *logstest.Shipper) *Tailer {
	group := NewGroup(testConfig, slog.New(slog.DiscardHandler), nil)
	group.ship = ship
	log := discover.DockerLog(dockerd.ID, dockerd.Dir, dockerd.ID+"-json.log")
	return newTailer(group, log, shippingHandler{log}, 0)
}

// TestNoFileIsMissedWhileItIsRenamed lists a folder while files are rotated and compressed. After each
// listing every file must have a name, and the files must be sorted by age.
func TestNoFileIsMissedWhileItIsRenamed(t *testing.T) {
	for _, compress := range []bool{false, true} {
		dockerd, ship := logstest.NewDockerd(t, t.TempDir(), 1), logstest.NewShipper()
		dockerd.MaxFile, dockerd.Compress = 30, compress
		tailer := tailerOf(dockerd, ship)
		const rotations = 25
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range rotations {
				dockerd.WriteLog("stdout", fmt.Sprintf("line %d\n", i))
				dockerd.Rotate()
				time.Sleep(time.Duration(i%5) * 300 * time.Microsecond)
			}
			dockerd.WriteLog("stdout", fmt.Sprintf("line %d\n", rotations))
		}()
		for over := false; !over; {
			select {
			case <-done:
				over = true
			default:
			}
			if t.Failed() {
				<-done
				return
			}
			tailer.scanFolder()
			last := -1
			for _, file := range tailer.files {
				if file.name == "" {
					t.Errorf("compressed %v: an existing file is taken for removed", compress)
				}
				if line := firstLine(file); line >= 0 {
					if line <= last {
						t.Errorf("compressed %v: line %d stands behind line %d", compress, line, last)
					}
					last = line
				}
			}
		}
		if len(tailer.files) != rotations+1 {
			t.Errorf("compressed %v: %d files, want %d", compress, len(tailer.files), rotations+1)
		}
		tailer.group.closeTailer(tailer)
		ship.Check(t)
	}
}

// firstLine returns the number of the first line of f; -1: there is none yet.
func firstLine(f *file) int {
	head, line := make([]byte, 200), -1
	size, _ := f.readAt(head, 0)
	if _, err := fmt.Sscanf(string(head[:size]), `{"log":"line %d`, &line); err != nil {
		return -1
	}
	return line
}

// TestUnreadBytesOfARemovedFileAreCounted stops while a removed file cannot be shipped: what is left of it is
// counted.
func TestUnreadBytesOfARemovedFileAreCounted(t *testing.T) {
	dockerd, ship := logstest.NewDockerd(t, t.TempDir(), 1), logstest.NewShipper()
	dockerd.WriteLog("stdout", strings.Repeat("x", 1000)+"\n")
	tailer := tailerOf(dockerd, ship)
	tailer.group.cfg.DrainTimeout = 50 * time.Millisecond
	blocked := make(chan struct{})
	ship.Gate = func(string) <-chan struct{} { return blocked }
	tailer.scanFolder()
	info, err := os.Stat(dockerd.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dockerd.Path); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tailer.drainUnlinked(ctx)
	tailer.group.closeTailer(tailer)
	if left := testutil.ToFloat64(tailer.group.metrics.dropped.WithLabelValues("removed")); left != float64(info.Size()) {
		t.Errorf("%v bytes are counted, want %d", left, info.Size())
	}
	close(blocked)
}

// TestWhatAStopLeavesUnreadIsCounted: however the reader has ended, the bytes of removed files are counted, those
// of compressed files as uncompressed ones, and incomplete lines are shipped if they can be.
func TestWhatAStopLeavesUnreadIsCounted(t *testing.T) {
	// unread returns the bytes that are counted when the log of dockerd is removed before end.
	unread := func(dockerd *logstest.Dockerd, end func(*Tailer)) (left float64, shipped []logstest.Shipped) {
		ship := logstest.NewShipper()
		tailer := tailerOf(dockerd, ship)
		tailer.group.cfg.DrainTimeout = 50 * time.Millisecond
		tailer.scanFolder()
		dockerd.Remove()
		end(tailer)
		tailer.group.closeTailer(tailer)
		return testutil.ToFloat64(tailer.group.metrics.dropped.WithLabelValues("removed")), ship.All()
	}
	notReady := func(tailer *Tailer) {
		tailer.handler = neverReady{tailer.handler}
		tailer.readLoop(t.Context())
	}

	plain := logstest.NewDockerd(t, t.TempDir(), 1)
	plain.WriteLog("stdout", strings.Repeat("x", 1000)+"\n")
	info, err := plain.File.Stat()
	plain.Must(err)
	if left, _ := unread(plain, notReady); left != float64(info.Size()) {
		t.Errorf("not ready: %v bytes, want %d", left, info.Size())
	}

	compressed := logstest.NewDockerd(t, t.TempDir(), 1)
	compressed.MaxFile, compressed.Compress = 2, true
	compressed.WriteLog("stdout", strings.Repeat("x", 1000)+"\n")
	compressed.Rotate()
	if left, _ := unread(compressed, notReady); left != float64(info.Size()) {
		t.Errorf("compressed: %v bytes, want %d", left, info.Size())
	}

	failing := logstest.NewDockerd(t, t.TempDir(), 1)
	failing.WriteLog("stdout", strings.Repeat("x", 1000)+"\n")
	if left, _ := unread(failing, func(tailer *Tailer) {
		tailer.handler = failingHandler{tailer.handler}
		tailer.readLoop(t.Context())
	}); left != float64(info.Size()) {
		t.Errorf("ship error: %v bytes, want %d", left, info.Size())
	}

	// A line without an end, in a file that another process has removed while the folder stays.
	open := logstest.NewDockerd(t, t.TempDir(), 1)
	open.WriteLog("stdout", strings.Repeat("p", decode.DockerPartBytes))
	ship := logstest.NewShipper()
	tailer := tailerOf(open, ship)
	tailer.scanFolder()
	open.Must(os.Remove(open.Path))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tailer.group.cfg.DrainTimeout = time.Second
	tailer.drainUnlinked(ctx)
	tailer.group.closeTailer(tailer)
	left := testutil.ToFloat64(tailer.group.metrics.dropped.WithLabelValues("removed"))
	if events := ship.All(); len(events) != 1 || len(events[0].Message) != decode.DockerPartBytes || left != 0 {
		t.Errorf("%d lines, %v bytes counted", len(events), left)
	}
}

// neverReady is the handler of a log that is not to be read yet when the reader ends.
type neverReady struct{ Handler }

func (neverReady) Ready(context.Context, <-chan struct{}) bool { return false }

// failingHandler rejects each line.
type failingHandler struct{ Handler }

func (failingHandler) Ship(context.Context, collector.FileProducer, *Line, collector.Checkpoint) error {
	return errors.New("rejected")
}

// A refreshHandler calls refresh, which the tailer does between the identification of a file and its read.
type refreshHandler struct {
	shippingHandler
	refresh func()
}

func (h refreshHandler) Refresh() { h.refresh() }

// TestTruncationBeforeAReadIsSeen truncates a file in place, after a copy and without one, between the checks of
// the tailer and its read, at the beginning and in the middle of the file. The new contents are as long as the
// old ones. Each line comes once.
func TestTruncationBeforeAReadIsSeen(t *testing.T) {
	const old, more, fresh = "old one\nold two\n", "old three\n", "new one\nnew two\nnew three, which is long\n"
	for _, test := range []struct {
		name   string
		read   string // is read before the truncation
		copied bool   // the old contents are copied before the truncation
		want   string
	}{
		{"at the beginning, with a copy", "", true, old + more + fresh},
		{"in the middle, with a copy", old, true, old + more + fresh},
		{"at the beginning, without a copy", "", false, fresh},
		{"in the middle, without a copy", old, false, old + fresh},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, ship := t.TempDir(), logstest.NewShipper()
			path := filepath.Join(dir, "a.log")
			write := func(path, text string) {
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			group := NewGroup(testConfig, slog.New(slog.DiscardHandler), nil)
			group.ship = ship
			log := discover.TextLog(dir, "a.log")
			armed := false
			tailer := newTailer(group, log, refreshHandler{shippingHandler{log}, func() {
				if armed {
					armed = false
					if test.copied {
						write(path+".1", old+more)
					}
					write(path, fresh) // O_TRUNC: the same file
				}
			}}, 0)
			readAll := func() {
				tailer.scanFolder()
				for more := true; more; {
					var err error
					if more, err = tailer.readAvailable(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}

			if test.read != "" {
				write(path, test.read)
				readAll()
			}
			write(path, old+more) // the same bytes, and more
			armed = true
			readAll()
			readAll()
			var got strings.Builder
			for _, shipped := range ship.All() {
				got.WriteString(shipped.Message + "\n")
			}
			lines := strings.Split(got.String(), "\n")
			want := strings.Split(test.want, "\n")
			slices.Sort(lines)
			slices.Sort(want)
			if !slices.Equal(lines, want) {
				t.Errorf("%q, want %q", lines, want)
			}
			tailer.group.closeTailer(tailer)
			ship.Check(t)
		})
	}
}

// TestALineThatCouldNotBeShippedIsReadOnceMore: after a stop has interrupted Ship, the next read begins with
// the same record.
func TestALineThatCouldNotBeShippedIsReadOnceMore(t *testing.T) {
	for _, compress := range []bool{false, true} {
		dockerd, ship := logstest.NewDockerd(t, t.TempDir(), 1), logstest.NewShipper()
		dockerd.WriteLog("stdout", strings.Repeat("a", 2*decode.DockerPartBytes+3)+"\nnext\n")
		if compress {
			dockerd.Gzip(dockerd.Path)
			dockerd.Must(os.Rename(dockerd.Path+".gz", dockerd.Path+".1.gz"))
		}
		tailer := tailerOf(dockerd, ship)
		tailer.scanFolder()
		stopped, stop := context.WithCancel(t.Context())
		stop()
		for range 3 {
			if _, err := tailer.readAvailable(stopped); err == nil {
				t.Fatal("Ship accepted a line after its context had ended")
			}
		}
		if _, err := tailer.readAvailable(t.Context()); err != nil {
			t.Fatal(err)
		}
		events := ship.All()
		const size = 2*decode.DockerPartBytes + 3
		if len(events) != 2 || len(events[0].Message) != size || events[0].Bytes != size ||
			events[1].Message != "next" {
			t.Errorf("compressed %v: %v", compress, events)
		}
		tailer.group.closeTailer(tailer)
	}
}

// TestACutLineThatCouldNotBeShippedIsTheSame: its last record is read again, and is in the line once.
func TestACutLineThatCouldNotBeShippedIsTheSame(t *testing.T) {
	dockerd, ship := logstest.NewDockerd(t, t.TempDir(), 1), logstest.NewShipper()
	var line strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&line, "%d ", i)
	}
	dockerd.WriteLog("stdout", line.String()+"\n")
	tailer := tailerOf(dockerd, ship)
	tailer.group.cfg.LineMax = 50_001
	tailer.scanFolder()
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for range 3 {
		if _, err := tailer.readAvailable(stopped); err == nil {
			t.Fatal("Ship accepted a line after its context had ended")
		}
	}
	if _, err := tailer.readAvailable(t.Context()); err != nil {
		t.Fatal(err)
	}
	events := ship.All()
	if len(events) != 1 || events[0].Bytes != uint64(line.Len()) {
		t.Fatalf("%v", events)
	}
	head, tail, _ := strings.Cut(events[0].Message, CutMark)
	if !strings.HasPrefix(line.String(), head) || !strings.HasSuffix(line.String(), tail) || len(tail) < 12_000 || len(head) < 37_000 {
		t.Errorf("%d and %d bytes: …%.30q", len(head), len(tail), tail)
	}
	tailer.group.closeTailer(tailer)
}

// TestAnOpenLineOutlivesAStop: a stop does not drop a line without an end in the last file.
func TestAnOpenLineOutlivesAStop(t *testing.T) {
	dockerd, ship := logstest.NewDockerd(t, t.TempDir(), 1), logstest.NewShipper()
	dockerd.WriteLog("stdout", strings.Repeat("a", decode.DockerPartBytes))
	tailer := tailerOf(dockerd, ship)
	tailer.scanFolder()
	dockerd.Remove()
	tailer.scanFolder()
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err := tailer.readAvailable(stopped); err == nil {
		t.Fatal("Ship accepted a line after its context had ended")
	}
	if _, err := tailer.readAvailable(t.Context()); err != nil {
		t.Fatal(err)
	}
	if events := ship.All(); len(events) != 1 || len(events[0].Message) != decode.DockerPartBytes {
		t.Errorf("%v", events)
	}
	tailer.group.closeTailer(tailer)
	ship.Check(t)
}

// TestACopyThatCannotBeOpenedKeepsItsCheckpoint: without free descriptors it is unknown which file was
// compressed, so the checkpoint is kept.
func TestACopyThatCannotBeOpenedKeepsItsCheckpoint(t *testing.T) {
	dockerd, ship := logstest.NewDockerd(t, t.TempDir(), 1), logstest.NewShipper()
	dockerd.MaxFile, dockerd.Compress = 3, true
	dockerd.WriteLog("stdout", "a\n")
	tailer := tailerOf(dockerd, ship)
	tailer.scanFolder()
	if _, err := tailer.readAvailable(t.Context()); err != nil {
		t.Fatal(err)
	}
	tailer.group.budget.maxFiles = 1
	dockerd.Rotate()
	tailer.scanFolder()
	tailer.group.closeTailer(tailer)
	for _, name := range ship.Dropped() {
		t.Errorf("the checkpoint of %s is given up, its file is there", name)
	}
}

// TestRemovedLogIsReadWhenEveryFileIsDone: the log of a removed container has files that are not read to their end,
// and ends when they are. It is asked as often as the reader has read something.
func TestRemovedLogIsReadWhenEveryFileIsDone(t *testing.T) {
	dockerd, ship := logstest.NewDockerd(t, t.TempDir(), 1), logstest.NewShipper()
	dockerd.WriteLog("stdout", "line\n")
	tailer := tailerOf(dockerd, ship)
	defer tailer.group.closeTailer(tailer)
	if !tailer.hasNoFiles() {
		t.Error("no file was looked for yet")
	}
	tailer.scanFolder()
	if tailer.hasNoFiles() {
		t.Error("the log has a file")
	}
	if tailer.allRead() {
		t.Error("the folder exists, more may come")
	}
	tailer.folderGone.Store(true)
	for range 2 {
		if tailer.allRead() {
			t.Error("the file was not read")
		}
	}
	for _, file := range tailer.files {
		file.done = true
	}
	if !tailer.allRead() {
		t.Error("every file was read")
	}
}

// TestClosedWatcherFreesItsInstance: inotify instances of a user are few (128), and its reader has to end.
func TestClosedWatcherFreesItsInstance(t *testing.T) {
	watcher, err := newWatcher()
	if err != nil {
		t.Fatal(err)
	}
	if err := watcher.watchRoot(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		watcher.readEvents(t.Context(), make(chan []inotifyEvent))
	}()
	watcher.closeWatcher()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the reader of a closed watcher still reads")
	}
	if err := watcher.watchRoot(t.TempDir()); err == nil {
		t.Error("the closed watcher still has its instance")
	}
}

// TestFolderThatCannotBeWatchedIsPolledAndCounted: the watch is counted as an error, and the tailer has no watch.
func TestFolderThatCannotBeWatchedIsPolledAndCounted(t *testing.T) {
	dockerd, ship := logstest.NewDockerd(t, t.TempDir(), 1), logstest.NewShipper()
	tailer := tailerOf(dockerd, ship)
	group := tailer.group
	errors := func() float64 { return testutil.ToFloat64(group.metrics.errors.WithLabelValues("watch")) }
	if group.watchTailer(tailer) || errors() != 0 {
		t.Errorf("without inotify the folder is watched, or %v errors", errors())
	}
	watcher, err := newWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.closeWatcher()
	group.watch = watcher
	missing := newTailer(group, discover.DockerLog("gone", filepath.Join(t.TempDir(), "missing"), "gone-json.log"),
		shippingHandler{}, 0)
	if group.watchTailer(missing) || errors() != 1 {
		t.Errorf("a missing folder is watched, or %v errors, want 1", errors())
	}
	if !group.watchTailer(tailer) || errors() != 1 || tailer.folder.Load() == nil {
		t.Errorf("the folder is not watched, or %v errors, want 1", errors())
	}
}

// TestFileIsUnchangedForTheTimeSinceItsLastWrite: a rotated file whose first record is incomplete may be a copy that
// is still being made, until nobody has written to it for a while.
func TestFileIsUnchangedForTheTimeSinceItsLastWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(path, []byte(`{"log":"hal`), 0o600); err != nil {
		t.Fatal(err)
	}
	opened, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	copied := &file{file: opened}
	for age, want := range map[time.Duration]bool{0: false, time.Hour: false, 3 * time.Hour: true} {
		written := time.Now().Add(-age)
		if err := os.Chtimes(path, written, written); err != nil {
			t.Fatal(err)
		}
		if got := copied.unchangedFor(2 * time.Hour); got != want {
			t.Errorf("written %s ago: unchanged for two hours is %t, want %t", age, got, want)
		}
	}
}

// TestFolderForgetsTheNamesOfEndedLogs: a folder in which logs come and go keeps nothing of those that have ended.
func TestFolderForgetsTheNamesOfEndedLogs(t *testing.T) {
	first, second := logstest.NewDockerd(t, t.TempDir(), 1), logstest.NewDockerd(t, t.TempDir(), 2)
	folder := &watchedFolder{}
	one, two := tailerOf(first, logstest.NewShipper()), tailerOf(second, logstest.NewShipper())
	for _, tailer := range []*Tailer{one, two} {
		tailer.log.BaseOf = func(name string) string { return name }
		folder.addTailer(tailer)
	}
	folder.removeTailer(one)
	if len(folder.byBase) != 1 || len(folder.byBase[two.log.Base]) != 1 {
		t.Errorf("the folder holds %d names, want that of the other log", len(folder.byBase))
	}
	folder.removeTailer(two)
	if len(folder.byBase)+len(folder.tailers)+len(folder.ranked) != 0 {
		t.Errorf("%d names are left", len(folder.byBase))
	}
}

// A failingDecoder panics at records that hold "!".
type failingDecoder struct{ decode.Decoder }

func (d failingDecoder) Decode(data []byte, record *decode.Record) bool {
	if bytes.Contains(data, []byte("!")) {
		panic("a bug")
	}
	return d.Decoder.Decode(data, record)
}

// TestPanicOfADecoderLosesNoLine: the record is shipped as it is, and the next ones are decoded.
func TestPanicOfADecoderLosesNoLine(t *testing.T) {
	dir, ship := t.TempDir(), logstest.NewShipper()
	if err := os.WriteFile(filepath.Join(dir, "a.log"), []byte("one\nt!wo\nthree\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	format := decode.Text
	format.New = func() decode.Decoder { return failingDecoder{decode.Text.New()} }
	log := discover.Log{ID: "a", Dir: dir, Base: "a.log", Format: format}
	if err := ReadFile(t.Context(), testConfig, log, shippingHandler{log}, ship); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, line := range ship.All() {
		lines = append(lines, fmt.Sprintf("%s %v", line.Message, line.Partial))
	}
	if want := []string{"one false", "t!wo true", "three false"}; !slices.Equal(lines, want) {
		t.Errorf("lines %q, want %q", lines, want)
	}
}
