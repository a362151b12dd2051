package rules

import (
	"strings"
	"unsafe"
)

// simplifySQL returns text as a parser of SQL reads it, so that a rule can look for texts instead of regular
// expressions, whose worst case is a hundred times slower: letters are in lower case, a comment or white
// space is one blank, there is none beside a sign, a number is 0, and a double quote is a single one.
// "OR/**/12 = (SELECT" is "or 0=(select".
func simplifySQL(text string) string {
	var b []byte
	return simplifySQLInto(&b, text)
}

// A sqlClass is the kind of a byte of a statement.
type sqlClass uint8

const (
	sqlSign sqlClass = iota
	sqlBlank
	sqlLetter // or part of a word: a byte of a letter beyond ASCII, an underscore
	sqlDigit
)

var sqlClasses = func() (table [256]sqlClass) {
	for _, c := range []byte(" \t\n\v\f\r\x00") {
		table[c] = sqlBlank
	}
	for c := range 256 {
		switch {
		case c >= '0' && c <= '9':
			table[c] = sqlDigit
		case c|0x20 >= 'a' && c|0x20 <= 'z', c == '_', c >= 0x80:
			table[c] = sqlLetter
		}
	}
	return table
}()

// simplifySQLInto is simplifySQL without allocation, as lowerInto.
func simplifySQLInto(buf *[]byte, text string) string {
	out := (*buf)[:0]
	inWord := false // the last byte of out is part of a word
	blank := false  // a blank was read behind it
	for i := 0; i < len(text); {
		char := text[i]
		class := sqlClasses[char]
		if class == sqlBlank {
			blank = true
			i++
			continue
		}
		if class == sqlSign {
			if length := commentLength(text[i:]); length > 0 {
				blank = true
				i += length
				continue
			}
			if char == '"' {
				char = '\''
			}
			out = append(out, char)
			inWord, blank = false, false
			i++
			continue
		}

		// A word or a number: a blank before it counts if a word is before that.
		starts := !inWord || blank
		if inWord && blank {
			out = append(out, ' ')
		}
		inWord, blank = true, false
		if class == sqlDigit && starts {
			out = append(out, '0')
			for i++; i < len(text) && sqlClasses[text[i]] >= sqlLetter; i++ {
			}
			continue
		}
		if char >= 'A' && char <= 'Z' {
			char |= 0x20
		}
		out = append(out, char)
		i++
	}
	*buf = out
	return unsafe.String(unsafe.SliceData(out), len(out))
}

// maxSQLComment is the length of the longest comment that counts as a blank.
const maxSQLComment = 256

// commentLength returns the length of a comment at the front of text, or 0. What stands in /*!50000 … */ is
// executed by MySQL, so that only the marks around it count as a comment.
func commentLength(text string) int {
	switch {
	case len(text) < 2:
		return 0
	case text[0] == '*' && text[1] == '/':
		return 2
	case text[0] != '/' || text[1] != '*':
		return 0
	case len(text) > 2 && text[2] == '!':
		length := 3
		for length < len(text) && sqlClasses[text[length]] == sqlDigit {
			length++
		}
		return length
	}
	end := strings.Index(text[2:min(len(text), maxSQLComment)], "*/")
	if end < 0 {
		return 0
	}
	return end + 4
}
