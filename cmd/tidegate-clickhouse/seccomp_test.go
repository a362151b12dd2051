package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inFilter is set in the process that probes system calls: a filter can never be lifted.
const inFilter = "TIDEGATE_TEST_SECCOMP"

func TestMain(m *testing.M) {
	if name := os.Getenv(underProfile); name != "" {
		startUnderProfile(name)
		os.Exit(0)
	}
	if mode := os.Getenv(inFilter); mode != "" {
		runtime.LockOSThread()
		if mode == "filter" {
			if err := storeFilter().install(true); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
		}
		for _, p := range probes() {
			_, _, errno := unix.RawSyscall6(p.number, p.args[0], p.args[1], p.args[2], p.args[3], p.args[4], p.args[5])
			fmt.Println(p.name, errnoName(errno))
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A probe is a system call with harmless arguments, and the error that it must return behind the filter.
type probe struct {
	name   string
	number uintptr
	args   [6]uintptr
	want   unix.Errno
}

func probes() []probe {
	const x32 = firstX32
	address := uintptr(unsafe.Pointer(&unix.RawSockaddrInet4{Family: unix.AF_INET}))
	stream := uintptr(unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK)
	none := ^uintptr(0) // no descriptor
	call := func(name string, want unix.Errno, number uintptr, args ...uintptr) probe {
		p := probe{name: name, number: number, want: want}
		copy(p.args[:], args)
		return p
	}
	return []probe{
		call("udp", unix.EACCES, unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC),
		call("udp6", unix.EACCES, unix.SYS_SOCKET, unix.AF_INET6, unix.SOCK_DGRAM),
		call("unix", unix.EACCES, unix.SYS_SOCKET, unix.AF_UNIX, stream),
		call("netlink", unix.EACCES, unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW),
		call("packet", unix.EACCES, unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW),
		call("mptcp", unix.EACCES, unix.SYS_SOCKET, unix.AF_INET, stream, unix.IPPROTO_MPTCP),
		call("tcp", 0, unix.SYS_SOCKET, unix.AF_INET, stream),
		call("tcp6", 0, unix.SYS_SOCKET, unix.AF_INET6, stream, unix.IPPROTO_TCP),
		call("connect", unix.EACCES, unix.SYS_CONNECT, none),
		call("send", unix.EBADF, unix.SYS_SENDTO, none, 0, 0, unix.MSG_NOSIGNAL),
		call("send-to-address", unix.EACCES, unix.SYS_SENDTO, none, 0, 0, 0, address, unix.SizeofSockaddrInet4),
		call("send-fast-open", unix.EACCES, unix.SYS_SENDTO, none, 0, 0, unix.MSG_FASTOPEN),
		call("sendmsg", unix.EBADF, unix.SYS_SENDMSG, none, 0, unix.MSG_NOSIGNAL),
		call("sendmsg-fast-open", unix.EACCES, unix.SYS_SENDMSG, none, 0, unix.MSG_FASTOPEN),
		call("sendmmsg", unix.EACCES, unix.SYS_SENDMMSG, none),
		call("io_uring", unix.ENOSYS, unix.SYS_IO_URING_SETUP, 0, 0),
		call("clone3", unix.ENOSYS, unix.SYS_CLONE3, 0, 0),
		call("clone-namespace", unix.EPERM, unix.SYS_CLONE, unix.CLONE_NEWUTS|unix.CLONE_FS|unix.CLONE_NEWNS),
		call("unshare", unix.EPERM, unix.SYS_UNSHARE, 0),
		call("ptrace", unix.EPERM, unix.SYS_PTRACE, none),
		call("process_vm_readv", unix.EPERM, unix.SYS_PROCESS_VM_READV, uintptr(os.Getpid())),
		call("bpf", unix.EPERM, unix.SYS_BPF, none),
		call("keyctl", unix.EPERM, unix.SYS_KEYCTL, none),
		call("mount", unix.EPERM, unix.SYS_MOUNT),
		call("pidfd_open", unix.EPERM, unix.SYS_PIDFD_OPEN, none),
		call("getpid", 0, unix.SYS_GETPID),
		call("x32", unix.ENOSYS, unix.SYS_GETPID|x32),
	}
}

func errnoName(errno unix.Errno) string {
	if errno == 0 {
		return "ok"
	}
	return unix.ErrnoName(errno)
}

// probeIn returns the errors of the probes in a process of its own, with or without the filter.
func probeIn(t *testing.T, mode string) map[string]string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), inFilter+"="+mode)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, result, _ := strings.Cut(strings.TrimSpace(line), " ")
		got[name] = result
	}
	return got
}

