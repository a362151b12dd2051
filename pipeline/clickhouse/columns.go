package clickhouse

import (
	"encoding/binary"
	"math"
	"net/netip"
	"strings"

	"tidegate/pipeline"
)

// A column gathers the values of one ClickHouse column in the encoding of the Native format. Values are put
// at ascending rows. A row without a value holds the default of the type, which is added when a later row is
// put or the data is taken: in every encoding it is a run of zero bytes (in an array, the end of the row
// before). So an event costs nothing in the columns for which it has no value.
type column interface {
	// resetColumn removes all rows and keeps the buffers.
	resetColumn()
	// byteSize returns the bytes of the values, without those of later default rows.
	byteSize() int
	// capacity returns the size of the buffers, and dropBuffers frees them. It removes all rows.
	capacity() int
	dropBuffers()
	// appendPrefix appends what the Native format has between the column's header and its data: the version
	// of a dictionary.
	appendPrefix(buf []byte) []byte
	// appendData appends the encoded data of n rows to out. The slices are valid until the next put or
	// resetColumn.
	appendData(out [][]byte, n int) [][]byte
}

// A textColumn is a column of strings: a stringColumn or a lowCardinalityColumn.
type textColumn interface {
	column
	putString(row int, v string)
	appendString(v string)
}

// newStringColumn returns an empty column of strings of the given type.
func newStringColumn(kind string) textColumn {
	switch kind {
	case "String":
		return &stringColumn{}
	case "LowCardinality(String)":
		return newLowCardinalityColumn()
	}
	panic("no column keeps text as " + kind)
}

// fixedColumn is a column of numbers, flags, times or ids: width bytes a row, little endian.
type fixedColumn struct {
	buf   []byte
	width int
}

func (c *fixedColumn) resetColumn()                   { c.buf = c.buf[:0] }
func (c *fixedColumn) byteSize() int                  { return len(c.buf) }
func (c *fixedColumn) capacity() int                  { return cap(c.buf) }
func (c *fixedColumn) dropBuffers()                   { c.buf = nil }
func (c *fixedColumn) appendPrefix(buf []byte) []byte { return buf }
func (c *fixedColumn) padTo(row int)                  { c.buf = appendZeros(c.buf, row*c.width-len(c.buf)) }

func (c *fixedColumn) appendData(out [][]byte, n int) [][]byte { c.padTo(n); return append(out, c.buf) }

func (c *fixedColumn) putUint(row int, v uint64) {
	c.padTo(row)
	c.appendUint(v)
}

func (c *fixedColumn) appendUint(value uint64) {
	switch c.width {
	case 8:
		c.buf = binary.LittleEndian.AppendUint64(c.buf, value)
	case 4:
		c.buf = binary.LittleEndian.AppendUint32(c.buf, uint32(value))
	case 2:
		c.buf = binary.LittleEndian.AppendUint16(c.buf, uint16(value))
	default:
		c.buf = append(c.buf, byte(value))
	}
}

// putRaw puts the first width bytes of v; a shorter v is padded with zeros.
func (c *fixedColumn) putRaw(row int, v []byte) {
	c.padTo(row)
	c.buf = append(c.buf, v[:min(len(v), c.width)]...)
	c.padTo(row + 1)
}

// putUUID puts 16 bytes in ClickHouse's order: two little-endian halves.
func (c *fixedColumn) putUUID(row int, v []byte) {
	var id [16]byte
	copy(id[:], v)
	c.padTo(row)
	c.buf = binary.LittleEndian.AppendUint64(c.buf, binary.BigEndian.Uint64(id[:8]))
	c.buf = binary.LittleEndian.AppendUint64(c.buf, binary.BigEndian.Uint64(id[8:]))
}

// stringColumn is a column of strings: for each row the length as a varint and the bytes.
type stringColumn struct {
	buf  []byte
	rows int
}

func (c *stringColumn) resetColumn()                   { c.buf, c.rows = c.buf[:0], 0 }
func (c *stringColumn) byteSize() int                  { return len(c.buf) }
func (c *stringColumn) capacity() int                  { return cap(c.buf) }
func (c *stringColumn) dropBuffers()                   { c.buf, c.rows = nil, 0 }
func (c *stringColumn) appendPrefix(buf []byte) []byte { return buf }

func (c *stringColumn) padTo(row int) {
	if row > c.rows {
		c.buf = appendZeros(c.buf, row-c.rows)
		c.rows = row
	}
}

func (c *stringColumn) appendData(out [][]byte, n int) [][]byte {
	c.padTo(n)
	return append(out, c.buf)
}

func (c *stringColumn) putString(row int, v string) {
	c.padTo(row)
	c.appendString(v)
}

