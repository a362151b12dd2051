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

// apacheKafka starts Apache Kafka 4.1, one node for both roles, from the libraries in the cache, which
// deploy/setup-test.sh fetches, and returns its address.
func apacheKafka(t *testing.T) []string {
	t.Helper()
	libs := filepath.Join(embedded.CacheDir(), "kafka-4.1.0", "libs")
	if _, err := os.Stat(libs); err != nil {
		t.Fatalf("Apache Kafka is not there, deploy/setup-test.sh fetches it: %v", err)
	}
	dir, ports := t.TempDir(), [2]int{}
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ports[i] = l.Addr().(*net.TCPAddr).Port
		l.Close()
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
		cmd := exec.Command("java", append([]string{"-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", libs + "/*"}, args...)...)
		cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return cmd
	}
	if out, err := java("kafka.tools.StorageTool", "format", "-t", "bWVvd21lb3dtZW93bWVvdw", "-c", file).CombinedOutput(); err != nil {
		t.Fatalf("format: %v: %s", err, out)
	}
	server := java("kafka.Kafka", file)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	addr := fmt.Sprintf("127.0.0.1:%d", ports[0])
	waitUntil(t, "Apache Kafka", func() bool {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return []string{addr}
}

// TestApacheKafkaReassignsThePartitionsOfAKilledMember: a group of two engines on a real broker; one is
// killed within a block, the other finishes the block, and each event is stored once.
func TestApacheKafkaReassignsThePartitionsOfAKilledMember(t *testing.T) {
	s := newScenario(t, "apache", harnessAt(t, apacheKafka(t), 4, kafka.AssignGroup), 4, kafka.AssignGroup)
	for p := range 4 {
		s.send(p, 8, 25)
	}
	first := s.childConfig
	first.Failpoint, first.Passage = AfterIntent, 5
	killed, out := startChild(t, first)
	survivor, survivorOut := startChild(t, s.childConfig)
	for range 4 {
		for p := range 4 {
			s.send(p, 2, 25)
		}
		time.Sleep(200 * time.Millisecond)
	}
	waitKilled(t, killed, out)
	waitUntil(t, "closed intents", func() bool {
		for p := range 4 {
			if o, m := s.committed(p); o != 16 || m != "" {
				return false
			}
		}
		return true
	})
	_ = survivor.Process.Signal(syscall.SIGTERM)
	if err := survivor.Wait(); err != nil || strings.Contains(survivorOut.String(), "child:") {
		t.Errorf("the survivor ended with %v: %s", err, survivorOut)
	}
	s.checkStoredOnce(t)
	s.checkAlerts(t)
}
