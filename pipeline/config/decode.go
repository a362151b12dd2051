package config

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A NodeDecoder decodes itself from a Node, for values that no plain Go type describes. It reports errors
// with Node.Errorf.
type NodeDecoder interface{ DecodeNode(n Node) }

// UnknownKeyHinter is implemented by structs that have hints for keys they do not have, such as the keys of a
// similar language. UnknownKey returns what to write instead of a key, or "" if there is no hint for it.
type UnknownKeyHinter interface{ UnknownKey(key string) string }

var (
	nodeType     = reflect.TypeFor[Node]()
	sizeType     = reflect.TypeFor[Size]()
	durationType = reflect.TypeFor[time.Duration]()
)

// Decode fills the value that into points to, strictly: a key that has no field is an error, and so is a
// value of another type. It goes on after an error, so one call finds all of them.
//
// Fields are struct fields with a yaml tag; ",inline" puts the fields of a struct among those around it. A
// list replaces the list that was there, a mapping the map. Null and empty values change nothing, but as items
// of a list they are errors and are left out. Fields of type Node take any other value.
func (n Node) Decode(into any) { n.decodeInto(reflect.ValueOf(into).Elem()) }

func (n Node) decodeInto(value reflect.Value) {
	if n.IsNull() {
		return
	}
	if value.Type() == nodeType {
		value.Set(reflect.ValueOf(n))
		return
	}
	if d, ok := reflect.TypeAssert[NodeDecoder](value.Addr()); ok {
		d.DecodeNode(n)
		return
	}
	switch value.Kind() {
	case reflect.Struct:
		n.decodeStruct(value)
	case reflect.Map:
		n.decodeMap(value)
	case reflect.Slice:
		n.decodeList(value)
	case reflect.Pointer:
		target := reflect.New(value.Type().Elem())
		n.decodeInto(target.Elem())
		value.Set(target)
	default:
		n.decodeScalar(value)
	}
}

func (n Node) decodeStruct(value reflect.Value) {
	if !n.IsMapping() {
		n.addTypeError(value.Type())
		return
	}
	fields := map[string]reflect.Value{}
	collectFields(fields, value)
	for _, entry := range n.Entries() {
		if field, ok := fields[entry.Key]; ok {
			entry.Value.decodeInto(field)
			continue
		}
		if h, ok := reflect.TypeAssert[UnknownKeyHinter](value.Addr()); ok {
			if hint := h.UnknownKey(entry.Key); hint != "" {
				n.doc.AddError(entry.Position, entry.Value.key, "unknown key: %s", hint)
				continue
			}
		}
		known := slices.Sorted(maps.Keys(fields))
		n.doc.AddError(entry.Position, entry.Value.key, "unknown key%s", DidYouMean(entry.Key, known))
	}
}

// collectFields finds the fields of a struct by their keys, those of inlined structs included.
func collectFields(fields map[string]reflect.Value, value reflect.Value) {
	for i := range value.NumField() {
		field := value.Type().Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		switch {
		case name == "-" || !field.IsExported():
		case options == "inline":
			collectFields(fields, value.Field(i))
		case name != "":
			fields[name] = value.Field(i)
		}
	}
}

func (n Node) decodeMap(value reflect.Value) {
	if !n.IsMapping() {
		n.addTypeError(value.Type())
		return
	}
	decoded := reflect.MakeMap(value.Type())
	for _, entry := range n.Entries() {
		element := reflect.New(value.Type().Elem()).Elem()
		entry.Value.decodeInto(element)
		decoded.SetMapIndex(reflect.ValueOf(entry.Key).Convert(value.Type().Key()), element)
	}
	value.Set(decoded)
}

