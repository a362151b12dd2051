package pipeline

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"tidegate/pipeline/lineartest"
)

// filled returns an event in which no field of the common part or of a body is zero.
func filled() *Event {
	event := &Event{}
	fill(event.ProtoReflect(), 0)
	event.Id = []byte("0123456789abcdef")
	event.CommunityId = []byte("01234567890123456789")
	for _, endpoint := range []*Endpoint{event.Source, event.Destination} {
		endpoint.Ip, endpoint.NatIp = []byte{192, 0, 2, 1}, []byte{198, 51, 100, 1}
	}
	event.Change.Action = "die"
	return event
}

// fill sets each field of a message, and of the messages in it.
func fill(message protoreflect.Message, depth int) {
	fields := message.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		switch {
		case field.IsList() && field.Kind() == protoreflect.MessageKind:
			list := message.Mutable(field).List()
			fill(list.AppendMutable().Message(), depth+1)
		case field.IsList():
			message.Mutable(field).List().Append(scalar(field))
		case field.Kind() == protoreflect.MessageKind:
			fill(message.Mutable(field).Message(), depth+1)
		default:
			message.Set(field, scalar(field))
		}
	}
}

// scalar returns a value other than zero for a field.
func scalar(field protoreflect.FieldDescriptor) protoreflect.Value {
	switch field.Kind() {
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
	panic("a kind that event.proto did not have: " + field.Kind().String())
}

// TestEveryFieldReadsSomething: every field of the table is present in an event that has a value everywhere,
// and absent in an empty event.
func TestEveryFieldReadsSomething(t *testing.T) {
	event := filled()
	for i := range Fields {
		field := &Fields[i]
		if !field.Has(event) {
			t.Errorf("%s: absent in an event that has a value everywhere", field.Name)
		}
		if field.Has(&Event{}) {
			t.Errorf("%s: present in an empty event", field.Name)
		}
	}
}

// fieldsWithoutRow are the fields of event.proto that no row of the field table reads, with the reason.
var fieldsWithoutRow = map[string]string{
	"container_index":             "refers to the container of the batch",
	"source.container_index":      "refers to the container of the batch",
	"destination.container_index": "refers to the container of the batch",

	"container.ip":             "is used to resolve addresses only",
	"source.container.ip":      "is used to resolve addresses only",
	"destination.container.ip": "is used to resolve addresses only",

	"source.container.image_id":      "is read from the container of the event",
	"destination.container.image_id": "is read from the container of the event",
	"source.container.labels":        "are read from the container of the event",
	"destination.container.labels":   "are read from the container of the event",

	"container.demo":             "is set if one of three is",
	"source.container.demo":      "is set if one of three is",
	"destination.container.demo": "is set if one of three is",

	"http.user_name": "yields to mysql.user_name where both are set",
}

// TestEveryFieldOfAnEventIsInTheTable: when one field of event.proto is cleared, the value of a row of the
// field table changes.
func TestEveryFieldOfAnEventIsInTheTable(t *testing.T) {
	// walk checks the fields of a message at a path. at calls do with this message of an event.
	var walk func(path string, md protoreflect.MessageDescriptor, at func(e *Event, do func(protoreflect.Message)))
	walk = func(path string, md protoreflect.MessageDescriptor, at func(e *Event, do func(protoreflect.Message))) {
		for i := range md.Fields().Len() {
			field := md.Fields().Get(i)
			fieldPath := strings.TrimPrefix(path+"."+string(field.Name()), ".")
			if _, ok := fieldsWithoutRow[fieldPath]; ok {
				continue
			}
			if field.Kind() == protoreflect.MessageKind && field.Message().Name() != "Label" {
				walk(fieldPath, field.Message(), func(e *Event, do func(protoreflect.Message)) {
					at(e, func(message protoreflect.Message) {
						if field.IsList() {
							do(message.Mutable(field).List().Get(0).Message())
						} else {
							do(message.Mutable(field).Message())
						}
					})
				})
				continue
			}
			event := filled()
			at(event, func(message protoreflect.Message) { message.Clear(field) })
			if reflect.DeepEqual(values(event), values(filled())) {
				t.Errorf("%s: no row of the field table reads it", fieldPath)
			}
		}
	}
	root := func(e *Event, do func(protoreflect.Message)) { do(e.ProtoReflect()) }
	walk("", (&Event{}).ProtoReflect().Descriptor(), root)
}

// values returns the value of each field of the table by its name.
func values(event *Event) map[string]any {
	out := map[string]any{}
	for i := range Fields {
		field := &Fields[i]
		switch {
		case field.Str != nil:
			out[field.Name] = field.Str(event)
		case field.Num != nil:
			out[field.Name] = field.Num(event)
		case field.Flag != nil:
			out[field.Name] = field.Flag(event)
		case field.Time != nil:
			out[field.Name] = field.Time(event)
		case field.IP != nil:
			out[field.Name] = field.IP(event).String()
		case field.Raw != nil:
			out[field.Name] = string(field.Raw(event))
		case field.Strs != nil:
			out[field.Name] = field.Strs(event, nil)
		case field.Nums != nil:
			out[field.Name] = field.Nums(event, nil)
		case field.Labels != nil:
			out[field.Name] = len(field.Labels(event))
		default:
			panic(field.Name + " has no getter")
		}
	}
	return out
}

func TestNamesAndColumnsAreUnique(t *testing.T) {
	names, columns := map[string]bool{}, map[string]bool{}
	for _, field := range Fields {
		if names[field.Name] || columns[field.Column.Name] || field.Doc == "" || field.Column.Type == "" {
			t.Errorf("%s: a duplicate name, or no description or type", field.Name)
		}
		names[field.Name], columns[field.Column.Name] = true, true
		if field.Strs != nil && strings.Contains(field.Column.Name, ".") && !strings.HasPrefix(field.Name, "verdict.") {
			t.Errorf("%s: the column of a list has a dot, and is Nested to ClickHouse", field.Name)
		}
	}
}

func TestReadingAFieldDoesNotAllocate(t *testing.T) {
	event := filled()
	strs, nums := make([]string, 0, 16), make([]int64, 0, 16)
	for i := range Fields {
		field := &Fields[i]
		allocations := testing.AllocsPerRun(10, func() {
			if field.Strs != nil {
				field.Strs(event, strs)
			} else if field.Nums != nil {
				field.Nums(event, nums)
			} else {
				field.Has(event)
			}
		})
		if allocations != 0 {
			t.Errorf("%s: %v allocations", field.Name, allocations)
		}
	}
}

func TestJSONIsNestedAndOmitsEmptyFields(t *testing.T) {
	event := &Event{
		Id: []byte("0123456789abcdef"), Dataset: Dataset_DNS, Timestamp: 1700000000123456789, Transport: Transport_UDP,
		Source: &Endpoint{Ip: []byte{172, 17, 0, 2}, Port: 40000},
		Dns: &DNSMessage{
			QuestionName: "a\"b\\c\n\x01\xff.example",
			AnswersData:  []string{"192.0.2.1", "é"}, AnswersTtl: []uint32{30, 0},
		},
	}
	got := string(AppendJSON(nil, event))
	want := `{"@timestamp":"2023-11-14T22:13:20.123456789Z",` +
		`"event":{"id":"30313233-3435-3637-3839-616263646566","dataset":"dns"},` +
		`"network":{"transport":"udp","type":"ipv4"},"source":{"ip":"172.17.0.2","port":40000},` +
		`"dns":{"question":{"name":"a\"b\\c\n\u0001\ufffd.example"},"answers":{"data":["192.0.2.1","é"],"ttl":[30,0]}}}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestJSONHasNoControlCharacters: terminals interpret control characters, so the JSON of a text has none. It
// is decoded to the same text.
func TestJSONHasNoControlCharacters(t *testing.T) {
	const message = "a\x1b[2J\x7fb\u0080\u009b31m\u009fc\u00a0é\u2028日"
	got := string(AppendJSON(nil, &Event{Dataset: Dataset_LOG, Log: &LogLine{Message: message}}))
	if strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
		t.Errorf("got %q", got)
	}
	var back struct{ Message string }
	if err := json.Unmarshal([]byte(got), &back); err != nil || back.Message != message {
		t.Errorf("%s reads as %q, %v", got, back.Message, err)
	}
}

func FuzzJSONIsValid(f *testing.F) {
	f.Add("plain", "\x00\xff\\")
	f.Fuzz(func(t *testing.T, message, path string) {
		lineartest.CheckRepeatedPair(t, lineartest.Default, message, path, func(message, path string) {
			event := &Event{
				Dataset: Dataset_LOG, Log: &LogLine{Message: message, Path: path},
				Container: &Container{Labels: []*Label{{Key: path, Value: message}}},
			}
			if got := AppendJSON(nil, event); !json.Valid(got) {
				t.Errorf("%q is not JSON", got)
			}
		})
	})
}

// TestReleasedEventsShareNothingWithTheirBuffer: events are decoded without a copy, released to the pool, and
// filled again. The buffer from which they were decoded does not change.
func TestReleasedEventsShareNothingWithTheirBuffer(t *testing.T) {
	sent := &Event{
		Id: []byte("0123456789abcdef"), CommunityId: []byte("01234567890123456789"),
		Source: &Endpoint{Ip: []byte{1, 2, 3, 4}, NatIp: []byte{5, 6, 7, 8}},
	}
	src := &Batch{Collector: []byte("collectorcollect"), Events: []*Event{sent}}
	buf, err := src.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	before := string(buf)
	for range 100 {
		batch := BatchFromVTPool()
		if err := batch.UnmarshalVTUnsafe(buf); err != nil {
			t.Fatal(err)
		}
		ResolveReferences(batch)
		ReleaseBatch(batch)
		event := EventFromVTPool()
		event.Id = append(event.Id[:0], "XXXXXXXXXXXXXXXX"...)
		event.Source = EndpointFromVTPool()
		event.Source.Ip = append(event.Source.Ip[:0], 9, 9, 9, 9)
		ReleaseEvent(event)
		batch = BatchFromVTPool()
		batch.Collector = append(batch.Collector[:0], "YYYYYYYYYYYYYYYY"...)
		ReleaseBatch(batch)
	}
	if string(buf) != before {
		t.Error("the buffer was written through a pooled event")
	}
}

// TestReleasedListsAreEmpty: no list of a released event holds an element in its unused capacity, where a string
// would keep the record's buffer in memory, and a long one is dropped.
func TestReleasedListsAreEmpty(t *testing.T) {
	var visit func(v reflect.Value, path string, length int, check bool) int
	visit = func(v reflect.Value, path string, length int, check bool) (lists int) {
		for i := range v.NumField() {
			field, name := v.Field(i), path+"."+v.Type().Field(i).Name
			switch {
			case !v.Type().Field(i).IsExported():
			case field.Kind() == reflect.Pointer && field.Type().Elem().Kind() == reflect.Struct:
				if name == "Event.Container" || name == "Event.Host" || strings.HasSuffix(name, "tion.Container") ||
					strings.HasSuffix(name, "Source.Container") {
					continue // shared by many events
				}
				if !check {
					field.Set(reflect.New(field.Type().Elem()))
				}
				lists += visit(field.Elem(), name, length, check)
			case field.Kind() == reflect.Slice && field.Type().Elem().Kind() != reflect.Uint8:
				lists++
				if !check {
					field.Set(reflect.MakeSlice(field.Type(), length, length))
					for j := range length {
						switch element := field.Index(j); element.Kind() {
						case reflect.String:
							element.SetString("of the buffer")
						case reflect.Pointer:
							element.Set(reflect.New(element.Type().Elem()))
						default:
							element.SetUint(7)
						}
					}
					continue
				}
				if field.Len() > 0 || field.Cap() > maxPooledList {
					t.Errorf("%s has %d elements and a capacity of %d", name, field.Len(), field.Cap())
				}
				for j, all := 0, field.Slice(0, field.Cap()); j < all.Len(); j++ {
					if !all.Index(j).IsZero() {
						t.Errorf("%s keeps an element", name)
						break
					}
				}
			}
		}
		return lists
	}
	for _, length := range []int{3, maxPooledList, maxPooledList + 1} {
		event := &Event{}
		filled := visit(reflect.ValueOf(event).Elem(), "Event", length, false)
		detachBuffer(event)
		if checked := visit(reflect.ValueOf(event).Elem(), "Event", length, true); checked != filled || filled < 15 {
			t.Errorf("%d lists filled, %d checked", filled, checked)
		}
	}
}

func TestResolveIgnoresAnIndexOutOfRange(t *testing.T) {
	container := &Container{Id: "c1"}
	event := &Event{ContainerIndex: 1, Source: &Endpoint{ContainerIndex: 2}, Destination: &Endpoint{ContainerIndex: 1}}
	batch := &Batch{Host: &Host{Name: "h"}, Containers: []*Container{container}, Events: []*Event{event}}
	ResolveReferences(batch)
	if event.Container != container || event.Source.Container != nil || event.Destination.Container != container {
		t.Errorf("containers %v", event)
	}
	if event.Host != batch.Host {
		t.Errorf("resolved %v", event)
	}
}

// TestCommunityIDIsThatOfTheSpecification: the cases are from the baseline of the specification.
func TestCommunityIDIsThatOfTheSpecification(t *testing.T) {
	check := func(transport Transport, client, server, want string) {
		t.Helper()
		clientAddr, serverAddr := netip.MustParseAddrPort(client), netip.MustParseAddrPort(server)
		forth, back := CommunityID(transport, clientAddr, serverAddr), CommunityID(transport, serverAddr, clientAddr)
		for _, id := range [][20]byte{forth, back} {
			if got := CommunityIDText(id[:]); got != want {
				t.Errorf("%s %s: got %s, want %s", client, server, got, want)
			}
		}
	}
	check(Transport_TCP, "128.232.110.120:34855", "66.35.250.204:80", "1:LQU9qZlK+B5F3KDmev6m5PMibrg=")
	check(Transport_UDP, "192.168.1.52:54585", "8.8.8.8:53", "1:d/FP5EW3wiY1vCndhwleRRKHowQ=")
}

// TestIDsDifferInEveryPart: each ID differs from the first of its kind in one part.
func TestIDsDifferInEveryPart(t *testing.T) {
	collector := ID{1}
	client, server := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2")
	session := SessionID(collector, Transport_TCP, client, server, 7, 9)
	ids := []ID{
		session,
		SessionID(ID{2}, Transport_TCP, client, server, 7, 9),
		SessionID(collector, Transport_UDP, client, server, 7, 9),
		SessionID(collector, Transport_TCP, server, client, 7, 9),
		SessionID(collector, Transport_TCP, client, server, 8, 9),
		SessionID(collector, Transport_TCP, client, server, 7, 8),

		TransactionID(session, 0, 0), TransactionID(session, 1, 0), TransactionID(session, 0, 1),
		TransactionID(ID{}, 0, 0),

		LogID(collector, "a", []byte("h"), 0), LogID(collector, "ah", nil, 0), LogID(collector, "a", []byte("h"), 1),
		LogID(ID{}, "a", []byte("h"), 0),
	}
	seen := map[ID]int{}
	for i, id := range ids {
		if other, ok := seen[id]; ok {
			t.Errorf("IDs %d and %d are equal", i, other)
		}
		seen[id] = i
	}
	if session != SessionID(collector, Transport_TCP, client, server, 7, 9) {
		t.Error("the ID of the same session has changed")
	}
}