func (c *stringColumn) appendString(v string) {
	c.buf = binary.AppendUvarint(c.buf, uint64(len(v)))
	c.buf = append(c.buf, v...)
	c.rows++
}

// putIP puts the address as text without a string in between. One byte holds the length: an address without a
// zone has at most 45 characters, below the 128 from which a varint takes two bytes.
func (c *stringColumn) putIP(row int, addr netip.Addr) {
	c.padTo(row)
	lengthAt := len(c.buf)
	c.buf = append(c.buf, 0)
	c.buf = addr.Unmap().AppendTo(c.buf)
	c.buf[lengthAt] = byte(len(c.buf) - lengthAt - 1)
	c.rows++
}

// lowCardinalityColumn is a column of LowCardinality(String): a dictionary that holds each value once, and a
// key into it for each row. Key 0 is the empty string. Keys have 1, 2 or 4 bytes, depending on the size of
// the dictionary.
type lowCardinalityColumn struct {
	keys  []byte // width bytes a row
	width int
	rows  int

	values  []string          // the dictionary, by key
	encoded []byte            // the dictionary, as a stringColumn encodes it
	index   map[string]uint32 // key by value
	lastKey uint32            // key of the last row: in most columns the next row has the same value
	indexed int               // most values that index has held: a map does not shrink

	header   [16]byte // buffers of appendData
	rowCount [8]byte
}

func newLowCardinalityColumn() *lowCardinalityColumn {
	c := &lowCardinalityColumn{index: map[string]uint32{}}
	c.resetColumn()
	return c
}

func (c *lowCardinalityColumn) resetColumn() {
	c.indexed = max(c.indexed, len(c.index))
	c.keys, c.width, c.rows, c.lastKey = c.keys[:0], 1, 0, 0
	c.encoded = append(c.encoded[:0], 0)
	clear(c.values)
	c.values = append(c.values[:0], "")
	clear(c.index)
}

func (c *lowCardinalityColumn) byteSize() int { return len(c.keys) + len(c.encoded) }

// dictionaryEntry is the size of an entry of index and values in Go.
const dictionaryEntry = 64

func (c *lowCardinalityColumn) capacity() int {
	return cap(c.keys) + cap(c.encoded) + dictionaryEntry*max(c.indexed, len(c.index))
}

func (c *lowCardinalityColumn) dropBuffers() {
	*c = lowCardinalityColumn{index: map[string]uint32{}}
	c.resetColumn()
}

// appendPrefix appends the version of the encoding: 1, each block has a dictionary of its own.
func (c *lowCardinalityColumn) appendPrefix(buf []byte) []byte {
	return binary.LittleEndian.AppendUint64(buf, 1)
}

func (c *lowCardinalityColumn) padTo(row int) {
	if row > c.rows {
		c.keys = appendZeros(c.keys, (row-c.rows)*c.width)
		c.rows = row
	}
}

// appendData appends the encoded rows: the width of the keys with flags for an own dictionary (bit 9) that
// updates the reader's (bit 10), the size of the dictionary, the dictionary, the number of rows, the keys.
// Zero rows are encoded as no bytes.
func (c *lowCardinalityColumn) appendData(out [][]byte, rows int) [][]byte {
	c.padTo(rows)
	if rows == 0 {
		return out
	}
	widthCode := uint64(c.width >> 1) // 0, 1, 2 for 1, 2, 4 bytes
	binary.LittleEndian.PutUint64(c.header[:], widthCode|1<<9|1<<10)
	binary.LittleEndian.PutUint64(c.header[8:], uint64(len(c.values)))
	binary.LittleEndian.PutUint64(c.rowCount[:], uint64(rows))
	return append(out, c.header[:], c.encoded, c.rowCount[:], c.keys)
}

func (c *lowCardinalityColumn) putString(row int, v string) {
	c.padTo(row)
	c.appendString(v)
}

func (c *lowCardinalityColumn) appendString(v string) {
	if v != c.values[c.lastKey] {
		c.lastKey = c.keyOf(v)
	}
	switch c.width {
	case 1:
		c.keys = append(c.keys, byte(c.lastKey))
	case 2:
		c.keys = binary.LittleEndian.AppendUint16(c.keys, uint16(c.lastKey))
	default:
		c.keys = binary.LittleEndian.AppendUint32(c.keys, c.lastKey)
	}
	c.rows++
}

