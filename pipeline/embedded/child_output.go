package embedded

import (
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A childOutput copies what the child prints to a writer.
//
// It is a socket and no pipe, because SQL can read every pipe of its process below /proc/self/fd, which no fence
// forbids: a user of the store could take the lines of the log, or wait there for ever.
type childOutput struct {
	reader *os.File
	copied sync.WaitGroup
}

// copyOutput returns a new output and the end of it that is for the child. The caller closes that end when the child
// has it.
func copyOutput(to io.Writer) (*childOutput, *os.File, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	output := &childOutput{reader: os.NewFile(uintptr(ends[0]), "output of clickhouse")}
	output.copied.Go(func() { _, _ = io.Copy(to, output.reader) })
	return output, os.NewFile(uintptr(ends[1]), "console of clickhouse"), nil
}

// close waits for the last line of a child that has ended.
func (o *childOutput) close() {
	o.copied.Wait()
	o.reader.Close()
}
