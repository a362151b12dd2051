package logs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tidegate/collector/logs/logstest"
)

// limited names, in the environment, the test that runs in a process of its own.
const limited = "LOGS_LIMITED_TEST"

// inProcess runs the test in a process of its own, whose limits it may lower, and reports whether this is that
// process.
func inProcess(t *testing.T, attributes *syscall.SysProcAttr) bool {
	t.Helper()
	if os.Getenv(limited) == t.Name() {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), limited+"="+t.Name())
	cmd.SysProcAttr = attributes
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// TestLogsAreReadWithoutInotifyInstances: instances are counted for each user of the host, so that another
// container may have taken all of them. The logs are polled, through rotation and removal, and watched as soon
// as there is an instance.
func TestLogsAreReadWithoutInotifyInstances(t *testing.T) {
	// A user namespace has a limit of its own: other programs of this host are not disturbed.
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	if !inProcess(t, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids}) {
		return
	}
	const limit = 4
	if err := os.WriteFile("/proc/sys/user/max_inotify_instances", fmt.Append(nil, limit), 0); err != nil {
		t.Fatal(err)
	}
	var taken []int
	for {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			break
		}
		taken = append(taken, fd)
	}
	if len(taken) == 0 || len(taken) > limit {
		t.Fatalf("%d instances could be taken, want at most %d", len(taken), limit)
	}

	// Without an instance: a log that exists, one that is new, rotation, a text file.
	root, texts, ship := t.TempDir(), t.TempDir(), logstest.NewShipper()
	cfg := configAt(root)
	cfg.Files = []string{texts + "/*.log"}
	first := logstest.NewDockerd(t, root, 1)
	first.MaxFile = 3
	first.WriteLog("stdout", "one\n")
	stop := start(t, cfg, nil, ship)
	ship.Wait(t, 1)
	second := logstest.NewDockerd(t, root, 2)
	second.WriteLog("stdout", "two\n")
	ship.Wait(t, 2)
	for i := range 3 {
		first.WriteLog("stdout", fmt.Sprintf("three %d\n", i))
		first.Rotate()
		first.WriteLog("stdout", fmt.Sprintf("four %d\n", i))
		ship.Wait(t, 4+2*i)
	}
	if err := os.WriteFile(filepath.Join(texts, "a.log"), []byte("five\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ship.Wait(t, 9)
	second.WriteLog("stdout", "six\n")
	second.Remove()
	ship.Wait(t, 10)

	// With instances the folders are watched: three rotations within a second lose nothing.
	for _, fd := range taken {
		unix.Close(fd)
	}
	time.Sleep(2500 * time.Millisecond)
	for i := range 8 {
		first.WriteLog("stdout", fmt.Sprintf("seven %d\n", i))
		first.Rotate()
		time.Sleep(20 * time.Millisecond)
	}
	first.WriteLog("stdout", "eight\n")
	ship.Wait(t, 19)
	stop()
	ship.Check(t)
	if got := messages(ship); len(got) != 19 || len(slices.Compact(slices.Sorted(slices.Values(got)))) != 19 {
		t.Errorf("%q", got)
	}
}
