//go:build failpoints

package main

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// killFailpoint returns the function that the engine calls at each of its failpoints. With
// TIDEGATE_FAILPOINT=NAME:N that function kills the process, as kill -9 does, when the failpoint NAME is
// reached for the Nth time. Only the tests build a binary with the tag failpoints.
func killFailpoint() func(string) {
	name, nth, ok := strings.Cut(os.Getenv("TIDEGATE_FAILPOINT"), ":")
	if !ok {
		return nil
	}
	count, err := strconv.ParseInt(nth, 10, 64)
	if err != nil {
		return nil
	}
	var left atomic.Int64 // times until the kill; shared by the workers of all partitions
	left.Store(count)
	return func(reached string) {
		if reached == name && left.Add(-1) <= 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // nothing runs on until the signal arrives
		}
	}
}
