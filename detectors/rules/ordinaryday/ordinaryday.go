// Package ordinaryday generates the events of an ordinary day of some hosts with containers: a shop, a wiki, WordPress,
// APIs, Git, mirrors of packages, mail, databases and caches, backups, deployments and monitoring, with searches for SQL,
// typing errors in passwords and whatever else looks like an attack and is none. Tests evaluate rules on it: what fires
// here is a false alarm. The same seed gives the same events.
package ordinaryday

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"tidegate/pipeline"
)

// Begin is the begin of the day.
var Begin = time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)

// A day generates events, second by second.
type day struct {
	rng   *rand.Rand
	now   time.Time // of the next event
	emit  func(*pipeline.Event)
	count uint64
	hosts []*host
}

// A host has one container of each service.
type host struct {
	*pipeline.Host
	addr      netip.Addr
	services  map[string]*pipeline.Container
	addresses map[string]netip.Addr
}

// services are the names and images of the containers of a host.
var services = [][2]string{
	{"proxy", "nginx:1.27"},
	{"shop", "registry.example.com/shop:4.2.1"},
	{"wiki", "mediawiki:1.42"},
	{"blog", "wordpress:6.6"},
	{"api", "registry.example.com/api:7.0.3"},
	{"git", "gitea/gitea:1.22"},
	{"db", "mariadb:11.4"},
	{"pg", "postgres:16"},
	{"cache", "redis:7"},
	{"worker", "registry.example.com/worker:4.2.1"},
	{"mail", "mailserver/docker-mailserver:14"},
	{"prometheus", "prom/prometheus:v2.54"},
	{"backup", "registry.example.com/backup:2.0"},
	{"agent", "datadog/agent:7"},
	{"builder", "gitea/act_runner:0.2"},
	{"sessions", "memcached:1.6"},
}

// Generate calls emit with the events of the day, in the order of their begin, until 24 hours are over. An event is emit's from then on.
func Generate(seed uint64, emit func(*pipeline.Event)) {
	d := &day{rng: rand.New(rand.NewPCG(seed, 24)), now: Begin, emit: emit}
	for i := range 4 {
		h := &host{
			Host: &pipeline.Host{Name: fmt.Sprintf("node%d", i+1), Id: fmt.Sprintf("%032x", i+1)}, addr: addr(10, 0, 0, i+10),
			services: map[string]*pipeline.Container{}, addresses: map[string]netip.Addr{},
		}
		d.hosts = append(d.hosts, h)
		for n, service := range services {
			h.addresses[service[0]] = addr(172, 17+i, 0, n+2)
			d.start(h, service[0])
		}
	}
	for second := range 24 * 60 * 60 {
		d.now = Begin.Add(time.Duration(second) * time.Second)
		for i, h := range d.hosts {
			d.periodic(h, second+7*i)
		}
		// Most people come by day.
		rate := []float64{0.12, 0.1, 0.08, 0.08, 0.1, 0.15, 0.25, 0.4, 0.5, 0.55, 0.6, 0.6, 0.55, 0.55, 0.55, 0.5, 0.5, 0.5, 0.55, 0.6, 0.55, 0.45, 0.3, 0.2}[second/3600]
		if d.rng.Float64() < rate/2 {
			d.visit(d.hosts[d.rng.IntN(len(d.hosts))])
		}
	}
}

func addr(a, b, c, e int) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(a), byte(b), byte(c), byte(e)})
}

func pick[T any](d *day, of []T) T { return of[d.rng.IntN(len(of))] }

// start gives a service a new container, as a deployment does.
func (d *day) start(h *host, service string) {
	for _, known := range services {
		if known[0] == service {
			h.services[service] = &pipeline.Container{
				Id: fmt.Sprintf("%016x%016x%016x%016x", d.rng.Uint64(), d.rng.Uint64(), d.rng.Uint64(), d.rng.Uint64()), Name: service + "-1", Image: known[1],
			}
		}
	}
}