// keyOf returns the key of text and adds text to the dictionary if it is new. A new value is copied, because
// text may be in the buffer of a record.
func (c *lowCardinalityColumn) keyOf(text string) uint32 {
	if text == "" {
		return 0
	}
	if key, ok := c.index[text]; ok {
		return key
	}

	text = strings.Clone(text)
	key := uint32(len(c.values))
	c.index[text], c.values = key, append(c.values, text)
	c.encoded = append(binary.AppendUvarint(c.encoded, uint64(len(text))), text...)

	// The key may not fit the width of the keys so far.
	switch {
	case c.width == 1 && key > math.MaxUint8:
		c.widenKeys(2)
	case c.width == 2 && key > math.MaxUint16:
		c.widenKeys(4)
	}
	return key
}

// widenKeys encodes the keys of the rows so far anew with width bytes each.
func (c *lowCardinalityColumn) widenKeys(width int) {
	wide := make([]byte, 0, max(c.rows*width*2, cap(c.keys)))
	for i := range c.rows {
		wide = append(wide, c.keys[i*c.width:(i+1)*c.width]...)
		wide = appendZeros(wide, width-c.width)
	}
	c.keys, c.width = wide, width
}

// arrayColumn is a column of arrays: the end of each row, as an index into the elements, and the elements of
// all rows in a column of their own.
type arrayColumn struct {
	ends         fixedColumn
	rows         int
	elementCount uint64     // of all rows
	strings      textColumn // the elements; either strings or numbers is set
	numbers      *fixedColumn
}

// elements returns the column of the elements.
func (c *arrayColumn) elements() column {
	if c.numbers != nil {
		return c.numbers
	}
	return c.strings
}

func (c *arrayColumn) resetColumn() {
	c.ends.resetColumn()
	c.elements().resetColumn()
	c.rows, c.elementCount = 0, 0
}

func (c *arrayColumn) byteSize() int { return len(c.ends.buf) + c.elements().byteSize() }

func (c *arrayColumn) capacity() int                  { return cap(c.ends.buf) + c.elements().capacity() }
func (c *arrayColumn) appendPrefix(buf []byte) []byte { return c.elements().appendPrefix(buf) }

func (c *arrayColumn) padTo(row int) {
	for ; c.rows < row; c.rows++ {
		c.ends.appendUint(c.elementCount)
	}
}

func (c *arrayColumn) appendData(out [][]byte, n int) [][]byte {
	c.padTo(n)
	return c.elements().appendData(append(out, c.ends.buf), int(c.elementCount))
}

func (c *arrayColumn) dropBuffers() {
	c.ends.dropBuffers()
	c.elements().dropBuffers()
	c.rows, c.elementCount = 0, 0
}

// endRow ends a row after n elements were appended.
func (c *arrayColumn) endRow(n int) {
	c.elementCount += uint64(n)
	c.ends.appendUint(c.elementCount)
	c.rows++
}

func (c *arrayColumn) putStrings(row int, values []string) {
	c.padTo(row)
	for _, v := range values {
		c.strings.appendString(v)
	}
	c.endRow(len(values))
}

func (c *arrayColumn) putNumbers(row int, values []int64, least, most int64) {
	c.padTo(row)
	for _, v := range values {
		c.numbers.appendUint(uint64(min(max(v, least), most)))
	}
	c.endRow(len(values))
}

// mapColumn is a column of Map(LowCardinality(String), String): an array of keys, and as many values.
type mapColumn struct {
	arrayColumn // the keys
	values      stringColumn
}

func newMapColumn() *mapColumn {
	return &mapColumn{arrayColumn: arrayColumn{ends: fixedColumn{width: 8}, strings: newLowCardinalityColumn()}}
}

func (c *mapColumn) resetColumn() {
	c.arrayColumn.resetColumn()
	c.values.resetColumn()
}

func (c *mapColumn) byteSize() int { return c.arrayColumn.byteSize() + len(c.values.buf) }
func (c *mapColumn) capacity() int { return c.arrayColumn.capacity() + cap(c.values.buf) }

func (c *mapColumn) dropBuffers() {
	c.arrayColumn.dropBuffers()
	c.values.dropBuffers()
}

func (c *mapColumn) appendData(out [][]byte, n int) [][]byte {
	return c.values.appendData(c.arrayColumn.appendData(out, n), int(c.elementCount))
}

func (c *mapColumn) putLabels(row int, list []*pipeline.Label) {
	c.padTo(row)
	for _, l := range list {
		c.strings.appendString(l.GetKey())
		c.values.appendString(l.GetValue())
	}
	c.endRow(len(list))
}

// appendZeros appends count zero bytes to data, and none if count is negative.
func appendZeros(data []byte, count int) []byte {
	for count > 0 {
		chunk := min(count, len(zeroPage))
		data = append(data, zeroPage[:chunk]...)
		count -= chunk
	}
	return data
}

var zeroPage [4096]byte
