package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// builtDir is the folder of the binaries that buildBinary has built; TestMain removes it.
var builtDir atomic.Pointer[string]

// buildBinary builds the static binary that the whole-program tests run, with failpoints, and the program
// that loads the embedded ClickHouse. It builds them once and returns the path of the binary.
var buildBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tidegate-bin-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "bin")
	cmd := exec.Command("go", "build", "-tags", "failpoints", "-o", bin+"/",
		"tidegate/cmd/tidegate", "tidegate/cmd/tidegate-clickhouse")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return filepath.Join(bin, "tidegate"), nil
})

// binary returns the path that buildBinary returns.
func binary(t *testing.T) string {
	t.Helper()
	bin, err := buildBinary()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// An e2eSystem is tidegate on a dockerHost: three processes of the host and a collector in a container.
type e2eSystem struct {
	*dockerHost
	binary      string
	stateDir    string               // data_dir of every process
	webhookFile string               // holds the webhooks that were received
	processes   map[string]*exec.Cmd // by name; their logs are NAME.log
}

// The ports of the metrics of each process.
const (
	collectorPort = 9464 + iota
	enginePort
	publisherPort
	embeddedPort // of the process with broker and store
)

// e2eConfig is the configuration of every process, with the folder of the dockerHost and the port of the
// metrics.
const e2eConfig = `data_dir: %[1]s/state
host: dock1
cluster: e2e
metrics:
  listen: 127.0.0.1:%%d
logs:
  docker_data_root: %[1]s/root
containers:
  docker_host: unix://%[1]s/docker.sock
feeds:
- name: e2e
  path: %[1]s/feed.txt
alerts:
  alertmanager:
  - name: am
    url: http://127.0.0.1:9093
  webhooks:
  - name: hook
    url: http://127.0.0.1:9094/
`

// newE2ESystem starts everything but the collector, and builds the image of the collector.
func newE2ESystem(t *testing.T) *e2eSystem {
	host := newDockerHost(t)
	system := &e2eSystem{
		dockerHost: host, binary: binary(t), stateDir: filepath.Join(host.dir, "state"),
		webhookFile: filepath.Join(host.dir, "webhook.txt"), processes: map[string]*exec.Cmd{},
	}
	t.Cleanup(system.stopAll)

	feed := "bad.e2e.example,90,e2e\n192.0.2.66\n"
	host.check(os.WriteFile(filepath.Join(host.dir, "feed.txt"), []byte(feed), 0o600))
	system.writeConfig("analyze.yaml", enginePort)
	system.writeConfig("publish.yaml", publisherPort)
	system.writeConfig("collect.yaml", collectorPort)
	system.writeConfig("embedded.yaml", embeddedPort)

	system.startAlertPlatform()
	system.startProcess("embedded", nil, "run", "--only", "broker,store")
	system.waitMetrics(embeddedPort)
	system.startProcess("analyze", nil, "analyze")
	system.startProcess("publish", nil, "publish")
	system.buildImage()
	return system
}

// writeConfig writes a configuration with a port for the metrics.
func (s *e2eSystem) writeConfig(name string, port int) {
	template := fmt.Sprintf(e2eConfig, s.dir)
	s.check(os.WriteFile(filepath.Join(s.dir, name), fmt.Appendf(nil, template, port), 0o600))
}

// startAlertPlatform starts Alertmanager and a receiver of webhooks in the host's namespace.
func (s *e2eSystem) startAlertPlatform() {
	conf := filepath.Join(s.dir, "am.yml")
	s.check(os.WriteFile(conf, []byte("route:\n  receiver: none\nreceivers:\n- name: none\n"), 0o600))
	s.startCommand("alertmanager", s.hostCommand("prometheus-alertmanager", "--config.file="+conf,
		"--storage.path="+filepath.Join(s.dir, "am"), "--web.listen-address=127.0.0.1:9093",
		"--cluster.listen-address="))

	self, err := os.Executable()
	s.check(err)
	receiver := s.hostCommand(self)
	server := workload{ListenAddr: "127.0.0.1:9094", BodyFile: s.webhookFile}
	receiver.Env = append(os.Environ(), "TIDEGATE_WORK="+server.String())
	s.startCommand("webhook", receiver)
	s.waitTCP("127.0.0.1", "9093")
	s.waitTCP("127.0.0.1", "9094")
}

// startProcess starts tidegate in the host's namespace with the configuration NAME.yaml.
func (s *e2eSystem) startProcess(name string, env []string, args ...string) {
	s.t.Helper()
	args = append(args, "--config", filepath.Join(s.dir, name+".yaml"), "--log-level", "info")
	cmd := s.hostCommand(s.binary, args...)
	cmd.Env = append(os.Environ(), env...)
	s.startCommand(name, cmd)
}

// startCommand starts a command, which is killed if the test process ends.
func (s *e2eSystem) startCommand(name string, cmd *exec.Cmd) {
	s.t.Helper()
	out, err := os.OpenFile(filepath.Join(s.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	s.check(err)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.check(cmd.Start())
	_ = out.Close()
	s.processes[name] = cmd
}

// killProcess kills a process and waits until it has ended.
func (s *e2eSystem) killProcess(name string) {
	s.t.Helper()
	cmd := s.processes[name]
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	delete(s.processes, name)
}

// waitExit waits until a process ends by itself, at a failpoint. It calls again every few seconds, since traffic that
// comes in one block reaches a failpoint once only.
func (s *e2eSystem) waitExit(name string, again func()) {
	s.t.Helper()
	done := make(chan struct{})
	cmd := s.processes[name]
	go func() { _ = cmd.Wait(); close(done) }()
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); again() {
		select {
		case <-done:
			delete(s.processes, name)
			return
		case <-time.After(5 * time.Second):
		}
	}
	s.t.Fatalf("%s did not reach its failpoint\n%s", name, s.logTail(name))
}

// logTail returns the end of the log of a process.
func (s *e2eSystem) logTail(name string) []byte {
	output, _ := os.ReadFile(filepath.Join(s.dir, name+".log"))
	return tail(output, 3000)
}

// stopAll stops the processes, clients before servers. After a failure it logs the ends of their logs.
func (s *e2eSystem) stopAll() {
	if s.t.Failed() {
		for _, name := range []string{"embedded", "analyze", "publish"} {
			s.t.Logf("log of %s:\n%s", name, s.logTail(name))
		}
		logs := exec.Command("docker", "-H", s.socket(), "logs", "--tail", "40", "collector")
		if out, err := logs.CombinedOutput(); err == nil {
			s.t.Logf("log of collector:\n%s", out)
		}
	}
	s.stopProcesses("analyze", "publish", "embedded", "webhook", "alertmanager")
}

// stopProcesses stops processes, one after the other, and requires that each stops in time with exit code 0.
func (s *e2eSystem) stopProcesses(names ...string) {
	for _, name := range names {
		cmd := s.processes[name]
		if cmd == nil {
			continue
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			s.t.Errorf("%s did not end within 20 s of SIGTERM", name)
			_ = cmd.Process.Kill()
			<-ended
		}
	}
}

// buildImage builds the image of the collector with deploy/Dockerfile: FROM scratch, with only the binary.
func (s *e2eSystem) buildImage() {
	dockerfile, err := filepath.Abs("../../deploy/Dockerfile")
	s.check(err)
	context := filepath.Dir(filepath.Dir(s.binary))
	cmd := exec.Command("docker", "-H", s.socket(), "build", "-q", "-f", dockerfile, "-t", "tidegate", context)
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	s.mustRun(cmd)
}

// startCollector starts the container of the collector with exactly the capabilities and mounts of
// deploy/README.md.
func (s *e2eSystem) startCollector() {
	s.t.Helper()
	s.docker("run", "-d", "--name", "collector", "--network", "host",
		"--cap-drop", "ALL", "--cap-add", "NET_RAW", "--cap-add", "NET_ADMIN", "--read-only",
		"-v", s.dir+"/docker.sock:"+s.dir+"/docker.sock:ro",
		"-v", s.dir+"/root/containers:"+s.dir+"/root/containers:ro",
		"-v", "tidegate:"+s.stateDir,
		"-v", s.dir+"/collect.yaml:/etc/tidegate/tidegate.yaml:ro",
		"-v", s.dir+"/feed.txt:"+s.dir+"/feed.txt:ro",
		"tidegate", "collect", "--log-level", "info")
	s.waitMetrics(collectorPort)
	s.waitMetric(collectorPort, `tidegate_capture_workers{interface="docker0"}`, 1)
	s.waitMetric(collectorPort, `tidegate_capture_workers{interface="eth0"}`, 1)
}

// fetchMetrics returns the metrics of a process, or "".
func (s *e2eSystem) fetchMetrics(port int) string {
	out, _ := s.hostCommand("curl", "-sf", fmt.Sprintf("http://127.0.0.1:%d/metrics", port)).Output()
	return string(out)
}

// sumSamples returns the sum of the samples whose name and labels begin with prefix.
func sumSamples(text, prefix string) float64 {
	sum := 0.0
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, prefix) {
			value, _ := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
			sum += value
		}
	}
	return sum
}

