//go:build linux

package differential

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tidegate/pipeline"
)

const (
	redisPort      = 6379
	redisOtherPort = 7000 // a port that hints at no protocol
)

// redisDNSHost is the address of a Redis on the port of DNS.
const redisDNSHost = "127.0.0.3"

func redisSubject(name string, port int, hosts ...string) *subject {
	return &subject{
		name: name, hosts: hosts, ports: []int{port}, share: 2, same: sameCommand, notLogged: notLogged,
		start: func(l *lab) {
			dir := filepath.Join(l.dir, name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				l.t.Fatal(err)
			}
			args := []string{
				"--port", fmt.Sprint(port), "--save", "", "--slowlog-log-slower-than", "0", "--slowlog-max-len", "10000000",
				"--dir", dir, "--bind",
			}
			l.start(name+".out", "redis-server", append(args, hosts...)...)
			l.waitTCPAt(hosts[0], port)
		},
		converse: func(random *rand.Rand, host, marker string) (conversation, error) {
			return converseRedis(random, host, port, marker)
		},
		log: func(l *lab) map[clientKey][]executed { return slowLog(l, hosts[0], port) },
	}
}

// slowLog returns all commands that Redis has executed, of each client. Redis keeps 31 arguments of 128 bytes.
func slowLog(l *lab, host string, port int) map[clientKey][]executed {
	conn, err := net.Dial("tcp", address(host, port))
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "SLOWLOG GET -1\r\n")
	reader := bufio.NewReaderSize(conn, 1<<20)
	reply, err := readRESP(reader)
	if err != nil {
		l.t.Fatalf("read the slow log: %v", err)
	}
	logged := map[clientKey][]executed{}
	entries := reply.([]any)
	for _, listed := range slices.Backward(entries) { // newest first
		entry := listed.([]any)
		var words []string
		var one executed
		for _, arg := range entry[3].([]any) {
			word := arg.(string)
			if strings.HasPrefix(word, "... (") && strings.HasSuffix(word, "more arguments)") {
				one.cut = true
				break
			}
			if at := strings.LastIndex(word, "... ("); at >= 0 && strings.HasSuffix(word, "more bytes)") {
				words, one.cut = append(words, word[:at]), true
				break
			}
			words = append(words, word)
		}
		client, err := netip.ParseAddrPort(entry[4].(string))
		if err != nil {
			continue // a command of a script or of a transaction without a client
		}
		one.text = strings.ToUpper(words[0]) + strings.Join(append([]string{""}, words[1:]...), " ")
		logged[keyOfClient(client)] = append(logged[keyOfClient(client)], one)
	}
	return logged
}

// readRESP reads a RESP2 value: a string, or a list of values.
func readRESP(reader *bufio.Reader) (any, error) {
	line, err := reader.ReadString('\n')
	if err != nil {
		return nil, err
	}
	kind, text := line[0], strings.TrimRight(line[1:], "\r\n")
	size, _ := strconv.Atoi(text)
	switch kind {
	case '$':
		if size < 0 {
			return "", nil
		}
		data := make([]byte, size+2)
		_, err := io.ReadFull(reader, data)
		return string(data[:size]), err
	case '*':
		values := make([]any, 0, max(size, 0))
		for range size {
			value, err := readRESP(reader)
			if err != nil {
				return nil, err
			}
			values = append(values, value)
		}
		return values, nil
	default:
		return text, nil
	}
}

// notLogged reports whether Redis leaves a command out of its slow log.
func notLogged(e observed) bool { return e.text == "EXEC" || strings.HasPrefix(e.text, "SLOWLOG") }

// sameCommand compares the words that both have: an event keeps fewer of a long command, and says so, and the log
// keeps the first bytes of a long word.
func sameCommand(e observed, logged executed) bool {
	if e.dataset != pipeline.Dataset_REDIS {
		return false
	}
	event, log := strings.ToUpper(e.text), strings.ToUpper(logged.text)
	if e.text != "" && (saysWhatWasCut(e) || logged.cut) {
		shared := min(len(event), len(log), 60)
		if shared < min(len(log), 60) && !saysWhatWasCut(e) {
			return false
		}
		return event[:shared] == log[:shared]
	}
	return event == log
}

