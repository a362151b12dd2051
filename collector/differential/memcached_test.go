//go:build linux

package differential

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"

	"tidegate/pipeline"
)

const (
	memcachedPort      = 11211
	memcachedOtherPort = 11222 // a port that hints at no protocol
	memcachedTextPort  = 11233 // the server was started with -B ascii
)

// A keySet has the keys of which conversations have sent a set. memcached has no log with the ports of its clients: what
// it executed is asked of it afterwards.
type keySet struct {
	mu   sync.Mutex
	sent map[int][]sentKey // by the port of the server
}

type sentKey struct {
	client clientKey
	key    string
}

func memcachedSubject() *subject {
	keys := &keySet{sent: map[int][]sentKey{}}
	ports := []int{memcachedPort, memcachedOtherPort, memcachedTextPort}
	return &subject{
		name: "memcached", ports: ports, share: 3, same: sameSet,
		start: func(l *lab) {
			for _, port := range ports {
				args := []string{"-u", "root", "-l", strings.Join(hosts[:], ","), "-p", fmt.Sprint(port), "-m", "256"}
				if port == memcachedTextPort {
					args = append(args, "-B", "ascii")
				}
				l.start(fmt.Sprint("memcached", port), "memcached", args...)
				l.waitTCP(port)
			}
		},
		converse: func(random *rand.Rand, host, marker string) (conversation, error) {
			return converseMemcached(random, host, marker, pick(random, ports...), keys)
		},
		log: keys.executed,
	}
}

func sameSet(e observed, logged executed) bool {
	return e.dataset == pipeline.Dataset_MEMCACHED && e.text == logged.text
}

// executed returns the stores whose keys the servers have.
func (k *keySet) executed(l *lab) map[clientKey][]executed {
	k.mu.Lock()
	defer k.mu.Unlock()
	logged := map[clientKey][]executed{}
	for port, sent := range k.sent {
		conn, err := net.Dial("tcp", address(hosts[0], port))
		if err != nil {
			l.t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		reader := bufio.NewReader(conn)
		for _, one := range sent {
			_, _ = fmt.Fprintf(conn, "mg %s\r\n", one.key)
			line, err := reader.ReadString('\n')
			if err != nil {
				l.t.Fatal(err)
			}
			if strings.HasPrefix(line, "HD") {
				logged[one.client] = append(logged[one.client], executed{text: "store " + one.key})
			}
		}
	}
	return logged
}

// converseMemcached sends what may hide stores, and stores.
func converseMemcached(random *rand.Rand, host, marker string, port int, keys *keySet) (conversation, error) {
	conn, local, err := dial(host, port)
	if err != nil {
		return conversation{}, err
	}
	defer func() { _ = conn.Close() }()
	c := conversation{client: local}
	front, form, turns := memcachedFront(random, port)
	if form == "nonsense" && turns == 1 {
		for piece := range strings.SplitAfterSeq(front, "\n") { // each line is answered before the next one
			if len(piece) > 0 {
				c.written = append(c.written, piece...)
				if _, err := io.WriteString(conn, piece); err != nil || readSome(conn) != nil {
					return c, nil
				}
			}
		}
		front, form, turns = "", "nonsense, a line at a time", 0
	}
	for range turns {
		c.written = append(c.written, front...)
		if _, err := io.WriteString(conn, front); err != nil || readSome(conn) != nil {
			return c, nil // the server has ended the connection, as it may
		}
	}
	var rest []byte
	if turns == 0 {
		rest = append(rest, front...)
	}
	var sent []sentKey
	for i := range pick(random, 1, 3, 10) {
		key := fmt.Sprintf("%s%dq", marker, i)
		sent = append(sent, sentKey{local, key})
		rest = append(rest, memcachedStore(random, key)...)
	}
	rest = append(rest, pick(random, "mn\r\n", "quit\r\n", "get none\r\n", "version\r\n")...)
	keys.mu.Lock()
	keys.sent[port] = append(keys.sent[port], sent...)
	keys.mu.Unlock()

	c.written = append(c.written, rest...)
	name, err := writeSegments(conn, random, rest)
	c.form = fmt.Sprintf("port %d, %s, %d turns, %s", port, form, turns, name)
	if err != nil {
		return c, nil
	}
	_ = conn.CloseWrite()
	if _, err = io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		return c, err
	}
	return c, nil
}

