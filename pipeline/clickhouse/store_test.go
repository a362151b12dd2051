package clickhouse_test

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded/embeddedtest"
)

func TestMain(m *testing.M) {
	os.Exit(embeddedtest.Run(m))
}

// filled returns an event in which each field of each body has a value of its own.
func filled() *pipeline.Event {
	event := &pipeline.Event{}
	fill(event.ProtoReflect(), "")
	event.Id = []byte("0123456789abcdef")
	event.CommunityId = []byte("01234567890123456789")
	event.Timestamp, event.Ingested = 1_700_000_000_123_456_789, ingested
	event.Source.Ip, event.Source.NatIp = []byte{192, 0, 2, 1}, []byte{198, 51, 100, 1}
	event.Destination.Ip = []byte("\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01")
	event.Destination.NatIp = []byte{203, 0, 113, 7}
	second := &pipeline.Verdict{Rule: "second", Severity: pipeline.Severity_HIGH, Tags: []string{"a", "b"}}
	event.Verdicts = append(event.Verdicts, second)
	return event
}

// fill sets each field of a message at a path of event.proto, and of the messages in it.
func fill(message protoreflect.Message, path string) {
	fields := message.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		fieldPath := path + "." + string(field.Name())
		switch {
		case field.IsList() && field.Kind() == protoreflect.MessageKind:
			fill(message.Mutable(field).List().AppendMutable().Message(), fieldPath)
		case field.IsList():
			list := message.Mutable(field).List()
			list.Append(scalar(field, fieldPath))
			list.Append(scalar(field, fieldPath+"2"))
		case field.Kind() == protoreflect.MessageKind:
			fill(message.Mutable(field).Message(), fieldPath)
		default:
			message.Set(field, scalar(field, fieldPath))
		}
	}
}

// scalar returns a value for a field that follows from its path.
func scalar(field protoreflect.FieldDescriptor, path string) protoreflect.Value {
	hash := fnv.New32a()
	hash.Write([]byte(path))
	sum := hash.Sum32()
	switch field.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("«" + path + "»\x00\xff")
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{1, 2, 3, 4})
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(sum%200 + 1)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(math.MaxUint64 - uint64(sum))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(-int32(sum % 1000))
	case protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(1_600_000_000_000_000_000 + int64(sum))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	}
	panic("a kind that event.proto did not have: " + field.Kind().String())
}

// fieldValue returns the value of a field of an event, in the form in which stored returns it.
func fieldValue(field *pipeline.Field, event *pipeline.Event) any {
	switch {
	case field.Str != nil:
		return field.Str(event)
	case field.Num != nil:
		return field.Num(event)
	case field.Flag != nil:
		return field.Flag(event)
	case field.Time != nil:
		return field.Time(event)
	case field.IP != nil:
		if addr := field.IP(event); addr.IsValid() {
			return addr.String()
		}
		return ""
	case field.Raw != nil && field.Column.Alias != "":
		return pipeline.CommunityIDText(field.Raw(event))
	case field.Raw != nil:
		return string(append(field.Raw(event), make([]byte, 16-len(field.Raw(event)))...))
	case field.Strs != nil:
		return append([]string{}, field.Strs(event, nil)...)
	case field.Nums != nil:
		return append([]int64{}, field.Nums(event, nil)...)
	}
	labels := map[string]string{}
	for _, label := range field.Labels(event) {
		labels[label.Key] = label.Value
	}
	return labels
}

// stored queries a field of the row at an offset, by the name of the field.
func stored(t *testing.T, store *clickhouse.Store, field *pipeline.Field, offset int64) any {
	t.Helper()
	expr := "`" + field.Name + "`"
	var to any
	switch {
	case field.Str != nil, field.IP != nil, field.Raw != nil:
		to = new(string)
		if field.Column.Type == "UUID" {
			expr = "UUIDStringToNum(toString(" + expr + "))"
		}
	case field.Num != nil:
		to, expr = new(int64), "toInt64("+expr+")"
	case field.Flag != nil:
		to = new(bool)
	case field.Time != nil:
		to, expr = new(int64), "toUnixTimestamp64Nano("+expr+")"
	case field.Strs != nil:
		to = new([]string)
	case field.Nums != nil:
		to, expr = new([]int64), "arrayMap(x -> toInt64(x), "+expr+")"
	default:
		to = new(map[string]string)
	}
	sql := fmt.Sprintf("SELECT %s FROM `%s`.events WHERE _offset = %d", expr, store.Config().Database, offset)
	if err := store.Conn().QueryRow(t.Context(), sql).Scan(to); err != nil {
		t.Fatalf("%s: %v", field.Name, err)
	}
	switch v := to.(type) {
	case *string:
		return *v
	case *int64:
		return *v
	case *bool:
		return *v
	case *[]string:
		return append([]string{}, *v...)
	case *[]int64:
		return append([]int64{}, *v...)
	case *map[string]string:
		return *v
	}
	return nil
}

// TestEveryFieldComesBack: over both protocols, each field of a row is read back under its name. The rows
// around it have no values.
func TestEveryFieldComesBack(t *testing.T) {
	for _, protocol := range []string{"http", "native"} {
		t.Run(protocol, func(t *testing.T) {
			store := embeddedtest.Store(t, "fields_"+protocol, protocol)
			block := clickhouse.NewColumnBlock()
			full, empty := filled(), &pipeline.Event{Ingested: ingested}
			for i := range int64(5) {
				event := empty
				if i == 2 {
					event = full
				}
				at := pipeline.Position{
					Partition: 3, Offset: 100 + i, Index: 7, BatchID: pipeline.BatchID{Epoch: 1 << 63, Sequence: 9},
				}
				block.Append(event, at, "t")
			}
			if err := store.Insert(t.Context(), block, "a"); err != nil {
				t.Fatal(err)
			}
			for i := range pipeline.Fields {
				field := &pipeline.Fields[i]
				if diff := cmp.Diff(fieldValue(field, full), stored(t, store, field, 102)); diff != "" {
					t.Errorf("%s: %s", field.Name, diff)
				}
				if diff := cmp.Diff(fieldValue(field, empty), stored(t, store, field, 103)); diff != "" {
					t.Errorf("%s of an event without values: %s", field.Name, diff)
				}
			}

			// The names need no quotes, as docs/FIELDS.md says.
			var names []string
			for i := range pipeline.Fields {
				if name := pipeline.Fields[i].Name; name != "@timestamp" {
					names = append(names, name)
				}
			}
			sql := "SELECT " + strings.Join(names, ", ") + " FROM `" + store.Config().Database + "`.events"
			if err := store.Conn().Exec(t.Context(), sql); err != nil {
				t.Error(err)
			}
		})
	}
}

// count returns the number of type UInt64 that a query returns.
func count(t *testing.T, store *clickhouse.Store, sql string) (n uint64) {
	t.Helper()
	if err := store.Conn().QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// query returns the result of a query as tab-separated text.
func query(t *testing.T, store *clickhouse.Store, sql string) string {
	t.Helper()
	var out bytes.Buffer
	if err := clickhouse.Query(context.Background(), store.Config(), sql, "TSV", &out); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out.String())
}

// ingested is the block time of the tests: now, because rows older than the TTL are dropped at once.
var ingested = time.Now().UnixNano()

// bytesAsString returns a string that shares the bytes of b, as the strings of a decoded event do.
func bytesAsString(b []byte) string { return unsafe.String(&b[0], len(b)) }
