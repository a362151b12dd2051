package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A fence lists what this process may open: files and folders with their access rights, and TCP ports to listen on.
// It is enforced by Landlock (docs.kernel.org/userspace-api/landlock.html) and by a filter of system calls, for this
// process and all that it starts, and can never be lifted again.
//
// The reason: libchdb gives every user of SQL the function file(), which reads any file that the process can
// open, without a grant. Whoever may query the store would read the host, and the password of the store's
// owner first.
type fence struct {
	paths []fencedPath
	ports []uint64 // that the process may listen on; it may connect to none
	calls syscallFilter
}

// A fencedPath is a file or a folder with all that lies in it.
type fencedPath struct {
	path   string
	access uint64 // LANDLOCK_ACCESS_FS_*
}

const (
	accessRead    = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	accessExecute = accessRead | unix.LANDLOCK_ACCESS_FS_EXECUTE
	accessWrite   = accessRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_SYM |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REFER

	// accessFile are the rights that a rule on a file, which is no folder, may have.
	accessFile = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_EXECUTE
)

// minLandlock is the least version of Landlock's interface that the fence needs. Version 1 (Linux 5.13)
// forbids to move a file from one folder to another, which ClickHouse does for each part.
const minLandlock = 2

// storeFence returns the fence of the server in the folder dir with the command line args: its own data, the
// configuration, the library with the system's libraries that it needs, and the few files by which it measures its
// memory. The passwords in dir are outside.
func storeFence(library, dir string, systemLibraries, args []string) fence {
	f := fence{calls: storeFilter(), paths: []fencedPath{
		{filepath.Join(dir, "data"), accessWrite},
		{filepath.Join(dir, "work"), accessWrite},
		{filepath.Join(dir, "child.lock"), accessWrite},
		{filepath.Join(dir, "config.xml"), accessRead},
		{filepath.Join(dir, "users.xml"), accessRead},
		{library, accessExecute},
		{"/proc/self/exe", accessExecute},
		{"/usr/share/zoneinfo", accessRead},
		{"/dev/null", accessWrite},
		{"/dev/urandom", accessRead},
		// Memory and cores, of the process, its cgroup and the host.
		{"/proc/self/statm", accessRead},
		{"/proc/self/cgroup", accessRead},
		{"/proc/meminfo", accessRead},
		{"/proc/sys/vm/overcommit_memory", accessRead},
		{"/sys/devices/system/cpu/online", accessRead},
		{"/sys/devices/system/cpu/possible", accessRead},
		{"/sys/kernel/mm/transparent_hugepage", accessRead},
	}}
	for _, file := range systemLibraries {
		f.paths = append(f.paths, fencedPath{file, accessExecute})
	}
	if membership, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		for _, file := range cgroupFiles(string(membership)) {
			f.paths = append(f.paths, fencedPath{file, accessRead})
		}
	}
	for _, argument := range args {
		for _, flag := range []string{"--http_port=", "--tcp_port="} {
			if port, err := strconv.ParseUint(strings.TrimPrefix(argument, flag), 10, 16); err == nil {
				f.ports = append(f.ports, port)
			}
		}
	}
	return f
}

// landlockVersion returns the version of the kernel's Landlock, 0 if it has none.
func landlockVersion() int {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(version)
}

// errNoLandlock is returned where the kernel cannot enforce the fence.
var errNoLandlock = errors.New("this kernel cannot keep the embedded ClickHouse from reading the files of the " +
	"host: it needs Landlock of Linux 5.19 or later, switched on (the kernel option lsm=landlock,…), which a " +
	"container's profile may forbid. Give the address of a ClickHouse server in clickhouse.addr, or set " +
	"embedded.store.allow_unfenced if everybody who may query the store may also read every file that tidegate may read")

// enforce puts the calling thread behind the fence, and so each program that the thread executes. Where the kernel has
// only one half of the fence, allowPart means that this half is enough. enforce reports whether system calls are
// filtered. The caller must hold the thread (runtime.LockOSThread).
func (f fence) enforce(allowPart bool) (filtered bool, err error) {
	if err := f.restrictFiles(); err != nil && (!allowPart || !errors.Is(err, errNoLandlock)) {
		return false, err
	}
	err = f.calls.install(false)
	if allowPart && errors.Is(err, errNoSeccomp) {
		return false, nil
	}
	return err == nil, err
}

// giveUpPrivileges makes the programs that the calling thread executes gain no privileges, without which the kernel
// lets only root restrict a thread.
func giveUpPrivileges() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_NO_NEW_PRIVS: %w", err)
	}
	return nil
}

// restrictFiles restricts the calling thread to the paths and ports of the fence.
func (f fence) restrictFiles() error {
	version := landlockVersion()
	if version < minLandlock {
		return errNoLandlock
	}
	attributes := ruleset(version)
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET,
		uintptr(unsafe.Pointer(&attributes)), unsafe.Sizeof(attributes), 0)
	if errno != 0 {
		return fmt.Errorf("landlock_create_ruleset: %w", errno)
	}
	defer func() { _ = unix.Close(int(fd)) }()

	for _, p := range f.paths {
		if err := addPath(int(fd), p, attributes.Handled_access_fs); err != nil {
			return err
		}
	}
	if attributes.Handled_access_net != 0 {
		for _, port := range f.ports {
			if err := addPort(int(fd), port); err != nil {
				return err
			}
		}
	}
	if err := giveUpPrivileges(); err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return fmt.Errorf("landlock_restrict_self: %w", errno)
	}
	return nil
}

// ruleset returns the accesses that are forbidden unless a rule allows them: all that the version of Landlock
// knows.
func ruleset(version int) unix.LandlockRulesetAttr {
	attributes := unix.LandlockRulesetAttr{Handled_access_fs: unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1}
	attributes.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	if version >= 3 {
		attributes.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if version >= 4 {
		attributes.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if version >= 5 {
		attributes.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if version >= 6 {
		attributes.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	return attributes
}

// addPath adds a rule for a file or folder. One that does not exist needs none.
func addPath(ruleset int, p fencedPath, handled uint64) error {
	fd, err := unix.Open(p.path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: p.path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return &os.PathError{Op: "stat", Path: p.path, Err: err}
	}
	access := p.access & handled
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= accessFile
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE,
		uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("landlock_add_rule %s: %w", p.path, errno)
	}
	return nil
}

// addPort adds a rule for a TCP port that the process may listen on.
func addPort(ruleset int, port uint64) error {
	const rulePort = 2 // LANDLOCK_RULE_NET_PORT
	rule := struct{ access, port uint64 }{unix.LANDLOCK_ACCESS_NET_BIND_TCP, port}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE,
		uintptr(ruleset), rulePort, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("landlock_add_rule port %d: %w", port, errno)
	}
	return nil
}
