package main

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A syscallFilter is a seccomp filter (docs.kernel.org/userspace-api/seccomp_filter.html), which refuses system calls
// by their number and arguments. Like Landlock it holds for ever, and for all programs that are executed.
//
// It covers what Landlock does not: every socket but that of a TCP server, UDP and Unix sockets among them, and
// parts of the kernel that a database never needs, through which attackers leave a process.
type syscallFilter []bpf.Instruction

// Offsets in struct seccomp_data: the number and the architecture of a system call, then its arguments of 8 bytes
// each, of which the lower half comes first on x86.
const (
	offsetNumber, offsetArchitecture, offsetArguments = 0, 4, 16

	firstX32 = 0x40000000 // numbers from here on are of the ABI x32, which this process does not use
)

func argument(n uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: offsetArguments + 8*n, Size: 4} }

func argumentHigh(n uint32) bpf.Instruction {
	return bpf.LoadAbsolute{Off: offsetArguments + 8*n + 4, Size: 4}
}

var allow = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}

// refuse returns the end of a filter that lets a system call fail with an error.
func refuse(errno unix.Errno) bpf.Instruction {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

// newSyscallFilter returns a filter that knows the system calls of x86-64 only, and refuses none of these yet.
func newSyscallFilter() syscallFilter {
	return syscallFilter{
		bpf.LoadAbsolute{Off: offsetArchitecture, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AUDIT_ARCH_X86_64, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
		bpf.LoadAbsolute{Off: offsetNumber, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: firstX32, SkipFalse: 1},
		refuse(unix.ENOSYS),
	}
}

// addCall adds what is done with a system call. The instructions must end with allow or a refusal on each way.
func (f *syscallFilter) addCall(number uint32, what ...bpf.Instruction) {
	*f = append(*f, bpf.JumpIf{Cond: bpf.JumpEqual, Val: number, SkipFalse: uint8(len(what))})
	*f = append(*f, what...)
}

// storeFilter returns the filter of the process that loads the library, which must still execute itself.
func storeFilter() syscallFilter {
	f := newSyscallFilter()

	// The sockets of a TCP server that connects to nothing. Other protocols of the type stream (MPTCP, SCTP) are
	// not in Landlock's rules. TCP Fast Open connects by a first message.
	f.addCall(unix.SYS_SOCKET,
		argument(0),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.AF_INET6, SkipTrue: 6},
		argument(1),
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf}, // without SOCK_CLOEXEC and SOCK_NONBLOCK
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SOCK_STREAM, SkipTrue: 3},
		argument(2),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_IP, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_TCP, SkipTrue: 1},
		refuse(unix.EACCES),
		allow)
	f.addCall(unix.SYS_SENDTO,
		argument(4), // the address
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 4},
		argumentHigh(4),
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 2},
		argument(3), // the flags
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: unix.MSG_FASTOPEN, SkipTrue: 1},
		refuse(unix.EACCES),
		allow)
	f.addCall(unix.SYS_SENDMSG,
		argument(2),
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: unix.MSG_FASTOPEN, SkipTrue: 1},
		refuse(unix.EACCES),
		allow)
	for _, number := range []uint32{unix.SYS_CONNECT, unix.SYS_SENDMMSG} {
		f.addCall(number, refuse(unix.EACCES))
	}

	// New namespaces. The flags of clone3 are in memory, where a filter cannot look: without it, threads are started
	// by clone.
	const namespaces = unix.CLONE_NEWCGROUP | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWNS |
		unix.CLONE_NEWPID | unix.CLONE_NEWUSER | unix.CLONE_NEWUTS
	f.addCall(unix.SYS_CLONE,
		argument(0),
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: namespaces, SkipTrue: 1},
		refuse(unix.EPERM),
		allow)
	for _, number := range absentCalls {
		f.addCall(number, refuse(unix.ENOSYS))
	}
	for _, number := range refusedCalls {
		f.addCall(number, refuse(unix.EPERM))
	}
	return append(f, allow)
}

// loadedFilter returns the filter for the time from which the process executes nothing any more.
func loadedFilter() syscallFilter {
	f := newSyscallFilter()
	for _, number := range []uint32{unix.SYS_EXECVE, unix.SYS_EXECVEAT} {
		f.addCall(number, refuse(unix.EPERM))
	}
	return append(f, allow)
}

// absentCalls are system calls in place of which glibc and the library use older ones. io_uring would open sockets and
// files outside of this filter.
var absentCalls = []uint32{
	unix.SYS_CLONE3, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
}

// refusedCalls are system calls that a database never needs.
var refusedCalls = []uint32{
	// other processes
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_KCMP,
	unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_GETFD, unix.SYS_PIDFD_SEND_SIGNAL,
	unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_SHMCTL, unix.SYS_MSGGET, unix.SYS_SEMGET, unix.SYS_MQ_OPEN,
	// the kernel's machines and keys
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
	// mounts and namespaces
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN, unix.SYS_FSCONFIG,
	unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT,
	unix.SYS_UNSHARE, unix.SYS_SETNS,
	unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_FANOTIFY_INIT,
	unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD,
	// users and capabilities
	unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID,
	unix.SYS_SETGROUPS, unix.SYS_SETFSUID, unix.SYS_SETFSGID, unix.SYS_CAPSET,
	// the host
	unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_SYSLOG, unix.SYS_VHANGUP,
	unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_PERSONALITY,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME,
}

// errNoSeccomp is returned where the kernel has no filters for system calls.
var errNoSeccomp = errors.New("this kernel cannot keep the embedded ClickHouse from sending to the network: it needs " +
	"seccomp filters (CONFIG_SECCOMP_FILTER), which a container's profile may forbid. Give the address of a " +
	"ClickHouse server in clickhouse.addr, or set embedded.store.allow_unfenced if everybody who may query the store " +
	"may also send whatever it holds to any address")

// install puts the calling thread behind the filter, or all threads of this process. The caller must hold the thread
// (runtime.LockOSThread).
func (f syscallFilter) install(allThreads bool) error {
	if err := giveUpPrivileges(); err != nil {
		return err
	}
	instructions, err := bpf.Assemble(f)
	if err != nil {
		return err
	}
	filters := make([]unix.SockFilter, len(instructions))
	for i, raw := range instructions {
		filters[i] = unix.SockFilter{Code: raw.Op, Jt: raw.Jt, Jf: raw.Jf, K: raw.K}
	}
	program := unix.SockFprog{Len: uint16(len(filters)), Filter: &filters[0]}
	var flags uintptr
	if allThreads {
		flags = unix.SECCOMP_FILTER_FLAG_TSYNC
	}
	thread, _, errno := unix.Syscall(
		unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	switch {
	case errno != 0:
		return fmt.Errorf("%w (seccomp: %w)", errNoSeccomp, errno)
	case thread != 0: // the filter is then on no thread, and there is no error number
		return fmt.Errorf("seccomp: thread %d has another filter", thread)
	}
	return nil
}
