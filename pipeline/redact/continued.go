package redact

import "bytes"

// A LogState holds the private key and the name of a secret that the lines of a log so far have left open,
// for its next line. Each stream of a log has one.
type LogState struct {
	key            keyBlock
	next           expectation
	parameterLines uint8 // the number of lines in which the parameters of a statement with a secret are expected
}

// An expectationKind says where a secret stands whose name stands in a line before.
type expectationKind uint8

const (
	nothing        expectationKind = iota
	besideValue                    // name: DB_PASSWORD, then value: X
	scalarValue                    // password:, then X
	blockValue                     // password: |, then lines of text that are further to the right
	structureValue                 // "password": [, then lines with values up to the bracket
	elementValue                   // <password>, or <key>password</key>, then X, or <string>X</string>
	besideElement                  // <name>password</name>, then <value>X</value>
	argumentValue                  // - --password, then - X
	wordValue                      // --password \, then X
	partValue                      // form-data; name="password", a blank line, then X up to the boundary
	tableValue                     // the heading of a table, a separator line, then rows with X in a column
)

// An expectation is a secret that is expected in the next lines of a log.
type expectation struct {
	kind   expectationKind
	class  class
	column int   // of the name
	mark   int   // the column of the mark behind the name
	depth  int16 // of brackets; of a part of a form, 1 behind its header
	lines  uint8 // the number of lines up to which it holds
	sign   byte  // that mark
	isJSON bool  // the name is in quotes: a number is replaced by a string

	heading   tableHeading // of a table with secrets; of another kind, if the line may be the heading of one, too
	separated bool         // the separator line below the heading was read
}

// The number of lines in which a secret is expected: beside its name, and in a text or a list.
const (
	maxBesideLines = 4
	maxValueLines  = 64
)

// maxTail is the number of bytes between a name and the end of its line.
const maxTail = 8

// NextLine is like Line for the next line of the log that state belongs to. It also hides a private key that
// extends over several lines, and a value whose name is in a line before it, as listings of YAML and JSON
// have them.
func (r *Redactor) NextLine(data []byte, state *LogState) ([]byte, bool) {
	if state.key.open || isBase64Line(data) {
		if out, hidden := r.keyLine(data, &state.key); hidden {
			return out, true
		}
	}
	r.keyBegun = false
	r.findLine(data)
	switch {
	case r.keyBegun:
		state.key = keyBlock{open: true, front: uint16(min(max(bytes.Index(data, keyBegin), 0), maxBalanced))}
		state.next = expectation{}
	case state.key.open && bytes.Contains(data, keyBegin): // of a certificate
		state.key.open = false
	}
	if state.next.kind != nothing {
		r.readExpected(data, &state.next)
	}
	r.readParameters(data, state)
	if r.nameEnds {
		if next := expectedBehind(data); next.kind != nothing {
			state.next = next
		}
	}
	if len(r.spans) == 0 {
		return data, false
	}
	return r.replaced(data), true
}

// expectedBehind returns what is expected behind a line that ends with the name of a secret, or with a mark
// or a bracket behind it, or that has it in a heading.
func expectedBehind(data []byte) expectation {
	next := expectedBehindEnd(data)
	heading := bareHeadingOf(data)
	if heading.secretCells == 0 {
		heading = headingOf(data)
	}
	if heading.secretCells != 0 {
		next.heading = heading
		if next.kind == nothing {
			next.kind, next.lines = tableValue, 2
		}
	}
	return next
}

// expectedBehindEnd returns what is expected behind a line because of its end.
func expectedBehindEnd(data []byte) expectation {
	text := bytes.TrimRight(data, " \t\r")
	if len(text) < minSecret {
		return expectation{}
	}
	switch last := text[len(text)-1]; last {
	case ':', '=':
		return expectedBehindMark(text, len(text)-1, scalarValue)
	case '{', '[':
		text = bytes.TrimRight(text[:len(text)-1], " \t")
		next := expectedBehindMark(text, len(text)-1, structureValue)
		next.depth = 1
		return next
	case '|', '-', '+':
		text = bytes.TrimRight(text, "-+")
		if len(text) > 0 && (text[len(text)-1] == '|' || text[len(text)-1] == '>') {
			text = bytes.TrimRight(text[:len(text)-1], " \t")
			return expectedBehindMark(text, len(text)-1, blockValue)
		}
	case '>':
		if text[len(text)-2] == ' ' {
			text = bytes.TrimRight(text[:len(text)-1], " \t")
			return expectedBehindMark(text, len(text)-1, blockValue)
		}
		return expectedBehindElement(text)
	case '\\':
		front := bytes.TrimRight(text[:len(text)-1], " \t")
		if from := bytes.LastIndexAny(front, " \t") + 1; isSecretOption(front[from:], nil) {
			return expectation{kind: wordValue, class: strong, lines: 1}
		}
	default:
		return expectedBehindName(text)
	}
	return expectation{}
}

