//go:build linux

package differential

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/netnstest"
)

// A conversation is one connection of a generator.
type conversation struct {
	client  clientKey
	form    string // the generated forms, for a person
	written []byte
}

// A clientKey identifies the client of a conversation: the port, and a bit for IPv6.
type clientKey uint32

func keyOfClient(address netip.AddrPort) clientKey {
	key := clientKey(address.Port())
	if address.Addr().Unmap().Is6() {
		key |= 1 << 16
	}
	return key
}

// keyOfText returns the key of an address and port as a log has them.
func keyOfText(address, port string) clientKey {
	ip, _ := netip.ParseAddr(strings.Trim(address, "[]"))
	number, _ := strconv.ParseUint(port, 10, 16)
	return keyOfClient(netip.AddrPortFrom(ip, uint16(number)))
}

// An executed is a request that a server executed, as its log shows it.
type executed struct {
	text    string
	cut     bool // the log itself holds only the beginning of text
	refused bool // the server logged it, but answered with an error
}

// A subject is a server with the generator of its input.
type subject struct {
	name  string
	hosts []string // none: hosts
	ports []int
	share int // share of the conversations, relative to the other subjects

	start func(l *lab)
	// converse runs a conversation with the server at a host, an address of IPv4 or IPv6.
	converse func(random *rand.Rand, host, marker string) (conversation, error)
	log      func(l *lab) map[clientKey][]executed
	// same reports whether an event's text is the text of the log.
	same func(event observed, logged executed) bool
	// notLogged reports whether the log leaves out what an event contains, though it was executed; nil: it
	// never does.
	notLogged func(event observed) bool
}

// settings returns the number of conversations and the seed of this run.
func settings(t *testing.T) (count int, seed uint64) {
	t.Helper()
	count, seed = 2000, 1
	if testing.Short() {
		count = 300
	}
	text := os.Getenv("TIDEGATE_DIFFERENTIAL")
	if text == "" {
		return count, seed
	}
	first, second, hasSeed := strings.Cut(text, ",")
	count, err := strconv.Atoi(first)
	if err == nil && hasSeed {
		seed, err = strconv.ParseUint(second, 10, 64)
	}
	if err != nil || count <= 0 {
		t.Fatalf("TIDEGATE_DIFFERENTIAL=%q: want a number of connections and a seed, such as 20000,7", text)
	}
	return count, seed
}

// TestServersExecutedWhatTheEventsContain compares the events of generated connections with the logs of the
// servers.
func TestServersExecutedWhatTheEventsContain(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	const most = 4000 // conversations of one capture: fewer than there are client ports
	for count, seed := settings(t); count > 0; count, seed = count-most, seed+1 {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { compareRound(t, min(count, most), seed) })
	}
}

// compareRound starts the servers, runs count conversations and compares.
func compareRound(t *testing.T, count int, seed uint64) {
	l := newLab(t)
	subjects := []*subject{
		nginxSubject(), injectedSubject(), goSubject(), pythonSubject(), unreadSubject(), redisSubject("redis", redisPort, hosts[:]...),
		redisSubject("redis7000", redisOtherPort, hosts[:]...), redisSubject("redis53", dnsPort, redisDNSHost), memcachedSubject(),
		mariadbSubject(), dnsmasqSubject(), extensionSubject(), opensslSubject(),
	}
	if only := os.Getenv("TIDEGATE_SERVERS"); only != "" {
		subjects = slices.DeleteFunc(subjects, func(s *subject) bool { return !slices.Contains(strings.Split(only, ","), s.name) })
	}
	servers := map[netip.AddrPort]*subject{}
	shares := 0
	for _, s := range subjects {
		s.start(l)
		shares += s.share
		if s.hosts == nil {
			s.hosts = hosts[:]
		}
		for _, port := range s.ports {
			for _, host := range s.hosts {
				servers[netip.MustParseAddrPort(address(host, port))] = s
			}
		}
	}

	conversations := make([][]conversation, len(subjects))
	for i, s := range subjects {
		conversations[i] = runConversations(t, s, max(1, count*s.share/shares), seed)
	}
	logs := make([]map[clientKey][]executed, len(subjects))
	for i, s := range subjects {
		logs[i] = s.log(l)
	}
	l.stopCapture()
	events := l.observe(servers)
	for i, s := range subjects {
		compare(t, s, conversations[i], logs[i], events[s])
	}
}

// runConversations runs conversations of a subject, some at a time.
func runConversations(t *testing.T, s *subject, count int, seed uint64) []conversation {
	t.Helper()
	conversations := make([]conversation, count)
	failures := make([]error, count)
	next := make(chan int)
	var workers sync.WaitGroup
	for range 6 {
		workers.Go(func() {
			for i := range next {
				random := rand.New(rand.NewPCG(seed, uint64(s.ports[0])<<32+uint64(i)))
				conversations[i], failures[i] = s.converse(random, s.hosts[i%len(s.hosts)], fmt.Sprintf("m%dx", i))
			}
		})
	}
	for i := range count {
		next <- i
	}
	close(next)
	workers.Wait()
	failed := 0
	for i, err := range failures {
		if err != nil {
			if failed++; failed <= 5 {
				t.Logf("%s: conversation %d (%s): %v", s.name, i, conversations[i].form, err)
			}
		}
	}
	// A server may end a connection for what it is sent, but not most of them.
	if failed > count/2 {
		t.Errorf("%s: %d of %d conversations failed", s.name, failed, count)
	}
	return conversations
}

