package clickhouse

import (
	"fmt"
	"math"
	"strings"

	"tidegate/pipeline"
)

// newFieldColumn returns an empty column for f and its appender. A field whose getter does not fit its column
// type is a mistake in the field table: newFieldColumn panics, and every test that makes a block finds it.
func (b *ColumnBlock) newFieldColumn(f *pipeline.Field) (column, appender) {
	kind := f.Column.Type
	switch {
	case f.Str != nil:
		return newTextColumn(kind, f.Str)
	case f.IP != nil && kind == "String":
		col := &stringColumn{}
		return col, func(e *pipeline.Event, row int) {
			if addr := f.IP(e); addr.IsValid() {
				col.putIP(row, addr)
			}
		}
	case f.Num != nil || f.Time != nil || f.Flag != nil:
		return newNumberColumn(f)
	case f.Raw != nil:
		return newRawColumn(f)
	case f.Strs != nil || f.Nums != nil:
		return b.newArrayColumn(f)
	case f.Labels != nil && kind == "Map(LowCardinality(String), String)":
		col := newMapColumn()
		return col, func(e *pipeline.Event, row int) {
			if labels := f.Labels(e); len(labels) > 0 {
				col.putLabels(row, labels)
			}
		}
	}
	panic(fmt.Sprintf("pipeline.Fields: %s cannot be kept as %s", f.Name, kind))
}

// newTextColumn returns the column and the appender of a text field. Each type has a closure of its own, so
// that the call of putString is a direct one.
func newTextColumn(kind string, get func(*pipeline.Event) string) (column, appender) {
	switch col := newStringColumn(kind).(type) {
	case *stringColumn:
		return col, func(e *pipeline.Event, row int) {
			if v := get(e); v != "" {
				col.putString(row, v)
			}
		}
	case *lowCardinalityColumn:
		return col, func(e *pipeline.Event, row int) {
			if v := get(e); v != "" {
				col.putString(row, v)
			}
		}
	}
	panic("a column of text without an appender")
}

// newNumberColumn returns the column and the appender of a number, a time or a flag.
func newNumberColumn(f *pipeline.Field) (column, appender) {
	width, limit := numberType(f.Column.Type)
	col := &fixedColumn{width: width}
	switch {
	case f.Flag != nil:
		return col, func(e *pipeline.Event, row int) {
			if f.Flag(e) {
				col.putUint(row, 1)
			}
		}
	case f.Time != nil:
		return col, func(e *pipeline.Event, row int) {
			if v := f.Time(e); v != 0 {
				col.putUint(row, uint64(v))
			}
		}
	case f.Column.Type == "Int32":
		return col, func(e *pipeline.Event, row int) {
			if v := f.Num(e); v != 0 {
				col.putUint(row, uint64(min(max(v, math.MinInt32), math.MaxInt32)))
			}
		}
	}
	return col, func(e *pipeline.Event, row int) {
		if v := f.Num(e); v != 0 {
			col.putUint(row, clamp(v, limit))
		}
	}
}

// newRawColumn returns the column and the appender of a field of bytes: a UUID or a FixedString.
func newRawColumn(f *pipeline.Field) (column, appender) {
	if f.Column.Type == "UUID" {
		col := &fixedColumn{width: 16}
		return col, func(e *pipeline.Event, row int) {
			if v := f.Raw(e); len(v) > 0 {
				col.putUUID(row, v)
			}
		}
	}
	var width int
	if _, err := fmt.Sscanf(f.Column.Type, "FixedString(%d)", &width); err != nil {
		panic(fmt.Sprintf("pipeline.Fields: %s cannot be kept as %s", f.Name, f.Column.Type))
	}
	col := &fixedColumn{width: width}
	return col, func(e *pipeline.Event, row int) {
		if v := f.Raw(e); len(v) > 0 {
			col.putRaw(row, v)
		}
	}
}

// newArrayColumn returns the column and the appender of a list. The elements of one event pass through a
// buffer of the block.
func (b *ColumnBlock) newArrayColumn(f *pipeline.Field) (column, appender) {
	elementKind, ok := strings.CutPrefix(f.Column.Type, "Array(")
	if !ok {
		panic(fmt.Sprintf("pipeline.Fields: the list %s cannot be kept as %s", f.Name, f.Column.Type))
	}
	elementKind = strings.TrimSuffix(elementKind, ")")
	col := &arrayColumn{ends: fixedColumn{width: 8}}
	if f.Nums != nil {
		width, limit := numberType(elementKind)
		col.numbers = &fixedColumn{width: width}
		return col, func(e *pipeline.Event, row int) {
			if b.numberBuf = f.Nums(e, b.numberBuf[:0]); len(b.numberBuf) > 0 {
				col.putNumbers(row, b.numberBuf, limit)
			}
		}
	}
	col.strings = newStringColumn(elementKind)
	return col, func(e *pipeline.Event, row int) {
		if b.stringBuf = f.Strs(e, b.stringBuf[:0]); len(b.stringBuf) > 0 {
			col.putStrings(row, b.stringBuf)
		}
	}
}

// numberType returns the size of a ClickHouse type of numbers in bytes and the largest number that its column
// keeps.
func numberType(kind string) (width int, limit uint64) {
	switch kind {
	case "UInt8", "Bool":
		return 1, math.MaxUint8
	case "UInt16":
		return 2, math.MaxUint16
	case "UInt32", "Int32":
		return 4, math.MaxUint32
	case "UInt64", "Int64", "DateTime64(9, 'UTC')":
		return 8, math.MaxUint64
	}
	panic("pipeline.Fields: a number cannot be kept as " + kind)
}