// foreignLines are messages of other protocols, and lines of nonsense. Redis answers each of the first foreignTurns with
// one error, and reads on.
var foreignLines = []string{
	"stats\r\n", "version\r\n", "gets a b\r\n", "EHLO x\r\n", "SSH-2.0-x\r\n", "+PONG\r\n", ":1\r\n", "-ERR x\r\n", "mg a q\r\n", "quitx\r\n",
	"ms a 100000\r\n", "mn\r\n", "shutdown x y\r\n", "watch\r\n",
	"set k 0 0 3\r\nabc\r\n", "set k 0 0 100000\r\n", "GET /x\r\n\r\n", "GET /x HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n",
	"\x16\x03\x01\x00\x05hello\r\n", "\x4a\x00\x00\x00\x0a5.5.5\x00\r\n", "$5\r\nhello\r\n", "PUT /x HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n",
	"CONNECT a:1 HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n", "GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n",
	"\x80\x01" + strings.Repeat("\x00", 22) + "\r\n",
}

const foreignTurns = 14

// converseRedis sends commands on one connection.
func converseRedis(random *rand.Rand, host string, port int, marker string) (conversation, error) {
	conn, local, err := dial(host, port)
	if err != nil {
		return conversation{}, err
	}
	defer func() { _ = conn.Close() }()
	c := conversation{client: local}
	var forms []string

	// 1. What an attacker sends first: it decides nothing about what follows.
	switch random.IntN(14) {
	case 11:
		front, form := redisState(random)
		forms = append(forms, form)
		c.written = append(c.written, front...)
	case 12:
		piece := pick(random, "x", "GET ", "\x00", "set k 0 0 1 ", "a\r", "\r\r", "$", "=", "PO")
		forms = append(forms, fmt.Sprintf("a piece %q", piece))
		c.written = append(c.written, piece...)
	case 13: // the replies to what comes first are all that comes
		forms = append(forms, "errors and CLIENT REPLY OFF")
		c.written = append(c.written, strings.Repeat(pick(random, "!\r\n", "get\r\n", "x y z\r\n"), pick(random, 0, 1, 20, 150))...)
		c.written = append(c.written, redisCommand(random, "CLIENT", "REPLY", "OFF")...)
	case 6, 7:
		line := pick(random, foreignLines...)
		forms = append(forms, fmt.Sprintf("%q", shorten(line, 40)))
		c.written = append(c.written, line...)
	case 8:
		line := pick(random, foreignLines[:foreignTurns]...)
		turns := pick(random, 1, 31, 33, 40, 63, 65)
		forms = append(forms, fmt.Sprintf("%d turns of %q", turns, shorten(line, 40)))
		for range turns {
			if _, err := io.WriteString(conn, line); err != nil || readSome(conn) != nil {
				return c, nil
			}
		}
	case 0:
		forms = append(forms, "GET / HTTP/1.1")
		c.written = append(c.written, "GET / HTTP/1.1\r\n"...)
	case 1:
		forms = append(forms, "errors")
		for range pick(random, 1, 20, 150) {
			c.written = append(c.written, pick(random, "!\r\n", "nonsense a b\r\n", "*1\r\n$4\r\nNOPE\r\n")...)
		}
	case 2:
		forms = append(forms, "empty lines")
		c.written = append(c.written, strings.Repeat(pick(random, "\r\n", "\n", "*0\r\n", "*-1\r\n"), pick(random, 1, 5, 2000))...)
	case 3:
		forms = append(forms, "MONITOR")
		c.written = append(c.written, redisCommand(random, "MONITOR")...)
	case 4:
		forms = append(forms, "HELLO 3")
		c.written = append(c.written, redisCommand(random, "HELLO", "3")...)
	case 5:
		forms = append(forms, "CLIENT REPLY OFF")
		c.written = append(c.written, redisCommand(random, "CLIENT", "REPLY", "OFF")...)
	}

	// 2. Commands of every kind, in both forms of the protocol.
	transaction := chance(random, 15)
	if transaction {
		c.written = append(c.written, redisCommand(random, "MULTI")...)
	}
	for i := range pick(random, 1, 3, 10) {
		words, form := redisWords(random, fmt.Sprintf("%s%dq", marker, i))
		forms = append(forms, form)
		c.written = append(c.written, redisCommand(random, words...)...)
	}
	if transaction {
		forms = append(forms, "MULTI")
		c.written = append(c.written, redisCommand(random, "EXEC")...)
	}
	if len(forms) > 0 && forms[0] == "MONITOR" {
		c.written = append(c.written, redisCommand(random, "RESET")...)
		c.written = append(c.written, redisCommand(random, "SET", marker+"after", "1")...)
	}
	c.written = append(c.written, redisCommand(random, "QUIT")...)

	name, err := writeSegments(conn, random, c.written)
	c.form = strings.Join(append(forms, name), ", ")
	if err != nil {
		return c, nil // the server has ended the connection, as it may
	}
	_ = conn.CloseWrite() // after CLIENT REPLY OFF, QUIT does not end the connection
	_, err = io.Copy(io.Discard, conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return c, err
	}
	return c, nil
}

