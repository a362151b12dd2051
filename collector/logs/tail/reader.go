package tail

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"
)

// maxRecord is the longest record that is read as one; a longer one is cut there. Formats that spread lines
// over records have records of a tenth of that at most.
const maxRecord = 1 << 20

// refreshEvery is how many bytes are read between two calls of Handler.Refresh.
const refreshEvery = 1 << 20

// readAvailable reads the oldest file of the log that is not done, up to where it ends now. more is true when
// there was something to read, or when the next file is due.
func (t *Tailer) readAvailable(ctx context.Context) (more bool, err error) {
	file, final := t.currentFile()
	if file == nil {
		return false, nil
	}

	// A file that is read for the first time needs an identity, a producer and a checkpoint.
	if file.producer == nil {
		switch t.resumeFile(file, final) {
		case fileWaits:
			return false, nil
		case fileLeftOut:
			return true, nil
		case fileUnreadable:
			t.finishFile(file)
			return true, nil
		}
	}
	if file.isTruncated() {
		t.handleTruncation(file)
		return true, nil
	}

	n, err := t.readToEnd(ctx, file, final)
	if err != nil {
		return false, err
	}
	if n > 0 {
		t.lastRead = time.Now()
	}
	switch {
	case final:
		// An open line is continued in the next file, if there is one.
		if t.nextFile(file) == nil {
			if err := t.flushOpenLines(ctx, file); err != nil {
				return false, err
			}
		}
		t.finishFile(file)
		return true, nil
	case n == 0 && t.isFlushDue(file):
		err = t.flushOpenLines(ctx, file)
	}
	return n > 0, err
}

// currentFile returns the oldest file that is not done, and whether nothing will be added to it. That is
// decided before the last byte is read, so that bytes written just before a rotation are not missed.
func (t *Tailer) currentFile() (f *file, final bool) {
	gone := t.folderGone.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, f := range t.files {
		if !f.done && f.copyOf == nil {
			return f, gone || f.gz || i < len(t.files)-1
		}
	}
	return nil, false
}

// nextFile returns the file that is read behind f; nil: there is none.
func (t *Tailer) nextFile(f *file) *file {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.files, f)
	for _, next := range t.files[i+1:] {
		if !next.done && next.copyOf == nil {
			return next
		}
	}
	return nil
}

// hasOpenLine reports whether a line of the current file waits for its end.
func (t *Tailer) hasOpenLine() bool {
	f, _ := t.currentFile()
	return f != nil && f.hasOpenLine()
}

func (f *file) hasOpenLine() bool {
	return slices.ContainsFunc(f.pending[:], func(p pendingLine) bool { return p.active })
}

// hasUnread reports whether the current file holds more than was read, other than a record that is not
// complete.
func (t *Tailer) hasUnread() bool {
	file, final := t.currentFile()
	if file == nil || final {
		return file != nil
	}
	info, err := file.file.Stat()
	return err == nil && info.Size() != file.examined
}

// isFlushDue reports whether the lines that are open in f have waited long enough for their end.
func (t *Tailer) isFlushDue(f *file) bool {
	if !f.hasOpenLine() {
		return false
	}
	quiet := time.Since(t.lastRead)
	return quiet > t.group.cfg.PartialTimeout || t.handler.State().Stopped && quiet > quietAfterStop
}

// readToEnd reads f to where it ends now and returns how many bytes were read for the first time.
func (t *Tailer) readToEnd(ctx context.Context, f *file, final bool) (total int64, err error) {
	if f.isFullyRead() {
		return 0, nil
	}
	buf := t.group.budget.getBuffer()
	defer func() { t.group.budget.putBuffer(buf) }()
	t.handler.Refresh()

	// buf[:have] holds the bytes from f.offset on that are not a whole record yet.
	have, sinceRefresh := 0, 0
	for {
		// The buffer is full of one record: a larger buffer, or the record is cut.
		if have == len(buf) {
			if have < maxRecord {
				buf = append(buf, make([]byte, len(buf))...)
			} else {
				t.tally.tooLong++
				if err := t.shipPlain(ctx, f, buf[:have], f.offset, f.offset+int64(have)); err != nil {
					return total, err
				}
				f.advanceOffset(int64(have))
				have = 0
			}
		}

		n, readErr := f.readAt(buf[have:], f.offset+int64(have))
		have += n
		f.setSample(buf[have-n:have], f.offset+int64(have)) // before the decoder changes the bytes
		used, err := t.splitRecords(ctx, f, buf[:have])
		f.advanceOffset(int64(used))
		total += int64(used)
		t.tally.bytes += uint64(used)
		if err != nil {
			return total, err
		}
		have = copy(buf, buf[used:have])
		f.examined = f.offset + int64(have)

		// The end of the file, or what cannot be read.
		if readErr != nil || n == 0 {
			if readErr != nil && !errors.Is(readErr, io.EOF) {
				t.group.metrics.errors.WithLabelValues("read").Inc()
				f.readErr = readErr
			}
			if final && have > 0 {
				err = t.readRemainder(ctx, f, buf[:have])
			}
			return total, err
		}

		if sinceRefresh += n; sinceRefresh > refreshEvery {
			sinceRefresh = 0
			t.handler.Refresh()
			t.group.metrics.addTally(&t.tally)
		}
	}
}