// compare reports what a server executed without an event, and events of what it did not execute.
func compare(t *testing.T, s *subject, conversations []conversation, logs map[clientKey][]executed, events map[clientKey][]observed) {
	t.Helper()
	total, exact, marked, missing, invented := 0, 0, 0, 0, 0
	report := func(c conversation, format string, args ...any) {
		t.Errorf("%s: port %d, IPv6 %v: %s\n   form %s\n   sent %s\n   events %v\n   log %s", s.name, c.client&0xffff,
			c.client > 0xffff, fmt.Sprintf(format, args...), shorten(c.form, 400),
			shorten(strconv.Quote(string(c.written)), 600), shorten(fmt.Sprint(events[c.client]), 1500),
			shorten(fmt.Sprint(logs[c.client]), 1000))
	}
	for _, c := range conversations {
		seen := slices.Clone(events[c.client])
		for _, logged := range logs[c.client] {
			total++
			// A port is used again: of events with the same text, the one that was answered is that of the
			// log.
			at := slices.IndexFunc(seen, func(e observed) bool { return !e.unanswered && s.same(e, logged) })
			if at < 0 {
				at = slices.IndexFunc(seen, func(e observed) bool { return s.same(e, logged) })
			}
			switch {
			case at >= 0:
				exact++
				seen = slices.Delete(seen, at, at+1)
			case logged.refused:
				// The server has refused it: an event of it is of use, but not required.
			case slices.ContainsFunc(events[c.client], saysWhatWasCut):
				marked++
			default:
				if missing++; missing <= 8 {
					report(c, "executed, but no event: %q", shorten(logged.text, 300))
				}
			}
		}
		for _, e := range seen {
			if e.refused || e.unanswered || e.partial || e.unlogged || e.text == "" || saysWhatWasCut(e) {
				continue
			}
			if s.notLogged != nil && s.notLogged(e) {
				continue
			}
			if invented++; invented <= 8 {
				report(c, "event of what was not executed: %v", e)
			}
		}
	}
	t.Logf("%-10s %6d connections, %6d requests executed, %6d told exactly, %4d marked as cut, %d missing, %d invented",
		s.name, len(conversations), total, exact, marked, missing, invented)
	if total < len(conversations)/2 {
		t.Errorf("%s executed %d requests of %d connections: the generator or the log is wrong", s.name, total, len(conversations))
	}
}

// saysWhatWasCut reports whether an event is marked: its text was cut, the rest of its connection was not
// read, or bytes were sent twice with different values. In a capture of the loopback interface no segment has
// a valid checksum, so that a forged one cannot be told from the real one that has the same place.
func saysWhatWasCut(e observed) bool {
	return slices.ContainsFunc([]string{pipeline.TagTruncated, pipeline.TagParsingStopped, pipeline.TagOverlapConflict},
		func(tag string) bool { return slices.Contains(e.tags, tag) })
}

func shorten(text string, longest int) string {
	if len(text) <= longest {
		return text
	}
	return text[:longest/2] + "…" + text[len(text)-longest/2:]
}

// dial opens a connection to a server in the namespace.
func dial(host string, port int) (*net.TCPConn, clientKey, error) {
	conn, err := net.DialTimeout("tcp", address(host, port), 10*time.Second)
	if err != nil {
		return nil, 0, err
	}
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	tcp := conn.(*net.TCPConn)
	return tcp, keyOfClient(tcp.LocalAddr().(*net.TCPAddr).AddrPort()), nil
}

// A cut is a way to divide bytes into segments.
type cut struct {
	name   string
	divide func(random *rand.Rand, length int) int // length of the next segment
}

var cuts = []cut{
	{"whole", func(_ *rand.Rand, length int) int { return length }},
	{"whole", func(_ *rand.Rand, length int) int { return length }},
	{"halves", func(random *rand.Rand, length int) int { return 1 + random.IntN(length) }},
	{"small segments", func(random *rand.Rand, length int) int { return min(length, 1+random.IntN(40)) }},
	{"one byte a segment", func(_ *rand.Rand, _ int) int { return 1 }},
}

// writeSegments writes bytes with a random cut and returns the name of the cut. Each write is a segment of
// its own, since Go sets TCP_NODELAY. Only the first 1,500 segments are small.
func writeSegments(conn net.Conn, random *rand.Rand, data []byte) (string, error) {
	chosen := cuts[random.IntN(len(cuts))]
	for segments := 0; len(data) > 0; segments++ {
		length := len(data)
		if segments < 1500 {
			length = chosen.divide(random, len(data))
		}
		if _, err := conn.Write(data[:length]); err != nil {
			return chosen.name, err
		}
		data = data[length:]
	}
	return chosen.name, nil
}

// pick returns one of the choices.
func pick[T any](random *rand.Rand, choices ...T) T { return choices[random.IntN(len(choices))] }

// chance reports true in percent of the calls.
func chance(random *rand.Rand, percent int) bool { return random.IntN(100) < percent }
