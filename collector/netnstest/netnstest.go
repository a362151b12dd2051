// Package netnstest runs code of tests in the network namespaces that `ip netns` made. Only tests of root use it.
package netnstest

import (
	"os"
	"os/exec"
	"runtime"
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
