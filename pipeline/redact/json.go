package redact

import "bytes"

// maxNesting bounds the nesting of a JSON document that is read value by value.
const maxNesting = 64

// A jsonPass reads a JSON document, RFC 8259, and hides secrets in its values. Names are never changed, and the
// document stays valid.
type jsonPass struct {
	*Redactor
	view
	depth int // of the view
}

// readJSON hides the secrets of v if it is one JSON object or array, and reports whether it is.
func (r *Redactor) readJSON(v view, depth int) bool {
	start := skipSpace(v.text, 0)
	if start == len(v.text) || v.text[start] != '{' && v.text[start] != '[' {
		return false
	}
	known := len(r.spans)
	pass := jsonPass{r, v, depth}
	end, ok := pass.readValue(start, noSecret, 0)
	if ok && skipSpace(v.text, end) == len(v.text) {
		return true
	}
	r.spans = r.spans[:known]
	return false
}

// skipSpace returns the offset of the first byte from pos on that is no white space of JSON.
func skipSpace(text []byte, pos int) int {
	for pos < len(text) && (text[pos] == ' ' || text[pos] == '\t' || text[pos] == '\n' || text[pos] == '\r') {
		pos++
	}
	return pos
}

// readValue reads the value at pos, whose name has that class, and returns its end.
func (p *jsonPass) readValue(pos int, class class, nesting int) (end int, ok bool) {
	if pos == len(p.text) || nesting > maxNesting {
		return pos, false
	}
	switch p.text[pos] {
	case '{':
		if isObjectReference(p.text[pos:]) || isSchema(p.text[pos:]) {
			class = noSecret
		}
		return p.readObject(pos+1, class, nesting+1)
	case '[':
		return p.readArray(pos+1, class, nesting+1)
	case '"':
		if end = stringEnd(p.text, pos); end < 0 {
			return pos, false
		}
		p.readString(pos+1, end-1, class)
		return end, true
	}
	end = pos
	for end < len(p.text) && (folded[p.text[end]] > separator || bytes.IndexByte([]byte("+-.eE"), p.text[end]) >= 0) {
		end++
	}
	literal := p.text[pos:end]
	switch {
	case string(literal) == "true" || string(literal) == "false" || string(literal) == "null":
		return end, true
	case !isNumber(literal):
		return end, false
	case class == countable, class == prose && isCount(literal, 3), !class.isSecret():
		return end, true
	}
	if p.table != nil { // a quote would end the string that holds the document
		p.hide(p.view, pos, end, RuleName)
		return end, true
	}
	p.hideAs(p.view, pos, end, RuleName, jsonMarker)
	return end, true
}

// readObject reads the members of an object up to its end.
func (p *jsonPass) readObject(pos int, class class, nesting int) (end int, ok bool) {
	named := noSecret // the class of the value of a member "name"
	var early earlyValues
	for {
		pos = skipSpace(p.text, pos)
		if pos < len(p.text) && p.text[pos] == '}' {
			return pos + 1, true
		}
		if pos == len(p.text) || p.text[pos] != '"' {
			return pos, false
		}
		from, keyEnd := pos+1, stringEnd(p.text, pos)
		if keyEnd < 0 {
			return pos, false
		}
		name := p.text[from : keyEnd-1]
		if pos = skipSpace(p.text, keyEnd); pos == len(p.text) || p.text[pos] != ':' {
			return pos, false
		}
		pos = skipSpace(p.text, pos+1)
		member := p.classOfMember(name, class, named)
		if member == noSecret && isCodeName(name) {
			if _, to := codeSecret(p.text, from, keyEnd-1); to > 0 {
				member = strong
			}
		}
		if pos < len(p.text) && p.text[pos] == '"' {
			valueEnd := stringEnd(p.text, pos)
			switch {
			case valueEnd < 0:
			case member == beside, member == noSecret && isChangeMember(name):
				early.add(pos+1, valueEnd-1, member == beside)
			case isNameMember(name):
				named = classOf(nameAtEnd(p.text[pos+1 : valueEnd-1]))
				early.read(p, named)
			case !named.isSecret() && namesSecret(p.text[pos+1:valueEnd-1]):
				named = strong
				early.read(p, named)
			}
		}
		if pos, ok = p.readValue(pos, member, nesting); !ok {
			return pos, false
		}
		pos = skipSpace(p.text, pos)
		if pos < len(p.text) && p.text[pos] == ',' {
			pos++
			if next := skipSpace(p.text, pos); next == len(p.text) || p.text[next] != '"' {
				return pos, false
			}
			continue
		}
		if pos == len(p.text) || p.text[pos] != '}' {
			return pos, false
		}
	}
}

