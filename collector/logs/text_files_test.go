package logs

import (
	"compress/gzip"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"tidegate/collector/logs/decode"
	"tidegate/collector/logs/logstest"
	"tidegate/pipeline"
)

// A textLog is a plain text file as a program writes it and logrotate rotates it.
type textLog struct {
	t      testing.TB
	path   string
	file   *os.File
	banner string // first line of each new file
	lines  int    // that were written
}

func newTextLog(t testing.TB, path string) *textLog {
	log := &textLog{t: t, path: path}
	log.reopen()
	return log
}

func (l *textLog) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// reopen opens or creates the file at path and writes the banner.
func (l *textLog) reopen() {
	l.t.Helper()
	var err error
	l.file, err = os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	l.must(err)
	l.writeRaw(l.banner)
}

func (l *textLog) writeRaw(text string) {
	l.t.Helper()
	_, err := l.file.WriteString(text)
	l.must(err)
}

// writeLines writes the next n lines: line 0, line 1, …
func (l *textLog) writeLines(n int) {
	l.t.Helper()
	for range n {
		l.writeRaw(fmt.Sprintf("line %d\n", l.lines))
		l.lines++
	}
}

// renameTo rotates as logrotate does by default: the file gets another name, and the program opens a new one.
func (l *textLog) renameTo(name string) {
	l.t.Helper()
	l.must(os.Rename(l.path, filepath.Join(filepath.Dir(l.path), name)))
	l.must(l.file.Close())
	l.reopen()
}

// copyTruncateTo rotates as logrotate does with copytruncate: the program keeps its file.
func (l *textLog) copyTruncateTo(name string) {
	l.t.Helper()
	contents, err := os.ReadFile(l.path)
	l.must(err)
	l.must(os.WriteFile(filepath.Join(filepath.Dir(l.path), name), contents, 0o600))
	l.must(os.Truncate(l.path, 0))
	l.writeRaw(l.banner)
}

// compress compresses a rotated file.
func (l *textLog) compress(name string) {
	l.t.Helper()
	path := filepath.Join(filepath.Dir(l.path), name)
	data, err := os.ReadFile(path)
	l.must(err)
	out, err := os.Create(path + ".gz")
	l.must(err)
	writer := gzip.NewWriter(out)
	_, err = writer.Write(data)
	l.must(err)
	l.must(writer.Close())
	l.must(out.Close())
	l.must(os.Remove(path))
}

// textConfig reads the files that pattern matches in a new folder, and an empty Docker.
func textConfig(t testing.TB, pattern string) (cfg Config, dir string) {
	cfg, dir = configAt(t.TempDir()), t.TempDir()
	cfg.Files = []string{filepath.Join(dir, pattern)}
	return cfg, dir
}

