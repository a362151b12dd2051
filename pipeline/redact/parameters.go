package redact

import "bytes"

// Secrets whose names stand in a list, and whose values stand in another one behind it: the arguments of a call, whose
// signature is in front of them, and the parameters of a statement of PostgreSQL.

// maxSignature is the number of arguments of a call that are read.
const maxSignature = 16

// hideCalled hides the strings in the places of secrets in the arguments of a call, behind its signature:
// login(user, password) called with ('bob', 'X').
func (r *Redactor) hideCalled(v view) {
	text := v.text
	for i, c := range text {
		if c != '(' {
			continue
		}
		s, end := readSignature(text, i+1)
		isChained := end < len(text) && text[end] == '.' // encode(password).decode('ascii')
		if s.passwords|s.others == 0 || s.count < 2 || isChained {
			continue
		}
		if open := nextBracket(text, end); open > 0 {
			r.hideCallAt(v, open, s)
		}
	}
}

// A signature has the places of the secrets among the names of arguments, as bits.
type signature struct {
	passwords uint64 // whatever they are
	others    uint64 // words of prose, such as token: if they look generated
	count     int    // of the names
}

// readSignature reads the list of names at pos up to its bracket, behind which end is. A list of something else is empty. The
// object itself is no argument.
func readSignature(text []byte, pos int) (s signature, end int) {
	limit := min(len(text), pos+maxPhrase)
	isOfUser := false
	for pos < limit && s.count < maxSignature {
		pos = skipBlanks(text, pos)
		from := pos
		for pos < limit && folded[text[pos]] != 0 {
			pos++
		}
		name := text[from:pos]
		pos = skipBlanks(text, pos)
		if len(name) == 0 || pos >= limit || text[pos] != ',' && text[pos] != ')' {
			return signature{}, 0
		}
		if isSelf := s.count == 0 && isOneOf(name, []string{"self", "cls", "this"}); !isSelf {
			switch class := classOf(name); {
			case class == strong || class == prose && isOfUser && containsWord(name, passwordWordsBy): // (user, pass)
				s.passwords |= 1 << s.count
			case class == prose:
				s.others |= 1 << s.count
			}
			isOfUser = isOfUser || isOneFold(name, besideColumns[:])
			s.count++
		}
		if pos++; text[pos-1] == ')' {
			return s, pos
		}
	}
	return signature{}, 0
}

// nextBracket returns the offset of a ( or [ behind some words from pos on, in front of a string; 0: there is none.
func nextBracket(text []byte, pos int) int {
	for limit := min(len(text), pos+maxName); pos < limit; pos++ {
		switch c := text[pos]; {
		case c == '(' || c == '[':
			return pos
		case isQuote(c) || c < ' ' || c == '{' || c == ';', c|0x20 == 'v' && isValuesAt(text, pos):
			return 0
		}
	}
	return 0
}

// isValuesAt reports whether the word VALUES of a statement is at pos: its lists are read with their columns.
func isValuesAt(text []byte, pos int) bool {
	return len(text)-pos >= len("values") && equalLower(text[pos:pos+len("values")], "values")
}

// hideCallAt hides the strings of the list whose bracket is at pos that are in the places of secrets, if the list has as
// many elements as the signature.
func (r *Redactor) hideCallAt(v view, pos int, s signature) {
	text, known := v.text[:min(len(v.text), pos+maxScanned)], len(r.spans)
	closing := byte(')')
	if text[pos] == '[' {
		closing = ']'
	}
	pos++
	for i := range s.count {
		value := readValue(text, pos, false)
		content := value.of(text)
		isSecret := s.passwords>>i&1 != 0 && !isProseWord(content) || s.others>>i&1 != 0 && looksGenerated(content, len("secret"))
		if isSecret && value.quoted && !isPlaceholder(content) {
			r.hide(v, value.from, value.to, RuleName)
		}
		pos = skipBlanks(text, value.next)
		isLast := i == s.count-1
		if pos == len(text) || !isLast && text[pos] != ',' || isLast && text[pos] != closing && text[pos] != ',' {
			r.spans = r.spans[:known]
			return
		}
		pos++
	}
}