// earlyValues are the strings of members "value" and of changeMembers in front of the member that names them.
type earlyValues struct {
	values [3]earlyValue
	count  int
}

// An earlyValue is a string in front of its name.
type earlyValue struct {
	from, to int
	isValue  bool // its member is "value", and not one of changeMembers
}

// add adds the string of a member. Of many the last are kept.
func (e *earlyValues) add(from, to int, isValue bool) {
	if e.count == len(e.values) {
		e.count = copy(e.values[:], e.values[1:])
	}
	e.values[e.count] = earlyValue{from, to, isValue}
	e.count++
}

// read hides the strings, whose name has that class.
func (e *earlyValues) read(p *jsonPass, named class) {
	if !named.isSecret() {
		return
	}
	for _, value := range e.values[:e.count] {
		if value.isValue || named == strong {
			p.readString(value.from, value.to, named)
		}
	}
	e.count = 0
}

// changeMembers are the names of members with the value of a password, or with one of those of a change, whose name stands
// beside them.
var changeMembers = [...]string{
	"result", "old", "new", "before", "after", "previous", "current", "oldvalue", "newvalue", "old_value", "new_value",
	"previousvalue", "previous_value", "defaultvalue", "from_value", "to_value",
}

// isChangeMember reports whether name is one of changeMembers.
func isChangeMember(name []byte) bool { return isOneFold(name, changeMembers[:]) }

// namesSecret reports whether the value of a member, whatever its name is, names the secret beside it: {"type":"password",
// "value":"X"}, {"path":"/spec/password","value":"X"}.
func namesSecret(value []byte) bool {
	if len(value) > 0 && value[0] == '/' {
		return len(value) < 2*maxPhrase && bytes.IndexByte(value, ' ') < 0 && classOf(nameAtEnd(value)) == strong
	}
	return len(value) < maxName && pairClass(value) == strong
}

// classOfMember returns the class of a member: its own, that of the object, or that of the name beside it, as in
// {"name":"DB_PASSWORD","value":"…"}.
func (p *jsonPass) classOfMember(name []byte, object, named class) class {
	var buf [maxName]byte
	if bytes.IndexByte(name, '\\') >= 0 && len(name) <= 6*maxName {
		plain := buf[:0]
		for i := 0; i < len(name) && len(plain) < maxName-4; {
			var width int
			plain, width = decodeEscape(plain, name, i)
			i += width
		}
		name = plain
	}
	own := classOf(nameAtEnd(name))
	if own == noSecret && named == strong && isChangeMember(name) {
		own = beside
	}
	if object.isSecret() {
		return object
	}
	if named.isSecret() && own == beside {
		return named
	}
	if own == noSecret && hasForeignName(name) {
		return strong
	}
	if own == everyday && !isSessionName(name) {
		return noSecret
	}
	return own
}

// memberNames are the names of members that name the value beside them.
var memberNames = [...]string{
	"name", "key", "k", "header", "field", "variable", "variable_name", "parameterkey", "parametername", "optionname",
	"property",
}

// isNameMember reports whether a member names the value beside it.
func isNameMember(name []byte) bool {
	return isOneFold(name, memberNames[:])
}

// An arrayPass is the state of readArray: what the elements so far say about the next one.
type arrayPass struct {
	by     *command // the command among the elements
	option bool     // the last element is an option for a secret
	named  class    // the class of the last element, if it is a name
	index  int      // of the next element
}

