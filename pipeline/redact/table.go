package redact

import (
	"bytes"
	"iter"
)

// A table has the names of its columns in a heading, a rule below it, and then rows, as the clients of databases print
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

// cells returns the cells of a row, without the blanks around them. A bar may begin and end the row, with the number of
// the row in front of it.
func cells(row []byte) iter.Seq2[int, int] {
	return func(yield func(from, to int) bool) {
		end := len(bytes.TrimRight(row, " \t\r"))
		for from, pos := 0, 0; pos <= end; pos++ {
			bar := 0
			if pos < end {
				bar = barAt(row, pos)
			}
			if bar == 0 && pos < end {
				continue
			}
			cell := bytes.Trim(row[from:pos], " \t")
			isEdge := len(cell) == 0 && (pos == end || from == 0) ||
				from == 0 && bar > 1 && len(bytes.Trim(cell, "0123456789")) == 1 && cell[len(cell)-1] == '.'
			if !isEdge {
				start := from + len(row[from:pos]) - len(bytes.TrimLeft(row[from:pos], " \t"))
				if !yield(start, start+len(cell)) {
					return
				}
			}
			from = pos + bar
			pos += max(bar-1, 0)
		}
	}
}

// secretColumns returns the columns with secrets, as bits, of the table whose heading is row, and the number of all.
// All cells of a heading are names.
func secretColumns(row []byte) (columns uint64, count uint8) {
	for from, to := range cells(row) {
		name := row[from:to]
		if from == to || to-from > maxName || count == maxColumns {
			return 0, 0
		}
		for _, c := range name {
			if folded[c] == 0 && c != ' ' && c != '(' && c != ')' && c < 0x80 {
				return 0, 0
			}
		}
		class := classOf(name)
		isSecret := class == strong || class == header || class == prose && !isOneFold(name, []string{"pass", "sig"})
		if isSecret || hasForeignName(name) {
			columns |= 1 << count
		}
		count++
	}
	if count < 2 {
		return 0, 0
	}
	return columns, count
}

// isRule reports whether a line is the one below the heading of a table: ---+---, |---|:--|, ┡━━╇━━┩.
func isRule(line []byte) bool {
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
// it.
func (r *Redactor) hideRow(row []byte, next *expectation) (ends bool) {
	count := uint8(0)
	for range cells(row) {
		if count++; count > next.cells {
			return true
		}
	}
	if count != next.cells {
		return true
	}
	i := 0
	for from, to := range cells(row) {
		if next.columns>>i&1 != 0 && to-from > 1 {
			r.hideExpected(row, from, to, next)
		}
		i++
	}
	return false
}
