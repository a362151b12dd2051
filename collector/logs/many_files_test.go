package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tidegate/collector/logs/logstest"
)

// cpuTime returns the CPU time that the process has used.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// TestManyFilesOfOneFolderAreReadInLinearTime: the cost of each file must not grow with the number of files
// beside it: at the start, while nothing happens, while all are written to and rotated, and at the stop.
func TestManyFilesOfOneFolderAreReadInLinearTime(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	measure := func(files int) (phases [4]time.Duration) {
		dir, ship := t.TempDir(), logstest.NewShipper()
		cfg := configAt(t.TempDir())
		cfg.Files = []string{dir + "/*.log"}
		write := func(name, text string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for i := range files {
			write(fmt.Sprintf("service-%d.log", i), "one\n")
		}
		phase, begun := 0, cpuTime(t)
		next := func() {
			phases[phase] = (cpuTime(t) - begun) / time.Duration(files)
			phase, begun = phase+1, cpuTime(t)
		}

		stop := start(t, cfg, nil, ship)
		ship.Wait(t, files)
		next()
		time.Sleep(2 * time.Second)
		next()
		for i := range files {
			name := filepath.Join(dir, fmt.Sprintf("service-%d.log", i))
			if err := os.Rename(name, name+".1"); err != nil {
				t.Fatal(err)
			}
			write(filepath.Base(name), "two\n")
		}
		ship.Wait(t, 2*files)
		next()
		stop()
		next()
		ship.Check(t)
		return phases
	}
	few, many := measure(100), measure(3000)
	for i, phase := range []string{"start", "idle", "rotation", "stop"} {
		t.Logf("%s: %v for each of 100 files, %v for each of 3000", phase, few[i], many[i])
		if many[i] > 4*few[i]+100*time.Microsecond {
			t.Errorf("%s: %v for each of 100 files, but %v for each of 3000", phase, few[i], many[i])
		}
	}
}
