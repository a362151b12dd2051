package embedded

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A terminal is a pseudo-terminal, whose other end is the standard input of the child.
//
// The reason is that clickhouse-local ends its process at any exception that leaves the handler of a connection:
// a client that disconnects in the middle of its request or of the answer, a request that is no HTTP, a wrong
// password over the native protocol. Only an interactive session, whose standard input is a terminal, logs such
// an exception and serves on. The library therefore runs an interactive session. At its prompt it waits for
// statements from the terminal, and gets none.
type terminal struct {
	controller *os.File // the end of this process
	drained    sync.WaitGroup
}

// openTerminal returns a new terminal and the end of it that is for the child. The caller closes that end when the
// child has it.
func openTerminal() (t *terminal, input *os.File, err error) {
	const hint = "the embedded ClickHouse needs a pseudo-terminal (a mounted devpts)"
	controller, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", hint, err)
	}
	raw, err := controller.SyscallConn()
	if err == nil {
		controlErr := raw.Control(func(fd uintptr) { input, err = openInput(int(fd)) })
		if controlErr != nil {
			err = controlErr
		}
	}
	if err != nil {
		controller.Close()
		return nil, nil, fmt.Errorf("%s: %w", hint, err)
	}

	// Read what the session prints to its terminal: it would wait once the buffer of the kernel is full.
	t = &terminal{controller: controller}
	t.drained.Go(func() { _, _ = io.Copy(io.Discard, controller) })
	return t, input, nil
}

// openInput opens the other end of the terminal whose controller is fd. It needs no path below /dev/pts.
func openInput(fd int) (*os.File, error) {
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, os.NewSyscallError("TIOCSPTLCK", err)
	}
	const flags = unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC
	input, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, flags)
	if errno != 0 {
		return nil, os.NewSyscallError("TIOCGPTPEER", errno)
	}
	return os.NewFile(input, "terminal of clickhouse"), nil
}

// exit types the command that ends the session. Where the session has ended the write fails, which is as well.
func (t *terminal) exit() { _, _ = io.WriteString(t.controller, "exit\r") }

// close releases the terminal.
func (t *terminal) close() {
	t.controller.Close()
	t.drained.Wait()
}
