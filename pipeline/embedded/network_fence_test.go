package embedded_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded"
	"tidegate/pipeline/netnstest"
)

// datagrams returns how many UDP datagrams this network namespace has sent.
func datagrams(t *testing.T) (sent int) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/net/snmp")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if fields[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if name == "OutDatagrams" {
				if _, err := fmt.Sscan(fields[i], &sent); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return sent
}

// routeResolvers gives the addresses of the name servers to the loopback interface of this namespace, so that
// a question to one is sent and refused at once.
func routeResolvers(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return // 127.0.0.1 is asked
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "nameserver" {
			_ = exec.Command("ip", "address", "add", fields[1], "dev", "lo").Run() // fails for 127.0.0.53, which is there
		}
	}
}

// A listener counts the connections to a Unix socket.
type listener struct {
	dir   string
	count atomic.Int32
}

// listenUnix listens where a client of PostgreSQL on this host would connect. Everybody may connect.
func listenUnix(t *testing.T) *listener {
	t.Helper()
	dir, err := os.MkdirTemp("", "pg") // the paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, ".s.PGSQL.5432")
	socket, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	for _, name := range []string{dir, path} {
		if err := os.Chmod(name, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	l := &listener{dir: dir}
	go func() {
		for {
			conn, err := socket.Accept()
			if err != nil {
				return
			}
			l.count.Add(1)
			_ = conn.Close()
		}
	}()
	return l
}

// networkStatements are statements that resolve names or connect. $DIR is the folder of a Unix socket.
var networkStatements = []string{
	"SELECT * FROM remote('one.tidegate.example', system.one)",
	"SELECT * FROM url('http://two.tidegate.example/', 'LineAsString') SETTINGS http_max_tries = 1",
	"SELECT * FROM mysql('four.tidegate.example:3306', 'd', 't', 'u', 'p', " +
		"SETTINGS connection_max_tries = 1, connect_timeout = 1)",
	"SELECT * FROM postgresql('five.tidegate.example:5432', 'd', 't', 'u', 'p')",
	"SELECT * FROM postgresql('$DIR:5432', 'd', 't', 'u', 'p')",
	"SELECT * FROM mongodb('six.tidegate.example:27017', 'd', 'c', 'u', 'p', 'a String')",
	"SELECT * FROM redis('seven.tidegate.example:6379', 'k', 'k String, v String')",
	"SELECT * FROM remote('127.0.0.1:1', system.one)",
	"SELECT * FROM s3('http://eight.tidegate.example/b/k', 'LineAsString') SETTINGS s3_max_connections = 1, s3_retry_attempts = 0",
	"SELECT * FROM hdfs('hdfs://nine.tidegate.example:9000/x', 'LineAsString', 'line String')",
	"SELECT * FROM gcs('http://ten.tidegate.example/b/k', 'LineAsString') SETTINGS s3_retry_attempts = 0",
	"SELECT * FROM arrowFlight('eleven.tidegate.example:1', 'd')",
	"CREATE TABLE net_kafka (a String) ENGINE = Kafka('twelve.tidegate.example:9092', 't', 'g', 'LineAsString'); " +
		"SELECT * FROM net_kafka SETTINGS stream_like_engine_allow_direct_select = 1; DROP TABLE net_kafka",
	"CREATE TABLE net_nats (a String) ENGINE = NATS SETTINGS nats_url = '127.0.0.1:1', nats_subjects = 's', nats_format = 'TSV'",
	"CREATE TABLE net_rabbit (a String) ENGINE = RabbitMQ SETTINGS rabbitmq_host_port = '127.0.0.1:1'," +
		" rabbitmq_exchange_name = 'e', rabbitmq_format = 'TSV'",
	"CREATE DICTIONARY net_http (a UInt64, b String) PRIMARY KEY a SOURCE(HTTP(url 'http://thirteen.tidegate.example/' format 'TSV'))" +
		" LAYOUT(FLAT()) LIFETIME(0); SELECT dictGet('net_http', 'b', 1)",
	"CREATE DICTIONARY net_clickhouse (a UInt64, b String) PRIMARY KEY a SOURCE(CLICKHOUSE(host 'fourteen.tidegate.example'" +
		" port 9000 table 't')) LAYOUT(FLAT()) LIFETIME(0); SELECT dictGet('net_clickhouse', 'b', 1)",
	"CREATE NAMED COLLECTION net_named AS url = 'http://fifteen.tidegate.example/', format = 'LineAsString'; " +
		"SELECT * FROM url(net_named) SETTINGS http_max_tries = 1",
	"BACKUP TABLE system.one TO S3('http://sixteen.tidegate.example/x', 'a', 'b') SETTINGS s3_retry_attempts = 0",
	"SELECT * FROM cluster('default', system.one)", "SYSTEM RELOAD EMBEDDED DICTIONARIES",
}

// reach runs networkStatements and returns how many datagrams were sent and how many connections to the
// socket came.
func reach(t *testing.T, admin clickhouse.Config, socket *listener) (sent int, connections int32) {
	t.Helper()
	before := datagrams(t)
	for _, sql := range networkStatements {
		for part := range strings.SplitSeq(strings.ReplaceAll(sql, "$DIR", socket.dir), "; ") {
			if got, err := query(admin, part); err == nil && got != "" {
				t.Errorf("%s answers %q", part, got)
			}
		}
	}
	return datagrams(t) - before, socket.count.Load()
}

// syscallFilters returns how many filters of system calls a process has. A container's profile is one.
func syscallFilters(t *testing.T, pid int) (filters int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "\nSeccomp_filters:\t") // Linux 5.9
	if _, err := fmt.Sscan(after, &filters); err != nil {
		t.Fatalf("%v: %s", err, status)
	}
	return filters
}

// TestStoreSendsNothing counts what the store sends in a network namespace, where nobody else sends, while
// its admin tries to reach hosts and a Unix socket. The control is a store without a fence.
func TestStoreSendsNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a ClickHouse")
	}
	if !netnstest.Enter(t) {
		return
	}
	routeResolvers(t)
	socket := listenUnix(t)

	server := startStore(t, storeConfig(t.TempDir()), nil)
	admin := openStore(t, server).Config()
	pid := server.PID()
	if sent, connections := reach(t, admin, socket); sent != 0 || connections != 0 {
		t.Errorf("the store sends %d datagrams, and connects %d times to a Unix socket", sent, connections)
	}
	if server.PID() != pid {
		t.Error("the server was restarted meanwhile")
	}
	if own, filters := syscallFilters(t, os.Getpid()), syscallFilters(t, pid); filters != own+2 {
		t.Errorf("the process of the store has %d filters, this one %d", filters, own)
	}
	if err := server.Stop(context.Background()); err != nil {
		t.Error(err)
	}

	server = startStore(t, unfenced(t, storeConfig(t.TempDir())), nil)
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	if sent, connections := reach(t, openStore(t, server).Config(), socket); sent == 0 || connections == 0 {
		t.Errorf("a store without a fence sends %d datagrams and connects %d times: the statements prove nothing",
			sent, connections)
	}
}

// unfenced returns a configuration whose process loads the library without a fence.
func unfenced(t *testing.T, cfg embedded.StoreConfig) embedded.StoreConfig {
	t.Helper()
	cfg.Program = filepath.Join(t.TempDir(), "unfenced")
	script := "#!/bin/sh\nshift\nexec " + embedded.ProgramPath() + " load \"$@\"\n"
	if err := os.WriteFile(cfg.Program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return cfg
}
