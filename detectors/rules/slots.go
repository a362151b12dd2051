package rules

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"tidegate/detectors/classifier"
	"tidegate/detectors/feeds"
	"tidegate/pipeline"
)

// kind is the type of a value in an expression.
type kind uint8

const (
	invalid    kind = iota // of a node with an error, which has been reported
	text                   // string
	number                 // int64
	decimal                // float64: a literal such as 1.5, a score, what / or number() makes
	flag                   // bool
	address                // netip.Addr
	textList               // []string
	numberList             // []int64
)

func (k kind) String() string {
	return [...]string{
		"invalid", "text", "a number", "a decimal number", "true or false", "an address", "a list of texts", "a list of numbers",
	}[k]
}

func (k kind) isNumeric() bool { return k == number || k == decimal }

func (k kind) isList() bool { return k == textList || k == numberList }

// derivation is the way in which a slot's value is computed.
type derivation uint8

const (
	raw        derivation = iota // the field itself
	hasValue                     // has(field)
	labelText                    // label("key")
	lowered                      // lower(slot)
	unescaped                    // unescape(slot)
	resolved                     // lookups(slot)
	simplified                   // sql(slot)
	length                       // len(slot)
	hourOf                       // hour("zone")
	weekdayOf                    // weekday("zone")
	keyed                        // value(slot, "key")
	called                       // function(slot)
	inFeed                       // feed("key", slot)
	scored                       // model("key")
)

// A slot is a value that rules read from an event: a field, a label, or a function of a field, such as has,
// lower or len. All rules of a set share the slots. A slot is computed at most once for each event, when
// the index or a rule first reads it.
type slot struct {
	label    string // as an author writes it: lower(url.query)
	field    *pipeline.Field
	how      derivation
	of       int               // lowered, unescaped, resolved, simplified, keyed, called, inFeed and length: the slot of their argument
	key      string            // labelText: the key of the label; keyed: of the value; inFeed: the name of the feed
	zone     *time.Location    // hourOf, weekdayOf
	function *function         // called
	model    *classifier.Model // scored
	kind     kind
	body     pipeline.Dataset // the dataset whose body holds the field; DATASET_NONE: every event has it
}

// slotTable holds the slots of all rules of a set.
type slotTable struct {
	list    []slot
	byLabel map[string]int

	databases addressDatabases // that functions of slots ask
	models    trainedModels    // that functions of slots ask
	feedNames []string         // that feed may name; nil: any
	feeds     map[string]bool  // that feed names
}

func newSlotTable() *slotTable {
	return &slotTable{byLabel: map[string]int{}, feeds: map[string]bool{}}
}

// addSlot returns the index of the slot with the label of s. It adds s if there is none.
func (t *slotTable) addSlot(s slot) int {
	if i, ok := t.byLabel[s.label]; ok {
		return i
	}
	index := len(t.list)
	t.list = append(t.list, s)
	t.byLabel[s.label] = index
	return index
}

// fieldSlot returns the slot of a field, or the reason why rules cannot read the field.
func (t *slotTable) fieldSlot(field *pipeline.Field) (int, error) {
	kind, err := fieldKind(field)
	if err != nil {
		return 0, err
	}
	return t.addSlot(slot{label: field.Name, field: field, kind: kind, body: field.Body}), nil
}

// fieldKind returns the kind of a field, or the reason why rules cannot read the field.
func fieldKind(field *pipeline.Field) (kind, error) {
	if strings.HasPrefix(field.Name, "verdict.") || field.Name == "event.ingested" {
		return invalid, fmt.Errorf("%s is written after rules are evaluated", field.Name)
	}
	switch {
	case field.Str != nil:
		return text, nil
	case field.Num != nil, field.Time != nil:
		return number, nil
	case field.Flag != nil:
		return flag, nil
	case field.IP != nil:
		return address, nil
	case field.Strs != nil:
		return textList, nil
	case field.Nums != nil:
		return numberList, nil
	case field.Labels != nil:
		return invalid, fmt.Errorf("labels are read one by one: label(\"key\")")
	}
	return invalid, fmt.Errorf("%s has no form that a rule can compare", field.Name)
}

