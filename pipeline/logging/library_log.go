package logging

import (
	"io"
	"log/slog"
	"strings"
	"time"
)

// maxLibraryLine is the length to which a line of a library is cut, in bytes.
const maxLibraryLine = 300

// LibraryWriter returns a writer for the package log, to which libraries write without a level: net/http does so for each
// answer of a server that is longer than announced. One line a second is logged.
func LibraryWriter(log *slog.Logger) io.Writer {
	return libraryWriter{log, NewThrottle(time.Second)}
}

type libraryWriter struct {
	log      *slog.Logger
	throttle *Throttle
}

func (w libraryWriter) Write(line []byte) (int, error) {
	if suppressed, ok := w.throttle.Allow(); ok {
		text := strings.ToValidUTF8(string(line[:min(len(line), maxLibraryLine)]), "")
		w.log.Warn("a library reports", "message", strings.TrimSpace(text), "suppressed", suppressed)
	}
	return len(line), nil
}
