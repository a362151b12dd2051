package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// A logWriter writes and rotates the log of one container as dockerd does.
type logWriter struct {
	setup        *kafkaSetup
	id           string       // of the container
	dir          string       // of the log files
	linesPerFile int          // after which the file is rotated
	files        int          // that are kept, the open one included
	lines        atomic.Int64 // written
	matching     atomic.Int64 // written, and match a rule
}

// startLogWriter starts a writer for a container with the number index.
func (k *kafkaSetup) startLogWriter(index, linesPerFile, files int) {
	id := fmt.Sprintf("%064x", 0xc0ffee00+index)
	dir := filepath.Join(k.dir, "root", "containers", id)
	writer := &logWriter{setup: k, id: id, dir: dir, linesPerFile: linesPerFile, files: files}
	k.check(os.MkdirAll(writer.dir, 0o700))
	k.writers = append(k.writers, writer)
	k.running.Go(func() {
		if err := writer.writeLines(); err != nil {
			k.t.Errorf("write the log of %s: %v", id, err)
		}
	})
}

// writtenLines returns the number of lines that all writers have written.
func (k *kafkaSetup) writtenLines() float64 {
	lines := int64(0)
	for _, writer := range k.writers {
		lines += writer.lines.Load()
	}
	return float64(lines)
}

// writeLines writes a line every 8 ms until stop is closed. Every twentieth line matches a rule.
func (w *logWriter) writeLines() error {
	path := filepath.Join(w.dir, w.id+"-json.log")
	open := func() (*os.File, error) {
		return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	}
	file, err := open()
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	ticker := time.NewTicker(8 * time.Millisecond)
	defer ticker.Stop()
	for line, linesInFile := int64(0), 0; ; line++ {
		select {
		case <-w.setup.stop:
			return nil
		case <-ticker.C:
		}
		text := fmt.Sprintf("line %d", line)
		if line%20 == 7 {
			text = fmt.Sprintf("Failed password for invalid user u%d from 203.0.113.4 port 51515 ssh2", line)
			w.matching.Add(1)
		}
		now := time.Now().UTC().Format(time.RFC3339Nano)
		if _, err := fmt.Fprintf(file, `{"log":"%s\n","stream":"stdout","time":"%s"}`+"\n", text, now); err != nil {
			return err
		}
		w.lines.Add(1)

		// A full file is rotated: name → name.1 → name.2 and so on, and the last one is replaced.
		if linesInFile++; linesInFile < w.linesPerFile || !w.setup.rotation.TryRLock() {
			continue
		}
		linesInFile = 0
		_ = file.Close()
		for number := w.files - 1; number > 0; number-- {
			from := fmt.Sprintf("%s.%d", path, number-1)
			if number == 1 {
				from = path
			}
			_ = os.Rename(from, fmt.Sprintf("%s.%d", path, number)) // the first rotations find no older files
		}
		file, err = open()
		w.setup.rotation.RUnlock()
		if err != nil {
			return err
		}
	}
}
