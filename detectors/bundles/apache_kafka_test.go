package bundles

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/pipeline/embedded"
	"tidegate/pipeline/kafka"
)

// apacheKafka starts Apache Kafka 4.1 and returns a client, with the topics. Its log cleaner runs at once.
func apacheKafka(t *testing.T) *kafka.Client {
	t.Helper()
	libs := filepath.Join(embedded.CacheDir(), "kafka-4.1.0", "libs")
	if _, err := os.Stat(libs); err != nil {
		t.Fatalf("Apache Kafka is not there, deploy/setup-test.sh fetches it: %v", err)
	}
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
log.cleaner.backoff.ms=100
log.retention.check.interval.ms=200
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
	if out, err := java("kafka.tools.StorageTool", "format", "-t", "bWVvd21lb3dtZW93bWVvdw", "-c", file).CombinedOutput(); err != nil {
		t.Fatalf("format: %v: %s", err, out)
	}
	server := java("kafka.Kafka", file)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	addr := fmt.Sprintf("127.0.0.1:%d", ports[0])
	waitUntil(t, func() string {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return err.Error()
		}
		_ = conn.Close()
		return ""
	})
	return newClient(t, addr)
}

// TestApacheKafkaKeepsTheBundles: a real broker takes the settings of the topics and a bundle of the largest size. Its log
// cleaner removes the old bundles and no other, and an engine that starts behind it finds the newest.
func TestApacheKafkaKeepsTheBundles(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts Apache Kafka")
	}
	client := apacheKafka(t)
	key, keys := newKey(t)

	// The cleaner leaves the newest segment alone: small ones, so that the old ones are cleaned.
	response, err := client.Kafka().IncrementalAlterConfigs(t.Context(), &kafkago.IncrementalAlterConfigsRequest{
		Resources: []kafkago.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafkago.ResourceTypeTopic, ResourceName: testTopic, Configs: []kafkago.IncrementalAlterConfigsRequestConfig{
				{Name: "segment.bytes", Value: "5242880", ConfigOperation: kafkago.ConfigOperationSet},
				{Name: "min.cleanable.dirty.ratio", Value: "0.01", ConfigOperation: kafkago.ConfigOperationSet},
			},
		}},
	})
	if err != nil || response.Resources[0].Error != nil {
		t.Fatal(err, response)
	}
	engine := startEngine(t, client, t.TempDir(), keys)
	random := make([]byte, MaxMessage-(64<<10))
	for state, i := uint64(1), 0; i < len(random); i++ {
		state = state*6364136223846793005 + 1442695040888963407
		random[i] = byte(state >> 56)
	}
	files := map[string]string{"r.yaml": ruleText("one"), "list.txt": string(random)}
	var first int64
	for i := range History + 4 {
		files["number.txt"] = fmt.Sprint(i)
		bundle, _, err := Push(t.Context(), client, key, nil, Manifest{}, packFiles(t, files))
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = bundle.Sequence
		}
	}
	newest := push(t, client, key, ruleText("two"))
	engine.expect("two")
	waitUntil(t, func() string { // the record of the first bundle is gone
		found := ""
		reader := topicReader{client: client, topic: testTopic, next: -1}
		if err := reader.readToEnd(t.Context(), func(record kafka.Record) {
			if string(record.Key) == string(recordKey(first)) && len(record.Value) > 0 {
				found = "the log is not cleaned yet"
			}
		}); err != nil {
			return err.Error()
		}
		return found
	})
	list, refused, err := Read(t.Context(), client, keys)
	if err != nil || refused != 0 || len(list) != History || list[0].Sequence != newest.Sequence {
		t.Errorf("%d bundles, %d refused, %v", len(list), refused, err)
	}
	engine.restart()
	engine.expect("two")
	startEngine(t, client, t.TempDir(), keys).expect("two")
	expectReport(t, client, 1, "a report", func(r Report) bool { return r.Sequence == newest.Sequence && r.Rejected == 0 })
}