// redisState returns commands that change how the server answers what follows.
func redisState(random *rand.Rand) (front []byte, form string) {
	states := [][][]string{
		{{"HELLO", "3"}, {"CLIENT", "TRACKING", "ON", "BCAST"}},
		{{"HELLO", "3"}, {"SUBSCRIBE", "a", "b"}},
		{{"SUBSCRIBE", "a"}, {"PING"}, {"GET", "a"}, {"UNSUBSCRIBE"}},
		{{"SUBSCRIBE", "a", "b", "a"}, {"PSUBSCRIBE", "c*"}, {"RESET"}},
		{{"UNSUBSCRIBE"}, {"PUNSUBSCRIBE"}},
		{{"MULTI"}, {"NOPE"}, {"EXEC"}},
		{{"MULTI"}, {"GET", "a"}, {"DISCARD"}},
		{{"MULTI"}, {"MULTI"}, {"SUBSCRIBE", "z"}, {"EXEC"}, {"UNSUBSCRIBE", "z"}},
		{{"WATCH", "a"}, {"SET", "a", "1"}, {"MULTI"}, {"GET", "a"}, {"EXEC"}},
		{{"CLIENT", "REPLY", "SKIP"}, {"PING"}},
		{{"CLIENT", "REPLY", "SKIP"}, {"CLIENT", "REPLY", "SKIP"}, {"PING"}, {"PING"}},
		{{"CLIENT", "REPLY", "OFF"}, {"PING"}, {"CLIENT", "REPLY", "ON"}},
		{{"MULTI"}, {"CLIENT", "REPLY", "OFF"}, {"EXEC"}},
		{{"CLIENT", "REPLY", "off", "x"}},
		{{"CLIENT", "reply", "Skip"}},
		{{"EVAL", "return {1,2,{3,'x'}}", "0"}, {"EVAL", "return redis.error_reply('X y')", "0"}},
		{{"EVAL", "redis.setresp(3); return {map={a=1}}", "0"}},
		{{"BLPOP", "none", "0.01"}, {"WAIT", "1", "5"}},
		{{"XADD", "s", "*", "a", "b"}, {"XREAD", "COUNT", "1", "STREAMS", "s", "0"}},
		{{"DEBUG", "SLEEP", "0"}, {"COMMAND", "COUNT"}, {"LOLWUT"}},
		{{"HELLO", "9"}, {"HELLO", "2"}},
		{{"HELLO", "3", "SETNAME", "x"}, {"CONFIG", "GET", "m*"}, {"HGETALL", "h"}},
		{{"SELECT", "5"}, {"SWAPDB", "1", "2"}},
		{{"ASKING"}, {"READONLY"}, {"CLUSTER", "INFO"}},
	}
	if chance(random, 5) {
		states = [][][]string{{{"REPLCONF", "listening-port", "1"}, {"PSYNC", "?", "-1"}}, {{"SYNC"}}}
	}
	chosen := pick(random, states...)
	for _, words := range chosen {
		front = append(front, redisCommand(random, words...)...)
	}
	return front, fmt.Sprint(chosen)
}

