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
	reset()
	size() int                         // bytes held
	prefix(buf []byte) []byte          // what stands before the data (the version of a dictionary)
	data(out [][]byte, n int) [][]byte // appends the data of n rows; valid until the next put or reset
}

// fixed is a column of numbers, flags, instants or ids: width bytes a row, little endian.
type fixed struct {
	b     []byte
	width int
}

func (c *fixed) reset()                            { c.b = c.b[:0] }
func (c *fixed) size() int                         { return len(c.b) }
func (c *fixed) prefix(buf []byte) []byte          { return buf }
func (c *fixed) pad(row int)                       { c.b = zeros(c.b, row*c.width-len(c.b)) }
func (c *fixed) data(out [][]byte, n int) [][]byte { c.pad(n); return append(out, c.b) }

func (c *fixed) put(row int, v uint64) {
	c.pad(row)
	c.add(v)
}

func (c *fixed) add(v uint64) {
	switch c.width {
	case 8:
		c.b = binary.LittleEndian.AppendUint64(c.b, v)
	case 4:
		c.b = binary.LittleEndian.AppendUint32(c.b, uint32(v))
	case 2:
		c.b = binary.LittleEndian.AppendUint16(c.b, uint16(v))
	default:
		c.b = append(c.b, byte(v))
	}
}

// putRaw keeps width bytes of v: what is longer is cut, what is shorter padded.
func (c *fixed) putRaw(row int, v []byte) {
	c.pad(row)
	c.b = append(c.b, v[:min(len(v), c.width)]...)
	c.pad(row + 1)
}

// putUUID keeps 16 bytes in ClickHouse's order: each half reversed.
func (c *fixed) putUUID(row int, v []byte) {
	var id [16]byte
	copy(id[:], v)
	c.pad(row)
	c.b = binary.LittleEndian.AppendUint64(c.b, binary.BigEndian.Uint64(id[:8]))
	c.b = binary.LittleEndian.AppendUint64(c.b, binary.BigEndian.Uint64(id[8:]))
}

// str is a column of strings: a length and the bytes.
type str struct {
	b    []byte
	rows int
}

func (c *str) reset()                   { c.b, c.rows = c.b[:0], 0 }
func (c *str) size() int                { return len(c.b) }
func (c *str) prefix(buf []byte) []byte { return buf }

func (c *str) pad(row int) {
	if row > c.rows {
		c.b = zeros(c.b, row-c.rows)
		c.rows = row
	}
}

func (c *str) data(out [][]byte, n int) [][]byte { c.pad(n); return append(out, c.b) }

func (c *str) put(row int, v string) {
	c.pad(row)
	c.add(v)
}

func (c *str) add(v string) {
	c.b = binary.AppendUvarint(c.b, uint64(len(v)))
	c.b = append(c.b, v...)
	c.rows++
}

// putIP writes the address as text, straight into the column.
func (c *str) putIP(row int, a netip.Addr) {
	c.pad(row)
	at := len(c.b)
	c.b = append(c.b, 0)
	c.b = a.Unmap().AppendTo(c.b)
	c.b[at] = byte(len(c.b) - at - 1) // an address has at most 45 letters
	c.rows++
}

// dictionary is LowCardinality(String): each value once, and a key of 1, 2 or 4 bytes a row. Key 0 is "".
type dictionary struct {
	keys   []byte
	width  int
	rows   int
	words  []byte // the values, as in str
	values []string
	index  map[string]uint32
	last   uint32 // key of the row before: most columns say the same again
	head   [16]byte
	tail   [8]byte
}

func newDictionary() *dictionary {
	c := &dictionary{index: map[string]uint32{}}
	c.reset()
	return c
}

func (c *dictionary) reset() {
	c.keys, c.width, c.rows, c.last = c.keys[:0], 1, 0, 0
	c.words = append(c.words[:0], 0)
	clear(c.values)
	c.values = append(c.values[:0], "")
	clear(c.index)
}

func (c *dictionary) size() int { return len(c.keys) + len(c.words) }

// prefix is the version of the form: a dictionary of its own with each block.
func (c *dictionary) prefix(buf []byte) []byte { return binary.LittleEndian.AppendUint64(buf, 1) }

func (c *dictionary) pad(row int) {
	if row > c.rows {
		c.keys = zeros(c.keys, (row-c.rows)*c.width)
		c.rows = row
	}
}