// event returns an event of the host that begins now, a little later than the one before.
func (d *day) event(h *host, dataset pipeline.Dataset) *pipeline.Event {
	d.count++
	d.now = d.now.Add(time.Duration(d.rng.IntN(900)+100) * time.Microsecond)
	id := make([]byte, 16)
	binary.BigEndian.PutUint64(id[8:], d.count)
	return &pipeline.Event{Id: id, Dataset: dataset, Timestamp: d.now.UnixNano(), Host: h.Host}
}

// between sets the ends of an event. from and to are services of the host, or addresses.
func (d *day) between(h *host, event *pipeline.Event, from, to string, port int) *pipeline.Event {
	end := func(name string) *pipeline.Endpoint {
		if container := h.services[name]; container != nil {
			return &pipeline.Endpoint{Ip: h.addresses[name].AsSlice(), Container: container}
		}
		return &pipeline.Endpoint{Ip: netip.MustParseAddr(name).AsSlice()}
	}
	event.Source, event.Destination = end(from), end(to)
	event.Source.Port, event.Destination.Port = uint32(32768+d.rng.IntN(28000)), uint32(port)
	event.Source.Bytes, event.Destination.Bytes = uint64(200+d.rng.IntN(900)), uint64(300+d.rng.IntN(9000))
	event.Container = event.Destination.Container
	if event.Container == nil {
		event.Container = event.Source.Container
	}
	event.Transport = pipeline.Transport_TCP
	return event
}

// session emits a session that ended.
func (d *day) session(h *host, from, to string, port int, sent, received uint64, lasted time.Duration, state string) {
	event := d.between(h, d.event(h, pipeline.Dataset_SESSION), from, to, port)
	event.Session = &pipeline.Session{State: state, History: "ShADadFf"}
	event.Source.Bytes, event.Destination.Bytes = sent, received
	event.Source.Packets, event.Destination.Packets = sent/900+3, received/1400+3
	event.Duration = uint64(lasted)
	if port == 53 || port == 123 {
		event.Transport = pipeline.Transport_UDP
	}
	d.emit(event)
}

// log emits a line of a service, or of the host if service is empty.
func (d *day) log(h *host, service, format string, args ...any) {
	event := d.event(h, pipeline.Dataset_LOG)
	event.Container = h.services[service]
	event.Log = &pipeline.LogLine{Message: fmt.Sprintf(format, args...), Stream: "stdout"}
	if service == "" {
		event.Log.Path = "/var/log/syslog"
	}
	d.emit(event)
}

// change emits a change in the life of a container.
func (d *day) change(h *host, service, action string, code int32) {
	event := d.event(h, pipeline.Dataset_CONTAINER)
	event.Container = h.services[service]
	event.Change = &pipeline.ContainerChange{Action: action, ExitCode: code}
	d.emit(event)
}

// markers returns what the collector marks in a target, as far as ordinary targets have it.
func markers(target string) (found []string) {
	plain, err := url.QueryUnescape(target)
	if err != nil {
		plain = target
	}
	for _, text := range []string{"union select", "' or '", "or 1=1", "sleep(", "benchmark(", "information_schema", "; select ", "(select ", "load_file("} {
		if strings.Contains(strings.ToLower(plain), text) {
			return []string{"url:sql"}
		}
	}
	if strings.Contains(plain, "../") {
		return []string{"url:traversal"}
	}
	return nil
}

// A request is an HTTP exchange and what it is answered with.
type request struct {
	method, target, domain, agent, referrer, mime string
	status                                        uint32
	forwarded                                     string
}

