// Package logstest is the test kit of collector/logs. Dockerd writes the log files of a container as dockerd
// does. Shipper keeps the shipped events in memory and outlives a simulated kill. BenchRecords are the input
// of benchmarks. Only tests import it.
package logstest

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// partBytes is the length at which dockerd cuts a line.
const partBytes = 16384

// A Dockerd writes the log of one container as dockerd does: with the same records, parts and rotation. Its
// fields may be changed before and between writes.
type Dockerd struct {
	t        testing.TB
	Root     string
	ID       string
	Dir      string
	Path     string
	File     *os.File
	size     int64
	MaxSize  int64
	MaxFile  int
	Compress bool
	Attrs    string
	Now      time.Time
}

// NewDockerd makes the folder of a container below root, and its log. number determines the id of the
// container.
func NewDockerd(t testing.TB, root string, number int) *Dockerd {
	t.Helper()
	id := fmt.Sprintf("%064x", 0xc0ffee0000+number)
	dockerd := &Dockerd{
		t: t, Root: root, ID: id, Dir: filepath.Join(root, "containers", id), MaxSize: 1 << 40, MaxFile: 1,
		Now: time.Date(2026, 11, 24, 23, 8, 0, 5, time.UTC),
	}
	dockerd.Path = filepath.Join(dockerd.Dir, id+"-json.log")
	dockerd.Must(os.MkdirAll(dockerd.Dir, 0o700))
	dockerd.openLog()
	return dockerd
}

// Must fails the test if err is not nil.
func (d *Dockerd) Must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// openLog opens or creates the log.
func (d *Dockerd) openLog() {
	d.t.Helper()
	var err error
	d.File, err = os.OpenFile(d.Path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	d.Must(err)
	info, err := d.File.Stat()
	d.Must(err)
	d.size = info.Size()
}

// encode returns one record with its newline.
func (d *Dockerd) encode(payload, stream string, at time.Time) []byte {
	text, _ := json.Marshal(payload)
	text = bytes.ReplaceAll(text, []byte("\ufffd"), []byte(`\ufffd`))
	return fmt.Appendf(nil, "{\"log\":%s,\"stream\":%q%s,\"time\":%q}\n",
		text, stream, d.Attrs, at.Format(time.RFC3339Nano))
}

// WriteRecord writes one record. It rotates first if the file is full.
func (d *Dockerd) WriteRecord(payload, stream string, at time.Time) {
	d.t.Helper()
	if d.size >= d.MaxSize {
		d.Rotate()
	}
	written, err := d.File.Write(d.encode(payload, stream, at))
	d.Must(err)
	d.size += int64(written)
}

// WriteLog writes the output text of a container as dockerd does: text is cut into lines, and lines into
// parts. A last line without a newline ends the stream.
func (d *Dockerd) WriteLog(stream, text string) {
	d.t.Helper()
	for text != "" {
		d.Now = d.Now.Add(137)
		line, rest, found := strings.Cut(text, "\n")
		text = rest
		for len(line) >= partBytes {
			d.WriteRecord(line[:partBytes], stream, d.Now)
			line = line[partBytes:]
		}
		if found {
			d.WriteRecord(line+"\n", stream, d.Now)
		} else if line != "" {
			d.WriteRecord(line, stream, d.Now)
		}
	}
}

// Rotate rotates the log: with MaxFile 1 it is removed, otherwise renamed, and with Compress compressed.
func (d *Dockerd) Rotate() {
	d.t.Helper()
	d.Must(d.File.Close())
	ext := ""
	if d.Compress {
		ext = ".gz"
	}
	if d.MaxFile < 2 {
		d.Must(os.Remove(d.Path))
	} else {
		_ = os.Remove(fmt.Sprintf("%s.%d%s", d.Path, d.MaxFile-1, ext))
		for i := d.MaxFile - 1; i > 1; i-- {
			_ = os.Rename(fmt.Sprintf("%s.%d%s", d.Path, i-1, ext), fmt.Sprintf("%s.%d%s", d.Path, i, ext))
		}
		d.Must(os.Rename(d.Path, d.Path+".1"))
	}
	d.openLog()
	if d.Compress && d.MaxFile > 1 {
		d.Gzip(d.Path + ".1")
	}
}

// Gzip compresses a file as dockerd does: into a file beside it, with the time of the last record in the
// header. Then it removes the original.
func (d *Dockerd) Gzip(path string) {
	d.t.Helper()
	data, err := os.ReadFile(path)
	d.Must(err)
	out, err := os.Create(path + ".gz")
	d.Must(err)
	writer := gzip.NewWriter(out)
	writer.Extra = fmt.Appendf(nil, `{"lastTime":%q}`, d.Now.Format(time.RFC3339Nano))
	_, err = writer.Write(data)
	d.Must(err)
	d.Must(writer.Close())
	d.Must(out.Close())
	d.Must(os.Remove(path))
}

// Remove removes the folder, as docker rm does.
func (d *Dockerd) Remove() {
	d.t.Helper()
	d.Must(d.File.Close())
	d.Must(os.RemoveAll(d.Dir))
}

// WriteRaw appends bytes that dockerd would not write.
func (d *Dockerd) WriteRaw(text string) {
	d.t.Helper()
	written, err := d.File.WriteString(text)
	d.Must(err)
	d.size += int64(written)
}
