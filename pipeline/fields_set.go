package pipeline

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A TypeError is returned by Field.Set for a value of the wrong kind.
type TypeError struct{ Want, Got string }

// Error implements error.
func (e *TypeError) Error() string { return "expected " + e.Want + ", got " + e.Got }

// ErrComputed is returned by Field.Set for a field that is not stored in an event but computed.
var ErrComputed = errors.New("is computed from other fields and cannot be set")

// Set writes value to the field in event and creates the messages on the path to it. It accepts the results
// of YAML and JSON decoders, and the forms of AppendJSON:
//
//	text          string; of an enumeration (event.dataset, event.outcome, …) one of its names
//	number        any integer type; a float64 or json.Number without a fraction
//	flag          bool
//	time          string in RFC 3339, or time.Time
//	address       string
//	identity      string: a UUID, "1:" and base64
//	list          a slice of these, or one of them
//	labels        map[string]string, map[string]any or []*Label
//
// A field that exists in several bodies (user.name) is written to the body of the event's dataset, so
// event.dataset must be set first. Set is for tests, fixtures and replays: it uses reflection and is slow.
func (f *Field) Set(event *Event, value any) error {
	if f.Path == "" {
		return ErrComputed
	}
	names := strings.Split(f.pathIn(event), ".")
	return f.setPath(event.ProtoReflect(), names, value)
}

// pathIn returns the path of the field in event. If the row has several paths, separated by spaces, pathIn
// returns the one in the body of the event's dataset, or else the first.
func (f *Field) pathIn(event *Event) string {
	paths := strings.Fields(f.Path)
	for _, path := range paths[1:] {
		body, _, _ := strings.Cut(path, ".")
		if body == event.Dataset.Name() {
			return path
		}
	}
	return paths[0]
}

// setPath writes v to the field at the path names below message. Every name but the last is a message, which
// is created if it is missing, or a list of messages (verdicts). In a list of messages, setPath writes the
// elements of v to the messages in order.
func (f *Field) setPath(message protoreflect.Message, names []string, v any) error {
	// Descend to the message that holds the field.
	for ; len(names) > 1; names = names[1:] {
		fd := fieldByName(message, names[0])
		if fd.IsList() {
			return f.setColumn(message.Mutable(fd).List(), names[1:], v)
		}
		message = message.Mutable(fd).Message()
	}
	fd := fieldByName(message, names[0])

	switch {
	case f.Labels != nil:
		return setLabels(message.Mutable(fd).List(), v)
	case fd.IsList():
		list := message.Mutable(fd).List()
		list.Truncate(0)
		for _, item := range listOf(v) {
			value, err := f.scalar(fd, item)
			if err != nil {
				return err
			}
			list.Append(value)
		}
		return nil
	}
	value, err := f.scalar(fd, v)
	if err == nil {
		message.Set(fd, value)
	}
	return err
}

// setColumn writes the i-th element of v to the i-th message of list, and appends missing messages.
func (f *Field) setColumn(list protoreflect.List, names []string, v any) error {
	for i, item := range listOf(v) {
		if i == list.Len() {
			list.AppendMutable()
		}
		// The tags of a verdict are a list in event.proto and one comma-separated text in the field.
		message := list.Get(i).Message()
		if fd := fieldByName(message, names[0]); fd.IsList() {
			text, ok := item.(string)
			if !ok {
				return &TypeError{"text", kindOf(item)}
			}
			item = []string(nil)
			if text != "" {
				item = strings.Split(text, ",")
			}
		}
		if err := f.setPath(message, names, item); err != nil {
			return err
		}
	}
	return nil
}

// fieldByName returns the descriptor of a field of m. A name that is not in event.proto is a mistake in
// Fields, which TestEveryFieldCanBeSet finds: fieldByName panics.
func fieldByName(message protoreflect.Message, name string) protoreflect.FieldDescriptor {
	fd := message.Descriptor().Fields().ByName(protoreflect.Name(name))
	if fd == nil {
		panic("pipeline.Fields: " + string(message.Descriptor().Name()) + " has no field " + name)
	}
	return fd
}

// setLabels replaces the elements of list by the labels of value. Labels of a map are sorted by key, because
// maps have no order.
func setLabels(list protoreflect.List, value any) error {
	var labels []*Label
	switch v := value.(type) {
	case []*Label:
		if slices.Contains(v, nil) {
			return &TypeError{"labels", "a list with nil"}
		}
		labels = v
	case map[string]string:
		for key, text := range v {
			labels = append(labels, &Label{Key: key, Value: text})
		}
	case map[string]any:
		for key, value := range v {
			text, ok := value.(string)
			if !ok {
				return fmt.Errorf("label %q: %w", key, &TypeError{"text", kindOf(value)})
			}
			labels = append(labels, &Label{Key: key, Value: text})
		}
	default:
		return &TypeError{"a mapping of labels", kindOf(v)}
	}

	// A list of labels keeps its order.
	if _, ordered := value.([]*Label); !ordered {
		slices.SortFunc(labels, func(a, b *Label) int { return strings.Compare(a.Key, b.Key) })
	}
	list.Truncate(0)
	for _, label := range labels {
		list.Append(protoreflect.ValueOfMessage(label.ProtoReflect()))
	}
	return nil
}

// listOf returns the elements of value if it is a list, else value as the only element.
func listOf(value any) []any {
	switch v := value.(type) {
	case []any:
		return v
	case []string:
		return toAny(v)
	case []int64:
		return toAny(v)
	}
	return []any{value}
}

func toAny[T any](list []T) []any {
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = v
	}
	return out
}

