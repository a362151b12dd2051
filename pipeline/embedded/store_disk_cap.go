package embedded

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/retry"
)

// The cap on disk counts active parts, and drops one part of the table events at a time: whole partitions, and
// parts that merges have made outdated, may be many times what has to go. A merge writes its result beside its
// sources, which stay on disk for old_parts_lifetime. The cap therefore leaves a share for them, and merges are
// bounded to parts that are small against it, so that one drop frees little more than is needed.
const (
	mergeShare    = 20 // a merge makes no part larger than 1/mergeShare of the cap
	outdatedShare = 10 // 1/outdatedShare of the cap is left for parts that are outdated or being written
)

// dropsPerMeasurement is how many parts are dropped before the disk is measured again.
const dropsPerMeasurement = 32

// watchDisk looks for damaged data and enforces the cap on disk at every DiskCheckInterval until ctx ends. Where a measurement takes longer than
// that, it waits for as long as the measurement took: a query of system.parts holds the parts that it reads, and
// ClickHouse removes no outdated part that is held.
func (s *StoreServer) watchDisk(ctx context.Context) {
	for {
		measured, err := s.enforceDiskCap(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("cannot check the disk use of the embedded clickhouse", "err", err)
		}
		if err := s.reportDamage(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("cannot look for damaged data of the embedded clickhouse", "err", err)
		}
		if retry.Sleep(ctx, max(s.cfg.DiskCheckInterval, measured)) != nil {
			return
		}
	}
}

// A storedPart is an active part of the table of events.
type storedPart struct {
	name        string
	rows, bytes int64
}

// enforceDiskCap drops the oldest parts of the events, but never the newest one, while the active parts of all
// tables exceed their share of MaxDiskBytes. The drops of one call are logged in one line, and counted. It returns how
// long the longest measurement took.
func (s *StoreServer) enforceDiskCap(ctx context.Context) (measured time.Duration, err error) {
	const attempts = 5 // of merges that replace the parts before they are dropped
	limit := int64(s.cfg.MaxDiskBytes) - int64(s.cfg.MaxDiskBytes)/outdatedShare
	var dropped []storedPart
	var used int64
	for failed := 0; failed < attempts; {
		began := time.Now()
		active, oldest, measureErr := s.measureDisk(ctx, limit)
		measured = max(measured, time.Since(began))
		if err = measureErr; err != nil || len(oldest) == 0 {
			break
		}
		used = max(used, active)
		parts, dropErr := s.dropParts(ctx, oldest, active-limit)
		dropped = append(dropped, parts...)
		if err = dropErr; err != nil {
			failed++
		}
	}
	s.logDropped(dropped, used, limit)
	return measured, err
}

// measureDisk returns the bytes of the active parts of all tables and, if they exceed limit, the oldest parts of the
// events without the newest: by day, and within a day by block number.
func (s *StoreServer) measureDisk(ctx context.Context, limit int64) (active int64, oldest []storedPart, err error) {
	var onDisk int64
	const sizes = "SELECT sumIf(bytes_on_disk, active), sum(bytes_on_disk) FROM system.parts"
	if err := s.queryRow(ctx, sizes, &active, &onDisk); err != nil {
		return 0, nil, err
	}
	s.metrics.bytes.Set(float64(onDisk))
	if limit <= 0 || active <= limit {
		return active, nil, nil
	}

	// A dropped part leaves an empty one for a while.
	statement := fmt.Sprintf(`SELECT name, rows, bytes_on_disk FROM system.parts
		WHERE active AND rows > 0 AND database = '%s' AND table = 'events'
		ORDER BY partition_id, min_block_number LIMIT %d`, s.cfg.Database, dropsPerMeasurement+1)
	lines, err := s.queryLines(ctx, statement)
	if err != nil || len(lines) < 2 {
		return active, nil, err
	}
	for _, line := range lines[:len(lines)-1] {
		var part storedPart
		if _, err := fmt.Sscan(line, &part.name, &part.rows, &part.bytes); err != nil {
			return active, nil, err
		}
		oldest = append(oldest, part)
	}
	return active, oldest, nil
}

// dropParts drops parts in their order until they have freed excess bytes, and returns those that it has dropped.
func (s *StoreServer) dropParts(ctx context.Context, parts []storedPart, excess int64) ([]storedPart, error) {
	for i, part := range parts {
		if excess <= 0 {
			return parts[:i], nil
		}
		drop := fmt.Sprintf("ALTER TABLE `%s`.events DROP PART '%s'", s.cfg.Database, part.name)
		if _, err := s.queryLines(ctx, drop); err != nil {
			return parts[:i], err
		}
		s.metrics.droppedRows.Add(float64(part.rows))
		s.metrics.droppedBytes.Add(float64(part.bytes))
		excess -= part.bytes
	}
	return parts, nil
}

func (s *StoreServer) logDropped(dropped []storedPart, used, limit int64) {
	if len(dropped) == 0 {
		return
	}
	var rows, freed int64
	for _, part := range dropped {
		rows, freed = rows+part.rows, freed+part.bytes
	}
	s.log.Warn("embedded clickhouse reaches its cap on disk, oldest events dropped", "events", rows,
		"parts", len(dropped), "bytes", freed, "used", used, "limit", limit, "max_disk_bytes", s.cfg.MaxDiskBytes)
}

// queryRow runs a statement as storeUser and scans the single row of its result, which is numbers, into to.
func (s *StoreServer) queryRow(ctx context.Context, sql string, to ...any) error {
	lines, err := s.queryLines(ctx, sql)
	if err != nil {
		return err
	}
	if len(lines) != 1 {
		return fmt.Errorf("%d rows instead of one", len(lines))
	}
	_, err = fmt.Sscan(lines[0], to...)
	return err
}

// queryLines runs a statement as storeUser and returns the rows of its result, in which blanks separate the values.
func (s *StoreServer) queryLines(ctx context.Context, sql string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var out bytes.Buffer
	if err := clickhouse.Query(ctx, s.adminConfig(), sql, "TSV", &out); err != nil {
		return nil, err
	}
	return strings.FieldsFunc(out.String(), func(r rune) bool { return r == '\n' }), nil
}
