package redact

import "bytes"

// hidePairs hides the strings that stand behind the names of secrets in lists: ('password', 'X'), and of header fields:
// ['Host', 'h', 'Cookie', 'X']. The elements of a list are names and values in turn.
func (r *Redactor) hidePairs(v view) {
	text := v.text
	index := 0      // of the next element
	var named class // of the last element, if it is a name
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c == '[' || c == '(' || c == '{':
			index, named = 0, noSecret
		case c == ',':
			index++
		case (isQuote(c) || c == '\\' && i+1 < len(text) && isQuote(text[i+1])) && followsListMark(text, i):
			value := readValue(text, i, false)
			if named.isSecret() && index%2 == 1 {
				pair := index == 1 && endsList(text, value.next)
				if isValueOfPair(value.of(text), named, pair) {
					r.hide(v, afterScheme(text, value.from, value.to), value.to, RuleName)
				}
			}
			named = noSecret
			if index%2 == 0 && value.to-value.from < maxName && value.next < len(text) && text[value.next] == ',' {
				named = pairClass(value.of(text))
			}
			i = max(value.next, i+1)
			continue
		}
		i++
	}
}

// followsListMark reports whether the string at pos may be an element of a list.
func followsListMark(text []byte, pos int) bool {
	for limit := pos - 4; pos > max(0, limit) && (text[pos-1] == ' ' || text[pos-1] == 'u' || text[pos-1] == 'b'); {
		pos--
	}
	before := byteBefore(text, pos)
	return before == '[' || before == '(' || before == ',' || before == '{' || before == 0 || before == '\n'
}

// endsList reports whether a list ends at pos.
func endsList(text []byte, pos int) bool {
	pos = skipSpace(text, pos)
	return pos == len(text) || (text[pos] == ']' || text[pos] == ')' || text[pos] == '}')
}

// pairClass returns the class of a name of a list; noSecret if it is more than a name.
func pairClass(name []byte) class {
	for _, c := range name {
		if folded[c] == 0 {
			return noSecret
		}
	}
	return classOf(name)
}

// fieldWords are the names of other fields beside a password in a list of fields.
var fieldWords = [...]string{
	"email", "e-mail", "mail", "phone", "remember", "confirm", "first", "last", "address", "label", "text",
	"hidden", "key", "url", "login",
	"str", "int", "char", "varchar", "password", "path", "value", "submit", "database", "db", "environ",
	"admin", "client", "server", "all",
}

// isValueOfPair reports whether value is a secret of that class. In a pair every value is, unless it is the name of
// another field; in longer lists those that look generated.
func isValueOfPair(value []byte, named class, pair bool) bool {
	if isPlaceholder(value) || len(value) == 0 {
		return false
	}
	if named == header {
		n := schemeLength(value)
		return bytes.IndexByte(value, '=') > 0 || n > 0 && isScheme(value[:n]) || looksGenerated(value, minBearer)
	}
	if looksGenerated(value, len("secret")) {
		return true
	}
	if !pair || named != strong || len(value) < minSecret || bytes.IndexByte(value, ' ') >= 0 {
		return false
	}
	if isProseWord(value) || pairClass(value) != noSecret {
		return false
	}
	words := splitName(value[:min(len(value), maxName)])
	if words.count == 0 {
		return true
	}
	first, last := words.part(0), words.part(words.count-1)
	return words.count < 3 && !isOneOf(first, fieldWords[:]) && !isOneOf(last, harmless[:])
}
