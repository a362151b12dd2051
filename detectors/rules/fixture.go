package rules

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"google.golang.org/protobuf/reflect/protoreflect"

	"tidegate/pipeline"
)

// paths says where in event.proto the fields lie that a test's event can set as they are; the others are in assign. A test holds
// it against pipeline.Fields.
var paths = map[string]string{
	"@timestamp":                       "timestamp",
	"event.duration":                   "duration",
	"event.partial":                    "partial",
	"network.vlan.id":                  "vlan",
	"observer.interfaces":              "interfaces",
	"source.ip":                        "source.ip",
	"source.port":                      "source.port",
	"source.bytes":                     "source.bytes",
	"source.packets":                   "source.packets",
	"source.nat.ip":                    "source.nat_ip",
	"source.nat.port":                  "source.nat_port",
	"source.container.id":              "source.container.id",
	"source.container.name":            "source.container.name",
	"source.container.image.name":      "source.container.image",
	"destination.ip":                   "destination.ip",
	"destination.port":                 "destination.port",
	"destination.bytes":                "destination.bytes",
	"destination.packets":              "destination.packets",
	"destination.nat.ip":               "destination.nat_ip",
	"destination.nat.port":             "destination.nat_port",
	"destination.container.id":         "destination.container.id",
	"destination.container.name":       "destination.container.name",
	"destination.container.image.name": "destination.container.image",
	"container.id":                     "container.id",
	"container.name":                   "container.name",
	"container.image.name":             "container.image",
	"container.image.hash":             "container.image_id",
	"host.name":                        "host.name",
	"host.id":                          "host.id",
	"orchestrator.cluster.name":        "host.cluster",
	"network.protocol":                 "session.protocol",
	"session.history":                  "session.history",
	"session.state":                    "session.state",
	"session.rtt.client":               "session.rtt_client",
	"session.rtt.server":               "session.rtt_server",
	"session.response_time":            "session.response_time",
	"session.syn_retransmissions":      "session.syn_retransmissions",
	"session.synack_retransmissions":   "session.synack_retransmissions",
	"session.client_retransmissions":   "session.client_retransmissions",
	"session.server_retransmissions":   "session.server_retransmissions",
	"session.zero_windows":             "session.zero_windows",
	"session.out_of_order":             "session.out_of_order",
	"session.overlap_conflicts":        "session.overlap_conflicts",
	"session.client_missing_bytes":     "session.client_missing_bytes",
	"session.server_missing_bytes":     "session.server_missing_bytes",
	"session.direction_confidence":     "session.direction_confidence",
	"dns.type":                         "dns.type",
	"dns.id":                           "dns.id",
	"dns.op_code":                      "dns.op_code",
	"dns.question.name":                "dns.question_name",
	"dns.question.registered_domain":   "dns.registered_domain",
	"dns.question.type":                "dns.question_type",
	"dns.question.class":               "dns.question_class",
	"dns.response_code":                "dns.response_code",
	"dns.header_flags":                 "dns.header_flags",
	"dns.answers_count":                "dns.answers_count",
	"dns.answers.name":                 "dns.answers_name",
	"dns.answers.type":                 "dns.answers_type",
	"dns.answers.data":                 "dns.answers_data",
	"dns.answers.ttl":                  "dns.answers_ttl",
	"dns.resolved_ip":                  "dns.resolved_ip",
	"http.version":                     "http.version",
	"http.request.method":              "http.method",
	"url.original":                     "http.url_original",
	"url.path":                         "http.url_path",
	"url.query":                        "http.url_query",
	"url.domain":                       "http.url_domain",
	"user_agent.original":              "http.user_agent",
	"http.request.referrer":            "http.referrer",
	"http.request.mime_type":           "http.request_mime_type",
	"http.response.mime_type":          "http.response_mime_type",
	"http.response.status_phrase":      "http.status_phrase",
	"http.response.server":             "http.server",
	"http.response.location":           "http.location",
	"http.response.status_code":        "http.status_code",
	"http.request.body.bytes":          "http.request_body_bytes",
	"http.response.body.bytes":         "http.response_body_bytes",
	"http.request.header.bytes":        "http.request_header_bytes",
	"http.response.header.bytes":       "http.response_header_bytes",
	"http.request.x_forwarded_for":     "http.x_forwarded_for",
	"http.request.authorization":       "http.authorization",
	"mysql.command":                    "mysql.command",
	"mysql.query":                      "mysql.query",
	"mysql.method":                     "mysql.method",
	"mysql.database":                   "mysql.database",
	"mysql.sql_state":                  "mysql.sql_state",
	"mysql.error_message":              "mysql.error_message",
	"mysql.server_version":             "mysql.server_version",
	"mysql.affected_rows":              "mysql.affected_rows",
	"mysql.rows":                       "mysql.rows",
	"mysql.columns":                    "mysql.columns",
	"mysql.error_code":                 "mysql.error_code",
	"mysql.statement_id":               "mysql.statement_id",
	"mysql.insert_id":                  "mysql.insert_id",
	"mysql.warnings":                   "mysql.warnings",
	"redis.command":                    "redis.command",
	"redis.key":                        "redis.key",
	"redis.reply_type":                 "redis.reply_type",
	"redis.reply":                      "redis.reply",
	"redis.error":                      "redis.error",
	"redis.args":                       "redis.args",
	"redis.args_count":                 "redis.args_count",
	"redis.args_bytes":                 "redis.args_bytes",
	"redis.reply_bytes":                "redis.reply_bytes",
	"tls.version":                      "tls.version",
	"tls.client.version":               "tls.client_version",
	"tls.client.server_name":           "tls.server_name",
	"tls.client.ja3":                   "tls.ja3",
	"tls.server.ja3s":                  "tls.ja3s",
	"tls.cipher":                       "tls.cipher",
	"tls.next_protocol":                "tls.next_protocol",
	"tls.server.subject":               "tls.server_subject",
	"tls.server.issuer":                "tls.server_issuer",
	"tls.alert":                        "tls.alert",
	"tls.client.alpn":                  "tls.client_alpn",
	"tls.server.names":                 "tls.server_names",
	"tls.server.not_after":             "tls.server_not_after",
	"tls.established":                  "tls.established",
	"tls.resumed":                      "tls.resumed",
	"message":                          "log.message",
	"log.stream":                       "log.stream",
	"log.file.path":                    "log.path",
	"log.offset":                       "log.offset",
	"log.level":                        "log.level",
	"log.bytes":                        "log.bytes",
	"log.truncated":                    "log.truncated",
	"event.action":                     "change.action",
	"process.exit_code":                "change.exit_code",
}

