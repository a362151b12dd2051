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

// filled returns an event in which each field of each body has another value.
func filled() *pipeline.Event {
	e := &pipeline.Event{}
	fill(e.ProtoReflect(), "")
	e.Id = []byte("0123456789abcdef")
	e.CommunityId = []byte("01234567890123456789")
	e.Timestamp, e.Ingested = 1_700_000_000_123_456_789, ingested
	e.Source.Ip, e.Source.NatIp = []byte{192, 0, 2, 1}, []byte{198, 51, 100, 1}
	e.Destination.Ip = []byte("\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01")
	e.Destination.NatIp = []byte{203, 0, 113, 7}
	e.Verdicts = append(e.Verdicts, &pipeline.Verdict{Rule: "second", Severity: pipeline.Severity_HIGH, Tags: []string{"a", "b"}})
	return e
}

func fill(m protoreflect.Message, path string) {
	fs := m.Descriptor().Fields()
	for i := range fs.Len() {
		f := fs.Get(i)
		p := path + "." + string(f.Name())
		switch {
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			fill(m.Mutable(f).List().AppendMutable().Message(), p)
		case f.IsList():
			l := m.Mutable(f).List()
			l.Append(scalar(f, p))
			l.Append(scalar(f, p+"2"))
		case f.Kind() == protoreflect.MessageKind:
			fill(m.Mutable(f).Message(), p)
		default:
			m.Set(f, scalar(f, p))
		}
	}
}

func scalar(f protoreflect.FieldDescriptor, path string) protoreflect.Value {
	h := fnv.New32a()
	h.Write([]byte(path))
	n := h.Sum32()
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("«" + path + "»\x00\xff")
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{1, 2, 3, 4})
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(n%200 + 1)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(math.MaxUint64 - uint64(n))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(-int32(n % 1000))
	case protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(1_600_000_000_000_000_000 + int64(n))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	}
	panic("a kind that event.proto did not have: " + f.Kind().String())
}

// fieldValue returns the value of f in e, in the form in which stored returns it.
func fieldValue(f *pipeline.Field, e *pipeline.Event) any {
	switch {
	case f.Str != nil:
		return f.Str(e)
	case f.Num != nil:
		return f.Num(e)
	case f.Flag != nil:
		return f.Flag(e)
	case f.Time != nil:
		return f.Time(e)
	case f.IP != nil:
		if a := f.IP(e); a.IsValid() {
			return a.String()
		}
		return ""
	case f.Raw != nil && f.Column.Alias != "":
		return pipeline.CommunityIDText(f.Raw(e))
	case f.Raw != nil:
		return string(append(f.Raw(e), make([]byte, 16-len(f.Raw(e)))...))
	case f.Strs != nil:
		return append([]string{}, f.Strs(e, nil)...)
	case f.Nums != nil:
		return append([]int64{}, f.Nums(e, nil)...)
	}
	m := map[string]string{}
	for _, l := range f.Labels(e) {
		m[l.Key] = l.Value
	}
	return m
}

// stored queries f of the row at an offset, by the name of the field.
func stored(t *testing.T, s *clickhouse.Store, f *pipeline.Field, offset int64) any {
	t.Helper()
	expr := "`" + f.Name + "`"
	var to any
	switch {
	case f.Str != nil, f.IP != nil, f.Raw != nil:
		to = new(string)
		if f.Column.Type == "UUID" {
			expr = "UUIDStringToNum(toString(" + expr + "))"
		}
	case f.Num != nil:
		to, expr = new(int64), "toInt64("+expr+")"
	case f.Flag != nil:
		to = new(bool)
	case f.Time != nil:
		to, expr = new(int64), "toUnixTimestamp64Nano("+expr+")"
	case f.Strs != nil:
		to = new([]string)
	case f.Nums != nil:
		to, expr = new([]int64), "arrayMap(x -> toInt64(x), "+expr+")"
	default:
		to = new(map[string]string)
	}
	q := fmt.Sprintf("SELECT %s FROM `%s`.events WHERE _offset = %d", expr, s.Config().Database, offset)
	if err := s.Conn().QueryRow(t.Context(), q).Scan(to); err != nil {
		t.Fatalf("%s: %v", f.Name, err)
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

// TestEveryFieldComesBack under its own name, by both protocols, from a row among rows without values.
func TestEveryFieldComesBack(t *testing.T) {
	for _, protocol := range []string{"http", "native"} {
		t.Run(protocol, func(t *testing.T) {
			s := embeddedtest.Store(t, "fields_"+protocol, protocol)
			b := clickhouse.NewColumnBlock()
			full, empty := filled(), &pipeline.Event{Ingested: ingested}
			for i := range int64(5) {
				e := empty
				if i == 2 {
					e = full
				}
				b.Append(e, pipeline.Position{Partition: 3, Offset: 100 + i, Index: 7, BatchID: pipeline.BatchID{Epoch: 1 << 63, Sequence: 9}}, "t")
			}
			if err := s.Insert(t.Context(), b, "a"); err != nil {
				t.Fatal(err)
			}
			for i := range pipeline.Fields {
				f := &pipeline.Fields[i]
				if d := cmp.Diff(fieldValue(f, full), stored(t, s, f, 102)); d != "" {
					t.Errorf("%s: %s", f.Name, d)
				}
				if d := cmp.Diff(fieldValue(f, empty), stored(t, s, f, 103)); d != "" {
					t.Errorf("%s of an event without values: %s", f.Name, d)
				}
			}
			// The names need no quotes, as docs/FIELDS.md says.
			var names []string
			for i := range pipeline.Fields {
				if n := pipeline.Fields[i].Name; n != "@timestamp" {
					names = append(names, n)
				}
			}
			if err := s.Conn().Exec(t.Context(), "SELECT "+strings.Join(names, ", ")+" FROM `"+s.Config().Database+"`.events"); err != nil {
				t.Error(err)
			}
		})
	}
}

func count(t *testing.T, s *clickhouse.Store, what string) (n uint64) {
	t.Helper()
	if err := s.Conn().QueryRow(t.Context(), "SELECT toUInt64("+what).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func query(t *testing.T, s *clickhouse.Store, sql string) string {
	t.Helper()
	var out bytes.Buffer
	if err := clickhouse.Query(context.Background(), s.Config(), sql, "TSV", &out); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out.String())
}

// ingested is the block time of the tests: now, because rows older than the TTL are dropped at once.
var ingested = time.Now().UnixNano()

func bytesAsString(b []byte) string { return unsafe.String(&b[0], len(b)) }
