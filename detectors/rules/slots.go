package rules

import (
	"fmt"
	"net/netip"
	"strconv"
	"unsafe"

	"tidegate/pipeline"
)

// kind is the type that a slot has in an expression.
type kind uint8

const (
	text       kind = iota // string
	number                 // int
	flag                   // bool
	address                // netip.Addr, only ever an argument of a test
	textList               // []string
	numberList             // []int
)

func (k kind) String() string {
	return [...]string{"text", "a number", "true or false", "an address", "a list of texts", "a list of numbers"}[k]
}

// derivation is what stands between a field and a slot.
type derivation uint8

const (
	raw       derivation = iota
	hasValue             // has(field)
	labelText            // label("key")
	lowered              // lower(slot)
	unescaped            // unescape(slot)
	length               // len(slot)
)

// A slot is a value of an event that some rule reads: a field, or what lower, unescape, len, has or label makes of one. It is
// computed at most once an event, when the index or a candidate rule first asks.
type slot struct {
	name  string // of the identifier in compiled expressions: s12
	label string // as the author wrote it: lower(url.query)
	field *pipeline.Field
	how   derivation
	of    int    // the slot that lowered, unescaped and length are made of
	arg   string // of labelText
	kind  kind
	body  pipeline.Dataset
	at    int // place in the storage of its kind
}

// slotTable is the table of them that all rules of a set share.
type slotTable struct {
	list   []slot
	byName map[string]int
	counts [6]int
}

func (t *slotTable) addSlot(s slot) int {
	if i, ok := t.byName[s.label]; ok {
		return i
	}
	i := len(t.list)
	s.name = "s" + strconv.Itoa(i)
	s.at = t.counts[s.kind]
	t.counts[s.kind]++
	t.list = append(t.list, s)
	if t.byName == nil {
		t.byName = map[string]int{}
	}
	t.byName[s.label] = i
	return i
}

// fieldSlot gives the slot of a plain field; it explains where a field cannot be used in a rule.
func (t *slotTable) fieldSlot(f *pipeline.Field) (int, error) {
	k, err := fieldKind(f)
	if err != nil {
		return 0, err
	}
	return t.addSlot(slot{label: f.Name, field: f, kind: k, body: f.Body}), nil
}

func fieldKind(f *pipeline.Field) (kind, error) {
	if len(f.Name) > 8 && f.Name[:8] == "verdict." || f.Name == "event.ingested" {
		return 0, fmt.Errorf("%s is written after the rules ran", f.Name)
	}
	switch {
	case f.Str != nil:
		return text, nil
	case f.Num != nil, f.Time != nil:
		return number, nil
	case f.Flag != nil:
		return flag, nil
	case f.IP != nil:
		return address, nil
	case f.Strs != nil:
		return textList, nil
	case f.Nums != nil:
		return numberList, nil
	case f.Labels != nil:
		return 0, fmt.Errorf("%s is asked by label(\"key\")", f.Name)
	}
	return 0, fmt.Errorf("%s has no form that an expression can compare", f.Name)
}

func (t *slotTable) hasSlot(f *pipeline.Field) int {
	return t.addSlot(slot{label: "has(" + f.Name + ")", field: f, how: hasValue, kind: flag, body: f.Body})
}

func (t *slotTable) labelSlot(key string) int {
	return t.addSlot(slot{label: "label(" + strconv.Quote(key) + ")", how: labelText, arg: key, kind: text})
}

func (t *slotTable) derivedSlot(name string, how derivation, of int) int {
	s := t.list[of]
	k := text
	if how == length {
		k = number
	}
	return t.addSlot(slot{label: name + "(" + s.label + ")", field: s.field, how: how, of: of, kind: k, body: s.body})
}

// zeros is an environment that tells expr the type of every slot.
func (t *slotTable) zeros() map[string]any {
	env := make(map[string]any, len(t.list))
	for _, s := range t.list {
		env[s.name] = [...]any{"", 0, false, netip.Addr{}, []string(nil), []int(nil)}[s.kind]
	}
	return env
}

// eventValues holds the slots of one event, for one worker at a time.
//
// expr reads its variables from a map of interfaces. Putting a string into an interface allocates, so the map is filled once, with
// interfaces that point at the storage below, and from then on only the storage changes: a candidate rule costs no allocation. That
// is sound because an expression never keeps a value past its run: what leaves it is one bool.
type eventValues struct {
	table *slotTable
	event *pipeline.Event
	now   uint32   // number of the event; a slot is filled where its stamp says so
	stamp []uint32 // by slot
	env   map[string]any

	texts   []string
	numbers []int
	flags   []bool
	addrs   []netip.Addr
	lists   [][]string
	nlists  [][]int

	bytes [][]byte // by slot: what lowered and unescaped texts lie in
	wide  []int64
}