// expectedBehindMark returns an expectation of that kind if the mark at pos, with which text ends, is behind
// the name of a secret, and nothing but the mark of an item is in front of it.
func expectedBehindMark(text []byte, pos int, kind expectationKind) expectation {
	if pos < 1 || text[pos] != ':' && text[pos] != '=' {
		return expectation{}
	}
	from, end, quoted := nameBounds(text, pos)
	class := classOf(text[from:end])
	isItem := len(bytes.Trim(text[:from], " \t-+~,{\"'")) == 0
	if !class.isSecret() || !isItem || quoted && text[pos] == '=' {
		return expectation{}
	}
	return expectation{kind: kind, class: class, column: from, mark: pos, lines: maxValueLines, isJSON: quoted}
}

// expectedBehindElement returns what is expected behind a tag with which text ends.
func expectedBehindElement(text []byte) expectation {
	open := bytes.LastIndexByte(text, '<')
	if open < 0 || text[len(text)-2] == '/' {
		return expectation{}
	}
	kind, name := elementValue, text[open+1:len(text)-1]
	if bytes.HasPrefix(name, []byte("/")) { // <key>password</key>
		kind = besideElement
		if bytes.EqualFold(name, []byte("/key")) {
			kind = elementValue
		}
		name = nameAtEnd(text[max(0, open-maxName):open])
		front := text[:open-len(name)]
		if !bytes.HasSuffix(front, []byte("key>")) && !bytes.HasSuffix(front, []byte("ame>")) {
			return expectation{}
		}
	} else {
		name, _, _ = bytes.Cut(name, []byte(" "))
	}
	if len(name) == 0 || !isSecretElement(name) {
		return expectation{}
	}
	return expectation{kind: kind, class: strong, column: open, lines: 1}
}

// expectedBehindName returns what is expected behind the name with which text ends, in quotes or not: the
// value beside it, or that of an option.
func expectedBehindName(text []byte) expectation {
	text = bytes.TrimRight(text, ",")
	end := len(bytes.TrimRight(text, "\"'"))
	name := nameAtEnd(text[max(0, end-maxName):end])
	class, from := classOf(name), end-len(name)
	if !class.isSecret() {
		return expectation{}
	}
	quote := from
	for quote > 0 && isQuote(text[quote-1]) {
		quote--
	}
	front := text[:quote]
	if isSecretOption(name, nil) {
		if items := bytes.TrimLeft(front, " \t"); len(items) == 0 && quote < from || string(items) == "- " {
			return expectation{kind: argumentValue, class: class, column: len(front), lines: 1}
		}
		return expectation{}
	}
	mark := len(bytes.TrimRight(front, " \t")) - 1
	if mark < 1 || bytes.IndexByte([]byte(":=|"), text[mark]) < 0 {
		return expectation{}
	}
	keyFrom, keyEnd, quoted := nameBounds(text, mark)
	if key := text[keyFrom:keyEnd]; !isNameMember(key) {
		return expectation{}
	}
	if last := lastWord(text[:keyFrom]); !quoted && len(last) > 0 && shapeOf(last).letters == len(last) && byteBefore(text, keyFrom) == ' ' {
		return expectation{} // missing required header: X-API-Key
	}
	if isFieldOfForm(text[:keyFrom]) {
		return expectation{kind: partValue, class: class, column: formColumn(text), lines: maxValueLines}
	}
	return expectation{
		kind: besideValue, class: class, column: keyFrom, mark: mark, sign: text[mark], lines: maxBesideLines,
		isJSON: quoted,
	}
}

// readExpected hides what is expected in a line, and decides whether it is expected in the next one, too.
func (r *Redactor) readExpected(data []byte, next *expectation) {
	if next.lines--; next.lines == 0 {
		defer func() { *next = expectation{} }()
	}
	if next.heading.secretCells != 0 {
		switch {
		case isSeparatorLine(data): // there may be one behind each row
			*next = expectation{
				kind: tableValue, class: prose, lines: maxValueLines, heading: next.heading, separated: true,
			}
			return
		case next.heading.bare != 0 && r.hideBareRow(view{text: data}, &next.heading):
			next.kind, next.lines = tableValue, maxValueLines
			return
		case next.separated:
			if r.hideRow(data, next) {
				*next = expectation{}
			}
			return
		case next.kind == tableValue:
			*next = expectation{}
			return
		}
		next.heading = tableHeading{}
	}
	indent := skipBlanks(data, 0)
	if next.kind == partValue {
		if r.hideLineOfPart(data, next) {
			*next = expectation{}
		}
		return
	}
	if indent == len(data) {
		return
	}
	ends := true
	switch next.kind {
	case besideValue:
		ends = r.hideBesideName(data, next)
	case scalarValue:
		ends = r.hideItem(data, indent, next)
	case blockValue:
		if ends = indent <= next.column; !ends {
			r.hideExpected(data, indent, len(bytes.TrimRight(data, " \t\r")), next)
		}
	case structureValue:
		ends = r.hideLineOfStructure(data, next)
	case elementValue, besideElement:
		r.hideElementText(data, indent, next)
	case argumentValue:
		r.hideNextArgument(data, indent, next)
	case wordValue:
		if value := readArgument(data, indent); data[indent] != '-' {
			r.hideExpected(data, value.from, value.to, next)
		}
	}
	if ends {
		*next = expectation{}
	}
}

