package clickhouse

import (
	"fmt"
	"math"
	"strings"

	"tidegate/pipeline"
)

// newFieldColumn returns an empty column for field and its appender. A field whose getter does not fit its
// column type is a mistake in the field table: newFieldColumn panics, and every test that makes a block finds
// it.
func (b *ColumnBlock) newFieldColumn(field *pipeline.Field) (column, appender) {
	kind := field.Column.Type
	switch {
	case field.Str != nil:
		return newTextColumn(kind, field.Str)
	case field.IP != nil && kind == "String":
		col := &stringColumn{}
		return col, func(e *pipeline.Event, row int) {
			if addr := field.IP(e); addr.IsValid() {
				col.putIP(row, addr)
			}
		}
	case field.Num != nil || field.Time != nil || field.Flag != nil:
		return newNumberColumn(field)
	case field.Raw != nil:
		return newRawColumn(field)
	case field.Strs != nil || field.Nums != nil:
		return b.newArrayColumn(field)
	case field.Labels != nil && kind == "Map(LowCardinality(String), String)":
		col := newMapColumn()
		return col, func(e *pipeline.Event, row int) {
			if labels := field.Labels(e); len(labels) > 0 {
				col.putLabels(row, labels)
			}
		}
	}
	panic(fmt.Sprintf("pipeline.Fields: %s cannot be kept as %s", field.Name, kind))
}

// newTextColumn returns the column and the appender of a text field. Each type has a closure of its own, so
// that the call of putString is a direct one.
func newTextColumn(kind string, get func(*pipeline.Event) string) (column, appender) {
	switch col := newStringColumn(kind).(type) {
	case *stringColumn:
		return col, func(e *pipeline.Event, row int) {
			if value := get(e); value != "" {
				col.putString(row, value)
			}
		}
	case *lowCardinalityColumn:
		return col, func(e *pipeline.Event, row int) {
			if value := get(e); value != "" {
				col.putString(row, value)
			}
		}
	}
	panic("a column of text without an appender")
}

// newNumberColumn returns the column and the appender of a number, a time or a flag.
func newNumberColumn(field *pipeline.Field) (column, appender) {
	width, least, most := numberType(field.Column.Type)
	col := &fixedColumn{width: width}

	// Zero is the default of the column and is not put. Numbers out of range are clamped.
	switch {
	case field.Flag != nil:
		return col, func(e *pipeline.Event, row int) {
			if field.Flag(e) {
				col.putUint(row, 1)
			}
		}
	case field.Time != nil:
		return col, func(e *pipeline.Event, row int) {
			if value := field.Time(e); value != 0 {
				col.putUint(row, uint64(value))
			}
		}
	}
	return col, func(e *pipeline.Event, row int) {
		if value := field.Num(e); value != 0 {
			col.putUint(row, uint64(min(max(value, least), most)))
		}
	}
}

// newRawColumn returns the column and the appender of a field of bytes: a UUID or a FixedString.
func newRawColumn(field *pipeline.Field) (column, appender) {
	if field.Column.Type == "UUID" {
		col := &fixedColumn{width: 16}
		return col, func(e *pipeline.Event, row int) {
			if value := field.Raw(e); len(value) > 0 {
				col.putUUID(row, value)
			}
		}
	}
	var width int
	if _, err := fmt.Sscanf(field.Column.Type, "FixedString(%d)", &width); err != nil {
		panic(fmt.Sprintf("pipeline.Fields: %s cannot be kept as %s", field.Name, field.Column.Type))
	}
	col := &fixedColumn{width: width}
	return col, func(e *pipeline.Event, row int) {
		if value := field.Raw(e); len(value) > 0 {
			col.putRaw(row, value)
		}
	}
}

// newArrayColumn returns the column and the appender of a list. The elements of one event pass through a
// buffer of the block.
func (b *ColumnBlock) newArrayColumn(field *pipeline.Field) (column, appender) {
	elementKind, ok := strings.CutPrefix(field.Column.Type, "Array(")
	if !ok {
		panic(fmt.Sprintf("pipeline.Fields: the list %s cannot be kept as %s", field.Name, field.Column.Type))
	}
	elementKind = strings.TrimSuffix(elementKind, ")")
	col := &arrayColumn{ends: fixedColumn{width: 8}}
	if field.Nums != nil {
		width, least, most := numberType(elementKind)
		col.numbers = &fixedColumn{width: width}
		return col, func(e *pipeline.Event, row int) {
			if b.numberBuf = field.Nums(e, b.numberBuf[:0]); len(b.numberBuf) > 0 {
				col.putNumbers(row, b.numberBuf, least, most)
			}
		}
	}
	col.strings = newStringColumn(elementKind)
	return col, func(e *pipeline.Event, row int) {
		if b.stringBuf = field.Strs(e, b.stringBuf[:0]); len(b.stringBuf) > 0 {
			col.putStrings(row, b.stringBuf)
		}
	}
}

// numberType returns the size of a ClickHouse type of numbers in bytes, and the least and the largest number that its
// column keeps.
func numberType(kind string) (width int, least, most int64) {
	switch kind {
	case "UInt8", "Bool":
		return 1, 0, math.MaxUint8
	case "UInt16":
		return 2, 0, math.MaxUint16
	case "UInt32":
		return 4, 0, math.MaxUint32
	case "Int32":
		return 4, math.MinInt32, math.MaxInt32
	case "UInt64", "Int64", "DateTime64(9, 'UTC')": // numbers of 64 bits without a sign are kept in an int64 as they are
		return 8, math.MinInt64, math.MaxInt64
	}
	panic("pipeline.Fields: a number cannot be kept as " + kind)
}
