package main

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline/engine"
)

// testKills kills the engine at each failpoint of a block, the embedded ClickHouse, and the collector, while
// two containers write lines without a pause. Clients pause while the collector is down: their packets would
// not be captured.
func (s *e2eSystem) testKills(t *testing.T) {
	s = s.withTest(t)
	const lines = 12000
	writers := []string{"writer-a", "writer-b"}
	for _, name := range writers {
		s.runClient(workload{Case: name, Lines: lines, Interval: 6 * time.Millisecond},
			"-d", "--name", name, "--log-opt", "max-size=2m", "--log-opt", "max-file=4")
	}
	web, cache := s.containerAddress("web", "bridge", "4"), s.containerAddress("cache", "bridge", "4")
	rounds := 0
	// sendTraffic makes 20 transactions of each protocol, and one that matches a rule.
	sendTraffic := func() {
		name := fmt.Sprintf("kill%d", rounds)
		s.runClient(workload{Case: name, Transactions: 20, HTTP: web + ":8080", Redis: cache + ":6379"}, "--rm")
		s.runContainer("--rm", "--", "redis-cli", "-h", cache, "CONFIG", "SET", "dbfilename", name)
		rounds++
	}

	for _, failpoint := range engine.Failpoints {
		s.killProcess("analyze")
		s.startProcess("analyze", []string{"TIDEGATE_FAILPOINT=" + failpoint + ":2"}, "analyze")
		sendTraffic()
		s.waitExit("analyze", sendTraffic)
		s.startProcess("analyze", nil, "analyze")
		sendTraffic()
	}
	for range 2 {
		s.killStore()
		sendTraffic()
	}

	expectRound := func(round int) {
		s.expectRows("http after kills", fmt.Sprintf(`SELECT count(), uniqExact("event.id") FROM events
			WHERE "event.dataset" = 'http' AND "url.path" LIKE '/e2e/kill%d/%%'`, round), "20 20")
		s.expectRows("redis after kills", fmt.Sprintf(`SELECT count(), uniqExact("event.id") FROM events
			WHERE "event.dataset" = 'redis' AND "redis.key" LIKE 'e2e:kill%d:%%'`, round), "20 20")
		s.expectRows("the round has a verdict", fmt.Sprintf(`SELECT count() FROM events
			WHERE "event.dataset" = 'redis' AND "redis.args"[2] = 'kill%d' AND has("verdict.detector", 'rules')`, round), "1")
	}

	// The collector is killed when all captured traffic is stored and no client sends.
	for range 2 {
		expectRound(rounds - 1)
		acknowledged := sumSamples(s.fetchMetrics(collectorPort), "tidegate_collector_events_safe_total")
		s.docker("kill", "-s", "KILL", "collector")
		s.docker("start", "collector")
		s.waitMetrics(collectorPort)
		s.waitMetric(collectorPort, `tidegate_capture_workers{interface="docker0"}`, 1)
		sendTraffic()
		s.expectAtLeast("every acknowledged event is stored", `SELECT count() FROM events`, acknowledged)
	}

	// Every transaction and every line is stored once.
	for round := range rounds {
		expectRound(round)
	}
	for _, name := range writers {
		s.docker("wait", name)
		s.expectRows("every line of "+name, fmt.Sprintf(`SELECT count(), uniqExact("event.id"),
				uniqExact(extract(message, 'line (\\d+)')), max(length(message)) > 40000
			FROM events WHERE "event.dataset" = 'log' AND "container.name" = '%s'`, name),
			fmt.Sprintf("%d %d %d 1", lines, lines, lines))
	}

	// Alerts of rules over one event depend only on the verdicts: the sum of their counts is the number of stored verdicts.
	s.expectRows("alerts count the stored verdicts", `SELECT
		(SELECT sum(count) FROM alerts WHERE rule IN (SELECT arrayJoin("verdict.rule") FROM events))
			= (SELECT sum(length("verdict.rule")) FROM events)`, "1")
}

// expectAtLeast waits until the number that a query returns is at least minimum.
func (s *e2eSystem) expectAtLeast(what, sql string, minimum float64) {
	s.t.Helper()
	s.eventually(what, 60*time.Second, func() string {
		rows, err := s.queryRows(sql)
		if err != nil {
			return err.Error()
		}
		if count, err := strconv.ParseFloat(rows[0][0], 64); err != nil || count < minimum {
			return fmt.Sprintf("%v, want at least %v", rows, minimum)
		}
		return ""
	})
}

// killStore kills the process of the embedded ClickHouse; its supervisor restarts it.
func (s *e2eSystem) killStore() {
	s.t.Helper()
	parent := s.processes["embedded"].Process.Pid
	out := s.mustRun(s.hostCommand("ps", "-o", "pid=", "--ppid", strconv.Itoa(parent)))
	for pid := range strings.FieldsSeq(out) {
		s.mustRun(s.hostCommand("kill", "-9", pid))
	}
	if strings.TrimSpace(out) == "" {
		s.t.Error("the embedded ClickHouse has no process")
	}
}