// hideExpected hides data[from:to], the value of an expectation, unless it holds no secret.
func (r *Redactor) hideExpected(data []byte, from, to int, next *expectation) {
	if from >= to {
		return
	}
	content := data[from:to]
	if isPlaceholder(content) || isProseWord(content) || next.class == countable && isCount(content, 20) ||
		next.class == prose && isCount(content, 3) {
		return
	}
	with := plainMarker
	if next.isJSON && !isQuote(byteBefore(data, from)) && isNumber(content) {
		with = jsonMarker
	}
	r.hideAs(view{text: data}, afterScheme(data, from, to), to, RuleName, with)
}

// hideBesideName hides the value of a member like value: that has the column of the name before it, or whose
// mark has, and reports whether the value is not expected any more.
func (r *Redactor) hideBesideName(data []byte, next *expectation) (ends bool) {
	mark := next.mark
	if mark >= len(data) || data[mark] != next.sign {
		mark = next.column
		for mark < len(data) && (folded[data[mark]] != 0 || isQuote(data[mark])) {
			mark++
		}
		mark = skipBlanks(data, mark)
	}
	if mark == 0 || mark >= len(data) || data[mark] != next.sign {
		return false
	}
	from, end, _ := nameBounds(data, mark)
	switch name := data[from:end]; {
	case isNameMember(name):
		return true
	case classOf(name) != beside:
		return false
	}
	from, to := valueOfLine(data, mark+1)
	r.hideExpected(data, from, to, next)
	return true
}

// valueOfLine returns the value at pos, the only one of its line: a string, or the rest of the line.
func valueOfLine(data []byte, pos int) (from, to int) {
	value := readValue(data, pos, false)
	if value.quoted || value.from == len(data) || data[value.from] == '{' || data[value.from] == '[' {
		return value.from, value.to
	}
	return value.from, max(value.from, len(bytes.TrimRight(data, " \t\r,")))
}

// hideItem hides a value that stands alone in its line, at indent: X, "X",, - X. It reports whether no
// further one follows, as items of a list do.
func (r *Redactor) hideItem(data []byte, indent int, next *expectation) (ends bool) {
	isItem := bytes.HasPrefix(data[indent:], []byte("- "))
	if isItem && indent < next.column || !isItem && indent <= next.column {
		return true
	}
	if isItem {
		indent = skipBlanks(data, indent+1)
	}
	value := readArgument(data, indent)
	if len(bytes.Trim(data[min(len(data), value.next):], " \t\r,\"'")) > 0 || endsWithMark(value.of(data)) {
		return true // a sentence, or another name
	}
	r.hideExpected(data, value.from, value.to, next)
	return !isItem
}

// endsWithMark reports whether a value is a name with a mark behind it.
func endsWithMark(value []byte) bool { return len(value) == 0 || value[len(value)-1] == ':' }

// hideLineOfStructure hides the values in a line of a list or an object, and reports whether it ends there.
func (r *Redactor) hideLineOfStructure(data []byte, next *expectation) (ends bool) {
	pass := namePass{Redactor: r, view: view{text: data}}
	for i := 0; i < len(data); {
		switch c := data[i]; c {
		case '[', '{':
			next.depth++
			i++
		case ']', '}':
			if next.depth--; next.depth == 0 {
				return true
			}
			i++
		case ' ', '\t', ',', ':', '=', '>', ';', '\r':
			i++
		default:
			i = pass.hideScalar(i)
		}
	}
	return false
}

// hideElementText hides the text of an element, which begins at indent, up to its end tag: X, or
// <string>X</string>.
func (r *Redactor) hideElementText(data []byte, indent int, next *expectation) {
	if data[indent] == '<' {
		end := bytes.IndexByte(data[indent:], '>')
		if end < 2 || data[indent+1] == '/' {
			return
		}
		if name := data[indent+1 : indent+end]; next.kind == besideElement && classOf(name) != beside {
			return
		}
		indent += end + 1
	}
	to := len(data)
	if end := bytes.IndexByte(data[indent:], '<'); end >= 0 {
		to = indent + end
	}
	r.hideExpected(data, indent, len(bytes.TrimRight(data[:to], " \t\r")), next)
}

// hideNextArgument hides the item of a list of arguments behind an option, which has the column of the
// option.
func (r *Redactor) hideNextArgument(data []byte, indent int, next *expectation) {
	isItem := bytes.HasPrefix(data[indent:], []byte("- "))
	if isItem {
		indent += len("- ")
	}
	if indent != next.column || !isItem && !isQuote(data[indent]) {
		return
	}
	value := readArgument(data, indent)
	if content := value.of(data); len(content) > 0 && content[0] != '-' {
		r.hideExpected(data, value.from, value.to, next)
	}
}