// waitMetrics waits until a process serves metrics.
func (s *e2eSystem) waitMetrics(port int) {
	s.t.Helper()
	s.eventually("metrics at "+strconv.Itoa(port), 40*time.Second, func() string {
		if s.fetchMetrics(port) == "" {
			return "no answer"
		}
		return ""
	})
}

// waitMetric waits until the sum of the samples whose name and labels begin with name is at least minimum.
func (s *e2eSystem) waitMetric(port int, name string, minimum float64) {
	s.t.Helper()
	s.eventually(name, 30*time.Second, func() string {
		if value := sumSamples(s.fetchMetrics(port), name); value < minimum {
			return fmt.Sprintf("%v, want at least %v", value, minimum)
		}
		return ""
	})
}

// eventually waits until check returns "", and reports whether it did. Otherwise check returns what is wrong.
func (s *e2eSystem) eventually(what string, within time.Duration, check func() string) bool {
	s.t.Helper()
	var problem string
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if problem = check(); problem == "" {
			return true
		}
	}
	s.t.Errorf("%s: %s", what, problem)
	return false
}

// queryRows runs `tidegate query` and returns the rows, split into columns.
func (s *e2eSystem) queryRows(sql string) ([][]string, error) {
	configPath := filepath.Join(s.dir, "analyze.yaml")
	out, err := s.hostCommand(s.binary, "query", "--config", configPath, "-o", "tsv", sql).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("query: %w: %s", err, out)
	}
	var rows [][]string
	for line := range strings.Lines(string(out)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("query %s: no header", sql)
	}
	return rows[1:], nil
}