// unrestricted reports whether this process may make each of the probes: it is root with the capabilities for them, in
// no user namespace and under no container's profile.
func unrestricted(t *testing.T) bool {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	users, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "\nCapEff:\t")
	var capabilities uint64
	if _, err := fmt.Sscanf(after, "%x", &capabilities); err != nil {
		t.Fatalf("%v: %s", err, status)
	}
	const needed = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_NET_RAW
	return os.Geteuid() == 0 && capabilities&needed == needed && strings.Contains(string(status), "\nSeccomp:\t0\n") &&
		strings.Join(strings.Fields(string(users)), " ") == "0 0 4294967295"
}

func TestFilterLeavesOnlyTheSocketsOfATCPServer(t *testing.T) {
	got, without := probeIn(t, "filter"), probeIn(t, "none")
	for _, p := range probes() {
		want := errnoName(p.want)
		if got[p.name] != want {
			t.Errorf("%s: %s, want %s", p.name, got[p.name], want)
		}
		// The control: it is the filter that refuses.
		refused := p.want != 0 && p.want != unix.EBADF && p.name != "x32"
		if refused && unrestricted(t) && without[p.name] == want {
			t.Errorf("%s: the kernel answers %s without the filter too", p.name, want)
		}
	}
}

func TestEachListedCallIsRefusedOnce(t *testing.T) {
	seen := map[uint32]bool{}
	for _, number := range append(append([]uint32{}, refusedCalls...), absentCalls...) {
		if seen[number] {
			t.Errorf("system call %d is listed twice", number)
		}
		seen[number] = true
	}
	if _, allowed := seen[unix.SYS_EXECVE]; allowed {
		t.Error("the first step could not execute the second")
	}
}

func TestMappedFilesAreEachOnce(t *testing.T) {
	const maps = `7f10-7f11 r--p 00000000 fe:00 1 /usr/lib/x86_64-linux-gnu/libc.so.6
7f11-7f12 r-xp 00001000 fe:00 1 /usr/lib/x86_64-linux-gnu/libc.so.6
7f12-7f13 rw-p 00000000 00:00 0
7ffc-7ffd rw-p 00000000 00:00 0 [stack]
7f14-7f15 r-xp 00000000 fe:00 2 /lib with blank/ld.so
`
	got := fmt.Sprint(mappedFiles(maps))
	if want := "[/usr/lib/x86_64-linux-gnu/libc.so.6 /lib with blank/ld.so]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestCgroupFilesAreThoseOfTheOwnGroups(t *testing.T) {
	got := strings.Join(cgroupFiles("1:cpu:/\n0::/system.slice/tidegate.service\n"), "\n")
	for _, want := range []string{
		"/sys/fs/cgroup/system.slice/tidegate.service/memory.max", "/sys/fs/cgroup/system.slice/memory.max",
		"/sys/fs/cgroup/memory.max",
		"/sys/fs/cgroup/memory/memory.limit_in_bytes",
	} {
		if !strings.Contains(got+"\n", want+"\n") {
			t.Errorf("%s is missing", want)
		}
	}
	if strings.Contains(strings.Join(cgroupFiles("0::/../../x\n"), "\n"), "..") {
		t.Error("a path leaves the folder of the cgroups")
	}
}
