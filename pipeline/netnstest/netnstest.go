// Package netnstest runs code of tests in network namespaces: those that `ip netns` made, or one of the
// test's own. Only tests of root use it.
package netnstest

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Run runs a command, and ends the test if it fails.
func Run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// Start runs f on a thread in the network namespace. The channel is closed when f has returned.
func Start(t testing.TB, namespace string, f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		file, err := os.Open("/run/netns/" + namespace)
		if err == nil {
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
			_ = file.Close()
		}
		if err != nil {
			t.Errorf("enter namespace %s: %v", namespace, err)
			return
		}
		f()
	}()
	return done
}

// inside is set in the process that Enter has started.
const inside = "TIDEGATE_TEST_INSIDE_NAMESPACE"

// Enter runs the calling test again in a process with a network namespace of its own. It returns true in that
// process; in the other one it returns false when the process has ended, and has failed the test if that
// failed or was skipped.
func Enter(t testing.TB) bool {
	t.Helper()
	if os.Getenv(inside) != "" {
		Run(t, "ip", "link", "set", "lo", "up")
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2h")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("in the namespace: %v", err)
	}
	if bytes.Contains(out, []byte("--- SKIP")) {
		t.Fatal("skipped in the namespace")
	}
	return false
}