// expectRows waits until a query returns the rows want, with a blank between columns. A moment later it still must.
func (s *e2eSystem) expectRows(what, sql string, want ...string) {
	s.t.Helper()
	check := func() string {
		rows, err := s.queryRows(sql)
		if err != nil {
			return err.Error()
		}
		var got []string
		for _, row := range rows {
			got = append(got, strings.Join(row, " "))
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			return fmt.Sprintf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
		}
		return ""
	}
	if !s.eventually(what, 60*time.Second, check) {
		return
	}

	// A duplicate may come later than what it duplicates.
	time.Sleep(answerPause)
	if problem := check(); problem != "" {
		s.t.Errorf("%s: %s later: %s", what, answerPause, problem)
	}
}

// expectEndpoints requires the number of HTTP events of a case, of their ids and of partial ones among them,
// and then every pair of endpoints.
func (s *e2eSystem) expectEndpoints(what, caseName, want string) {
	s.t.Helper()
	s.expectRows(what, fmt.Sprintf(`SELECT count(), uniqExact("event.id"), countIf("event.partial"),
		arrayStringConcat(arraySort(groupUniqArray(concat("source.ip", '/', "source.container.name", ' ',
			"destination.ip", ':', toString("destination.port"), '/', "destination.container.name"))), ',')
		FROM events WHERE "event.dataset" = 'http' AND "url.path" LIKE '/e2e/%s/%%'`, caseName), want)
}