// scalar converts value to the type of fd.
func (f *Field) scalar(fd protoreflect.FieldDescriptor, value any) (protoreflect.Value, error) {
	// Times, addresses and identities have another form in the event than in JSON.
	switch {
	case f.Time != nil:
		ns, err := parseTime(value)
		return protoreflect.ValueOfInt64(ns), err
	case f.IP != nil, f.Raw != nil:
		b, err := f.parseBytes(value)
		return protoreflect.ValueOfBytes(b), err
	}

	// The type in event.proto decides for all others.
	switch fd.Kind() {
	case protoreflect.StringKind:
		text, ok := value.(string)
		if !ok {
			return protoreflect.Value{}, &TypeError{"text", kindOf(value)}
		}
		return protoreflect.ValueOfString(text), nil
	case protoreflect.BoolKind:
		flag, ok := value.(bool)
		if !ok {
			return protoreflect.Value{}, &TypeError{"true or false", kindOf(value)}
		}
		return protoreflect.ValueOfBool(flag), nil
	case protoreflect.EnumKind:
		return enumValue(fd.Enum(), value)
	}
	number, err := wholeNumber(value)
	if err != nil {
		return protoreflect.Value{}, err
	}
	return integerValue(fd.Kind(), number)
}

func parseTime(value any) (int64, error) {
	t, ok := value.(time.Time)
	if !ok {
		text, ok := value.(string)
		if !ok {
			return 0, &TypeError{"a time as 2006-01-02T15:04:05Z", kindOf(value)}
		}
		var err error
		if t, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return 0, fmt.Errorf("not a time as 2006-01-02T15:04:05Z: %q", text)
		}
	}
	if t.Before(time.Unix(0, math.MinInt64)) || t.After(time.Unix(0, math.MaxInt64)) {
		return 0, fmt.Errorf("%s is not in the years 1678 to 2262", t.Format(time.RFC3339))
	}
	return t.UnixNano(), nil
}

// parseBytes reads the text form of an address, a UUID or a community ID.
func (f *Field) parseBytes(value any) ([]byte, error) {
	text, ok := value.(string)
	switch {
	case !ok && f.IP != nil:
		return nil, &TypeError{"an address", kindOf(value)}
	case !ok:
		return nil, &TypeError{"text", kindOf(value)}
	case f.IP != nil:
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("not an address: %q", text)
		}
		return addr.Unmap().AsSlice(), nil
	}
	if rest, ok := strings.CutPrefix(text, "1:"); ok {
		data, err := base64.StdEncoding.DecodeString(rest)
		if err != nil || len(data) != 20 {
			return nil, fmt.Errorf("not a community ID: %q", text)
		}
		return data, nil
	}
	id, err := uuid.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("not a UUID: %q", text)
	}
	return id[:], nil
}

// enumValue returns the enum value with the name value in upper case. "" stands for the zero value of the
// enumeration, which means absent.
func enumValue(enum protoreflect.EnumDescriptor, value any) (protoreflect.Value, error) {
	text, ok := value.(string)
	if !ok {
		return protoreflect.Value{}, &TypeError{"text", kindOf(value)}
	}
	if text == "" {
		return protoreflect.ValueOfEnum(0), nil
	}
	values := enum.Values()
	var names []string
	for i := range values.Len() {
		if values.Get(i).Number() == 0 {
			continue
		}
		name := strings.ToLower(string(values.Get(i).Name()))
		if name == text {
			return protoreflect.ValueOfEnum(values.Get(i).Number()), nil
		}
		names = append(names, name)
	}
	if len(names) > 3 {
		return protoreflect.Value{}, fmt.Errorf("no %s is called %q", strings.ToLower(string(enum.Name())), text)
	}
	return protoreflect.Value{}, fmt.Errorf("expected %s, got %q", strings.Join(names, " or "), text)
}

func wholeNumber(value any) (int64, error) {
	const want = "a whole number"
	switch n := value.(type) {
	case int:
		return int64(n), nil
	case int64:
		return n, nil
	case uint64:
		if n <= math.MaxInt64 {
			return int64(n), nil
		}
		return 0, fmt.Errorf("%d is out of range", n)
	case float64:
		if n == math.Trunc(n) && math.Abs(n) < 1<<53 {
			return int64(n), nil
		}
	case json.Number:
		if i, err := n.Int64(); err == nil {
			return i, nil
		}
	}
	return 0, &TypeError{want, kindOf(value)}
}

func integerValue(kind protoreflect.Kind, number int64) (protoreflect.Value, error) {
	switch kind {
	case protoreflect.Uint32Kind:
		if number >= 0 && number <= math.MaxUint32 {
			return protoreflect.ValueOfUint32(uint32(number)), nil
		}
	case protoreflect.Uint64Kind:
		if number >= 0 {
			return protoreflect.ValueOfUint64(uint64(number)), nil
		}
	case protoreflect.Int32Kind:
		if number >= math.MinInt32 && number <= math.MaxInt32 {
			return protoreflect.ValueOfInt32(int32(number)), nil
		}
	case protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(number), nil
	}
	return protoreflect.Value{}, fmt.Errorf("%d is out of range", number)
}

// kindOf returns the kind of a decoded value in words, for errors.
func kindOf(value any) string {
	switch value.(type) {
	case nil:
		return "nothing"
	case string:
		return "text"
	case bool:
		return "true or false"
	case int, int64, uint64, float64, json.Number:
		return "a number"
	case []any, []string, []int64:
		return "a list"
	case map[string]any, map[string]string, []*Label:
		return "a mapping"
	}
	return fmt.Sprintf("%T", value)
}

// hasSeveralPaths reports whether the field exists in the bodies of several datasets.
func (f *Field) hasSeveralPaths() bool { return strings.Contains(f.Path, " ") }