// TestLinesOfTextFilesBecomeEvents: an event has the time of its line; a line without a time has that of the
// line before, or the time at which it was read.
func TestLinesOfTextFilesBecomeEvents(t *testing.T) {
	cfg, dir := textConfig(t, "*.log")
	path := filepath.Join(dir, "access.log")
	log := newTextLog(t, path)
	before := time.Now()
	log.writeRaw("2026-11-26T12:00:00.5Z ERROR: no disk\n  at main\r\n\n" +
		"[2026-11-26T12:00:01+01:00] password=hunter2\nunfinished")
	other := newTextLog(t, filepath.Join(dir, "other.log"))
	other.writeRaw("without a time\n")
	newTextLog(t, filepath.Join(dir, "not-matched.txt")).writeRaw("x\n")
	ship := logstest.NewShipper()
	start(t, cfg, newRegistry(), ship)

	ship.Wait(t, 4)
	var got []string
	for _, shipped := range ship.All() {
		if shipped.Container != "" || shipped.Stream != "" || shipped.Partial || shipped.Truncated {
			t.Errorf("%+v", shipped)
		}
		at := time.Unix(0, shipped.Time).UTC().Format("15:04:05.0")
		if shipped.Path != path {
			if shipped.Time < before.UnixNano() {
				t.Errorf("%q has the time %s", shipped.Message, at)
			}
			at = "now"
		}
		got = append(got, fmt.Sprintf("%s %s %s %q %d",
			filepath.Base(shipped.Path), at, shipped.Level, shipped.Message, shipped.Offset))
	}
	slices.Sort(got)
	want := []string{
		`access.log 11:00:01.0  "[2026-11-26T12:00:01+01:00] password=REDACTED" 50`,
		`access.log 12:00:00.5  "  at main" 38`,
		`access.log 12:00:00.5 error "2026-11-26T12:00:00.5Z ERROR: no disk" 0`,
		`other.log now  "without a time" 0`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	ship.Check(t)
}

// TestRotatedTextFilesAreReadOnce: each way of rotation, with files that begin with the same line and
// without.
func TestRotatedTextFilesAreReadOnce(t *testing.T) {
	rotations := map[string]func(log *textLog, rotation int){
		"rename": func(log *textLog, rotation int) {
			for i := rotation; i > 0; i-- {
				_ = os.Rename(fmt.Sprintf("%s.%d", log.path, i), fmt.Sprintf("%s.%d", log.path, i+1))
			}
			log.renameTo("a.log.1")
		},
		"dateext":            func(log *textLog, rotation int) { log.renameTo(fmt.Sprintf("a.log-202611%02d", rotation+1)) },
		"date in the name":   func(log *textLog, rotation int) { log.renameTo(fmt.Sprintf("a-2026-11-%02d.log", rotation+1)) },
		"compressed":         func(log *textLog, rotation int) { compressAfter(log, rotation, log.renameTo) },
		"copytruncate":       func(log *textLog, rotation int) { log.copyTruncateTo(fmt.Sprintf("a.log-202611%02d", rotation+1)) },
		"copied, compressed": func(log *textLog, rotation int) { compressAfter(log, rotation, log.copyTruncateTo) },
	}
	for name, rotate := range rotations {
		for _, banner := range []string{"", "program started\n"} {
			t.Run(name+" "+strings.TrimSpace(banner), func(t *testing.T) {
				cfg, dir := textConfig(t, "*.log")
				ship := logstest.NewShipper()
				start(t, cfg, nil, ship)
				log := &textLog{t: t, path: filepath.Join(dir, "a.log"), banner: banner}
				log.reopen()
				for i := range 6 {
					log.writeLines(50)
					// Every other rotation comes while some lines are not read yet. Files that begin with
					// the same line can be distinguished only if each was read before the next rotation.
					wait := i%2 == 1 || banner != ""
					if wait {
						ship.Wait(t, log.shipped(i))
					}
					rotate(log, i)
					if wait {
						ship.Wait(t, log.shipped(i))
					}
					log.writeLines(3)
				}
				ship.Wait(t, log.shipped(6))
				time.Sleep(50 * time.Millisecond) // for lines that should not be shipped
				wantLines(t, ship, log)
			})
		}
	}
}

// compressAfter compresses the file of the rotation before, as logrotate does with delaycompress.
func compressAfter(log *textLog, rotation int, rotate func(name string)) {
	rotate(fmt.Sprintf("a.log-202611%02d", rotation+1))
	if rotation > 0 {
		log.compress(fmt.Sprintf("a.log-202611%02d", rotation))
	}
}

// shipped returns the number of events of the lines written until now, with the banners that rotations have
// written.
func (l *textLog) shipped(rotations int) int {
	if l.banner == "" {
		return l.lines
	}
	return l.lines + rotations + 1
}

// wantLines checks that each line was shipped once, and nothing else except the banner.
func wantLines(t testing.TB, ship *logstest.Shipper, log *textLog) {
	t.Helper()
	count := map[string]int{}
	ids := map[string]bool{}
	for _, shipped := range ship.All() {
		count[shipped.Message]++
		if ids[shipped.ID] {
			t.Errorf("event.id of %q came twice", shipped.Message)
		}
		ids[shipped.ID] = true
	}
	delete(count, strings.TrimSpace(log.banner))
	for i := range log.lines {
		if times := count[fmt.Sprintf("line %d", i)]; times != 1 {
			t.Errorf("line %d came %d times", i, times)
		}
		delete(count, fmt.Sprintf("line %d", i))
	}
	if len(count) > 0 {
		t.Errorf("others: %v", count)
	}
	ship.Check(t)
}

// TestTextFilesAreResumedAfterAKill kills the reader at random checkpoints and rotates while no reader runs. In every other
// run all files begin with the same line.
func TestTextFilesAreResumedAfterAKill(t *testing.T) {
	for seed := range uint64(16) {
		rng := rand.New(rand.NewPCG(seed/2, 2))
		cfg, dir := textConfig(t, "*.log")
		ship := logstest.NewShipper()
		log := &textLog{t: t, path: filepath.Join(dir, "a.log"), banner: []string{"", "#separator \\x09\n"}[seed%2]}
		log.reopen()
		rotations := 0
		for i := range 5 {
			stop := start(t, cfg, nil, ship)
			log.writeLines(1 + rng.IntN(100))
			ship.Wait(t, max(0, rng.IntN(log.lines+1)-2))
			stop()
			ship.Crash(func(n int) int { return n - rng.IntN(n+1)/2 })

			// While no reader runs, the file is rotated and perhaps compressed.
			log.writeLines(1 + rng.IntN(20))
			name := fmt.Sprintf("a.log-202611%02d", i+1)
			switch rng.IntN(3) {
			case 0:
				log.renameTo(name)
				rotations++
			case 1:
				log.copyTruncateTo(name)
				rotations++
			}
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil && rng.IntN(2) == 0 {
				log.compress(name)
			}
			log.writeLines(rng.IntN(20))
		}
		stop := start(t, cfg, nil, ship)
		ship.Wait(t, log.shipped(rotations))
		wantLines(t, ship, log)
		stop()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestFileThatReplacedAnotherIsReadFromItsBeginning: it begins with the same line as the one before, and is longer than what was
// read of that one.
func TestFileThatReplacedAnotherIsReadFromItsBeginning(t *testing.T) {
	for name, replace := range map[string]func(log *textLog){
		"removed":   func(log *textLog) { log.must(os.Remove(log.path)); log.must(log.file.Close()); log.reopen() },
		"truncated": func(log *textLog) { log.must(os.Truncate(log.path, 0)); log.writeRaw(log.banner) },
	} {
		for _, acked := range []bool{true, false} {
			cfg, dir := textConfig(t, "*.log")
			ship := logstest.NewShipper()
			log := &textLog{t: t, path: filepath.Join(dir, "a.log"), banner: "#separator \\x09\n"}
			log.reopen()
			stop := start(t, cfg, nil, ship)
			log.writeLines(100)
			ship.Wait(t, log.shipped(0))
			stop()
			ship.Crash(func(n int) int { return n })
			if !acked { // nothing is known to be in Kafka
				ship.Crash(func(n int) int { return min(n, 1) })
			}
			replace(log)
			log.writeLines(300)
			want := 300 + 1
			if acked {
				want += log.shipped(0) - 300
			} else {
				want++ // the one that was kept
			}
			start(t, cfg, nil, ship)
			ship.Wait(t, want)
			count := map[string]int{}
			for _, shipped := range ship.All() {
				count[shipped.Message]++
			}
			for i := 100; i < 400; i++ {
				if n := count[fmt.Sprintf("line %d", i)]; n != 1 {
					t.Errorf("%s, acknowledged %t: line %d came %d times", name, acked, i, n)
				}
			}
		}
	}
}

// TestFileWithAnotherFirstLineIsAnotherOne, although all its other bytes are those of the file before.
func TestFileWithAnotherFirstLineIsAnotherOne(t *testing.T) {
	cfg, dir := textConfig(t, "*.log")
	ship := logstest.NewShipper()
	log := &textLog{t: t, path: filepath.Join(dir, "a.log"), banner: "pid 100 started\n"}
	log.reopen()
	stop := start(t, cfg, nil, ship)
	log.writeLines(100)
	ship.Wait(t, log.shipped(0))
	stop()
	log.must(os.Truncate(log.path, 0))
	log.writeRaw("pid 101 started\n")
	log.lines = 0
	log.writeLines(100)
	start(t, cfg, nil, ship)
	ship.Wait(t, 2*log.shipped(0))
	ship.Check(t)
}

// TestRotatedFilesAreNotReadAgain: files that begin with the same line were read, rotated and compressed; at the next start
// none of their lines comes again.
func TestRotatedFilesAreNotReadAgain(t *testing.T) {
	for name, rotate := range map[string]func(log *textLog, name string){
		"compressed":         func(log *textLog, name string) { log.renameTo(name); log.compress(name) },
		"copytruncate":       func(log *textLog, name string) { log.copyTruncateTo(name) },
		"copied, compressed": func(log *textLog, name string) { log.copyTruncateTo(name); log.compress(name) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg, dir := textConfig(t, "*.log")
			ship := logstest.NewShipper()
			stop := start(t, cfg, nil, ship)
			log := &textLog{t: t, path: filepath.Join(dir, "a.log"), banner: "#separator \\x09\n"}
			log.reopen()
			for i := range 5 {
				log.writeLines(50)
				ship.Wait(t, log.shipped(i))
				rotate(log, fmt.Sprintf("a.log-202611%02d", i+1))
				ship.Wait(t, log.shipped(i+1))
			}
			for range 3 {
				stop()
				stop = start(t, cfg, nil, ship)
				log.writeLines(10)
				ship.Wait(t, log.shipped(5))
			}
			time.Sleep(50 * time.Millisecond) // for lines that should not be shipped
			if n := ship.Count(); n != log.shipped(5) {
				t.Errorf("%d events, want %d", n, log.shipped(5))
			}
			wantLines(t, ship, log)
			if dropped := ship.Dropped(); len(dropped) > 0 {
				t.Errorf("checkpoints of files that are there were dropped: %v", dropped)
			}
		})
	}
}

// TestATextFileOfBeforeTheStartIsReadFromItsEnd: start_at: end skips the lines that were there at the start.
func TestATextFileOfBeforeTheStartIsReadFromItsEnd(t *testing.T) {
	cfg, dir := textConfig(t, "*.log")
	log := newTextLog(t, filepath.Join(dir, "a.log"))
	log.writeRaw("old\n")
	log.renameTo("a.log.1")
	log.compress("a.log.1")
	log.writeRaw("old too\n")
	cfg.StartAt, cfg.NotBefore = "end", time.Now().Add(time.Minute)
	ship := logstest.NewShipper()
	start(t, cfg, nil, ship)
	for i := 0; ship.Count() == 0; i++ {
		log.writeRaw(fmt.Sprintf("2100-01-01T00:00:00Z line %d\n", i))
		time.Sleep(10 * time.Millisecond)
	}
	for _, event := range ship.All() {
		if !strings.HasPrefix(event.Message, "2100-01-01T00:00:00Z line ") {
			t.Errorf("%q came", event.Message)
		}
	}
	ship.Check(t)
}

// TestCheckpointsOfFilesThatAreGoneAreDropped: a file is removed while no reader runs. Only its checkpoint is
// dropped.
func TestCheckpointsOfFilesThatAreGoneAreDropped(t *testing.T) {
	cfg, dir := textConfig(t, "*.log")
	ship := logstest.NewShipper()
	stop := start(t, cfg, nil, ship)
	dockerd := logstest.NewDockerd(t, cfg.DockerDataRoot, 1)
	dockerd.WriteLog("stdout", "x\n")
	gone, kept := newTextLog(t, filepath.Join(dir, "gone.log")), newTextLog(t, filepath.Join(dir, "kept.log"))
	gone.writeRaw("a\n")
	kept.writeRaw("b\n")
	ship.Wait(t, 3)
	stop()
	if runs := ship.Pruned(); runs != 1 {
		t.Errorf("pruned %d times", runs)
	}
	gone.must(os.Remove(gone.path))

	start(t, cfg, nil, ship)
	for ship.Pruned() < 2 {
		time.Sleep(time.Millisecond)
	}
	if dropped := ship.Dropped(); len(dropped) != 1 || !strings.Contains(dropped[0], "gone.log") {
		t.Errorf("dropped %v", dropped)
	}
	ship.Check(t)
}

// TestPatternsMatchMoreThanFiles: pipes, devices, folders and broken links that a pattern matches are left
// out and do not keep checkpoints from being dropped. The file behind a link is read once, and the log of a
// container is not read a second time.
func TestPatternsMatchMoreThanFiles(t *testing.T) {
	cfg, dir := textConfig(t, "*.log")
	cfg.Files = append(cfg.Files, filepath.Join(cfg.DockerDataRoot, "containers/*/*.log"))
	ship, read := logstest.NewShipper(), logstest.NewDockerd(t, cfg.DockerDataRoot, 1)
	read.WriteLog("stdout", "of a container\n")

	file := newTextLog(t, filepath.Join(t.TempDir(), "target.log"))
	file.writeRaw("behind a link\n")
	for _, err := range []error{
		os.Symlink(file.path, filepath.Join(dir, "a.log")),
		os.Symlink(file.path, filepath.Join(dir, "b.log")),
		os.Symlink("nowhere", filepath.Join(dir, "dangling.log")),
		os.Symlink("loop.log", filepath.Join(dir, "loop.log")),
		os.Symlink("/dev/null", filepath.Join(dir, "device.log")),
		os.Symlink(read.Path, filepath.Join(dir, "pod.log")),
		os.Mkdir(filepath.Join(dir, "folder.log"), 0o700),
		unix.Mkfifo(filepath.Join(dir, "pipe.log"), 0o600),
		unix.Mkfifo(filepath.Join(dir, "file.log.1"), 0o600),
	} {
		file.must(err)
	}
	newTextLog(t, filepath.Join(dir, "file.log")).writeRaw("of a file\n")

	start(t, cfg, nil, ship)
	for ship.Pruned() < 1 {
		time.Sleep(time.Millisecond)
	}
	ship.Wait(t, 3)
	time.Sleep(50 * time.Millisecond) // for lines that should not be shipped
	got := messages(ship)
	slices.Sort(got)
	if want := []string{"behind a link", "of a container", "of a file"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	ship.Check(t)
}

// TestTwoSourcesShareTheirMetrics: two sources on one registry do not panic.
func TestTwoSourcesShareTheirMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	for range 2 {
		New(Default(), nil, pipeline.ID{1}, slog.New(slog.DiscardHandler), reg)
	}
	if _, err := reg.Gather(); err != nil {
		t.Error(err)
	}
}

// TestPatternsAreChecked: a pattern must be absolute and well-formed.
func TestPatternsAreChecked(t *testing.T) {
	for pattern, want := range map[string]int{"/var/log/*.log": 0, "*.log": 1, "/var/[": 1} {
		cfg := Default()
		cfg.Files = []string{pattern}
		if problems := cfg.Check(); len(problems) != want {
			t.Errorf("%s: %v", pattern, problems)
		}
	}
}

// TestATextFileIsReadByItself: ReadFile yields the lines of a text file, compressed or not.
func TestATextFileIsReadByItself(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	log := newTextLog(t, path)
	log.writeRaw("a\n{\"no\":\"record\"}\nlast")
	check := func(path string) {
		t.Helper()
		var got []string
		err := ReadFile(t.Context(), Default(), path, decode.Text, pipeline.ID{1}, func(event *pipeline.Event) {
			got = append(got, event.Log.Message)
			if event.Container != nil || event.Partial {
				t.Errorf("%v", event)
			}
		})
		if want := []string{"a", `{"no":"record"}`, "last"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("%v %q", err, got)
		}
	}
	check(path)
	log.compress("access.log")
	check(path + ".gz")
}

// TestStartBetweenRenameAndCreationReadsNothingTwice starts a process while the log has only its rotated file. The
// checkpoint of that file is kept, and its lines are not read again.
func TestStartBetweenRenameAndCreationReadsNothingTwice(t *testing.T) {
	cfg, dir := textConfig(t, "*.log")
	ship := logstest.NewShipper()
	log := newTextLog(t, filepath.Join(dir, "a.log"))
	stop := start(t, cfg, nil, ship)
	log.writeLines(50)
	ship.Wait(t, 50)
	stop()
	log.must(os.Rename(log.path, filepath.Join(dir, "a.log.1")))

	start(t, cfg, nil, ship)
	for ship.Pruned() < 2 {
		time.Sleep(time.Millisecond)
	}
	log.reopen()
	log.writeLines(3)
	ship.Wait(t, 53)
	time.Sleep(50 * time.Millisecond) // for lines that should not be shipped
	ship.Check(t)
	wantLines(t, ship, log)
}
