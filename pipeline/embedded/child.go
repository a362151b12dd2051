package embedded

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"github.com/ebitengine/purego"
)

// childCommand is the hidden command under which this binary is the store's child: childCommand, the library, the store's folder, and
// behind them the arguments of the library's command line.
const childCommand = "__embedded_clickhouse"

// Only while packages are initialised is it sure that this is the process's first thread, on whose large stack the library runs;
// from here on the main goroutine stays there.
func init() {
	if isChild() {
		runtime.LockOSThread()
	}
}

func isChild() bool { return len(os.Args) > 3 && os.Args[1] == childCommand }

// ChildMain is the first thing that main (and TestMain) calls. In the child it runs the library until it ends and does not return; in any other
// process it returns at once.
func ChildMain() {
	if !isChild() {
		return
	}
	err := runLibrary(os.Args[2], os.Args[3], os.Args[4:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "embedded store: %v\n", err)
		os.Exit(3)
	}
	os.Exit(0)
}

func runLibrary(library, dir string, args []string) error {
	// The lock of the child: a child whose parent was killed is killed too, but that takes a moment, and two servers in one folder must not be.
	lock, err := lockFile(filepath.Join(dir, "child.lock"), 15*time.Second)
	if err != nil {
		return err
	}
	defer lock.Close()
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
