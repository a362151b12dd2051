package clickhouse

import (
	"encoding/binary"
	"math"
	"net/netip"
	"strings"

	"tidegate/pipeline"
)

// A column gathers the values of one ClickHouse column in the form of the Native format. Values are put at ascending rows; rows
// that nobody put hold the type's default, which in every one of these forms is a run of zero bytes (of an array: its offset
// again), so an event costs nothing in the columns that it says nothing in.
type column interface {
	resetColumn()
	byteSize() int                           // bytes held
	appendPrefix(buf []byte) []byte          // what stands before the data (the version of a dictionary)
	appendData(out [][]byte, n int) [][]byte // appends the data of n rows; valid until the next put or reset
}

// fixedColumn is a column of numbers, flags, instants or ids: width bytes a row, little endian.
type fixedColumn struct {
	buf   []byte
	width int
}

func (c *fixedColumn) resetColumn()                   { c.buf = c.buf[:0] }
func (c *fixedColumn) byteSize() int                  { return len(c.buf) }
func (c *fixedColumn) appendPrefix(buf []byte) []byte { return buf }
func (c *fixedColumn) padTo(row int)                  { c.buf = appendZeros(c.buf, row*c.width-len(c.buf)) }

func (c *fixedColumn) appendData(out [][]byte, n int) [][]byte { c.padTo(n); return append(out, c.buf) }

func (c *fixedColumn) putUint(row int, v uint64) {
	c.padTo(row)
	c.appendUint(v)
}

func (c *fixedColumn) appendUint(v uint64) {
	switch c.width {
	case 8:
		c.buf = binary.LittleEndian.AppendUint64(c.buf, v)
	case 4:
		c.buf = binary.LittleEndian.AppendUint32(c.buf, uint32(v))
	case 2:
		c.buf = binary.LittleEndian.AppendUint16(c.buf, uint16(v))
	default:
		c.buf = append(c.buf, byte(v))
	}
}

// putRaw keeps width bytes of v: what is longer is cut, what is shorter padded.
func (c *fixedColumn) putRaw(row int, v []byte) {
	c.padTo(row)
	c.buf = append(c.buf, v[:min(len(v), c.width)]...)
	c.padTo(row + 1)
}

// putUUID keeps 16 bytes in ClickHouse's order: each half reversed.
func (c *fixedColumn) putUUID(row int, v []byte) {
	var id [16]byte
	copy(id[:], v)
	c.padTo(row)
	c.buf = binary.LittleEndian.AppendUint64(c.buf, binary.BigEndian.Uint64(id[:8]))
	c.buf = binary.LittleEndian.AppendUint64(c.buf, binary.BigEndian.Uint64(id[8:]))
}

// stringColumn is a column of strings: a length and the bytes.
type stringColumn struct {
	buf  []byte
	rows int
}

func (c *stringColumn) resetColumn()                   { c.buf, c.rows = c.buf[:0], 0 }
func (c *stringColumn) byteSize() int                  { return len(c.buf) }
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

// putIP writes the address as text, straight into the column.
func (c *stringColumn) putIP(row int, a netip.Addr) {
	c.padTo(row)
	at := len(c.buf)
	c.buf = append(c.buf, 0)
	c.buf = a.Unmap().AppendTo(c.buf)
	c.buf[at] = byte(len(c.buf) - at - 1) // an address has at most 45 letters
	c.rows++
}

// lowCardinalityColumn is LowCardinality(String): each value once, and a key of 1, 2 or 4 bytes a row. Key 0 is "".
type lowCardinalityColumn struct {
	keys     []byte
	width    int
	rows     int
	encoded  []byte // the values, as in str
	values   []string
	index    map[string]uint32
	lastKey  uint32 // key of the row before: most columns say the same again
	header   [16]byte
	rowCount [8]byte
}

func newLowCardinalityColumn() *lowCardinalityColumn {
	c := &lowCardinalityColumn{index: map[string]uint32{}}
	c.resetColumn()
	return c
}

func (c *lowCardinalityColumn) resetColumn() {
	c.keys, c.width, c.rows, c.lastKey = c.keys[:0], 1, 0, 0
	c.encoded = append(c.encoded[:0], 0)
	clear(c.values)
	c.values = append(c.values[:0], "")
	clear(c.index)
}

func (c *lowCardinalityColumn) byteSize() int { return len(c.keys) + len(c.encoded) }

// appendPrefix is the version of the form: a dictionary of its own with each block.
func (c *lowCardinalityColumn) appendPrefix(buf []byte) []byte {
	return binary.LittleEndian.AppendUint64(buf, 1)
}

