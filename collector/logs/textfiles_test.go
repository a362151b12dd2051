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

// A textLog is a plain text file that a program writes and something rotates.
type textLog struct {
	t      testing.TB
	path   string
	file   *os.File
	banner string // first line of each new file
	lines  int
}

func newTextLog(t testing.TB, path string) *textLog {
	l := &textLog{t: t, path: path}
	l.reopen()
	return l
}

func (l *textLog) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *textLog) reopen() {
	l.t.Helper()
	var err error
	l.file, err = os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	l.must(err)
	l.writeRaw(l.banner)
}

func (l *textLog) writeRaw(s string) {
	l.t.Helper()
	_, err := l.file.WriteString(s)
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
	b, err := os.ReadFile(l.path)
	l.must(err)
	l.must(os.WriteFile(filepath.Join(filepath.Dir(l.path), name), b, 0o600))
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

func TestLinesOfTextFilesBecomeEvents(t *testing.T) {
	cfg, dir := textConfig(t, "*.log")
	path := filepath.Join(dir, "access.log")
	l := newTextLog(t, path)
	before := time.Now()
	l.writeRaw("2026-11-26T12:00:00.5Z ERROR: no disk\n  at main\r\n\n[2026-11-26T12:00:01+01:00] password=hunter2\nunfinished")
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
		got = append(got, fmt.Sprintf("%s %s %s %q %d", filepath.Base(shipped.Path), at, shipped.Level, shipped.Message, shipped.Offset))
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

// TestRotatedTextFilesAreReadOnce rotates in every way, with files that begin with the same line and without.
func TestRotatedTextFilesAreReadOnce(t *testing.T) {
	rotations := map[string]func(l *textLog, n int){
		"rename": func(l *textLog, n int) {
			for i := n; i > 0; i-- {
				_ = os.Rename(fmt.Sprintf("%s.%d", l.path, i), fmt.Sprintf("%s.%d", l.path, i+1))
			}
			l.renameTo("a.log.1")
		},
		"dateext":            func(l *textLog, n int) { l.renameTo(fmt.Sprintf("a.log-202611%02d", n+1)) },
		"date in the name":   func(l *textLog, n int) { l.renameTo(fmt.Sprintf("a-2026-11-%02d.log", n+1)) },
		"compressed":         func(l *textLog, n int) { compressAfter(l, n, l.renameTo) },
		"copytruncate":       func(l *textLog, n int) { l.copyTruncateTo(fmt.Sprintf("a.log-202611%02d", n+1)) },
		"copied, compressed": func(l *textLog, n int) { compressAfter(l, n, l.copyTruncateTo) },
	}
	for name, rotate := range rotations {
		for _, banner := range []string{"", "program started\n"} {
			t.Run(name+" "+strings.TrimSpace(banner), func(t *testing.T) {
				cfg, dir := textConfig(t, "*.log")
				ship := logstest.NewShipper()
				start(t, cfg, nil, ship)
				l := &textLog{t: t, path: filepath.Join(dir, "a.log"), banner: banner}
				l.reopen()
				for i := range 6 {
					l.writeLines(50)
					// Every other rotation comes while some lines are not read yet. Files that begin alike
					// are told apart only if each was read before the next rotation.
					wait := i%2 == 1 || banner != ""
					if wait {
						ship.Wait(t, l.shipped(i))
					}
					rotate(l, i)
					if wait {
						ship.Wait(t, l.shipped(i))
					}
					l.writeLines(3)
				}
				ship.Wait(t, l.shipped(6))
				time.Sleep(50 * time.Millisecond) // for what should not come
				wantLines(t, ship, l)
			})
		}
	}
}

// compressAfter compresses the file of the rotation before, as logrotate does with delaycompress.
func compressAfter(l *textLog, n int, rotate func(name string)) {
	rotate(fmt.Sprintf("a.log-202611%02d", n+1))
	if n > 0 {
		l.compress(fmt.Sprintf("a.log-202611%02d", n))
	}
}

// shipped returns how many events the lines written until now are, with the banners of n rotations.
func (l *textLog) shipped(n int) int {
	if l.banner == "" {
		return l.lines
	}
	return l.lines + n + 1
}

// wantLines checks that each line came once and nothing but the banner beside.
func wantLines(t testing.TB, ship *logstest.Shipper, l *textLog) {
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
	delete(count, strings.TrimSpace(l.banner))
	for i := range l.lines {
		if n := count[fmt.Sprintf("line %d", i)]; n != 1 {
			t.Errorf("line %d came %d times", i, n)
		}
		delete(count, fmt.Sprintf("line %d", i))
	}
	if len(count) > 0 {
		t.Errorf("others: %v", count)
	}
	ship.Check(t)
}

// TestTextFilesAreResumedAfterAKill kills the reader at random checkpoints and rotates while nobody reads.
func TestTextFilesAreResumedAfterAKill(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 2))
		cfg, dir := textConfig(t, "*.log")
		ship := logstest.NewShipper()
		textLog := newTextLog(t, filepath.Join(dir, "a.log"))
		for i := range 5 {
			stop := start(t, cfg, nil, ship)
			textLog.writeLines(1 + rng.IntN(100))
			ship.Wait(t, max(0, rng.IntN(textLog.lines+1)-2))
			stop()
			ship.Crash(func(n int) int { return n - rng.IntN(n+1)/2 })

			// While nobody reads, the file is rotated, and the one before it compressed.
			textLog.writeLines(1 + rng.IntN(20))
			name := fmt.Sprintf("a.log-202611%02d", i+1)
			switch rng.IntN(3) {
			case 0:
				textLog.renameTo(name)
			case 1:
				textLog.copyTruncateTo(name)
			}
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil && rng.IntN(2) == 0 {
				textLog.compress(name)
			}
			textLog.writeLines(rng.IntN(20))
		}
		stop := start(t, cfg, nil, ship)
		ship.Wait(t, textLog.lines)
		wantLines(t, ship, textLog)
		stop()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestATextFileOfBeforeTheStartIsReadFromItsEnd sets start_at: end.
func TestATextFileOfBeforeTheStartIsReadFromItsEnd(t *testing.T) {
	cfg, dir := textConfig(t, "*.log")
	textLog := newTextLog(t, filepath.Join(dir, "a.log"))
	textLog.writeRaw("old\n")
	textLog.renameTo("a.log.1")
	textLog.compress("a.log.1")
	textLog.writeRaw("old too\n")
	cfg.StartAt, cfg.NotBefore = "end", time.Now().Add(time.Minute)
	ship := logstest.NewShipper()
	start(t, cfg, nil, ship)
	for i := 0; ship.Count() == 0; i++ {
		textLog.writeRaw(fmt.Sprintf("2100-01-01T00:00:00Z line %d\n", i))
		time.Sleep(10 * time.Millisecond)
	}
	for _, e := range ship.All() {
		if !strings.HasPrefix(e.Message, "2100-01-01T00:00:00Z line ") {
			t.Errorf("%q came", e.Message)
		}
	}
	ship.Check(t)
}

// TestCheckpointsOfFilesThatAreGoneAreDropped removes a file while nobody reads; other checkpoints are kept.
func TestCheckpointsOfFilesThatAreGoneAreDropped(t *testing.T) {
	cfg, dir := textConfig(t, "*.log")
	ship := logstest.NewShipper()
	stop := start(t, cfg, nil, ship)
	d := logstest.NewDockerd(t, cfg.DockerDataRoot, 1)
	d.WriteLog("stdout", "x\n")
	gone, kept := newTextLog(t, filepath.Join(dir, "gone.log")), newTextLog(t, filepath.Join(dir, "kept.log"))
	gone.writeRaw("a\n")
	kept.writeRaw("b\n")
	ship.Wait(t, 3)
	stop()
	if n := ship.Pruned(); n != 1 {
		t.Errorf("pruned %d times", n)
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

// TestPatternsMatchMoreThanFiles: a pipe was tried to open every second, and no checkpoint was ever dropped
// then; a symbolic link was as well, and its file not read; the logs of containers were read twice.
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
		os.Symlink(filepath.Join(cfg.DockerDataRoot, "containers", read.ID, read.ID+"-json.log"), filepath.Join(dir, "pod.log")),
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
	time.Sleep(50 * time.Millisecond) // for what should not come
	got := messages(ship)
	slices.Sort(got)
	if want := []string{"behind a link", "of a container", "of a file"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	ship.Check(t)
}

// TestTwoSourcesShareTheirMetrics makes two sources on one registry, which once was a panic.
func TestTwoSourcesShareTheirMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	for range 2 {
		New(Default(), nil, pipeline.ID{1}, slog.New(slog.DiscardHandler), reg)
	}
	if _, err := reg.Gather(); err != nil {
		t.Error(err)
	}
}

func TestPatternsAreChecked(t *testing.T) {
	for pattern, want := range map[string]int{"/var/log/*.log": 0, "*.log": 1, "/var/[": 1} {
		cfg := Default()
		cfg.Files = []string{pattern}
		if problems := cfg.Check(); len(problems) != want {
			t.Errorf("%s: %v", pattern, problems)
		}
	}
}

func TestATextFileIsReadByItself(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	textLog := newTextLog(t, path)
	textLog.writeRaw("a\n{\"no\":\"record\"}\nlast")
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
	textLog.compress("access.log")
	check(path + ".gz")
}