// readEvent builds the event of a test case from YAML: nested or dotted names, as `replay -o jsonl` prints them. Where the dataset is
// not said it follows from the fields.
func (d *document) readEvent(n ast.Node, key string) *pipeline.Event {
	e := &pipeline.Event{}
	body := pipeline.Dataset_DATASET_NONE
	d.eachField(n, key, "", 0, func(name string, at position, v ast.Node) {
		f := pipeline.Lookup(name)
		if f == nil {
			d.addError(at, joinKeys(key, name), "unknown field%s", didYouMean(name, fieldNames()))
			return
		}
		if err := assign(e, f, v); err != nil {
			d.addError(positionOfNode(v), joinKeys(key, name), "%v", err)
			return
		}
		if f.Body != pipeline.Dataset_DATASET_NONE {
			if body != pipeline.Dataset_DATASET_NONE && body != f.Body {
				d.addError(at, joinKeys(key, name), "is a field of %s, but the event has fields of %s", f.Body.Name(), body.Name())
			}
			body = f.Body
		}
	})
	switch {
	case e.Dataset == pipeline.Dataset_DATASET_NONE:
		e.Dataset = body
	case body != pipeline.Dataset_DATASET_NONE && body != e.Dataset:
		d.addError(positionOfNode(n), key, "event.dataset is %s, but the event has fields of %s", e.Dataset.Name(), body.Name())
	}
	if e.Dataset == pipeline.Dataset_DATASET_NONE {
		d.addError(positionOfNode(n), key, "say event.dataset: no field tells it")
	}
	if user := e.GetMysql().GetUserName(); user != "" && e.Dataset == pipeline.Dataset_HTTP {
		e.Http, e.Mysql = orNew(e.Http), nil
		e.Http.UserName = user
	}
	return e
}

func orNew(h *pipeline.HTTPExchange) *pipeline.HTTPExchange {
	if h == nil {
		return &pipeline.HTTPExchange{}
	}
	return h
}

// eachField walks a map and calls set for every leaf under its dotted name.
func (d *document) eachField(n ast.Node, key, prefix string, depth int, set func(name string, at position, v ast.Node)) {
	ps, ok := d.readMapping(n, joinKeys(key, prefix))
	if !ok || depth > 8 {
		return
	}
	for _, p := range ps {
		name := p.key
		if prefix != "" {
			name = prefix + "." + p.key
		}
		switch p.value.(type) {
		case *ast.MappingNode, *ast.MappingValueNode:
			if name != "container.labels" {
				d.eachField(p.value, key, name, depth+1, set)
				continue
			}
		}
		set(name, p.at, p.value)
	}
}

