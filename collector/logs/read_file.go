package logs

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"

	"tidegate/collector"
	"tidegate/collector/logs/decode"
	"tidegate/collector/logs/discover"
	"tidegate/collector/logs/tail"
	"tidegate/pipeline"
)

// ReadFile reads one log file to its end and passes its events to emit; `tidegate replay` calls it. It does
// not follow rotation and uses neither checkpoints nor container metadata. A file name of Docker's form
// (<id>-json.log) sets the id of the container. Lines that are not records of the format are emitted as text,
// as they are for a live file.
func ReadFile(
	ctx context.Context, cfg Config, path string, format decode.Format, collectorID pipeline.ID,
	emit func(*pipeline.Event),
) error {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	log := discover.Log{Dir: dir, Base: base, Format: format}
	if id, ok := strings.CutSuffix(strings.TrimSuffix(base, ".gz"), "-json.log"); ok {
		log.ID, log.Container = id, id
	}
	tailConfig := cfg.tail()
	tailConfig.NotBefore = 0
	source := New(cfg, nil, collectorID, slog.New(slog.DiscardHandler), nil)
	return tail.ReadFile(ctx, tailConfig, log, newLineHandler(source, log), callbackShipper{emit})
}

// callbackShipper is a collector.Shipper and its only producer. It passes events to a function.
type callbackShipper struct{ emit func(*pipeline.Event) }

// File implements collector.Shipper.
func (s callbackShipper) File(string) collector.FileProducer { return s }

// Packets implements collector.Shipper: a reader of files does not call it.
func (callbackShipper) Packets(string) collector.PacketProducer { return nil }

// Files implements collector.Shipper: nothing is stored.
func (callbackShipper) Files(string) []string { return nil }

// Prune implements collector.Shipper: nothing is kept.
func (callbackShipper) Prune(func(string) bool) {}

// Wait implements collector.FileProducer.
func (callbackShipper) Wait(context.Context, *pipeline.Container, collector.Checkpoint) error {
	return nil
}

// Ship implements collector.FileProducer.
func (s callbackShipper) Ship(ctx context.Context, e *pipeline.Event, _ collector.Checkpoint) error {
	s.emit(e)
	return ctx.Err()
}

// Resume implements collector.FileProducer: every file is new.
func (callbackShipper) Resume() (collector.Checkpoint, bool) { return collector.Checkpoint{}, false }

// SourceGone implements collector.FileProducer.
func (callbackShipper) SourceGone() {}

// Close implements collector.FileProducer.
func (callbackShipper) Close(bool) {}