// parametersMark is the text in front of the parameters of a statement in the log of PostgreSQL: DETAIL:  parameters: $1 =
// 'X', $2 = NULL. Newer versions begin it with a capital.
var parametersMark = []byte("arameters: $")

// hideParameters hides the parameters of a statement. Which of them is the secret is known to the server only, as names
// may be in functions and in the columns of another statement: all of them are hidden.
func (r *Redactor) hideParameters(v view, pos int) {
	text := v.text
	for pos < len(text) && text[pos] == '$' {
		for pos++; pos < len(text) && isDigitAt(text, pos); pos++ {
		}
		if !bytes.HasPrefix(text[pos:], []byte(" = ")) {
			return
		}
		value := valueRange{from: pos + 3, to: pos + 3, next: pos + 3}
		if value.from < len(text) && text[value.from] == '\'' {
			value = quotedParameter(text, value.from)
			if content := value.of(text); !isPlaceholder(content) {
				r.hide(v, value.from, value.to, RuleSQL)
			}
		} else if null := []byte("NULL"); bytes.HasPrefix(text[value.from:], null) {
			value.next += len(null)
		}
		if !bytes.HasPrefix(text[value.next:], []byte(", $")) {
			return
		}
		pos = value.next + 2
	}
}

// quotedParameter returns the parameter in quotes at pos. A quote in it is doubled. Behind its end is the next parameter, or
// the end of a line or of the string that holds the list.
func quotedParameter(text []byte, pos int) valueRange {
	for end := pos + 1; end < len(text); end++ {
		if text[end] != '\'' {
			continue
		}
		rest := text[end+1:]
		if len(rest) == 0 || bytes.IndexByte([]byte("\r\n\"\\"), rest[0]) >= 0 || bytes.HasPrefix(rest, []byte(", $")) {
			return valueRange{pos + 1, end, end + 1, true}
		}
	}
	return valueRange{pos + 1, len(text), len(text), true}
}

// parametersAt returns the offset of the first parameter of a list of them from pos on; 0: there is none.
func parametersAt(text []byte, pos int) int {
	if i := bytes.Index(text[pos:], parametersMark); i >= 0 {
		return pos + i + len(parametersMark) - 1
	}
	return 0
}

// hideStatementParameters hides the parameters in a text that has a statement with parameters and the name of a secret in
// front of them.
func (r *Redactor) hideStatementParameters(v view) {
	if at := parametersAt(v.text, 0); at > 0 && hasParameter(v.text[:at]) && r.hasSecretName(v.text[:at]) {
		r.hideParameters(v, at)
	}
}

// hasParameter reports whether text has a parameter of a statement: $1.
func hasParameter(text []byte) bool {
	for from := 0; ; {
		i := bytes.IndexByte(text[from:], '$')
		if i < 0 {
			return false
		}
		if from += i + 1; from < len(text) && isDigitAt(text, from) {
			return true
		}
	}
}

// hasSecretName reports whether text has the name of a secret.
func (r *Redactor) hasSecretName(text []byte) bool {
	for i := 0; i < len(text); i++ {
		if folded[text[i]] == 0 {
			continue
		}
		from := i
		for i < len(text) && folded[text[i]] != 0 {
			i++
		}
		if r.names.classOf(text, from, i).isSecret() {
			return true
		}
	}
	return false
}

// maxParameterLines is the number of lines behind a statement in which its parameters are expected: the statement may have
// several lines, and others may write between them.
const maxParameterLines = 16

// readParameters hides the parameters in a line behind a line of a statement with the name of a secret, and notes such a
// line.
func (r *Redactor) readParameters(data []byte, state *LogState) {
	if state.parameterLines > 0 {
		state.parameterLines--
		if at := parametersAt(data, 0); at > 0 {
			r.hideParameters(view{text: data}, at)
			state.parameterLines = 0
		}
	}
	isStatement := r.nameEnds && (hasParameter(data) || !hasLiteral(data) && nextVerb(data, 0) >= 0)
	if isStatement && parametersAt(data, 0) == 0 && r.hasSecretName(data) {
		state.parameterLines = maxParameterLines
	}
}
