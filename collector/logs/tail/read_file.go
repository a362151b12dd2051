package tail

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"tidegate/collector"
	"tidegate/collector/logs/discover"
)

// ReadFile reads one file of a log to its end and does not follow rotation. handler receives its lines, with
// the producer that ship returns for the file.
func ReadFile(
	ctx context.Context, cfg Config, log discover.Log, handler Handler, ship collector.Shipper,
) error {
	fd, err := openLog(log.Dir, log.Base)
	if err != nil {
		return fmt.Errorf("open log file: %w", err)
	}

	// A tailer without a goroutine: readAvailable is called here until the end of the file.
	group := NewGroup(cfg, slog.New(slog.DiscardHandler), nil)
	group.ship = ship
	group.budget.acquireDescriptor()
	tailer := newTailer(group, log, handler, 0)
	tailer.folderGone.Store(true) // no file will be added

	rank := discover.Rank{Compressed: strings.HasSuffix(log.Base, ".gz")}
	f := tailer.registerFile(listedFile{log.Base, rank}, fd, nil)
	if f == nil || f.done {
		return fmt.Errorf("read log file %s: it has no file handle, or its compression is damaged", tailer.path)
	}
	tailer.files = []*file{f}

	// Read to the end. The file is final, since its folder counts as gone: open lines are flushed there.
	for more := true; more; {
		if more, err = tailer.readAvailable(ctx); err != nil {
			return fmt.Errorf("read log file %s: %w", tailer.path, err)
		}
	}
	if f.readErr != nil {
		return fmt.Errorf("read log file %s: after unzipped byte %d: the file is cut or broken there: %w",
			tailer.path, f.offset, f.readErr)
	}
	return ctx.Err()
}
