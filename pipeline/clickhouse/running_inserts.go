package clickhouse

import (
	"context"
	"fmt"

	"tidegate/pipeline"
)

// RunningInserts returns the number of inserts of blocks of a partition that the server works on. The server finishes
// an insert that it has received also when the client was killed meanwhile, so rows may appear later. RunningInserts
// returns 0 where the user may not read the list of queries.
func (s *Store) RunningInserts(ctx context.Context, from pipeline.TopicPartition) (count int, err error) {
	processes := "system.processes"
	if name := s.cfg.Cluster.Name; name != "" {
		processes = "clusterAllReplicas(" + quoteString(name) + ", system.processes)"
	}
	var running uint64
	err = s.driver.QueryRow(ctx, "SELECT count() FROM "+processes+
		" WHERE startsWith(query, ?) AND startsWith(Settings['insert_deduplication_token'], ?)",
		"INSERT INTO "+quoteName(s.cfg.Database)+".", fmt.Sprintf("%s/%d/", from.Topic, from.Partition)).Scan(&running)
	if errorCode(err) == codeAccessDenied {
		s.warnProcesses.Do(func() {
			s.log.Warn("user may not read the running queries of ClickHouse; inserts of a killed engine are not waited for",
				"user", s.cfg.Username, "err", describeError(err, s.cfg))
		})
		return 0, nil
	}
	return int(running), describeError(err, s.cfg)
}

// codeAccessDenied is ClickHouse's ACCESS_DENIED.
const codeAccessDenied = 497
