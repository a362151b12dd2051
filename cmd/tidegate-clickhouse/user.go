package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// keptCapabilities are the capabilities of root that the user of the store keeps. It reaches the store with
// them although the folders above belong to root; what it may open there, the fence decides.
var keptCapabilities = []int{unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER}

// changeUser makes the calling thread one of the user uid, with none of root's capabilities but
// keptCapabilities, and so each program that the thread executes. The caller must hold the thread
// (runtime.LockOSThread). Nothing changes where uid is 0, or where the process is not root with the
// capabilities that this needs.
func changeUser(uid int) error {
	kept, err := keepable()
	if uid == 0 || kept == 0 || err != nil {
		return err
	}

	// 1. Change the user. PR_SET_KEEPCAPS keeps the permitted capabilities over the change. The system calls
	// are made directly: those of package syscall change all threads, and fail where a C library is loaded.
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("PR_SET_KEEPCAPS", err)
	}
	id := uintptr(uid)
	for _, call := range []struct {
		name    string
		number  uintptr
		a, b, c uintptr
	}{
		{"setgroups", unix.SYS_SETGROUPS, 0, 0, 0},
		{"setresgid", unix.SYS_SETRESGID, id, id, id},
		{"setresuid", unix.SYS_SETRESUID, id, id, id},
	} {
		if _, _, errno := unix.RawSyscall(call.number, call.a, call.b, call.c); errno != 0 {
			return os.NewSyscallError(call.name, errno)
		}
	}

	// 2. Drop the other capabilities. Those that are ambient survive the execution of a program.
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: kept, Permitted: kept, Inheritable: kept}}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return os.NewSyscallError("capset", err)
	}
	for _, capability := range keptCapabilities {
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(capability), 0, 0); err != nil {
			return os.NewSyscallError("PR_CAP_AMBIENT_RAISE", err)
		}
	}

	// 3. The change of the user has cleared the signal that the kernel sends when tidegate ends.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return os.NewSyscallError("PR_SET_PDEATHSIG", err)
	}
	return nil
}

// keepable returns the set of keptCapabilities, or 0 if this process is not root or lacks a capability that
// changeUser needs.
func keepable() (uint32, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, os.NewSyscallError("capget", err)
	}
	var kept uint32
	for _, capability := range keptCapabilities {
		kept |= 1 << capability
	}
	needed := kept | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	if os.Geteuid() != 0 || data[0].Permitted&needed != needed {
		return 0, nil
	}
	return kept, nil
}
