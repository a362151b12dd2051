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
// two containers write lines without a pause. Clients pause while the collector is down, because their
// packets would not be captured.
func (s *e2eSystem) testKills(t *testing.T) {
	s = s.withTest(t)
	const lines = 12000
	for _, name := range []string{"writer-a", "writer-b"} {
		s.runClient(workload{Case: name, Lines: lines, Interval: 6 * time.Millisecond}, "-d", "--name", name, "--log-opt", "max-size=2m", "--log-opt", "max-file=4")
	}
	web, cache := s.containerAddress("web", "bridge", "4")+":8080", s.containerAddress("cache", "bridge", "4")+":6379"
	rounds := 0
	sendTraffic := func() {
		s.runClient(workload{Case: fmt.Sprintf("kill%d", rounds), Transactions: 20, HTTP: web, Redis: cache}, "--rm")
		s.runContainer("--rm", "--", "redis-cli", "-h", strings.TrimSuffix(cache, ":6379"), "CONFIG", "SET", "dbfilename", fmt.Sprintf("kill%d", rounds))
		rounds++
	}
	for _, failpoint := range engine.Failpoints {
		s.killProcess("analyze")
		s.startProcess("analyze", []string{"TIDEGATE_FAILPOINT=" + failpoint + ":2"}, "analyze")
		sendTraffic()
		s.waitExit("analyze")
		s.startProcess("analyze", nil, "analyze")
		sendTraffic()
	}
	for range 2 {
		s.killStore()
		sendTraffic()
	}
	for range 2 {
		time.Sleep(2 * time.Second) // all captured traffic is acknowledged; no client sends
		acknowledged := sumSamples(s.fetchMetrics(9464), "tidegate_collector_events_safe_total")
		s.docker("kill", "-s", "KILL", "collector")
		s.docker("start", "collector")
		s.waitMetrics(9464)
		s.waitMetric(9464, `tidegate_capture_workers{interface="docker0"}`, 1)
		sendTraffic()
		s.expectCount("what was acknowledged is there", `SELECT count() FROM events`, acknowledged)
	}
	for round := range rounds {
		s.expectRows("http after kills", fmt.Sprintf(`SELECT count(), uniqExact("event.id") FROM events WHERE "event.dataset" = 'http' AND "url.path" LIKE '/e2e/kill%d/%%'`, round), "20 20")
		s.expectRows("redis after kills", fmt.Sprintf(`SELECT count(), uniqExact("event.id") FROM events WHERE "event.dataset" = 'redis' AND "redis.key" LIKE 'e2e:kill%d:%%'`, round), "20 20")
	}
	for _, name := range []string{"writer-a", "writer-b"} {
		s.docker("wait", name)
		s.expectRows("every line of "+name, fmt.Sprintf(`SELECT count(), uniqExact("event.id"), uniqExact(extract(message, 'line (\\d+)')), max(length(message)) > 40000 FROM events WHERE "event.dataset" = 'log' AND "container.name" = '%s'`, name), fmt.Sprintf("%d %d %d 1", lines, lines, lines))
	}
	// Alerts depend only on the verdicts: they count exactly the stored verdicts, whatever was killed.
	s.expectRows("alerts count what is stored", `SELECT (SELECT sum(count) FROM alerts_now) = (SELECT sum(length("verdict.rule")) FROM events)`, "1")
	s.expectRows("the rule of every round is in its alert", fmt.Sprintf(`SELECT countIf("redis.args"[2] LIKE 'kill%%') >= %d FROM events WHERE "event.dataset" = 'redis' AND has("verdict.detector", 'rules')`, rounds), "1")
}

func (s *e2eSystem) expectCount(what, sql string, least float64) {
	s.t.Helper()
	s.eventually(what, 60*time.Second, func() string {
		rows, err := s.queryRows(sql)
		if err != nil {
			return err.Error()
		}
		if count, err := strconv.ParseFloat(rows[0][0], 64); err != nil || count < least {
			return fmt.Sprintf("%v, want at least %v", rows, least)
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
		s.t.Error("there is no child that could be the store")
	}
}