// assign sets one field of e. The fields that are computed from others, and the verdicts, cannot be set.
func assign(e *pipeline.Event, f *pipeline.Field, v ast.Node) error {
	if path, ok := paths[f.Name]; ok {
		return setPath(e.ProtoReflect(), strings.Split(path, "."), f, v)
	}
	text, _ := scalarText(v)
	switch f.Name {
	case "event.dataset":
		if e.Dataset = pipeline.DatasetByName(text); e.Dataset == pipeline.Dataset_DATASET_NONE {
			return fmt.Errorf("no dataset is called %q", text)
		}
	case "network.transport":
		for _, t := range []pipeline.Transport{pipeline.Transport_TCP, pipeline.Transport_UDP} {
			if t.Name() == text {
				e.Transport = t
				return nil
			}
		}
		return fmt.Errorf("expected tcp or udp, got %q", text)
	case "event.outcome":
		for _, o := range []pipeline.Outcome{pipeline.Outcome_SUCCESS, pipeline.Outcome_FAILURE} {
			if o.Name() == text {
				e.Outcome = o
				return nil
			}
		}
		return fmt.Errorf("expected success or failure, got %q", text)
	case "user.name":
		// It lies in one of two bodies; event moves it when it knows which.
		if e.Mysql == nil {
			e.Mysql = &pipeline.MySQLCommand{}
		}
		e.Mysql.UserName = text
	case "container.labels":
		m, ok := v.(*ast.MappingNode)
		if !ok {
			return fmt.Errorf("expected a mapping of labels, got %s", kindOf(v))
		}
		if e.Container == nil {
			e.Container = &pipeline.Container{}
		}
		for _, p := range m.Values {
			k, _ := scalarText(p.Key)
			s, ok := scalarText(p.Value)
			if !ok {
				return fmt.Errorf("label %q: expected text, got %s", k, kindOf(p.Value))
			}
			e.Container.Labels = append(e.Container.Labels, &pipeline.Label{Key: k, Value: s})
		}
	default:
		return fmt.Errorf("cannot be set in a test: it is computed, or written after the rules ran")
	}
	return nil
}

func setPath(m protoreflect.Message, path []string, f *pipeline.Field, v ast.Node) error {
	for ; len(path) > 1; path = path[1:] {
		m = m.Mutable(m.Descriptor().Fields().ByName(protoreflect.Name(path[0]))).Message()
	}
	fd := m.Descriptor().Fields().ByName(protoreflect.Name(path[0]))
	if !fd.IsList() {
		value, err := scalar(fd, f, v)
		if err == nil {
			m.Set(fd, value)
		}
		return err
	}
	items := []ast.Node{v}
	if s, ok := v.(*ast.SequenceNode); ok {
		items = s.Values
	}
	list := m.Mutable(fd).List()
	for _, item := range items {
		value, err := scalar(fd, f, item)
		if err != nil {
			return err
		}
		list.Append(value)
	}
	return nil
}

// scalar reads one value of the type that the field of the message has.
func scalar(fd protoreflect.FieldDescriptor, f *pipeline.Field, v ast.Node) (protoreflect.Value, error) {
	var none protoreflect.Value
	text, ok := scalarText(v)
	if !ok {
		return none, fmt.Errorf("expected a single value, got %s", kindOf(v))
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		if _, isText := v.(*ast.StringNode); !isText {
			if _, isBlock := v.(*ast.LiteralNode); !isBlock {
				return none, fmt.Errorf("expected text, got %s", kindOf(v))
			}
		}
		return protoreflect.ValueOfString(text), nil
	case protoreflect.BoolKind:
		b, ok := v.(*ast.BoolNode)
		if !ok {
			return none, fmt.Errorf("expected true or false, got %s", kindOf(v))
		}
		return protoreflect.ValueOfBool(b.Value), nil
	case protoreflect.BytesKind:
		a, err := netip.ParseAddr(text)
		if err != nil {
			return none, fmt.Errorf("not an address: %q", text)
		}
		return protoreflect.ValueOfBytes(a.Unmap().AsSlice()), nil
	}
	if f.Time != nil {
		t, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return none, fmt.Errorf("not a time as 2006-01-02T15:04:05Z: %q", text)
		}
		return protoreflect.ValueOfInt64(t.UnixNano()), nil
	}
	n, err := integer(v)
	if err != nil {
		return none, err
	}
	return numeric(fd.Kind(), n)
}

func integer(v ast.Node) (int64, error) {
	if i, ok := v.(*ast.IntegerNode); ok {
		switch x := i.Value.(type) {
		case int64:
			return x, nil
		case uint64:
			if x <= math.MaxInt64 {
				return int64(x), nil
			}
		}
	}
	return 0, fmt.Errorf("expected a whole number, got %s", kindOf(v))
}

func numeric(k protoreflect.Kind, n int64) (protoreflect.Value, error) {
	var none protoreflect.Value
	switch k {
	case protoreflect.Uint32Kind:
		if n >= 0 && n <= math.MaxUint32 {
			return protoreflect.ValueOfUint32(uint32(n)), nil
		}
	case protoreflect.Uint64Kind:
		if n >= 0 {
			return protoreflect.ValueOfUint64(uint64(n)), nil
		}
	case protoreflect.Int32Kind:
		if n >= math.MinInt32 && n <= math.MaxInt32 {
			return protoreflect.ValueOfInt32(int32(n)), nil
		}
	case protoreflect.Sfixed64Kind, protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(n), nil
	}
	return none, fmt.Errorf("%d is out of range", n)
}
