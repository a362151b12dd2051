package logs

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector"
	"tidegate/pipeline"
)

// ReadFile reads one log file to its end, as `tidegate replay` does: the file alone, without rotation, positions and names. The
// container's id is taken from a name of Docker's form, <id>-json.log. What is no record is given as text, as from a live file.
func ReadFile(ctx context.Context, cfg Config, path string, collectorID pipeline.ID, emit func(*pipeline.Event)) error {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	fd, err := openLog(dir, base)
	if err != nil {
		return fmt.Errorf("open log file: %w", err)
	}
	s := New(cfg, nil, collectorID, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	s.notBefore, s.ship = 0, callbackShipper{emit}
	s.budget.acquireDescriptor()
	plain, gz := strings.CutSuffix(base, ".gz")
	id, named := strings.CutSuffix(plain, "-json.log")
	c := newTailer(s, id, dir, base, 0)
	if named {
		c.metadata = c.idOnly
	}
	c.folderGone.Store(true) // what is there is all there will be
	f := c.registerFile(listedFile{name: base, gz: gz}, fd)
	if f == nil || f.done {
		return fmt.Errorf("read log file %s: it cannot be told from another, or its compression is damaged", path)
	}
	c.files = []*file{f}
	for more := true; more; {
		if more, err = c.readAvailable(ctx); err != nil {
			return fmt.Errorf("read log file %s: %w", path, err)
		}
	}
	if f.readErr != nil {
		return fmt.Errorf("read log file %s: after unzipped byte %d: the file is cut or broken there: %w", path, f.offset, f.readErr)
	}
	return ctx.Err()
}

// callbackShipper is a Shipper and its only lane, which hands events on.
type callbackShipper struct{ emit func(*pipeline.Event) }

// File is its only producer.
func (o callbackShipper) File(string) collector.FileProducer { return o }

// Packets is not used by a reader of files.
func (o callbackShipper) Packets(string) collector.PacketProducer { return nil }

// Prune has nothing to drop.
func (o callbackShipper) Prune(func(string) bool) {}

func (o callbackShipper) Ship(ctx context.Context, e *pipeline.Event, _ collector.Checkpoint) error {
	o.emit(e)
	return ctx.Err()
}

// Resume says that the file is new.
func (callbackShipper) Resume() (collector.Checkpoint, bool) { return collector.Checkpoint{}, false }

// SourceGone and Close have nothing to let go of.
func (callbackShipper) SourceGone() {}

// Close is as SourceGone.
func (callbackShipper) Close(bool) {}
