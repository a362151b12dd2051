package pipeline

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// filled returns an event in which every field of the common part and of every body has a value other than
// zero.
func filled() *Event {
	e := &Event{}
	fill(e.ProtoReflect(), 0)
	e.Id = []byte("0123456789abcdef")
	e.CommunityId = []byte("01234567890123456789")
	for _, p := range []*Endpoint{e.Source, e.Destination} {
		p.Ip, p.NatIp = []byte{192, 0, 2, 1}, []byte{198, 51, 100, 1}
	}
	e.Change.Action = "die"
	return e
}

func fill(m protoreflect.Message, depth int) {
	fs := m.Descriptor().Fields()
	for i := range fs.Len() {
		f := fs.Get(i)
		switch {
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			l := m.Mutable(f).List()
			fill(l.AppendMutable().Message(), depth+1)
		case f.IsList():
			m.Mutable(f).List().Append(scalar(f))
		case f.Kind() == protoreflect.MessageKind:
			fill(m.Mutable(f).Message(), depth+1)
		default:
			m.Set(f, scalar(f))
		}
	}
}

func scalar(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("x")
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{1, 2, 3, 4})
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(1)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(1)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(1)
	case protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(1)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	}
	panic("a kind that event.proto did not have: " + f.Kind().String())
}

// TestEveryFieldReadsSomething finds getters that read nothing: every field is present in an event that has
// everything, and absent in an event that has nothing.
func TestEveryFieldReadsSomething(t *testing.T) {
	e := filled()
	for i := range Fields {
		f := &Fields[i]
		if !f.Has(e) {
			t.Errorf("%s: absent in an event that has everything", f.Name)
		}
		if f.Has(&Event{}) {
			t.Errorf("%s: present in an event that has nothing", f.Name)
		}
	}
}

// TestEveryLeafOfTheTypeIsInTheTable clears one leaf of event.proto after the other: the value of some field
// must change.
func TestEveryLeafOfTheTypeIsInTheTable(t *testing.T) {
	known := map[string]string{
		"container_index": "how container is sent", "source.container_index": "how container is sent", "destination.container_index": "how container is sent",
		"source.container.ip": "for finding it, not for saying", "destination.container.ip": "as above", "container.ip": "as above",
		"source.container.image_id": "the owner's says it", "destination.container.image_id": "as above",
		"source.container.labels": "the owner's says it", "destination.container.labels": "as above",
		"source.container.demo": "any of three", "destination.container.demo": "any of three", "container.demo": "any of three",
		"verdicts.tags": "on the alert", "http.user_name": "mysql's wins where all are set",
	}
	var walk func(path string, md protoreflect.MessageDescriptor, at func(e *Event, do func(protoreflect.Message)))
	walk = func(path string, md protoreflect.MessageDescriptor, at func(e *Event, do func(protoreflect.Message))) {
		fs := md.Fields()
		for i := range fs.Len() {
			f := fs.Get(i)
			p := strings.TrimPrefix(path+"."+string(f.Name()), ".")
			if _, ok := known[p]; ok {
				continue
			}
			if f.Kind() == protoreflect.MessageKind && f.Message().Name() != "Label" {
				walk(p, f.Message(), func(e *Event, do func(protoreflect.Message)) {
					at(e, func(m protoreflect.Message) {
						if f.IsList() {
							do(m.Mutable(f).List().Get(0).Message())
						} else {
							do(m.Mutable(f).Message())
						}
					})
				})
				continue
			}
			e := filled()
			at(e, func(m protoreflect.Message) { m.Clear(f) })
			if reflect.DeepEqual(values(e), values(filled())) {
				t.Errorf("%s: no row of the field table reads it", p)
			}
		}
	}
	walk("", (&Event{}).ProtoReflect().Descriptor(), func(e *Event, do func(protoreflect.Message)) { do(e.ProtoReflect()) })
}

