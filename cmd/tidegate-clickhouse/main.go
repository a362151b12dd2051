// Command tidegate-clickhouse is the embedded ClickHouse: a process that loads libchdb and runs it as a server until it is told to
// stop. tidegate starts and watches it (pipeline/embedded); nobody else calls it.
//
// It is a program of its own because a process that loads a library of C++ needs the dynamic loader and glibc, and tidegate itself
// is static, so that it also runs in an image FROM scratch.
//
// usage: tidegate-clickhouse LIBRARY FOLDER ARGUMENT…
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Only while packages are initialised is it sure that this is the process's first thread, on whose large stack the library runs;
// from here on the main goroutine stays there.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "tidegate-clickhouse is started by tidegate; see `tidegate run --help`")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintf(os.Stderr, "embedded store: %v\n", err)
		os.Exit(3)
	}
}

func run(library, dir string, args []string) error {
	// A child whose parent was killed is killed too, but that takes a moment, and two servers in one folder must not be.
	lock, err := lockFolder(dir, 15*time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if err := os.Chdir(filepath.Join(dir, "work")); err != nil {
		return err
	}
	lib, err := purego.Dlopen(library, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return fmt.Errorf("load %s: %w", library, err)
	}
	// It takes a command line as clickhouse-local does, runs it to its end, and returns a result that nobody here reads.
	var cmdline func(argc int32, argv unsafe.Pointer) unsafe.Pointer
	purego.RegisterLibFunc(&cmdline, lib, "chdb_query_cmdline")
	argv := make([]*byte, 0, len(args)+2)
	for _, a := range append([]string{"clickhouse"}, args...) {
		if strings.IndexByte(a, 0) >= 0 {
			return fmt.Errorf("argument %q holds a NUL", a)
		}
		b := append([]byte(a), 0)
		argv = append(argv, &b[0])
	}
	argc := int32(len(argv))
	argv = append(argv, nil)
	cmdline(argc, unsafe.Pointer(&argv[0]))
	runtime.KeepAlive(argv)
	return nil
}

// lockFolder takes the lock that the kernel lets go of when the process ends, however it ends.
func lockFolder(dir string, wait time.Duration) (*os.File, error) {
	path := filepath.Join(dir, "child.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(wait); ; time.Sleep(20 * time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(end) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: another server has this folder: %w", path, err)
		}
	}
}
