package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// kafkaVersion is the version that deploy/setup-test.sh fetches.
const kafkaVersion = "4.1.0"

// kafkaConfig is server.properties of a broker that is also the controller, with the folder of its log.
const kafkaConfig = `process.roles=broker,controller
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

// onKafkaConfig is the configuration of every process, with the folder of the dockerHost and the port of the
// metrics.
const onKafkaConfig = `data_dir: %[1]s/state
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

// A kafkaSetup is tidegate on Apache Kafka: a namespace with the broker, the embedded ClickHouse, two engines
// and a collector as separate processes, and the outside behind eth0. There is no dockerd: the test writes
// the log files of the containers.
type kafkaSetup struct {
	*e2eSystem
	jars     string // folder of the jars of Kafka
	writers  []*logWriter
	stop     chan struct{}  // closed when the writers must end
	running  sync.WaitGroup // of the writers
	rotation sync.RWMutex   // locked while no log may be rotated
}

// kafkaJars returns the folder of the jars of Kafka, which deploy/setup-test.sh fetches.
func kafkaJars(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("java"); err != nil {
		t.Fatalf("Apache Kafka needs java, which deploy/setup-test.sh installs: %v", err)
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
		t.Fatalf("Apache Kafka %s is not in %s; deploy/setup-test.sh fetches it", kafkaVersion, dir)
	}
	return filepath.Join(dir, "libs")
}

// newKafkaSetup starts everything but the collector.
func newKafkaSetup(t *testing.T) *kafkaSetup {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	jars := kafkaJars(t)
	host := &dockerHost{
		t: t, dir: t.TempDir(),
		hostNamespace: fmt.Sprintf("tgkafka%d", os.Getpid()), outsideNamespace: fmt.Sprintf("tgkout%d", os.Getpid()),
	}
	t.Cleanup(host.shutDown)
	host.createNetwork()
	system := &e2eSystem{
		dockerHost: host, binary: binary(t), stateDir: filepath.Join(host.dir, "state"),
		processes: map[string]*exec.Cmd{},
	}
	setup := &kafkaSetup{e2eSystem: system, jars: jars, stop: make(chan struct{})}
	t.Cleanup(setup.stopAll)
	template := fmt.Sprintf(onKafkaConfig, host.dir)
	for i, name := range []string{"collect", "analyze", "analyze-b", "store"} {
		path := filepath.Join(host.dir, name+".yaml")
		host.check(os.WriteFile(path, fmt.Appendf(nil, template, collectorPort+i), 0o600))
	}

	// The embedded store starts while Kafka does.
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

// javaCommand returns a command that runs a class of Kafka, with a small heap.
func (k *kafkaSetup) javaCommand(args ...string) *exec.Cmd {
	options := []string{
		"-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", k.jars + "/*",
	}
	return k.hostCommand("java", append(options, args...)...)
}

// formatKafka writes the configuration of the broker and formats its storage.
func (k *kafkaSetup) formatKafka() {
	conf := filepath.Join(k.dir, "server.properties")
	k.check(os.WriteFile(conf, fmt.Appendf(nil, kafkaConfig, filepath.Join(k.dir, "kafka")), 0o600))
	id := base64.RawURLEncoding.EncodeToString([]byte("tidegate's test!"))
	k.mustRun(k.javaCommand("kafka.tools.StorageTool", "format", "-t", id, "-c", conf))
}

func (k *kafkaSetup) startKafka() {
	k.startCommand("kafka", k.javaCommand("kafka.Kafka", filepath.Join(k.dir, "server.properties")))
}

// waitKafka waits until the broker accepts connections.
func (k *kafkaSetup) waitKafka() {
	k.t.Helper()
	k.eventually("kafka answers", 60*time.Second, func() string {
		if err := k.hostCommand("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9092").Run(); err != nil {
			return err.Error() + ": " + string(k.logTail("kafka"))
		}
		return ""
	})
}

// startCollector starts the collector and waits until it captures.
func (k *kafkaSetup) startCollector() {
	k.t.Helper()
	k.startProcess("collect", nil, "collect")
	k.waitMetrics(collectorPort)
	k.waitMetric(collectorPort, `tidegate_capture_workers{interface="eth0"}`, 1)
}

// stopAll stops the writers and the processes that still run, clients before servers. After a failure it logs
// the collector's counters and the ends of their logs.
func (k *kafkaSetup) stopAll() {
	select {
	case <-k.stop:
	default:
		close(k.stop)
	}
	k.running.Wait()
	order := []string{"collect", "analyze-b", "analyze", "store", "web", "kafka"}
	if k.t.Failed() {
		for line := range strings.Lines(k.fetchMetrics(collectorPort)) {
			if strings.HasPrefix(line, "tidegate_") && !strings.HasSuffix(line, " 0\n") {
				k.t.Log(strings.TrimSpace(line))
			}
		}
		for _, name := range order {
			k.t.Logf("log of %s:\n%s", name, k.logTail(name))
		}
	}
	k.stopProcesses(order...)
}

// requireNoFailure ends the test if it has failed: the following steps would only wait.
func (k *kafkaSetup) requireNoFailure() {
	k.t.Helper()
	if k.t.Failed() {
		k.t.FailNow()
	}
}

// waitKilled waits until a process is killed at its failpoint, and calls again as waitExit does.
func (k *kafkaSetup) waitKilled(name string, again func()) {
	k.t.Helper()
	cmd := k.processes[name]
	k.waitExit(name, again)
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		k.t.Fatalf("%s ended with %v\n%s", name, cmd.ProcessState, k.logTail(name))
	}
}
