package sessions

import (
	"syscall"
	"time"
)

// cpuTime returns the CPU time of the process, of all cores. It does not depend on what else the machine
// does.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