// data is how wide the keys are and that a dictionary follows (bits 9 and 10), the dictionary, the keys. No rows are no bytes.
func (c *dictionary) data(out [][]byte, n int) [][]byte {
	c.pad(n)
	if n == 0 {
		return out
	}
	kind := uint64(c.width >> 1) // 1, 2, 4 bytes are called 0, 1, 2
	binary.LittleEndian.PutUint64(c.head[:], kind|1<<9|1<<10)
	binary.LittleEndian.PutUint64(c.head[8:], uint64(len(c.values)))
	binary.LittleEndian.PutUint64(c.tail[:], uint64(n))
	return append(out, c.head[:], c.words, c.tail[:], c.keys)
}

func (c *dictionary) put(row int, v string) {
	c.pad(row)
	c.add(v)
}

func (c *dictionary) add(v string) {
	if v != c.values[c.last] {
		c.last = c.key(v)
	}
	switch c.width {
	case 1:
		c.keys = append(c.keys, byte(c.last))
	case 2:
		c.keys = binary.LittleEndian.AppendUint16(c.keys, uint16(c.last))
	default:
		c.keys = binary.LittleEndian.AppendUint32(c.keys, c.last)
	}
	c.rows++
}

// key finds v in the dictionary. A new one is copied: v may lie in Kafka's buffer.
func (c *dictionary) key(v string) uint32 {
	if v == "" {
		return 0
	}
	if k, ok := c.index[v]; ok {
		return k
	}
	v = strings.Clone(v)
	k := uint32(len(c.values))
	c.index[v], c.values = k, append(c.values, v)
	c.words = append(binary.AppendUvarint(c.words, uint64(len(v))), v...)
	switch {
	case c.width == 1 && k > math.MaxUint8:
		c.widen(2)
	case c.width == 2 && k > math.MaxUint16:
		c.widen(4)
	}
	return k
}

// widen rewrites the keys of the rows so far with w bytes each.
func (c *dictionary) widen(w int) {
	wide := make([]byte, 0, max(c.rows*w*2, cap(c.keys)))
	for i := range c.rows {
		wide = append(wide, c.keys[i*c.width:(i+1)*c.width]...)
		wide = zeros(wide, w-c.width)
	}
	c.keys, c.width = wide, w
}

// list is a column of arrays: where each row ends, and the elements of all rows one after the other.
type list struct {
	ends  fixed
	rows  int
	total uint64
	strs  interface {
		column
		add(v string)
	} // one of the two
	nums *fixed
}

func (c *list) inner() column {
	if c.nums != nil {
		return c.nums
	}
	return c.strs
}

func (c *list) reset() {
	c.ends.reset()
	c.inner().reset()
	c.rows, c.total = 0, 0
}

func (c *list) size() int                { return len(c.ends.b) + c.inner().size() }
func (c *list) prefix(buf []byte) []byte { return c.inner().prefix(buf) }

func (c *list) pad(row int) {
	for ; c.rows < row; c.rows++ {
		c.ends.add(c.total)
	}
}

func (c *list) data(out [][]byte, n int) [][]byte {
	c.pad(n)
	return c.inner().data(append(out, c.ends.b), int(c.total))
}

func (c *list) end(n int) {
	c.total += uint64(n)
	c.ends.add(c.total)
	c.rows++
}

func (c *list) putStrs(row int, vs []string) {
	c.pad(row)
	for _, v := range vs {
		c.strs.add(v)
	}
	c.end(len(vs))
}

func (c *list) putNums(row int, vs []int64, limit uint64) {
	c.pad(row)
	for _, v := range vs {
		c.nums.add(clamp(v, limit))
	}
	c.end(len(vs))
}

// labels is a column of Map(LowCardinality(String), String).
type labels struct {
	list     // of the keys
	text str // the values
}

func newLabels() *labels {
	return &labels{list: list{ends: fixed{width: 8}, strs: newDictionary()}}
}

func (c *labels) reset() {
	c.list.reset()
	c.text.reset()
}

func (c *labels) size() int { return c.list.size() + len(c.text.b) }

func (c *labels) data(out [][]byte, n int) [][]byte {
	return c.text.data(c.list.data(out, n), int(c.total))
}

func (c *labels) putLabels(row int, ls []*pipeline.Label) {
	c.pad(row)
	for _, l := range ls {
		c.strs.add(l.GetKey())
		c.text.add(l.GetValue())
	}
	c.end(len(ls))
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

func zeros(b []byte, n int) []byte {
	for n > 0 {
		k := min(n, len(zeroPage))
		b = append(b, zeroPage[:k]...)
		n -= k
	}
	return b
}

var zeroPage [4096]byte
