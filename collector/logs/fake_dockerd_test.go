package logs

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

// fakeDockerd writes a container's log as the real one does: the same records, parts and rotation.
type fakeDockerd struct {
	t        testing.TB
	root     string
	id       string
	dir      string
	path     string
	f        *os.File
	size     int64
	maxSize  int64
	maxFile  int
	compress bool
	attrs    string
	now      time.Time
}

func newDockerd(t testing.TB, root string, n int) *fakeDockerd {
	t.Helper()
	id := fmt.Sprintf("%064x", 0xc0ffee0000+n)
	d := &fakeDockerd{t: t, root: root, id: id, dir: filepath.Join(root, "containers", id), maxSize: 1 << 40, maxFile: 1, now: time.Date(2026, 11, 24, 23, 8, 0, 5, time.UTC)}
	d.path = filepath.Join(d.dir, id+"-json.log")
	d.must(os.MkdirAll(d.dir, 0o700))
	d.openLog()
	return d
}

func (d *fakeDockerd) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *fakeDockerd) openLog() {
	d.t.Helper()
	var err error
	d.f, err = os.OpenFile(d.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	d.must(err)
	fi, err := d.f.Stat()
	d.must(err)
	d.size = fi.Size()
}

// encode is one record with its newline.
func (d *fakeDockerd) encode(payload, stream string, at time.Time) []byte {
	text, _ := json.Marshal(payload)
	text = bytes.ReplaceAll(text, []byte("\ufffd"), []byte(`\ufffd`))
	return fmt.Appendf(nil, "{\"log\":%s,\"stream\":%q%s,\"time\":%q}\n", text, stream, d.attrs, at.Format(time.RFC3339Nano))
}

// writeRecord writes one record, rotating first if the file is full.
func (d *fakeDockerd) writeRecord(payload, stream string, at time.Time) {
	d.t.Helper()
	if d.size >= d.maxSize {
		d.rotate()
	}
	n, err := d.f.Write(d.encode(payload, stream, at))
	d.must(err)
	d.size += int64(n)
}

// writeLog writes text as a container writes it: cut into lines and these into parts; a last piece without newline ends the stream.
func (d *fakeDockerd) writeLog(stream, text string) {
	d.t.Helper()
	for text != "" {
		d.now = d.now.Add(137)
		line, rest, found := strings.Cut(text, "\n")
		text = rest
		for len(line) >= partBytes {
			d.writeRecord(line[:partBytes], stream, d.now)
			line = line[partBytes:]
		}
		if found {
			d.writeRecord(line+"\n", stream, d.now)
		} else if line != "" {
			d.writeRecord(line, stream, d.now)
		}
	}
}

func (d *fakeDockerd) rotate() {
	d.t.Helper()
	d.must(d.f.Close())
	ext := ""
	if d.compress {
		ext = ".gz"
	}
	if d.maxFile < 2 {
		d.must(os.Remove(d.path))
	} else {
		_ = os.Remove(fmt.Sprintf("%s.%d%s", d.path, d.maxFile-1, ext))
		for i := d.maxFile - 1; i > 1; i-- {
			_ = os.Rename(fmt.Sprintf("%s.%d%s", d.path, i-1, ext), fmt.Sprintf("%s.%d%s", d.path, i, ext))
		}
		d.must(os.Rename(d.path, d.path+".1"))
	}
	d.openLog()
	if d.compress && d.maxFile > 1 {
		d.gzip(d.path + ".1")
	}
}

// gzip compresses a file as dockerd does: into one beside it, with the time of the last record in the header, then the original
// is removed.
func (d *fakeDockerd) gzip(path string) {
	d.t.Helper()
	b, err := os.ReadFile(path)
	d.must(err)
	out, err := os.Create(path + ".gz")
	d.must(err)
	z := gzip.NewWriter(out)
	z.Extra = fmt.Appendf(nil, `{"lastTime":%q}`, d.now.Format(time.RFC3339Nano))
	_, err = z.Write(b)
	d.must(err)
	d.must(z.Close())
	d.must(out.Close())
	d.must(os.Remove(path))
}

// remove is docker rm.
func (d *fakeDockerd) remove() {
	d.t.Helper()
	d.must(d.f.Close())
	d.must(os.RemoveAll(d.dir))
}

// writeRaw appends bytes that dockerd would not write.
func (d *fakeDockerd) writeRaw(b string) {
	d.t.Helper()
	n, err := d.f.WriteString(b)
	d.must(err)
	d.size += int64(n)
}
