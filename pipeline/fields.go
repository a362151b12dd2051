package pipeline

import (
	"net/netip"
	"strings"
)

// A Column describes how ClickHouse stores a field.
type Column struct {
	Name  string // "": the name of the field. The name of a list has no dot unless the lists with its prefix are parallel.
	Type  string // as ClickHouse spells it
	Codec string // "": the server's default
	Alias string // SQL expression for the text form, where the stored form is another
}

// A Field is one property of an event. Fields is the only list of them. The rule compiler, the ClickHouse
// schema, JSON, docs/FIELDS.md and the classifiers read it, so a new field is one line in event.proto and one
// row in Fields, beside the parser that fills it.
//
// Exactly one getter is set, and reading a field does not allocate. An absent field reads as "", 0, false,
// the zero Addr or no elements.
type Field struct {
	Name   string // as in ECS, else <protocol>.<word of its specification>: "dns.question.name", "mysql.command"
	Path   string // where Set puts the value: names in event.proto below Event, see setPath; "": the same as Name
	Column Column
	Doc    string  // one sentence, with unit or form
	Body   Dataset // the dataset to whose body the field belongs; DatasetNone: to every event

	// Derived marks a field that is not observed: it is computed from others, or written by the engine or a
	// detector. A rule's test case cannot set it.
	Derived bool

	// Selectivity says how well a comparison of this field with one value narrows down the rules that an
	// event can match: 1 is worst (almost every event of a dataset has the same value). 0 stands for a field
	// with many values, the best.
	Selectivity int

	Str    func(e *Event) string
	Num    func(e *Event) int64
	Flag   func(e *Event) bool
	Time   func(e *Event) int64 // ns since 1970
	IP     func(e *Event) netip.Addr
	Raw    func(e *Event) []byte                 // event.id (16 bytes), network.community_id (20 bytes)
	Strs   func(e *Event, buf []string) []string // appends to buf
	Nums   func(e *Event, buf []int64) []int64   // appends to buf
	Labels func(e *Event) []*Label

	has func(e *Event) bool // for fields whose zero value means something; nil: see Has
}

// Has reports whether the field is present in event: by its own test if it has one, else by a value other
// than the zero value.
func (f *Field) Has(event *Event) bool {
	switch {
	case f.has != nil:
		return f.has(event)
	case f.Str != nil:
		return f.Str(event) != ""
	case f.Num != nil:
		return f.Num(event) != 0
	case f.Flag != nil:
		return f.Flag(event)
	case f.Time != nil:
		return f.Time(event) != 0
	case f.IP != nil:
		return f.IP(event).IsValid()
	case f.Raw != nil:
		return len(f.Raw(event)) > 0
	case f.Strs != nil:
		var few [8]string
		return len(f.Strs(event, few[:0])) > 0
	case f.Nums != nil:
		var few [8]int64
		return len(f.Nums(event, few[:0])) > 0
	default:
		return len(f.Labels(event)) > 0
	}
}

// Lookup returns the field of that name, or nil.
func Lookup(name string) *Field { return fieldsByName[name] }

var fieldsByName = func() map[string]*Field {
	m := make(map[string]*Field, len(Fields))
	for i := range Fields {
		m[Fields[i].Name] = &Fields[i]
	}
	return m
}()

// withDefaults fills in the names that a row of Fields leaves out.
func withDefaults(fields []Field) []Field {
	for i := range fields {
		field := &fields[i]
		if field.Path == "" && field.Name != "network.type" { // which has no place of its own
			field.Path = field.Name
		}
		if field.Column.Name == "" {
			field.Column.Name = field.Name
		}
	}
	return fields
}

// Short names for the column types that recur.
var (
	text    = Column{Type: "String", Codec: "ZSTD(1)"}
	word    = Column{Type: "LowCardinality(String)"}
	words   = Column{Type: "Array(LowCardinality(String))"}
	texts   = Column{Type: "Array(String)", Codec: "ZSTD(1)"}
	flag    = Column{Type: "Bool"}
	u16     = Column{Type: "UInt16", Codec: "ZSTD(1)"}
	u32     = Column{Type: "UInt32", Codec: "T64, ZSTD(1)"}
	u64     = Column{Type: "UInt64", Codec: "T64, ZSTD(1)"}
	i32     = Column{Type: "Int32", Codec: "ZSTD(1)"}
	instant = Column{Type: "DateTime64(9, 'UTC')", Codec: "Delta, ZSTD(1)"}
)

// named returns c with a name of its own.
func (c Column) named(name string) Column { c.Name = name; return c }

// The getters of fields that are not one value of the event.

func networkType(e *Event) string {
	switch len(e.GetSource().GetIp()) {
	case 4:
		return "ipv4"
	case 16:
		return "ipv6"
	}
	return ""
}

func userName(event *Event) string {
	if event.Mysql != nil {
		return event.Mysql.UserName
	}
	return event.GetHttp().GetUserName()
}

// isDemo reports whether e belongs to the bundled demonstration: one of its containers does.
func isDemo(e *Event) bool {
	return e.GetContainer().GetDemo() || e.GetSource().GetContainer().GetDemo() || e.GetDestination().GetContainer().GetDemo()
}

// verdictTexts returns a getter of one text of every verdict. The lists of different texts are parallel.
func verdictTexts(get func(*Verdict) string) func(*Event, []string) []string {
	return func(e *Event, buf []string) []string {
		for _, v := range e.Verdicts {
			buf = append(buf, get(v))
		}
		return buf
	}
}

func verdictScores(e *Event, buf []int64) []int64 {
	for _, v := range e.Verdicts {
		buf = append(buf, int64(v.Score))
	}
	return buf
}

func verdictTags(v *Verdict) string { return strings.Join(v.Tags, ",") }

func addrFromBytes(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

func appendInts(buf []int64, numbers []uint32) []int64 {
	for _, n := range numbers {
		buf = append(buf, int64(n))
	}
	return buf
}