func (t *slotTable) hasSlot(f *pipeline.Field) int {
	return t.addSlot(slot{label: "has(" + f.Name + ")", field: f, how: hasValue, kind: flag, body: f.Body})
}

func (t *slotTable) labelSlot(key string) int {
	return t.addSlot(slot{label: "label(" + strconv.Quote(key) + ")", how: labelText, key: key, kind: text})
}

// keyedSlot returns the slot of value(slot of, key).
func (t *slotTable) keyedSlot(of int, key string) int {
	source := t.list[of]
	label := "value(" + source.label + ", " + strconv.Quote(key) + ")"
	return t.addSlot(slot{label: label, field: source.field, how: keyed, of: of, key: key, kind: text, body: source.body})
}

// timeSlot returns the slot of hour or weekday of the event's time in a time zone.
func (t *slotTable) timeSlot(function string, how derivation, zone *time.Location) int {
	label := function + "(" + strconv.Quote(zone.String()) + ")"
	return t.addSlot(slot{label: label, how: how, zone: zone, kind: number, field: pipeline.Lookup("@timestamp")})
}

// derivedSlot returns the slot of function(slot of).
func (t *slotTable) derivedSlot(function string, how derivation, of int) int {
	source := t.list[of]
	kind := text
	if how == length {
		kind = number
	}
	return t.addSlot(slot{label: function + "(" + source.label + ")", field: source.field, how: how, of: of, kind: kind, body: source.body})
}

// eventValues holds the values of the slots for one event. It belongs to one worker, which reuses it for one
// event after the other. A value is valid if its eventNumber is the current one.
type eventValues struct {
	table       *slotTable
	event       *pipeline.Event
	feeds       *feeds.Set  // that rules ask; nil: none
	eventNumber uint32      // number of the current event, from 1
	values      []slotValue // by slot

	// State of the expression that is being evaluated.
	elementText   string // the value of # in a loop over texts
	elementNumber int64  // the value of # in a loop over numbers
	failed        bool   // a number was divided by zero
}

// slotValue is the value of one slot; only the member of the slot's kind is used.
type slotValue struct {
	eventNumber uint32 // number of the event whose value this is
	flag        bool
	text        string
	number      int64
	decimal     float64
	address     netip.Addr
	texts       []string
	numbers     []int64
	buffer      []byte // holds text where a function changed it
}

func newEventValues(t *slotTable) *eventValues {
	return &eventValues{table: t, values: make([]slotValue, len(t.list))}
}

// setEvent makes e the current event and so invalidates the values of the previous one.
func (v *eventValues) setEvent(e *pipeline.Event) {
	v.event = e
	if v.eventNumber++; v.eventNumber == 0 { // The number has wrapped, so old numbers would match again.
		for i := range v.values {
			v.values[i].eventNumber = 0
		}
		v.eventNumber = 1
	}
}

// maxKeptBuffer is the largest buffer of a slot that is kept from block to block.
const maxKeptBuffer = 64 << 10

// clearEvent drops every reference into the events of a block, whose buffers are reused after the block.
func (v *eventValues) clearEvent() {
	v.event, v.elementText = nil, ""
	for i := range v.values {
		value := &v.values[i]
		value.text = ""
		clear(value.texts[:cap(value.texts)])
		value.texts = value.texts[:0]
		if cap(value.buffer) > maxKeptBuffer {
			value.buffer = nil
		}
	}
}

// slot returns the value of the slot at index. It computes the value at the first call for an event.
func (v *eventValues) slot(index int) *slotValue {
	value := &v.values[index]
	if value.eventNumber != v.eventNumber {
		v.computeSlot(index, value)
	}
	return value
}