func (n Node) decodeList(value reflect.Value) {
	if !n.IsList() {
		n.addTypeError(value.Type())
		return
	}
	items := n.Items()
	decoded := reflect.MakeSlice(value.Type(), 0, len(items))
	for _, item := range items {
		if item.IsNull() {
			item.Errorf("is empty")
			continue
		}
		element := reflect.New(value.Type().Elem()).Elem()
		item.decodeInto(element)
		decoded = reflect.Append(decoded, element)
	}
	value.Set(decoded)
}

// decodeScalar decodes a text, number, boolean, duration or size. It adds an error if the value has another
// type.
func (n Node) decodeScalar(target reflect.Value) {
	written, ok := n.Scalar()
	if !ok {
		n.addTypeError(target.Type())
		return
	}

	// Durations and sizes are integers to reflect, so their types come before the kinds.
	switch {
	case target.Type() == durationType:
		duration, err := time.ParseDuration(written)
		if ok = err == nil; ok {
			target.SetInt(int64(duration))
		}
	case target.Type() == sizeType:
		size, err := ParseSize(written)
		if value, isInt := n.Int(); isInt { // such as 0x1000
			size, err = Size(value), nil
		}
		if err != nil {
			n.Errorf("%v", err)
			return
		}
		target.SetInt(int64(size))
	case target.Kind() == reflect.String:
		target.SetString(written)
	case target.Kind() == reflect.Bool:
		var value bool
		if value, ok = n.Bool(); ok {
			target.SetBool(value)
		}
	case target.CanInt() || target.CanUint():
		n.decodeInt(target, written)
		return
	case target.CanFloat():
		decimal, err := strconv.ParseFloat(written, 64)
		if ok = err == nil; ok {
			target.SetFloat(decimal)
		}
	default:
		panic(fmt.Sprintf("config: %s: no way to decode a %s", n.key, target.Type()))
	}
	if !ok {
		n.addTypeError(target.Type())
	}
}

// decodeInt takes a whole number, in quotes or not, that fits into target.
func (n Node) decodeInt(target reflect.Value, written string) {
	// A number that YAML does not read as a 64-bit integer may be in quotes, or written as 1e6.
	value, ok := n.Int()
	if !ok {
		var err error
		value, err = strconv.ParseInt(written, 10, 64)
		if err != nil {
			decimal, err := strconv.ParseFloat(written, 64) // such as 1e6
			switch {
			case n.IsInteger() || err == nil && decimal == math.Trunc(decimal) && math.Abs(decimal) >= 1<<63:
				n.Errorf("%s is out of range", written)
				return
			case err != nil || decimal != math.Trunc(decimal):
				n.addTypeError(target.Type())
				return
			}
			value = int64(decimal)
		}
	}
	switch {
	case target.CanInt() && !target.OverflowInt(value):
		target.SetInt(value)
	case target.CanUint() && value >= 0 && !target.OverflowUint(uint64(value)):
		target.SetUint(uint64(value))
	default:
		n.Errorf("%s is out of range", written)
	}
}

// addTypeError adds the error that n's value does not fit a type.
func (n Node) addTypeError(typ reflect.Type) {
	if written, ok := n.Scalar(); ok {
		n.Errorf("%q is not %s", written, describeType(typ))
		return
	}
	n.Errorf("expected %s, got %s", describeType(typ), n.Kind())
}

// describeType returns in words what a type takes.
func describeType(typ reflect.Type) string {
	switch {
	case typ == durationType:
		return "a duration like 150ms, 10s or 48h"
	case typ == sizeType:
		return "a size like 64KiB, 8MiB or 2GiB"
	case typ.Kind() == reflect.Bool:
		return "true or false"
	case typ.Kind() >= reflect.Int && typ.Kind() <= reflect.Uint64:
		return "a whole number"
	case typ.Kind() == reflect.Float32 || typ.Kind() == reflect.Float64:
		return "a number"
	case typ.Kind() == reflect.Slice:
		return "a list, such as [a, b]"
	case typ.Kind() == reflect.Struct || typ.Kind() == reflect.Map:
		return "a section of keys"
	}
	return "text"
}
