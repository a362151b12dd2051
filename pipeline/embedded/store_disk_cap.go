package embedded

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"tidegate/pipeline/clickhouse"
)

// The cap on disk counts active parts, and drops one part of the table events at a time: whole partitions, and
// parts that merges have made outdated, may be many times what has to go. A merge writes its result beside its
// sources, which stay on disk for old_parts_lifetime. The cap therefore leaves a share for them, and merges are
// bounded to parts that are small against it, so that one drop frees little more than is needed.
const (
	mergeShare    = 20 // a merge makes no part larger than 1/mergeShare of the cap
	outdatedShare = 10 // 1/outdatedShare of the cap is left for parts that are outdated or being written
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

// enforceDiskCap drops the oldest parts of the events, but never the newest one, while the active parts of all
// tables exceed their share of MaxDiskBytes. The drops of one call are logged in one line, and counted.
func (s *StoreServer) enforceDiskCap(ctx context.Context) error {
	var active, onDisk int64
	const sizes = "SELECT sumIf(bytes_on_disk, active), sum(bytes_on_disk) FROM system.parts"
	if err := s.queryRow(ctx, sizes, &active, &onDisk); err != nil {
		return err
	}
	s.metrics.bytes.Set(float64(onDisk))
	limit := int64(s.cfg.MaxDiskBytes) - int64(s.cfg.MaxDiskBytes)/outdatedShare
	if limit <= 0 || active <= limit {
		return nil
	}

	var parts, rows, freed int64
	for active-freed > limit {
		dropped, err := s.dropOldestPart(ctx)
		if err != nil {
			return err
		}
		if dropped.bytes == 0 {
			break // one part is left
		}
		parts, rows, freed = parts+1, rows+dropped.rows, freed+dropped.bytes
	}
	if parts > 0 {
		s.log.Warn("embedded clickhouse reaches its cap on disk, oldest events dropped", "events", rows,
			"parts", parts, "bytes", freed, "used", active, "limit", limit, "max_disk_bytes", s.cfg.MaxDiskBytes)
	}
	return nil
}

// A droppedPart is the size of a part that was dropped.
type droppedPart struct{ rows, bytes int64 }

// dropOldestPart drops the part of the oldest day with the smallest block number. It returns a zero size where
// only one part is left. A merge may replace the part meanwhile; then the next part is tried, a few times.
func (s *StoreServer) dropOldestPart(ctx context.Context) (droppedPart, error) {
	const attempts = 5
	oldest := fmt.Sprintf(`SELECT count(), argMin(name, (partition_id, min_block_number)),
		argMin(rows, (partition_id, min_block_number)), argMin(bytes_on_disk, (partition_id, min_block_number))
		FROM system.parts WHERE active AND database = '%s' AND table = 'events'`, s.cfg.Database)
	var err error
	for range attempts {
		var count int64
		var name string
		var part droppedPart
		if err = s.queryRow(ctx, oldest, &count, &name, &part.rows, &part.bytes); err != nil || count < 2 {
			return droppedPart{}, err
		}
		if err = s.queryRow(ctx, fmt.Sprintf("ALTER TABLE `%s`.events DROP PART '%s'", s.cfg.Database, name)); err == nil {
			s.metrics.droppedRows.Add(float64(part.rows))
			s.metrics.droppedBytes.Add(float64(part.bytes))
			return part, nil
		}
	}
	return droppedPart{}, err
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