// memcachedFront returns bytes of which a server reads some or none as data, and how often they are sent, each time
// behind the reply to the ones before; 0: together with what follows.
func memcachedFront(random *rand.Rand, port int) (front, form string, turns int) {
	size := pick(random, 1, 2, 9, 40, 300, 100_000)
	switch random.IntN(9) {
	case 0:
		return "", "nothing", 0
	case 1:
		return pick(random, "xyz\r\n", "\x00\r\n", "EHLO a\r\n", "\n", "*1\r\n$4\r\nPING\r\n", "ping\r\n", "*1\r\n", "PSYNC ? -1\r\n", "GET / HTTP/1.1\r\n", "SSH-2.0-x\r\n", " get a\r\n"),
			"nonsense", pick(random, 0, 1, 31, 33, 40, 63, 65)
	case 7: // pieces of lines
		return pick(random, "x", "get", "GET ", "set k", "get a\r", "\x00", "*", "$"), "a piece of a line", 0
	case 8:
		return pick(random, "mg a v\r\n", "mn\r\nmg a v q\r\nmn\r\n", "me a\r\n", "ma a N0 J1 D1\r\n", "md a q\r\n", "ms YWJj b S1\r\n1\r\n",
			"get"+strings.Repeat(" k", 100)+"\r\n", "set "+strings.Repeat("k", 251)+" 0 0 1\r\n1\r\n", "get "+strings.Repeat("k", 251)+"\r\n",
			"set big 0 0 2000000\r\n"+strings.Repeat("v", 2_000_000)+"\r\n", "stats\r\n", "verbosity 1\r\n", "flush_all 1000 noreply\r\n",
			"set a 0 0 1 noreply\r\n1\r\n", "incr n 1 noreply\r\n", "lru mode flat\r\n", "watch\r\n"), "a command", pick(random, 0, 1)
	case 2:
		return "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", "HTTP", 0
	case 3: // refused, without data
		line := pick(random, "set k abc 0 %d\r\n", "set k 0 abc %d\r\n", "cas k 0 0 %d xyz\r\n", "set k 0 0 -%d\r\n", "ms k S%d I\r\n",
			"set k 0 0 %dx\r\n", "set k 0 0 0x%d\r\n", "ms k %dx\r\n", "set k 0 0 %d x y\r\n")
		return fmt.Sprintf(line, size), "refused store of " + fmt.Sprint(size), pick(random, 0, 1)
	case 4: // too many flags: refused, and the data are read as commands
		return fmt.Sprintf("ms k %d%s\r\n", size, strings.Repeat(" I", pick(random, 25, 30, 60))), "flags of " + fmt.Sprint(size), pick(random, 0, 1)
	case 5: // the data have another length
		return "set k 0 0 2\r\nhi" + pick(random, "xx", "xxxx", "\n\n", "\r\rx\r\n", "xx\r\nget a\r\n"), "bad data", 0
	default:
		if port != memcachedTextPort {
			return "", "nothing", 0
		}
		header := "\x80" + pick(random, "\x00", "\x01", "\x08", "\x0a", "\x11") + strings.Repeat("\x00", 22)
		return header + pick(random, "\r\n", "\n", "value\r\n"), "binary header", pick(random, 0, 1)
	}
}

// memcachedStore returns a command that stores a byte under key, and maybe others.
func memcachedStore(random *rand.Rand, key string) string {
	var out strings.Builder
	if chance(random, 20) {
		out.WriteString(pick(random, "get a b c\r\n", "stats\r\n", "xyz\r\n", "\r\n", "incr n 1 x\r\n", "touch a 0\r\n", "md a q\r\n"))
	}
	end := pick(random, "\r\n", "\r\n", "\r\n", "\n")
	line := pick(random, "set %s 0 0 1", "set %s 0 0 1", "add %s 0 0 1", "set %s 1 0 +1", "set %s 0 0 0001", "set %s 0 0 1 noreply",
		"set %s 0 0 1 x", "set  %s  0  0  1", "ms %s 1", "ms %s 1 T0", "ms %s 1 q", "set %s 4294967295 0 1")
	fmt.Fprintf(&out, line+"%s1\r\n", key, end)
	return out.String()
}