func values(e *Event) map[string]any {
	out := map[string]any{}
	for i := range Fields {
		f := &Fields[i]
		switch {
		case f.Str != nil:
			out[f.Name] = f.Str(e)
		case f.Num != nil:
			out[f.Name] = f.Num(e)
		case f.Flag != nil:
			out[f.Name] = f.Flag(e)
		case f.Time != nil:
			out[f.Name] = f.Time(e)
		case f.IP != nil:
			out[f.Name] = f.IP(e).String()
		case f.Raw != nil:
			out[f.Name] = string(f.Raw(e))
		case f.Strs != nil:
			out[f.Name] = f.Strs(e, nil)
		case f.Nums != nil:
			out[f.Name] = f.Nums(e, nil)
		case f.Labels != nil:
			out[f.Name] = len(f.Labels(e))
		default:
			panic(f.Name + " has no getter")
		}
	}
	return out
}

func TestNamesAndColumnsAreUnique(t *testing.T) {
	names, columns := map[string]bool{}, map[string]bool{}
	for _, f := range Fields {
		if names[f.Name] || columns[f.Column.Name] || f.Doc == "" || f.Column.Type == "" {
			t.Errorf("%s: double, or without a sentence or a type", f.Name)
		}
		names[f.Name], columns[f.Column.Name] = true, true
		if f.Strs != nil && strings.Contains(f.Column.Name, ".") && !strings.HasPrefix(f.Name, "verdict.") {
			t.Errorf("%s: the column of a list has a dot, and is Nested to ClickHouse", f.Name)
		}
	}
}

