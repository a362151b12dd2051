package sessions

import (
	"syscall"
	"time"
)

// cpuTime returns the CPU time of the process, of all cores. It does not depend on what else the machine
// does.
func cpuTime() time.Duration {
	var rusage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &rusage) != nil {
		return 0
	}
	return time.Duration(rusage.Utime.Nano() + rusage.Stime.Nano())
}
