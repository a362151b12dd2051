// Command tidegate-clickhouse is the embedded ClickHouse: it loads libchdb and runs it as a server until that
// server stops. Only tidegate starts it (pipeline/embedded).
//
// It is a program of its own because a process that loads a C++ library needs the dynamic loader and glibc.
// The binary tidegate is static, so that it also runs in an image FROM scratch.
//
// It starts in two steps. The first step changes the user of its thread (user.go), puts the thread behind the
// fence (fence.go, seccomp.go, system_files.go) and executes the program again. Both hold for one thread of a process,
// and only a process that is executed by that thread has them as a whole. The second step loads the library.
//
// usage: tidegate-clickhouse fence|fence-if-possible UID LIBRARY FOLDER ARGUMENT…
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/ebitengine/purego"

	"tidegate/pipeline/statedir"
)

// Package initialisation runs on the first thread of the process, and the lock keeps the main goroutine there. The
// user and the fence are those of one thread; for the library see run.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) < 5 {
		fmt.Fprintln(os.Stderr, "tidegate-clickhouse is started by tidegate; see `tidegate run --help`")
		os.Exit(2)
	}
	step, library, dir, args := os.Args[1], os.Args[3], os.Args[4], os.Args[5:]
	uid, err := strconv.Atoi(os.Args[2])
	switch {
	case err != nil:
	case step == stepLoad || step == stepLoadFenced:
		err = run(library, dir, args, step == stepLoadFenced)
	default:
		err = startBehindFence(library, dir, args, uid, step == "fence-if-possible")
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "embedded store: %v\n", err)
		os.Exit(3)
	}
}

// Names of the second step, without and behind the filter of system calls.
const stepLoad, stepLoadFenced = "load", "load-fenced"

// startBehindFence executes this program again as the user uid and behind the fence, with the arguments of this
// process. allowUnfenced means that it goes on with what the kernel has of the fence. It returns only if that fails.
func startBehindFence(library, dir string, args []string, uid int, allowUnfenced bool) error {
	needed, err := systemLibraries(library)
	if err != nil {
		return err
	}
	if err := changeUser(uid); err != nil {
		return fmt.Errorf("become user %d: %w", uid, err)
	}
	filtered, err := storeFence(library, dir, needed, args).enforce(allowUnfenced)
	if err != nil {
		return err
	}
	step := stepLoad
	if filtered {
		step = stepLoadFenced
	}
	argv := append([]string{os.Args[0], step}, os.Args[2:]...)
	// The loader finds the libraries without its cache, which is outside of the fence.
	environment := append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(folders(needed), ":"))
	err = syscall.Exec("/proc/self/exe", argv, environment)
	return fmt.Errorf("execute %s behind the fence: %w", os.Args[0], err)
}

// run loads the library and runs its server with the arguments args in the folder work below dir. It returns
// when that server ends. fenced means that this process executes nothing from here on.
func run(library, dir string, args []string, fenced bool) error {
	// The child of a killed tidegate ends a moment after its parent. The folder is in use until then.
	lock, err := statedir.Wait(context.Background(), filepath.Join(dir, "child.lock"), 15*time.Second)
	if err != nil {
		return fmt.Errorf("another server has this folder: %w", err)
	}
	defer func() { _ = lock.Unlock() }()

	if fenced {
		if err := loadedFilter().install(true); err != nil {
			return err
		}
	}

	// Relative paths in the library then lead below the data folder of tidegate.
	if err := os.Chdir(filepath.Join(dir, "work")); err != nil {
		return err
	}
	lib, err := purego.Dlopen(library, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return fmt.Errorf("load %s: %w", library, err)
	}

	// chdb_query_cmdline takes the command line of clickhouse-local and returns when that ends. Its result is
	// not needed.
	var cmdline func(argc int32, argv unsafe.Pointer) unsafe.Pointer
	purego.RegisterLibFunc(&cmdline, lib, "chdb_query_cmdline")

	// As in C, argv holds pointers to strings that end with a NUL, and a nil pointer behind them.
	argv := make([]*byte, 0, len(args)+2)
	for _, argument := range append([]string{"clickhouse"}, args...) {
		if strings.IndexByte(argument, 0) >= 0 {
			return fmt.Errorf("argument %q holds a NUL", argument)
		}
		terminated := append([]byte(argument), 0)
		argv = append(argv, &terminated[0])
	}
	argc := int32(len(argv))
	argv = append(argv, nil)

	// The library asks for the bounds of the stack of its thread. Those of the first thread of a process are in
	// /proc/self/maps only, which is outside of the fence, and so it gets another thread.
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread()
		cmdline(argc, unsafe.Pointer(&argv[0]))
	}()
	<-ended
	runtime.KeepAlive(argv)
	return nil
}
