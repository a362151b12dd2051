package embedded

import (
	"bytes"
	"os"
	"sync"
)

// A cappedLog is a log file of at most max bytes, with one predecessor (.1) of the same size. It holds the
// child's console output.
type cappedLog struct {
	path string
	max  int64

	mu   sync.Mutex
	file *os.File
	size int64
	tail []byte // the last bytes written, for the error of a child that did not start
}

func openCappedLog(path string, max int64) (*cappedLog, error) {
	l := &cappedLog{path: path, max: max}
	return l, l.open()
}

func (l *cappedLog) open() error {
	file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	st, err := file.Stat()
	if err != nil {
		file.Close()
		return err
	}
	l.file, l.size = file, st.Size()
	return nil
}

// Write appends data to the log file and drops what does not fit. It never fails, because it drains the pipe
// of the child: a full disk must not block the child.
func (l *cappedLog) Write(data []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()

	// Keep the last 4 to 8 KiB in memory for lastLine.
	const keep = 4096
	l.tail = append(l.tail, data[max(0, len(data)-keep):]...)
	if len(l.tail) > 2*keep {
		l.tail = append(l.tail[:0], l.tail[len(l.tail)-keep:]...)
	}
	if l.file != nil && l.size+int64(len(data)) > l.max {
		l.file.Close()
		l.file = nil
		_ = os.Rename(l.path, l.path+".1")
	}
	if l.file == nil && l.open() != nil {
		return len(data), nil
	}
	n, _ := l.file.Write(data[:min(int64(len(data)), l.max)])
	l.size += int64(n)
	return len(data), nil
}

// lastLine returns the last line that is not empty, cut to 400 bytes.
func (l *cappedLog) lastLine() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for data := bytes.TrimSpace(l.tail); len(data) > 0; {
		i := bytes.LastIndexByte(data, '\n')
		if line := bytes.TrimSpace(data[i+1:]); len(line) > 0 {
			return string(line[:min(len(line), 400)])
		}
		data = bytes.TrimSpace(data[:max(i, 0)])
	}
	return ""
}

func (l *cappedLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}
