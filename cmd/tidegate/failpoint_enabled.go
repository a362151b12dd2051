//go:build failpoints

package main

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// killFailpoint returns the function that the engine calls at each of its failpoints.
// TIDEGATE_FAILPOINT=NAME:N makes it kill the process, as kill -9 does, when the failpoint NAME is reached
// for the Nth time. It exists only in the binary that the tests build, with the build tag failpoints.
func killFailpoint() func(string) {
	name, nth, ok := strings.Cut(os.Getenv("TIDEGATE_FAILPOINT"), ":")
	if !ok {
		return nil
	}
	n, err := strconv.ParseInt(nth, 10, 64)
	if err != nil {
		return nil
	}
	var left atomic.Int64 // shared by the workers of all partitions
	left.Store(n)
	return func(reached string) {
		if reached == name && left.Add(-1) <= 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
}
