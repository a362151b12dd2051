package pipeline

import (
	"net/netip"
	"strings"
)

// A Column describes how ClickHouse stores a field.
type Column struct {
	Name  string // "": the name of the field; dots in the name of a list group it with the lists of equal length
	Type  string // ClickHouse type
	Codec string // "": the server's default
	Alias string // SQL expression for the text form, if the stored form is not text
}

// A Field is one property of an event. Fields is the only list of fields. The rule compiler, the ClickHouse
// schema, JSON, docs/FIELDS.md and the classifiers read Fields, so a new field needs one line in event.proto,
// one row in Fields, and a parser that sets it.
//
// Exactly one getter is set, and it does not allocate. A getter returns "", 0, false, the zero Addr or no
// elements for an absent field.
type Field struct {
	Name   string // as in ECS, else <protocol>.<word of its specification>: "dns.question.name", "mysql.command"
	Path   string // path below Event in event.proto, to which Set writes (see setPath); "": the same as Name
	Column Column
	Doc    string  // one sentence, with unit or form
	Body   Dataset // the dataset whose body holds the field; DATASET_NONE: a field of every event

	// Derived marks a field that is not observed but computed from others, or written by the engine or a
	// detector. Test cases of rules cannot set it.
	Derived bool

	// Selectivity ranks how well an equality test on this field narrows down the rules that an event can
	// match. 1 is worst: almost every event of a dataset has the same value. Higher is better, and 0, a field
	// with many values, is best.
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

	has func(e *Event) bool // presence test of a field whose zero value is a valid value; nil: see Has
}

// Has reports whether the field is present in event. A field without a presence test of its own is present if
// its value is not the zero value.
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
	byName := make(map[string]*Field, len(Fields))
	for i := range Fields {
		byName[Fields[i].Name] = &Fields[i]
	}
	return byName
}()

// withDefaults sets Path and Column.Name in the rows that leave them out.
func withDefaults(fields []Field) []Field {
	for i := range fields {
		field := &fields[i]
		if field.Path == "" && field.Name != "network.type" { // network.type is computed from source.ip
			field.Path = field.Name
		}
		if field.Column.Name == "" {
			field.Column.Name = field.Name
		}
	}
	return fields
}

// Short names for the recurring column types.
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

// named returns c with the given name.
func (c Column) named(name string) Column { c.Name = name; return c }

// The getters below are of fields that are computed from several values of the event.

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

// isDemo reports whether one of the event's containers belongs to the bundled demonstration.
func isDemo(e *Event) bool {
	return e.GetContainer().GetDemo() || e.GetSource().GetContainer().GetDemo() ||
		e.GetDestination().GetContainer().GetDemo()
}

// verdictTexts returns a getter of a list that holds one text of each verdict. Such lists have equal lengths.
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