// computeSlot computes the value of slot i. The argument of a function is another slot, which slot may
// compute in turn; that chain ends at a field, because an argument is added to the table before its function.
func (v *eventValues) computeSlot(i int, value *slotValue) {
	value.eventNumber = v.eventNumber
	def := &v.table.list[i]
	switch def.how {
	case raw:
		v.readField(def, value)
	case hasValue:
		value.flag = v.carriesBody(def) && def.field.Has(v.event)
	case labelText:
		value.text = ""
		for _, label := range v.event.GetContainer().GetLabels() { // The last label of a key counts.
			if label.GetKey() == def.key {
				value.text = label.GetValue()
			}
		}
	case hourOf:
		value.number = int64(time.Unix(0, v.event.Timestamp).In(def.zone).Hour())
	case weekdayOf: // Monday is 1, Sunday 7, as in ISO 8601
		value.number = int64(time.Unix(0, v.event.Timestamp).In(def.zone).Weekday()+6)%7 + 1
	case lowered:
		value.text = lowerInto(&value.buffer, v.slot(def.of).text)
	case unescaped:
		value.text = unescapeInto(&value.buffer, v.slot(def.of).text)
	case resolved:
		value.text = lookupsInto(&value.buffer, v.slot(def.of).text)
	case simplified:
		value.text = simplifySQLInto(&value.buffer, v.slot(def.of).text)
	case keyed:
		value.text = valueInto(&value.buffer, v.slot(def.of).text, def.key)
	case called:
		of := v.slot(def.of)
		switch {
		case def.function.address == nil:
			value.text = def.function.text(&value.buffer, of.text)
		case v.table.list[def.of].kind == address:
			value.text, value.number = def.function.address(of.address)
		default:
			value.text, value.number = def.function.ofText(of.text)
		}
	case inFeed:
		if of := v.slot(def.of); v.table.list[def.of].kind == address {
			value.flag = v.feeds != nil && v.feeds.HasAddrAt(def.key, of.address, v.event.Timestamp)
		} else {
			value.flag = v.isInFeed(def.key, of.text)
		}
	case scored:
		value.decimal = 0
		if v.carriesBody(def) {
			value.decimal = def.model.ScoreEvent(v.event)
		}
	case length:
		of := v.slot(def.of)
		switch v.table.list[def.of].kind {
		case textList:
			value.number = int64(len(of.texts))
		case numberList:
			value.number = int64(len(of.numbers))
		default:
			value.number = int64(len(of.text))
		}
	}
}

// carriesBody reports whether events of the current event's dataset have the slot's field. A broken collector
// may send the body of another dataset too. It is not read, because the index assumes that it is absent.
func (v *eventValues) carriesBody(def *slot) bool {
	return def.body == pipeline.Dataset_DATASET_NONE || def.body == v.event.Dataset
}

// readField sets value to that of a field. The value of an absent field is "", 0, false, the zero address or
// an empty list.
func (v *eventValues) readField(def *slot, value *slotValue) {
	field, event, carried := def.field, v.event, v.carriesBody(def)

	// The value is that of another event: each case sets it, also for an absent field. Lists reuse their
	// memory.
	switch def.kind {
	case text:
		value.text = ""
		if carried {
			value.text = field.Str(event)
		}
	case number:
		value.number = 0
		if carried && field.Num != nil {
			value.number = field.Num(event)
		} else if carried {
			value.number = field.Time(event)
		}
	case flag:
		value.flag = carried && field.Flag(event)
	case address:
		value.address = netip.Addr{}
		if carried {
			value.address = field.IP(event).Unmap()
		}
	case textList:
		value.texts = value.texts[:0]
		if carried {
			value.texts = field.Strs(event, value.texts)
		}
	case numberList:
		value.numbers = value.numbers[:0]
		if carried {
			value.numbers = field.Nums(event, value.numbers)
		}
	}
}

// textBytes returns the number of bytes of text in those slots that were computed for the current event, the
// size of lists included.
func (v *eventValues) textBytes(slots []int) int {
	size := 0
	for _, slot := range slots {
		value := &v.values[slot]
		if value.eventNumber != v.eventNumber {
			continue
		}
		switch v.table.list[slot].kind {
		case text:
			size += len(value.text)
		case textList:
			// An element costs something even if it is empty.
			size += 16 * len(value.texts)
			for _, t := range value.texts {
				size += len(t)
			}
		}
	}
	return size
}
