package engine

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tidegate/pipeline/embedded"
	"tidegate/pipeline/kafka"
)

// apacheKafka starts Apache Kafka 4.1 and returns its address.
func apacheKafka(t *testing.T) []string {
	t.Helper()
	addr, _ := startApacheKafka(t)
	return []string{addr}
}

// startApacheKafka starts Apache Kafka 4.1, one node for both roles, and returns its address and its process.
// The libraries are in the cache, where deploy/setup-test.sh puts them.
func startApacheKafka(t *testing.T) (addr string, pid int) {
	t.Helper()
	libs := filepath.Join(embedded.CacheDir(), "kafka-4.1.0", "libs")
	if _, err := os.Stat(libs); err != nil {
		t.Fatalf("Apache Kafka is not there, deploy/setup-test.sh fetches it: %v", err)
	}

	// The broker gets one free port, the controller the other.
	dir, ports := t.TempDir(), [2]int{}
	for i := range ports {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ports[i] = listener.Addr().(*net.TCPAddr).Port
		listener.Close()
	}
	properties := fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:%[2]d
listeners=PLAINTEXT://127.0.0.1:%[1]d,CONTROLLER://127.0.0.1:%[2]d
advertised.listeners=PLAINTEXT://127.0.0.1:%[1]d
controller.listener.names=CONTROLLER
log.dirs=%[3]s/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
`, ports[0], ports[1], dir)
	file := filepath.Join(dir, "server.properties")
	if err := os.WriteFile(file, []byte(properties), 0o600); err != nil {
		t.Fatal(err)
	}
	java := func(args ...string) *exec.Cmd {
		options := []string{"-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", libs + "/*"}
		cmd := exec.Command("java", append(options, args...)...)
		cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return cmd
	}
	format := java("kafka.tools.StorageTool", "format", "-t", "bWVvd21lb3dtZW93bWVvdw", "-c", file)
	if out, err := format.CombinedOutput(); err != nil {
		t.Fatalf("format: %v: %s", err, out)
	}

	server := java("kafka.Kafka", file)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	addr = fmt.Sprintf("127.0.0.1:%d", ports[0])
	waitUntil(t, "Apache Kafka", func() bool {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return addr, server.Process.Pid
}

// TestApacheKafkaReassignsThePartitionsOfAKilledMember: two engines are a consumer group on a real broker.
// One is killed within a block, the other finishes the block, and each event is stored once.
func TestApacheKafkaReassignsThePartitionsOfAKilledMember(t *testing.T) {
	scenario := newScenario(t, "apache", harnessAt(t, apacheKafka(t), 4, kafka.AssignGroup), 4, kafka.AssignGroup)
	for partition := range 4 {
		scenario.send(partition, 8, 25)
	}

	first := scenario.childConfig
	first.Failpoint, first.Passage = AfterIntent, 5
	killed, out := startChild(t, first)
	survivor, survivorOut := startChild(t, scenario.childConfig)
	for range 4 {
		for partition := range 4 {
			scenario.send(partition, 2, 25)
		}
		time.Sleep(200 * time.Millisecond)
	}

	waitKilled(t, killed, out)
	scenario.waitClosed(4, 16)
	_ = survivor.Process.Signal(syscall.SIGTERM)
	if err := survivor.Wait(); err != nil || strings.Contains(survivorOut.String(), "child:") {
		t.Errorf("the survivor ended with %v: %s", err, survivorOut)
	}
	scenario.checkStoredOnce(t)
	scenario.checkAlerts(t)
}
