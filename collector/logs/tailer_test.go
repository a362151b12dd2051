package logs

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
)

// tailerOf is a chain of d without a Source that runs: the test looks and reads when it wants to.
func tailerOf(d *fakeDockerd, ship *fakeShipper) *tailer {
	s := New(config(d.root), nil, pipeline.ID{1}, slog.New(slog.DiscardHandler), nil)
	s.ship = ship
	return newTailer(s, d.id, d.dir, d.id+"-json.log", 0)
}

// TestNoFileIsMissedWhileItIsRenamed: whatever rotation and compression do during a listing, after it each file that was there has a
// name and stands in its place.
func TestNoFileIsMissedWhileItIsRenamed(t *testing.T) {
	for _, compress := range []bool{false, true} {
		d, ship := newDockerd(t, t.TempDir(), 1), newFake()
		d.maxFile, d.compress = 30, compress
		c := tailerOf(d, ship)
		const rotations = 25
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range rotations {
				d.writeLog("stdout", fmt.Sprintf("line %d\n", i))
				d.rotate()
				time.Sleep(time.Duration(i%5) * 300 * time.Microsecond)
			}
			d.writeLog("stdout", fmt.Sprintf("line %d\n", rotations))
		}()
		for over := false; !over; {
			select {
			case <-done:
				over = true
			default:
			}
			if t.Failed() {
				<-done
				return
			}
			c.scanFolder()
			last := -1
			for _, f := range c.files {
				if f.name == "" {
					t.Errorf("compressed %v: a file is taken for gone that is there", compress)
				}
				if n := firstLine(f); n >= 0 {
					if n <= last {
						t.Errorf("compressed %v: line %d stands behind line %d", compress, n, last)
					}
					last = n
				}
			}
		}
		if len(c.files) != rotations+1 {
			t.Errorf("compressed %v: %d files, want %d", compress, len(c.files), rotations+1)
		}
		c.s.closeTailer(c)
		ship.check(t)
	}
}

// firstLine is the number of the first line of f, -1 if there is none yet.
func firstLine(f *file) int {
	b, n := make([]byte, 200), -1
	k, _ := f.readAt(b, 0)
	if _, err := fmt.Sscanf(string(b[:k]), `{"log":"line %d`, &n); err != nil {
		return -1
	}
	return n
}

// TestALineThatCouldNotBeShippedIsReadOnceMore: when a stop interrupts it, the last words go on with the same record.
func TestALineThatCouldNotBeShippedIsReadOnceMore(t *testing.T) {
	for _, compress := range []bool{false, true} {
		d, ship := newDockerd(t, t.TempDir(), 1), newFake()
		d.writeLog("stdout", strings.Repeat("a", 2*partBytes+3)+"\nnext\n")
		if compress {
			d.gzip(d.path)
			d.must(os.Rename(d.path+".gz", d.path+".1.gz"))
		}
		c := tailerOf(d, ship)
		c.scanFolder()
		stopped, stop := context.WithCancel(t.Context())
		stop()
		for range 3 {
			if _, err := c.readAvailable(stopped); err == nil {
				t.Fatal("a lane whose context is over takes a line")
			}
		}
		if _, err := c.readAvailable(t.Context()); err != nil {
			t.Fatal(err)
		}
		l := ship.all()
		if len(l) != 2 || len(l[0].message) != 2*partBytes+3 || l[0].bytes != 2*partBytes+3 || l[1].message != "next" {
			t.Errorf("compressed %v: %v", compress, l)
		}
		c.s.closeTailer(c)
	}
}

// TestAnOpenLineOutlivesAStop: a line without an end, in a file that no other follows, is not given up when the stop comes first.
func TestAnOpenLineOutlivesAStop(t *testing.T) {
	d, ship := newDockerd(t, t.TempDir(), 1), newFake()
	d.writeLog("stdout", strings.Repeat("a", partBytes))
	c := tailerOf(d, ship)
	c.scanFolder()
	d.remove()
	c.scanFolder()
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err := c.readAvailable(stopped); err == nil {
		t.Fatal("a lane whose context is over takes a line")
	}
	if _, err := c.readAvailable(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l := ship.all(); len(l) != 1 || len(l[0].message) != partBytes {
		t.Errorf("%v", l)
	}
	c.s.closeTailer(c)
	ship.check(t)
}

// TestACopyThatCannotBeOpenedKeepsItsLane: without descriptors nobody knows which file a compressed one is.
func TestACopyThatCannotBeOpenedKeepsItsLane(t *testing.T) {
	d, ship := newDockerd(t, t.TempDir(), 1), newFake()
	d.maxFile, d.compress = 3, true
	d.writeLog("stdout", "a\n")
	c := tailerOf(d, ship)
	c.scanFolder()
	if _, err := c.readAvailable(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.s.budget.maxFiles = 1
	d.rotate()
	c.scanFolder()
	c.s.closeTailer(c)
	for name, l := range ship.lanes {
		if l.dropped {
			t.Errorf("%s is forgotten, its file is there", name)
		}
	}
}