func newEventValues(t *slotTable) *eventValues {
	v := &eventValues{
		table: t, stamp: make([]uint32, len(t.list)), env: make(map[string]any, len(t.list)), bytes: make([][]byte, len(t.list)),
		texts: make([]string, t.counts[text]), numbers: make([]int, t.counts[number]), flags: make([]bool, t.counts[flag]),
		addrs: make([]netip.Addr, t.counts[address]), lists: make([][]string, t.counts[textList]), nlists: make([][]int, t.counts[numberList]),
	}
	for _, s := range t.list {
		v.env[s.name] = v.view(s)
	}
	return v
}

// view gives the interface that shows what the slot's storage holds at the time of reading.
func (v *eventValues) view(s slot) any {
	switch s.kind {
	case text:
		return viewOf(&v.texts[s.at])
	case number:
		return viewOf(&v.numbers[s.at])
	case flag:
		return viewOf(&v.flags[s.at])
	case address:
		return viewOf(&v.addrs[s.at])
	case textList:
		return viewOf(&v.lists[s.at])
	default:
		return viewOf(&v.nlists[s.at])
	}
}

// viewOf makes an interface whose data is *p itself, where a conversion would point it at a copy. The second word of an interface
// that holds no pointer type is a pointer to its data.
func viewOf[T any](p *T) any {
	var zero T
	view := any(zero)
	(*[2]unsafe.Pointer)(unsafe.Pointer(&view))[1] = unsafe.Pointer(p)
	return view
}

// setEvent turns to the next event.
func (v *eventValues) setEvent(e *pipeline.Event) {
	v.event = e
	if v.now++; v.now == 0 { // wrapped: old stamps could be taken for new ones
		clear(v.stamp)
		v.now = 1
	}
}

// clearEvent lets go of everything that lies in the block's buffers.
func (v *eventValues) clearEvent() {
	v.event = nil
	clear(v.texts)
	for i, l := range v.lists {
		clear(l[:cap(l)])
		v.lists[i] = l[:0]
	}
	for i, b := range v.bytes {
		if cap(b) > 64<<10 {
			v.bytes[i] = nil
		}
	}
}

// fillSlot computes a slot for the event at hand, if that has not been done.
func (v *eventValues) fillSlot(i int) *slot {
	s := &v.table.list[i]
	if v.stamp[i] == v.now {
		return s
	}
	v.stamp[i] = v.now
	switch s.how {
	case raw:
		v.readField(s)
	case hasValue:
		v.flags[s.at] = v.carriesBody(s) && s.field.Has(v.event)
	case labelText:
		v.texts[s.at] = ""
		for _, l := range v.event.GetContainer().GetLabels() {
			if l.GetKey() == s.arg {
				v.texts[s.at] = l.GetValue()
			}
		}
	case lowered:
		src := v.fillSlot(s.of)
		v.texts[s.at] = lowerInto(&v.bytes[i], v.texts[src.at])
	case unescaped:
		src := v.fillSlot(s.of)
		v.texts[s.at] = unescapeInto(&v.bytes[i], v.texts[src.at])
	case length:
		v.numbers[s.at] = v.lengthOf(v.fillSlot(s.of))
	}
	return s
}

func (v *eventValues) lengthOf(s *slot) int {
	switch s.kind {
	case textList:
		return len(v.lists[s.at])
	case numberList:
		return len(v.nlists[s.at])
	}
	return len(v.texts[s.at])
}

// carriesBody tells whether the event may carry the slot's body. An event whose dataset and body disagree, which only a broken collector
// sends, has none: the index relies on it.
func (v *eventValues) carriesBody(s *slot) bool {
	return s.body == pipeline.Dataset_DATASET_NONE || s.body == v.event.Dataset
}

func (v *eventValues) readField(s *slot) {
	f, e, ok := s.field, v.event, v.carriesBody(s)
	switch s.kind {
	case text:
		v.texts[s.at] = ""
		if ok {
			v.texts[s.at] = f.Str(e)
		}
	case number:
		v.numbers[s.at] = 0
		if ok && f.Num != nil {
			v.numbers[s.at] = int(f.Num(e))
		} else if ok {
			v.numbers[s.at] = int(f.Time(e))
		}
	case flag:
		v.flags[s.at] = ok && f.Flag(e)
	case address:
		v.addrs[s.at] = netip.Addr{}
		if ok {
			v.addrs[s.at] = f.IP(e).Unmap()
		}
	case textList:
		v.lists[s.at] = v.lists[s.at][:0]
		if ok {
			v.lists[s.at] = f.Strs(e, v.lists[s.at])
		}
	case numberList:
		v.nlists[s.at] = v.nlists[s.at][:0]
		if ok {
			v.wide = f.Nums(e, v.wide[:0])
			for _, n := range v.wide {
				v.nlists[s.at] = append(v.nlists[s.at], int(n))
			}
		}
	}
}

// textBytes is how many bytes of text the slots of a program hold.
func (v *eventValues) textBytes(of []int) int {
	n := 0
	for _, i := range of {
		switch s := &v.table.list[i]; s.kind {
		case text:
			n += len(v.texts[s.at])
		case textList:
			for _, t := range v.lists[s.at] {
				n += len(t)
			}
		}
	}
	return n
}
