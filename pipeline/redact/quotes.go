package redact

import "bytes"

// readQuoted returns the value that begins with the quote at pos. Within it a doubled quote stands for one,
// as in SQL and YAML; it may begin with several quotes and end with as many, as within a literal of SQL, or
// in Python; and further parts may follow without a blank, as in a shell: 'a”b', ”a”, 'it'"'"'s', 'it'\”s'.
// inString is that of readValue.
func readQuoted(text []byte, pos int, inString bool) valueRange {
	quote := text[pos]
	from := pos + 1
	for from < len(text) && text[from] == quote {
		from++
	}
	count := from - pos
	if count > 1 && (from == len(text) || !beginsWord(text[from])) {
		return valueRange{pos + 1, pos + 1, pos + 2, true}
	}
	to := closingQuotes(text, from, quote, count)
	next := min(len(text), to+count)
	if count > 1 || to == from || text[from] <= ' ' || text[from] == ',' {
		return valueRange{from, to, next, true}
	}

	// Invariant: the parts before next are of the value, and it ends at to.
	for next < len(text) {
		partFrom, partTo, end := quotedPart(text, next, quote, inString)
		if end == next {
			break
		}
		if partTo > partFrom {
			to = partTo
		}
		next = end
	}
	return valueRange{from, to, next, true}
}

// beginsWord reports whether a value begins with c behind several quotes.
func beginsWord(c byte) bool {
	return isTokenChar(c) || c >= 0x80 || c == '!' || c == '$' || c == '^' || c == '#'
}

// closingQuotes returns the offset at which the string that begins at from ends, with count quotes.
func closingQuotes(text []byte, from int, quote byte, count int) int {
	for i := from; ; {
		if i = closingQuote(text, i, quote, 0); i == len(text) {
			return i
		}
		run := 1
		for i+run < len(text) && text[i+run] == quote {
			run++
		}
		if end := i + run; run%2 == count%2 || run%(2*count) > 0 || end == len(text) || !beginsWord(text[end]) {
			return max(i, end-count)
		}
		i += run // doubled
	}
}

// quotedPart returns the part at pos of a value in quotes, which follows one in quotes of that kind without
// a blank, and the offset behind it; pos if there is none.
func quotedPart(text []byte, pos int, quote byte, inString bool) (from, to, end int) {
	switch c := text[pos]; {
	case c == '\\' && pos+2 < len(text) && isQuote(text[pos+1]) && text[pos+1] == quote && text[pos+2] == quote:
		return pos, pos + 2, pos + 2 // 'it'\''s'
	case isQuote(c) && c != quote && (c != '"' || !inString):
		if pos+2 < len(text) && text[pos+1] == quote && text[pos+2] == c {
			return pos + 1, pos + 2, pos + 3 // 'it'"'"'s'
		}
		if pos+1 == len(text) || !beginsWord(text[pos+1]) {
			return 0, 0, pos
		}
		for to = pos + 1; to < len(text) && text[to] > ' ' && text[to] != c; {
			to++
		}
		if to == len(text) || text[to] != c {
			return 0, 0, pos
		}
		return pos + 1, to, to + 1
	case c == quote && pos > 0 && text[pos-1] != quote:
		to = closingQuotes(text, pos+1, c, 1)
		return pos + 1, to, min(len(text), to+1)
	case isTokenChar(c) && c != '-':
		for end = pos; end < len(text) && (beginsWord(text[end]) || bytes.IndexByte([]byte("+=~*"), text[end]) >= 0); {
			end++
		}
		return pos, end, end
	}
	return 0, 0, pos
}

// decodeDoubled decodes a doubled quote, as literals of SQL and YAML and fields of CSV have them.
func decodeDoubled(out, text []byte, i int) ([]byte, int) {
	if isQuote(text[i]) && i+1 < len(text) && text[i+1] == text[i] {
		return append(out, text[i]), 2
	}
	return append(out, text[i]), 1
}

// hasDoubled reports whether text may be a literal with doubled quotes: two of them are in front of a word.
func hasDoubled(text []byte) bool {
	for _, quote := range [...]string{"''", `""`} {
		for rest := text; ; {
			i := bytes.Index(rest, []byte(quote))
			if i < 0 {
				break
			}
			if rest = rest[i+len(quote):]; len(rest) > 0 && beginsWord(rest[0]) {
				return true
			}
		}
	}
	return false
}
