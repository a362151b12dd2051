package tail

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"
)

// maxRecord is the maximum length of a record; a longer one is cut. Formats that spread lines over records
// have much shorter records.
const maxRecord = 1 << 20

// refreshEvery is the number of bytes that are read between two calls of Handler.Refresh.
const refreshEvery = 1 << 20

// readAvailable reads the oldest file of the log that is not done, to its present end. more is true if bytes
// were read, or if the file is done and the next one can be read.
func (t *Tailer) readAvailable(ctx context.Context) (more bool, err error) {
	file, final := t.currentFile()
	if file == nil {
		return false, nil
	}

	switch t.reopen(file, final) {
	case fileUnchanged:
		if t.isFlushDue(file) {
			return false, t.flushOpenLines(ctx, file)
		}
		return false, nil
	case fileUnavailable:
		return false, nil
	case fileRemoved:
		return true, t.finishRemoved(ctx, file)
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
	bytesRead, err := t.readToEnd(ctx, file, final)
	if errors.Is(err, errTruncated) {
		t.handleTruncation(file)
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if bytesRead > 0 {
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
	case bytesRead == 0 && t.isFlushDue(file):
		err = t.flushOpenLines(ctx, file)
	}
	return bytesRead > 0, err
}

// currentFile returns the oldest file that is not done. final reports whether the file is complete: nothing
// will be added to it. final is determined before the file is read, so that bytes written just before a
// rotation are not missed.
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

// hasUnread reports whether the current file has bytes that were not examined, or is final and not done.
func (t *Tailer) hasUnread() bool {
	file, final := t.currentFile()
	if file == nil || final {
		return file != nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if file.released {
		size, ok := t.sizeByName(file)
		return ok && size != file.examined
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

// errTruncated means that the file was truncated in place, and that no byte of its new contents was used.
var errTruncated = errors.New("the file was truncated")

// readToEnd reads f to its present end and returns the number of bytes that were read. It returns errTruncated
// if f was truncated in place before or during the last read.
func (t *Tailer) readToEnd(ctx context.Context, f *file, final bool) (total int64, err error) {
	if f.isFullyRead() {
		return 0, nil
	}
	buffer := t.group.budget.getBuffer()
	defer t.group.budget.putBuffer(&buffer)
	t.handler.Refresh()

	// Invariant: buffer.b[:have] holds the bytes from f.offset on that do not form a complete record yet.
	have, sinceRefresh := 0, 0
	for {
		// 1. One incomplete record fills the buffer: enlarge the buffer, or cut the record at maxRecord.
		if have == len(buffer.b) {
			if have < maxRecord {
				if err := t.group.budget.enlarge(ctx, &buffer); err != nil {
					return total, err
				}
			} else {
				t.tally.tooLong++
				if err := t.shipPlain(ctx, f, buffer.b[:have], f.offset, f.offset+int64(have)); err != nil {
					return total, err
				}
				f.advanceOffset(int64(have))
				have = 0
			}
		}

		// 2. Read. The check follows the read: had f been truncated between them, bytes of its new contents
		// would be taken for a continuation of the old ones.
		n, readErr := f.readAt(buffer.b[have:], f.offset+int64(have))
		if f.isTruncated() {
			return total, errTruncated
		}

		// 3. Handle the complete records.
		have += n
		f.extendSample(buffer.b[have-n:have], f.offset+int64(have)) // before the decoder changes the bytes
		used, err := t.splitRecords(ctx, f, buffer.b[:have])
		f.advanceOffset(int64(used))
		total += int64(used)
		t.tally.bytes += uint64(used)
		if err != nil {
			return total, err
		}
		have = copy(buffer.b, buffer.b[used:have])
		f.examined = f.offset + int64(have)

		// 4. Stop at the end of the file or at a read error. The rest of a final file is its last record.
		if readErr != nil || n == 0 {
			if readErr != nil && !errors.Is(readErr, io.EOF) {
				t.group.metrics.errors.WithLabelValues("read").Inc()
				f.readErr = readErr
			}
			if final && have > 0 {
				err = t.readRemainder(ctx, f, buffer.b[:have])
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
