// Command tidegate-clickhouse is the embedded ClickHouse: it loads libchdb and runs it as a server until that
// server stops. Only tidegate starts it (pipeline/embedded).
//
// It is a program of its own because a process that loads a C++ library needs the dynamic loader and glibc.
// The binary tidegate is static, so that it also runs in an image FROM scratch.
//
// usage: tidegate-clickhouse LIBRARY FOLDER ARGUMENT…
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"github.com/ebitengine/purego"

	"tidegate/pipeline/statedir"
)

// The library needs the large stack of the first thread of the process. Package initialisation runs on that
// thread, and the lock keeps the main goroutine there.
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

// run loads the library and runs its server with the arguments args in the folder work below dir. It returns
// when that server ends.
func run(library, dir string, args []string) error {
	// The child of a killed tidegate ends a moment after its parent. The folder is in use until then.
	lock, err := statedir.Wait(context.Background(), filepath.Join(dir, "child.lock"), 15*time.Second)
	if err != nil {
		return fmt.Errorf("another server has this folder: %w", err)
	}
	defer func() { _ = lock.Unlock() }()

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

	cmdline(argc, unsafe.Pointer(&argv[0]))
	runtime.KeepAlive(argv)
	return nil
}
