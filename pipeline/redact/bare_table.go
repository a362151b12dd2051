package redact

import (
	"bytes"
	"math/bits"
)

// A bare table has no separator line below its heading and no blanks around its cells, as psql -A and mysql -B print it:
//
//	id|name|password
//	1|bob|hunter2
//
// Any line with the same number of cells is a row of it, so its heading must be certain: names of columns, at least one of
// which is that of a secret and of nothing else, or has a column beside it as tables of users have them.

// besideColumns are columns of tables of users.
var besideColumns = [...]string{"id", "name", "user", "username", "user_name", "login", "email", "mail", "host", "role", "uid", "user_id"}

// bareHeadingOf returns the heading of a bare table that line is; without secret cells: it is none.
func bareHeadingOf(line []byte) tableHeading {
	line = bytes.TrimRight(line, "\r")
	h := tableHeading{bare: '|'}
	if bytes.IndexByte(line, '\t') >= 0 {
		h.bare = '\t'
	}
	certain, isOfUsers := false, false
	for from := 0; from <= len(line); h.numCells++ {
		to := cellEnd(line, from, h.bare)
		name := line[from:to]
		if len(name) == 0 || len(name) > maxName || h.numCells == maxColumns || !isLetter(name[0]) && name[0] != '_' || isOneFold(name, []string{"info", "warn", "warning", "debug", "error"}) {
			return tableHeading{}
		}
		for _, c := range name {
			if folded[c] == 0 {
				return tableHeading{}
			}
		}
		switch class := classOf(name); class {
		case strong, prose:
			h.secretCells |= 1 << h.numCells
			certain = certain || class == strong
		}
		isOfUsers = isOfUsers || isOneFold(name, besideColumns[:])
		from = to + 1
	}
	if h.numCells < 2 || !certain && !isOfUsers {
		return tableHeading{}
	}
	return h
}

// cellEnd returns the end of the cell at from.
func cellEnd(line []byte, from int, bar byte) int {
	if i := bytes.IndexByte(line[from:], bar); i >= 0 {
		return from + i
	}
	return len(line)
}

// hideBareRow hides the cells of a line of v that are below the names of secrets, and reports whether it is a row. A bar may
// be in a value: of a row with more cells, all from the first cell that may be a secret on is hidden.
func (r *Redactor) hideBareRow(v view, h *tableHeading) (isRow bool) {
	line := bytes.TrimRight(v.text, "\r")
	count := bytes.Count(line, []byte{h.bare}) + 1
	if count < int(h.numCells) || count > int(h.numCells) && h.bare == '\t' {
		return false
	}
	first := bits.TrailingZeros64(h.secretCells)
	for i, from := 0, 0; from <= len(line); i++ {
		to := cellEnd(line, from, h.bare)
		if count > int(h.numCells) && i == first {
			to = len(line)
		}
		cell := line[from:to]
		if i < maxColumns && h.secretCells>>i&1 != 0 && !isPlaceholder(cell) && !isProseWord(cell) && !isCount(cell, 3) {
			r.hide(v, from, to, RuleName)
		}
		from = to + 1
	}
	return true
}

// hideBareTables hides the secrets of the bare tables in a text of several lines. Other text may be in front of the heading,
// and a string may end in a row.
func (r *Redactor) hideBareTables(v view) {
	if bytes.IndexByte(v.text, '\n') < 0 || !bytes.ContainsAny(v.text, "|\t") {
		return
	}
	var h tableHeading
	for from := 0; from < len(v.text); {
		to := cellEnd(v.text, from, '\n')
		line := v.text[from:to]
		end := to
		if quote := bytes.IndexAny(line, "\"\\"); quote >= 0 {
			end = from + quote
		}
		if h.secretCells == 0 || !r.hideBareRow(v.part(from, end), &h) || end < to {
			h = bareHeadingOf(line[bytes.LastIndexAny(line, " \"'\\")+1:])
		}
		from = to + 1
	}
}
