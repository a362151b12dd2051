package embeddedtest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"tidegate/pipeline/embedded"
)

// ApacheKafka starts Apache Kafka 4.1, one node for both roles, with lines of settings beside its own, and returns its address and
// its process. The libraries are in the cache, where deploy/setup-test.sh puts them. It ends with the test.
func ApacheKafka(t testing.TB, settings string) (addr string, pid int) {
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
		_ = listener.Close()
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
%[4]s`, ports[0], ports[1], dir, settings)
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
	if out, err := java("kafka.tools.StorageTool", "format", "-t", "bWVvd21lb3dtZW93bWVvdw", "-c", file).CombinedOutput(); err != nil {
		t.Fatalf("format: %v: %s", err, out)
	}
	server := java("kafka.Kafka", file)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	addr = fmt.Sprintf("127.0.0.1:%d", ports[0])
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = conn.Close()
			return addr, server.Process.Pid
		}
		if time.Now().After(end) {
			t.Fatalf("Apache Kafka does not answer: %v", err)
		}
	}
}