func TestReadingAFieldDoesNotAllocate(t *testing.T) {
	e := filled()
	strs, nums := make([]string, 0, 16), make([]int64, 0, 16)
	for i := range Fields {
		f := &Fields[i]
		n := testing.AllocsPerRun(10, func() {
			if f.Strs != nil {
				f.Strs(e, strs)
			} else if f.Nums != nil {
				f.Nums(e, nums)
			} else {
				f.Has(e)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", f.Name, n)
		}
	}
}

func TestJSONIsNestedAndSaysOnlyWhatIsThere(t *testing.T) {
	e := &Event{
		Id: []byte("0123456789abcdef"), Dataset: Dataset_DNS, Timestamp: 1700000000123456789, Transport: Transport_UDP,
		Source: &Endpoint{Ip: []byte{172, 17, 0, 2}, Port: 40000},
		Dns:    &DNSMessage{QuestionName: "a\"b\\c\n\x01\xff.example", AnswersData: []string{"192.0.2.1", "é"}, AnswersTtl: []uint32{30, 0}},
	}
	got := string(AppendJSON(nil, e))
	want := `{"@timestamp":"2023-11-14T22:13:20.123456789Z","event":{"id":"30313233-3435-3637-3839-616263646566","dataset":"dns"},"network":{"transport":"udp","type":"ipv4"},` +
		`"source":{"ip":"172.17.0.2","port":40000},"dns":{"question":{"name":"a\"b\\c\n\u0001\ufffd.example"},"answers":{"data":["192.0.2.1","é"],"ttl":[30,0]}}}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestJSONSteersNoTerminal checks that JSON of any text has no control characters, and decodes to the same
// text.
func TestJSONSteersNoTerminal(t *testing.T) {
	const nasty = "a\x1b[2J\x7fb\u0080\u009b31m\u009fc\u00a0é\u2028日"
	got := string(AppendJSON(nil, &Event{Dataset: Dataset_LOG, Log: &LogLine{Message: nasty}}))
	if strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
		t.Errorf("got %q", got)
	}
	var back struct{ Message string }
	if err := json.Unmarshal([]byte(got), &back); err != nil || back.Message != nasty {
		t.Errorf("%s reads as %q, %v", got, back.Message, err)
	}
}

func FuzzJSONIsValid(f *testing.F) {
	f.Add("plain", "\x00\xff\\")
	f.Fuzz(func(t *testing.T, a, b string) {
		e := &Event{Dataset: Dataset_LOG, Log: &LogLine{Message: a, Path: b}, Container: &Container{Labels: []*Label{{Key: b, Value: a}}}}
		if got := AppendJSON(nil, e); !json.Valid(got) {
			t.Errorf("%q is not JSON", got)
		}
	})
}

// TestReleasedEventsShareNothingWithTheirBuffer fills pooled events after a release: the buffer of the record
// that the released events were decoded from must not change.
func TestReleasedEventsShareNothingWithTheirBuffer(t *testing.T) {
	src := &Batch{Collector: []byte("collectorcollect"), Events: []*Event{{Id: []byte("0123456789abcdef"), CommunityId: []byte("01234567890123456789"), Source: &Endpoint{Ip: []byte{1, 2, 3, 4}, NatIp: []byte{5, 6, 7, 8}}}}}
	buf, err := src.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	before := string(buf)
	for range 100 {
		b := BatchFromVTPool()
		if err := b.UnmarshalVTUnsafe(buf); err != nil {
			t.Fatal(err)
		}
		ResolveReferences(b)
		ReleaseBatch(b)
		e := EventFromVTPool()
		e.Id = append(e.Id[:0], "XXXXXXXXXXXXXXXX"...)
		e.Source = EndpointFromVTPool()
		e.Source.Ip = append(e.Source.Ip[:0], 9, 9, 9, 9)
		ReleaseEvent(e)
		b = BatchFromVTPool()
		b.Collector = append(b.Collector[:0], "YYYYYYYYYYYYYYYY"...)
		ReleaseBatch(b)
	}
	if string(buf) != before {
		t.Error("the buffer was written through a pooled event")
	}
}

func TestResolveIgnoresAnIndexOutOfRange(t *testing.T) {
	c := &Container{Id: "c1"}
	b := &Batch{Host: &Host{Name: "h"}, Containers: []*Container{c}, Events: []*Event{{ContainerIndex: 1, Source: &Endpoint{ContainerIndex: 2}, Destination: &Endpoint{ContainerIndex: 1}}}}
	ResolveReferences(b)
	e := b.Events[0]
	if e.Container != c || e.Source.Container != nil || e.Destination.Container != c || e.Host != b.Host {
		t.Errorf("resolved %v", e)
	}
}

// TestCommunityID uses vectors from the baseline of the specification.
func TestCommunityID(t *testing.T) {
	check := func(tr Transport, a, b, want string) {
		t.Helper()
		x, y := netip.MustParseAddrPort(a), netip.MustParseAddrPort(b)
		for _, id := range [][20]byte{CommunityID(tr, x, y), CommunityID(tr, y, x)} {
			if got := CommunityIDText(id[:]); got != want {
				t.Errorf("%s %s: got %s, want %s", a, b, got, want)
			}
		}
	}
	check(Transport_TCP, "128.232.110.120:34855", "66.35.250.204:80", "1:LQU9qZlK+B5F3KDmev6m5PMibrg=")
	check(Transport_UDP, "192.168.1.52:54585", "8.8.8.8:53", "1:d/FP5EW3wiY1vCndhwleRRKHowQ=")
}

func TestIdentitiesDifferInEveryPart(t *testing.T) {
	c := ID{1}
	a, b := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2")
	s := SessionID(c, Transport_TCP, a, b, 7, 9)
	ids := []ID{
		s, SessionID(ID{2}, Transport_TCP, a, b, 7, 9), SessionID(c, Transport_UDP, a, b, 7, 9), SessionID(c, Transport_TCP, b, a, 7, 9), SessionID(c, Transport_TCP, a, b, 8, 9), SessionID(c, Transport_TCP, a, b, 7, 8),
		TransactionID(s, 0, 0), TransactionID(s, 1, 0), TransactionID(s, 0, 1), TransactionID(ID{}, 0, 0),
		LogID(c, "a", []byte("h"), 0), LogID(c, "ah", nil, 0), LogID(c, "a", []byte("h"), 1), LogID(ID{}, "a", []byte("h"), 0),
	}
	seen := map[ID]int{}
	for i, id := range ids {
		if j, ok := seen[id]; ok {
			t.Errorf("identities %d and %d are the same", i, j)
		}
		seen[id] = i
	}
	if s != SessionID(c, Transport_TCP, a, b, 7, 9) {
		t.Error("an identity is not the same twice")
	}
}