// classOfElement returns the class of the string p.text[from:to] of an array of that class.
func (a *arrayPass) classOfElement(p *jsonPass, from, to int, array class) class {
	text, element := p.text[from:to], array
	switch {
	case a.option:
		element = strong
	case a.index%2 == 1 && a.named.isSecret() && isValueOfPair(text, a.named, a.index == 1 && endsList(p.text, to+1)):
		element = a.named
	}
	if a.named = noSecret; len(text) < maxName {
		if a.index%2 == 0 {
			a.named = pairClass(text)
		}
		if found := commandIn(text); found != nil {
			a.by = found
		}
	}
	a.option = element == array && isSecretOption(text, a.by)
	if a.by != nil && len(text) > 2 && text[0] == '-' &&
		(hasOption(a.by.joined, text[1]) || hasOption(a.by.secret, text[1])) {
		p.hide(p.view, from+2, to, RuleFlag) // -pSECRET
	}
	return element
}

// readArray reads the elements of an array up to its end. The string behind the option of a command is its
// value.
func (p *jsonPass) readArray(pos int, class class, nesting int) (end int, ok bool) {
	var state arrayPass
	pos = skipSpace(p.text, pos)
	if pos < len(p.text) && p.text[pos] == ']' {
		return pos + 1, true
	}
	for {
		element := class
		if pos < len(p.text) && p.text[pos] == '"' {
			if to := stringEnd(p.text, pos); to > 0 {
				element = state.classOfElement(p, pos+1, to-1, class)
			}
		} else {
			state.option = false
		}
		if pos, ok = p.readValue(pos, element, nesting); !ok {
			return pos, false
		}
		pos = skipSpace(p.text, pos)
		switch {
		case pos < len(p.text) && p.text[pos] == ',':
			pos, state.index = skipSpace(p.text, pos+1), state.index+1
		case pos < len(p.text) && p.text[pos] == ']':
			return pos + 1, true
		default:
			return pos, false
		}
	}
}

// readString hides the secrets of the string text[from:to], whose name has that class.
func (p *jsonPass) readString(from, to int, class class) {
	content := p.text[from:to]
	switch {
	case class.isSecret():
		if class == countable && isCount(content, 20) || isPlaceholder(content) {
			return
		}
		rule := RuleName
		if class == header {
			rule = RuleHeader
		}
		p.hide(p.view, afterScheme(p.text, from, to), to, rule)
	case class == everyday &&
		(isUserAndPassword(content) || len(content) >= minSession && looksGenerated(content, minSession)):
		// {"auths":{"registry":{"auth":"…"}}}, {"session":"…"}
		p.hide(p.view, from, to, RuleName)
	case len(content) < 6:
	default:
		v := p.part(from, to)
		if bytes.IndexByte(content, '\\') < 0 {
			if p.mayHoldSecret(content) {
				p.readText(v, p.depth)
			}
		} else if p.depth < maxDepth && p.holdsNeedle(content) {
			p.readText(p.decoded(v, p.depth, decodeEscape), p.depth+1)
		}
	}
}

// stringEnd returns the offset behind the string that begins at pos, or −1.
func stringEnd(text []byte, pos int) int {
	for i := pos + 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
			if i == len(text) || bytes.IndexByte([]byte(`"\/bfnrtu`), text[i]) < 0 {
				return -1
			}
		case c == '"':
			return i + 1
		case c < ' ':
			return -1
		}
	}
	return -1
}

// isNumber reports whether literal is a number of JSON.
func isNumber(literal []byte) bool {
	rest := bytes.TrimPrefix(literal, []byte("-"))
	if len(rest) == 0 || rest[0] < '0' || rest[0] > '9' {
		return false
	}
	for _, c := range rest {
		if (c < '0' || c > '9') && c != '.' && c != 'e' && c != 'E' && c != '+' && c != '-' {
			return false
		}
	}
	return true
}
