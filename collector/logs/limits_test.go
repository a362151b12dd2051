package logs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tidegate/collector/logs/decode"
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

// TestMoreLogsThanDescriptorsAreAllRead: 600 containers with five lines each, within a limit of 512 open files.
// Then they go on writing, some rotate, some are removed, and the last lines have no end.
func TestMoreLogsThanDescriptorsAreAllRead(t *testing.T) {
	if !inProcess(t, nil) {
		return
	}
	limit := unix.Rlimit{Cur: 512, Max: 512}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	const containers = 600
	root, ship := t.TempDir(), logstest.NewShipper()
	all := make([]*logstest.Dockerd, containers)
	open := func(i int) {
		var err error
		if all[i].File, err = os.OpenFile(all[i].Path, os.O_WRONLY|os.O_APPEND, 0); err != nil {
			t.Fatal(err)
		}
	}
	write := func(i int, text string) {
		open(i)
		all[i].WriteLog("stdout", text)
		all[i].File.Close()
	}
	for i := range all {
		all[i] = logstest.NewDockerd(t, root, i)
		all[i].MaxFile = 3
		all[i].File.Close()
		write(i, strings.Repeat(fmt.Sprintf("line of %d\n", i), 5))
	}
	var log strings.Builder
	source := startLogged(t, configAt(root), ship, &log)
	ship.Wait(t, 5*containers)
	if lag := source.group.Lag(); lag != 0 && !eventually(func() bool { return source.group.Lag() == 0 }) {
		t.Errorf("lag of %d bytes when all is read", lag)
	}
	if !strings.Contains(log.String(), "wait for descriptors") {
		t.Errorf("no warning: %q", log.String())
	}

	// Further lines, also of files that are rotated or compressed meanwhile.
	for round := range 3 {
		for i := range all {
			write(i, fmt.Sprintf("again %d\n", round))
			if i%20 == 0 {
				open(i)
				all[i].Compress = i%40 == 0
				all[i].Rotate()
				all[i].File.Close()
			}
		}
		ship.Wait(t, (6+round)*containers)
	}
	for i := range all[:50] {
		write(i, strings.Repeat("p", decode.DockerPartBytes))
		time.Sleep(time.Millisecond)
	}
	time.Sleep(2 * time.Second)
	for i := range all[:50] {
		if err := os.RemoveAll(all[i].Dir); err != nil {
			t.Fatal(err)
		}
	}
	ship.Wait(t, 8*containers+50)
	ship.Check(t)
}

// TestBusyLogsShareTheirDescriptors: more logs than descriptors are written to all the time. None of them waits
// for the end of another.
func TestBusyLogsShareTheirDescriptors(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	root, ship := t.TempDir(), logstest.NewShipper()
	cfg := configAt(root)
	cfg.MaxOpenFiles = 4
	const containers = 16
	start(t, cfg, nil, ship)
	stop := time.Now().Add(4 * time.Second)
	var writers sync.WaitGroup
	lines := make([]int, containers)
	for i := range containers {
		dockerd := logstest.NewDockerd(t, root, i)
		writers.Go(func() {
			for ; time.Now().Before(stop); lines[i]++ {
				dockerd.WriteLog("stdout", fmt.Sprintf("line %d of %d\n", lines[i], i))
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	time.Sleep(3 * time.Second)
	perLog := map[string]int{}
	for _, shipped := range ship.All() {
		perLog[shipped.Path]++
	}
	if len(perLog) != containers {
		t.Errorf("after 3 s lines of %d logs have come, want %d", len(perLog), containers)
	}
	writers.Wait()
	sum := 0
	for _, count := range lines {
		sum += count
	}
	ship.Wait(t, sum)
	ship.Check(t)
}

// eventually reports whether condition becomes true within ten seconds.
func eventually(condition func() bool) bool {
	for range 1000 {
		if condition() {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}