func (c *lowCardinalityColumn) padTo(row int) {
	if row > c.rows {
		c.keys = appendZeros(c.keys, (row-c.rows)*c.width)
		c.rows = row
	}
}

// appendData is how wide the keys are and that a dictionary follows (bits 9 and 10), the dictionary, the keys. No rows are no bytes.
func (c *lowCardinalityColumn) appendData(out [][]byte, n int) [][]byte {
	c.padTo(n)
	if n == 0 {
		return out
	}
	kind := uint64(c.width >> 1) // 1, 2, 4 bytes are called 0, 1, 2
	binary.LittleEndian.PutUint64(c.header[:], kind|1<<9|1<<10)
	binary.LittleEndian.PutUint64(c.header[8:], uint64(len(c.values)))
	binary.LittleEndian.PutUint64(c.rowCount[:], uint64(n))
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

// keyOf finds v in the dictionary. A new one is copied: v may lie in Kafka's buffer.
func (c *lowCardinalityColumn) keyOf(v string) uint32 {
	if v == "" {
		return 0
	}
	if k, ok := c.index[v]; ok {
		return k
	}
	v = strings.Clone(v)
	k := uint32(len(c.values))
	c.index[v], c.values = k, append(c.values, v)
	c.encoded = append(binary.AppendUvarint(c.encoded, uint64(len(v))), v...)
	switch {
	case c.width == 1 && k > math.MaxUint8:
		c.widenKeys(2)
	case c.width == 2 && k > math.MaxUint16:
		c.widenKeys(4)
	}
	return k
}

// widenKeys rewrites the keys of the rows so far with w bytes each.
func (c *lowCardinalityColumn) widenKeys(w int) {
	wide := make([]byte, 0, max(c.rows*w*2, cap(c.keys)))
	for i := range c.rows {
		wide = append(wide, c.keys[i*c.width:(i+1)*c.width]...)
		wide = appendZeros(wide, w-c.width)
	}
	c.keys, c.width = wide, w
}

// arrayColumn is a column of arrays: where each row ends, and the elements of all rows one after the other.
type arrayColumn struct {
	ends         fixedColumn
	rows         int
	elementCount uint64
	strings      textColumn // either strings or numbers is set
	numbers      *fixedColumn
}

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

func (c *arrayColumn) byteSize() int                  { return len(c.ends.buf) + c.elements().byteSize() }
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

func (c *arrayColumn) endRow(n int) {
	c.elementCount += uint64(n)
	c.ends.appendUint(c.elementCount)
	c.rows++
}

func (c *arrayColumn) putStrings(row int, vs []string) {
	c.padTo(row)
	for _, v := range vs {
		c.strings.appendString(v)
	}
	c.endRow(len(vs))
}

func (c *arrayColumn) putNumbers(row int, vs []int64, limit uint64) {
	c.padTo(row)
	for _, v := range vs {
		c.numbers.appendUint(clamp(v, limit))
	}
	c.endRow(len(vs))
}

// mapColumn is a column of Map(LowCardinality(String), String).
type mapColumn struct {
	arrayColumn              // of the keys
	values      stringColumn // the values
}

func newMapColumn() *mapColumn {
	return &mapColumn{arrayColumn: arrayColumn{ends: fixedColumn{width: 8}, strings: newLowCardinalityColumn()}}
}

func (c *mapColumn) resetColumn() {
	c.arrayColumn.resetColumn()
	c.values.resetColumn()
}

func (c *mapColumn) byteSize() int { return c.arrayColumn.byteSize() + len(c.values.buf) }

func (c *mapColumn) appendData(out [][]byte, n int) [][]byte {
	return c.values.appendData(c.arrayColumn.appendData(out, n), int(c.elementCount))
}

func (c *mapColumn) putLabels(row int, ls []*pipeline.Label) {
	c.padTo(row)
	for _, l := range ls {
		c.strings.appendString(l.GetKey())
		c.values.appendString(l.GetValue())
	}
	c.endRow(len(ls))
}

// clamp keeps what a column can hold: a hostile number is the nearest one, not another.
func clamp(v int64, limit uint64) uint64 {
	switch {
	case limit == math.MaxUint64:
		return uint64(v) // getters hand a uint64 through an int64
	case v < 0:
		return 0
	}
	return min(uint64(v), limit)
}

func appendZeros(b []byte, n int) []byte {
	for n > 0 {
		k := min(n, len(zeroPage))
		b = append(b, zeroPage[:k]...)
		n -= k
	}
	return b
}

var zeroPage [4096]byte
