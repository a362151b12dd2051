package redact

import (
	"bytes"
	"iter"
	"math/bits"
)

// A table has the names of its columns in a heading, a separator line below it, and then rows, as the clients of databases print
// them: psql, mysql, clickhouse-client.
//
//	 id | name | password
//	----+------+----------
//	  1 | bob  | hunter2

// maxColumns is the number of columns of a table that are read.
const maxColumns = 64

// bars are the lines between the cells of a row.
var bars = [...]string{"|", "│", "┃"}

// barAt returns the length of the bar at pos; 0: there is none.
func barAt(text []byte, pos int) int {
	for _, bar := range bars {
		if len(text)-pos >= len(bar) && text[pos] == bar[0] && string(text[pos:pos+len(bar)]) == bar {
			return len(bar)
		}
	}
	return 0
}

// isBeforeBar reports whether a bar is behind the blanks at pos.
func isBeforeBar(text []byte, pos int) bool {
	pos = skipBlanks(text, pos)
	return pos < len(text) && barAt(text, pos) > 0
}

// A tableHeading says what the rows below it have.
type tableHeading struct {
	secretCells uint64 // those with secrets, as bits; 0: it is no heading, or has none
	numCells    uint8
	barInFront  bool // a bar begins the heading, and the rows
	barBehind   bool // a bar ends them
	bare        byte // of a bare table: the byte between its cells
}

// behindFrontBar returns the offset behind the bar that begins a row; 0: there is none. The number of the row may be in
// front of it, as clickhouse-client prints it.
func behindFrontBar(row []byte) int {
	pos := skipBlanks(row, 0)
	number := pos
	for number < len(row) && isDigitAt(row, number) {
		number++
	}
	if number > pos && number < len(row) && row[number] == '.' {
		if pos = skipBlanks(row, number+1); barAt(row, pos) == 1 {
			return 0
		}
	}
	if bar := barAt(row, pos); bar > 0 {
		return pos + bar
	}
	return 0
}

// cutLastBar returns a row without the bar that ends it, and whether there is one.
func cutLastBar(row []byte) ([]byte, bool) {
	row = bytes.TrimRight(row, " \t\r")
	for _, bar := range bars {
		if rest, found := bytes.CutSuffix(row, []byte(bar)); found {
			return rest, true
		}
	}
	return row, false
}

// eachCell returns the cells of a row, without the blanks around them. They may be empty. The bars that begin and end the
// row are no bounds of further cells if the heading has them, too.
func (h *tableHeading) eachCell(row []byte) iter.Seq2[int, int] {
	return func(yield func(from, to int) bool) {
		row, from := bytes.TrimRight(row, " \t\r"), 0
		if h.barInFront {
			from = behindFrontBar(row)
		}
		if h.barBehind {
			row, _ = cutLastBar(row)
		}
		for pos := from; pos <= len(row); pos++ {
			bar := barAt(row, pos)
			if bar == 0 && pos < len(row) {
				continue
			}
			start := min(skipBlanks(row, from), pos)
			if !yield(start, start+len(bytes.TrimRight(row[start:pos], " \t"))) {
				return
			}
			from = pos + bar
			pos += max(bar-1, 0)
		}
	}
}

// headingOf returns the heading of a table that row is, if there are secrets below it. All cells of a heading are names.
func headingOf(row []byte) tableHeading {
	h := tableHeading{barInFront: behindFrontBar(row) > 0}
	_, h.barBehind = cutLastBar(row)
	for from, to := range h.eachCell(row) {
		name := row[from:to]
		if from == to || to-from > maxName || h.numCells == maxColumns {
			return tableHeading{}
		}
		for _, c := range name {
			if folded[c] == 0 && c != ' ' && c != '(' && c != ')' && c < 0x80 {
				return tableHeading{}
			}
		}
		class := classOf(name)
		isSecret := class == strong || class == header || class == prose && !isOneFold(name, []string{"pass", "sig"})
		if isSecret || hasForeignName(name) {
			h.secretCells |= 1 << h.numCells
		}
		h.numCells++
	}
	if h.numCells < 2 {
		return tableHeading{}
	}
	return h
}

// isSeparatorLine reports whether a line is the one below the heading of a table: ---+---, |---|:--|, ┡━━╇━━┩.
func isSeparatorLine(line []byte) bool {
	count := 0
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '-' || c == '=' || c == '+':
			count++
		case c == ' ' || c == '|' || c == ':' || c == '\t' || c == '\r':
		case c == 0xe2 && i+2 < len(line) && (line[i+1] == 0x94 || line[i+1] == 0x95): // U+2500 to U+257F
			count++
			i += 2
		default:
			return false
		}
	}
	return count > 2
}

// hideRow hides the cells of a row that are below the names of secrets, and reports whether the table ends in front of
// it. A bar may be in a value: of a row with another number of cells, all from the first cell that may be a secret on is
// hidden.
func (r *Redactor) hideRow(row []byte, next *expectation) (ends bool) {
	h := &next.heading
	if !bytes.ContainsAny(row, "|│┃") || h.barInFront && behindFrontBar(row) == 0 {
		return true
	}
	count, firstSecret := uint8(0), len(row)
	for from := range h.eachCell(row) {
		if int(count) == bits.TrailingZeros64(h.secretCells) {
			firstSecret = from
		}
		if count++; count > maxColumns {
			break
		}
	}
	if count != h.numCells {
		rest, _ := cutLastBar(row)
		if !h.barBehind {
			rest = row
		}
		r.hideExpected(row, firstSecret, len(bytes.TrimRight(rest, " \t\r")), next)
		return false
	}

	next.lines = maxValueLines // rows that may be none are not followed for ever
	i := 0
	for from, to := range h.eachCell(row) {
		if h.secretCells>>i&1 != 0 && to-from > 1 {
			r.hideExpected(row, from, to, next)
		}
		i++
	}
	return false
}
