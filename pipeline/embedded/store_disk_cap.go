package embedded

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"tidegate/pipeline/clickhouse"
)

// watchDisk enforces the cap on disk at every DiskCheckInterval until ctx ends.
func (s *StoreServer) watchDisk(ctx context.Context) {
	tick := time.NewTicker(s.cfg.DiskCheckInterval)
	defer tick.Stop()
	for {
		if err := s.enforceDiskCap(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("cannot check the disk use of the embedded clickhouse", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// enforceDiskCap drops the oldest events while the store exceeds MaxDiskBytes: whole days first, then the
// oldest parts of the last day, but never the newest part. Every drop is logged and counted.
func (s *StoreServer) enforceDiskCap(ctx context.Context) error {
	var used int64
	if err := s.queryRow(ctx, "SELECT sum(bytes_on_disk) FROM system.parts", &used); err != nil {
		return err
	}
	s.metrics.bytes.Set(float64(used))

	// The loop subtracts the size of dropped parts instead of measuring again, because dropped parts stay on
	// disk for a while.
	for s.cfg.MaxDiskBytes > 0 && used > int64(s.cfg.MaxDiskBytes) {
		freed, err := s.dropOldest(ctx, used)
		if err != nil || freed == 0 {
			return err
		}
		used -= freed
	}
	return nil
}

// dropOldest drops the oldest day, or the oldest part where only one day is left, and returns its size on
// disk. It returns 0 where only one part is left.
func (s *StoreServer) dropOldest(ctx context.Context, used int64) (int64, error) {
	events := fmt.Sprintf("FROM system.parts WHERE active AND database = '%s' AND table = 'events'", s.cfg.Database)
	var parts, days, rows, bytes int64
	var what, name string

	// A partition of the table is a day. The smallest partition id is the oldest day.
	counts := "SELECT count(), uniqExact(partition_id), min(partition_id) " + events
	if err := s.queryRow(ctx, counts, &parts, &days, &name); err != nil || parts < 2 {
		return 0, err
	}

	// Choose the oldest day, or the oldest part of the only day: the one with the smallest block number.
	sum := "SELECT sum(rows), sum(bytes_on_disk) " + events
	if days > 1 {
		what, sum = "PARTITION ID '"+name+"'", sum+" AND partition_id = '"+name+"'"
	} else {
		if err := s.queryRow(ctx, "SELECT argMin(name, min_block_number) "+events, &name); err != nil {
			return 0, err
		}
		what, sum = "PART '"+name+"'", sum+" AND name = '"+name+"'"
	}

	// Count the rows before they are dropped.
	if err := s.queryRow(ctx, sum, &rows, &bytes); err != nil {
		return 0, err
	}
	if err := s.queryRow(ctx, fmt.Sprintf("ALTER TABLE `%s`.events DROP %s", s.cfg.Database, what)); err != nil {
		return 0, err
	}
	s.metrics.droppedRows.Add(float64(rows))
	s.metrics.droppedBytes.Add(float64(bytes))
	s.log.Warn("embedded clickhouse exceeds its cap on disk, oldest events dropped",
		"dropped", what, "events", rows, "bytes", bytes, "used", used, "max_disk", s.cfg.MaxDiskBytes)
	return bytes, nil
}

// queryRow runs a statement as storeUser and scans the single row of its result into to. Without targets it
// ignores the result.
func (s *StoreServer) queryRow(ctx context.Context, sql string, to ...any) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var out bytes.Buffer
	if err := clickhouse.Query(ctx, s.adminConfig(), sql, "TSV", &out); err != nil || len(to) == 0 {
		return err
	}
	values := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\t")
	if len(values) != len(to) {
		return fmt.Errorf("%d values instead of %d", len(values), len(to))
	}
	for i, text := range values {
		switch target := to[i].(type) {
		case *string:
			*target = text
		default:
			if _, err := fmt.Sscan(text, target); err != nil {
				return err
			}
		}
	}
	return nil
}