// http emits an exchange over plain HTTP and its session.
func (d *day) http(h *host, from, to string, port int, r request) {
	event := d.between(h, d.event(h, pipeline.Dataset_HTTP), from, to, port)
	path, query, _ := strings.Cut(r.target, "?")
	event.Duration = uint64(d.rng.IntN(200)+1) * 1e6
	event.Http = &pipeline.HTTPExchange{
		Version: "1.1", Method: r.method, UrlOriginal: r.target, UrlPath: path, UrlQuery: query, UrlDomain: r.domain, UserAgent: r.agent,
		Referrer: r.referrer, StatusCode: r.status, ResponseMimeType: r.mime, ResponseBodyBytes: event.Destination.Bytes, RequestMarkers: markers(r.target),
	}
	if r.method == "POST" {
		event.Http.RequestBodyBytes = event.Source.Bytes
	}
	if r.forwarded != "" {
		event.Http.XForwardedFor = []string{r.forwarded}
	}
	sent, received, lasted := event.Source.Bytes, event.Destination.Bytes, time.Duration(event.Duration)
	d.emit(event)
	if d.rng.IntN(4) == 0 { // connections are kept
		d.session(h, from, to, port, sent, received, lasted, "fin")
	}
}

// dns emits a query and its answer.
func (d *day) dns(h *host, from, name, kind, code string, data ...string) {
	event := d.between(h, d.event(h, pipeline.Dataset_DNS), from, "10.0.0.2", 53)
	event.Transport = pipeline.Transport_UDP
	event.Source.Bytes, event.Destination.Bytes = uint64(30+len(name)), uint64(46+2*len(name))
	event.Dns = &pipeline.DNSMessage{
		QuestionName: name, QuestionType: kind, QuestionClass: "IN", ResponseCode: code, Type: "answer",
		RegisteredDomain: pipeline.RegisteredDomain(name), AnswersData: data, AnswersCount: uint32(len(data)),
	}
	if kind == "A" || kind == "AAAA" {
		event.Dns.ResolvedIp = data
	}
	for range data {
		event.Dns.AnswersName, event.Dns.AnswersType = append(event.Dns.AnswersName, name), append(event.Dns.AnswersType, kind)
		event.Dns.AnswersTtl = append(event.Dns.AnswersTtl, 60)
	}
	d.emit(event)
}

// sql emits a statement.
func (d *day) sql(h *host, from, user, statement string, rows uint64) {
	event := d.between(h, d.event(h, pipeline.Dataset_MYSQL), from, "db", 3306)
	method, _, _ := strings.Cut(statement, " ")
	event.Mysql = &pipeline.MySQLCommand{
		Command: pick(d, []string{"COM_QUERY", "COM_STMT_EXECUTE"}), Query: statement, Method: strings.ToUpper(method), UserName: user, Database: "shop", Rows: rows,
	}
	event.Outcome = pipeline.Outcome_SUCCESS
	d.emit(event)
}

// redis emits a command.
func (d *day) redis(h *host, from, command string, args ...string) {
	event := d.between(h, d.event(h, pipeline.Dataset_REDIS), from, "cache", 6379)
	event.Redis = &pipeline.RedisCommand{Command: command, Args: args, ArgsCount: uint32(len(args)), ReplyType: "bulk_string", ReplyBytes: uint64(d.rng.IntN(4000))}
	if len(args) > 0 {
		event.Redis.Key = args[0]
	}
	d.emit(event)
}

// tls emits a handshake with a server outside, the look-up of its name and the session.
func (d *day) tls(h *host, from, name string, sent, received uint64) {
	server := d.outside(name)
	d.dns(h, from, name, "A", "NOERROR", server)
	event := d.between(h, d.event(h, pipeline.Dataset_TLS), from, server, 443)
	event.Tls = &pipeline.TLSHandshake{
		Version: "1.3", ClientVersion: "1.3", ServerName: name, Ja3: fmt.Sprintf("%032x", len(name)), Cipher: "TLS_AES_128_GCM_SHA256", Established: true,
		ClientAlpn: []string{"h2", "http/1.1"}, NextProtocol: "h2",
	}
	d.emit(event)
	d.session(h, from, server, 443, sent, received, time.Duration(d.rng.IntN(9000)+40)*time.Millisecond, "fin")
}

// outside returns an address of a name.
func (d *day) outside(name string) string {
	hash := uint32(2166136261)
	for i := range len(name) {
		hash = (hash ^ uint32(name[i])) * 16777619
	}
	return addr([]int{23, 34, 52, 104, 151, 185, 193, 199}[hash%8], int(hash>>8), int(hash>>16), int(hash>>24)).String()
}
