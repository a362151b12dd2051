package pipeline

import (
	"encoding/base64"
	"net/netip"
)

// A Column is how ClickHouse keeps a field.
type Column struct {
	Name  string // a list's name has no dot unless the lists with the same prefix are parallel (docs/ARCHITECTURE.md)
	Type  string // as ClickHouse spells it
	Codec string // "" is the server's own
	Alias string // where the stored form is not the field's text: the expression over the columns that gives it
}

// A Field is one thing that an event can say. Fields is the only list of them: the rule compiler, the ClickHouse schema,
// docs/FIELDS.md, the console and the classifiers read it, so a new field is one line in event.proto and one row here.
//
// Exactly one getter is set, and reading a field does not allocate. What is absent reads as "", 0, false,
// the zero Addr or no elements.
type Field struct {
	Name   string  // ECS where ECS has it, else <protocol>.<word of its specification>: "dns.question.name", "mysql.command"
	Column Column  // ClickHouse name, type and codec
	Doc    string  // one sentence with unit or form
	Body   Dataset // the dataset whose body it lies in; DatasetNone: the common part

	Str    func(e *Event) string
	Num    func(e *Event) int64
	Flag   func(e *Event) bool
	Time   func(e *Event) int64 // ns since 1970
	IP     func(e *Event) netip.Addr
	Raw    func(e *Event) []byte                 // event.id (16 bytes), network.community_id (20 bytes)
	Strs   func(e *Event, buf []string) []string // appends to buf
	Nums   func(e *Event, buf []int64) []int64   // appends to buf
	Labels func(e *Event) []*Label

	has func(e *Event) bool // nil: what Has says by the value
}

// Has tells whether e says anything for f: its own test if it has one, else a value that is not the zero value.
func (f *Field) Has(e *Event) bool {
	switch {
	case f.has != nil:
		return f.has(e)
	case f.Str != nil:
		return f.Str(e) != ""
	case f.Num != nil:
		return f.Num(e) != 0
	case f.Flag != nil:
		return f.Flag(e)
	case f.Time != nil:
		return f.Time(e) != 0
	case f.IP != nil:
		return f.IP(e).IsValid()
	case f.Raw != nil:
		return len(f.Raw(e)) > 0
	case f.Strs != nil:
		var few [8]string
		return len(f.Strs(e, few[:0])) > 0
	case f.Nums != nil:
		var few [8]int64
		return len(f.Nums(e, few[:0])) > 0
	default:
		return len(f.Labels(e)) > 0
	}
}

// Lookup finds a field by its name; nil if there is none.
func Lookup(name string) *Field { return fieldsByName[name] }

var fieldsByName = func() map[string]*Field {
	m := make(map[string]*Field, len(Fields))
	for i := range Fields {
		m[Fields[i].Name] = &Fields[i]
	}
	return m
}()

// Name is the word for t in network.transport.
func (t Transport) Name() string {
	switch t {
	case Transport_TCP:
		return "tcp"
	case Transport_UDP:
		return "udp"
	}
	return ""
}

// Name is the word for o in event.outcome; "" where there is nothing to say.
func (o Outcome) Name() string {
	switch o {
	case Outcome_SUCCESS:
		return "success"
	case Outcome_FAILURE:
		return "failure"
	}
	return ""
}

// Name is the word for s in rules, verdicts and alerts.
func (s Severity) Name() string {
	if s < 0 || int(s) >= len(severityNames) {
		return ""
	}
	return severityNames[s]
}

var severityNames = [...]string{"", "info", "low", "medium", "high", "critical"}

// SeverityByName is the reverse of Severity.Name; SEVERITY_NONE where there is none of that name.
func SeverityByName(name string) Severity {
	for s, n := range severityNames {
		if n == name {
			return Severity(s)
		}
	}
	return Severity_SEVERITY_NONE
}

// CommunityIDText is the form in which people and other tools write a community id; "" of nothing.
func CommunityIDText(raw []byte) string {
	if len(raw) == 0 {
		return ""
	}
	return "1:" + base64.StdEncoding.EncodeToString(raw)
}

func addr(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
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

// named gives c its name in ClickHouse.
func (c Column) named(name string) Column { c.Name = name; return c }