// redisCommand encodes a command as an array, or as an inline command if its words allow that.
func redisCommand(random *rand.Rand, words ...string) []byte {
	var out bytes.Buffer
	if chance(random, 30) && !strings.ContainsAny(strings.Join(words, ""), "\r\n\x00\"'\\") && len(strings.Join(words, " ")) < 60_000 {
		for i, word := range words {
			if i > 0 {
				out.WriteString(pick(random, " ", " ", "  ", "\t"))
			}
			if word == "" || strings.Contains(word, " ") || chance(random, 20) {
				word = pick(random, `"`+word+`"`, `'`+word+`'`)
			}
			out.WriteString(word)
		}
		out.WriteString(pick(random, "\r\n", "\n"))
		return out.Bytes()
	}
	if escaped := strings.Join(words, ""); chance(random, 10) && len(escaped) < 1000 {
		for _, word := range words {
			out.WriteByte('"')
			for i := range len(word) {
				if c := word[i]; c < ' ' || c == '"' || c == '\\' || chance(random, 30) {
					fmt.Fprintf(&out, pick(random, `\x%02x`, `\x%02X`), c)
				} else {
					out.WriteByte(c)
				}
			}
			out.WriteString(pick(random, "\" ", "\"\t"))
		}
		out.WriteString(pick(random, "\r\n", "\n", "\r\r\n"))
		return out.Bytes()
	}
	lineEnd, end := "\r\n", "\r\n"
	if chance(random, 3) { // the server skips any byte behind the CR, and any two behind a string
		lineEnd, end = pick(random, "\r\n", "\rX", "\r\r"), pick(random, "\r\n", "xx", "\n\n", "*1")
	}
	fmt.Fprintf(&out, "*%d%s", len(words), lineEnd)
	for _, word := range words {
		fmt.Fprintf(&out, "$%d%s%s%s", len(word), lineEnd, word, end)
	}
	return out.Bytes()
}

// redisWords returns a command that contains marker.
func redisWords(random *rand.Rand, marker string) (words []string, form string) {
	switch random.IntN(11) {
	case 0:
		return []string{pick(random, "get", "GET", "gEt"), marker}, "GET"
	case 1:
		return []string{"CONFIG", "SET", "dbfilename", marker + ".rdb"}, "CONFIG SET"
	case 2:
		words = []string{"CONFIG", "SET"}
		for _, name := range []string{
			"hz", "lfu-log-factor", "lfu-decay-time", "timeout", "tcp-keepalive",
			"hash-max-listpack-entries", "set-max-intset-entries", "zset-max-listpack-entries", "maxmemory-samples",
		} {
			words = append(words, name, "10")
		}
		return append(words, "dbfilename", marker), "CONFIG SET of ten"
	case 3:
		return []string{"SET", marker, strings.Repeat("v", pick(random, 1, 200, 40_000))}, "SET"
	case 4:
		return []string{"EVAL", "return redis.call('SET', KEYS[1], ARGV[1])", "1", marker, "v"}, "EVAL"
	case 5:
		words = []string{"MSET"}
		for i := range pick(random, 2, 40) {
			words = append(words, fmt.Sprint(marker, "k", i), "v")
		}
		return words, "MSET"
	case 6:
		return []string{"LPUSH", marker, "a b", "c"}, "LPUSH"
	case 7:
		return []string{"INCR", marker}, "INCR"
	case 8:
		return []string{"SET", marker, "line\r\n*1\r\n$4\r\nPING\r\n"}, "RESP in a value"
	case 9:
		return []string{"KEYS", marker + "*"}, "KEYS"
	default:
		return []string{"SLAVEOF", "NO", "ONE"}, "SLAVEOF"
	}
}
