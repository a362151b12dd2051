package redact

import (
	"bytes"

	"tidegate/pipeline/redact/sqltoken"
)

// sqlMarker stands in place of a literal of SQL, with its quotes.
const sqlMarker = "'" + Marker + "'"

// SQL returns a statement without its secrets, and reports whether there were any. sql is not changed.
//
// A quoted or hexadecimal literal is secret
//   - after IDENTIFIED (BY, AS, USING, VIA … PASSWORD; not the name of a method after WITH or VIA),
//   - in the call of a function that takes a password or a key, like PASSWORD('…') or AES_ENCRYPT(…, '…'),
//   - after = (or !=, <=>, :=, LIKE, IN) of a column, variable or option with the name of a secret:
//     password, api_key, …,
//   - directly after such a name (OPTIONS (PASSWORD '…')), and after the = of SET PASSWORD FOR,
//   - in an INSERT with a list of columns, in the position of a column with such a name.
//
// An unterminated literal extends to the end. The text is read once, token by token, without a grammar.
func (r *Redactor) SQL(sql []byte) ([]byte, bool) {
	if bytes.IndexByte(sql, '\'') < 0 && bytes.IndexByte(sql, '"') < 0 && !bytes.Contains(sql, []byte("0x")) {
		return sql, false
	}
	r.spans = r.spans[:0]
	statement := statement{Scanner: sqltoken.Scanner{SQL: sql}}
	for statement.Next() {
		if statement.readToken() {
			r.hide(statement.From, statement.To)
		}
	}
	if len(r.spans) == 0 {
		return sql, false
	}
	return r.replaced(sql, sqlMarker), true
}

// SQLError returns an error message of a MySQL server up to the quotation of a statement, and reports whether
// there is a quotation, which may hold the secrets of the statement.
func SQLError(message []byte) (front []byte, quotes bool) {
	front, _, quotes = bytes.Cut(message, []byte(" near '"))
	return front, quotes
}

// An insertState is the part of an INSERT with a list of columns that a statement has reached:
//
//	INSERT INTO t ( a, password ) VALUES ( 'x', 'y' ), ( …
//	inserting       inColumns   afterColumns inTuple  inValues
type insertState uint8

const (
	noInsert insertState = iota
	inserting
	inColumns
	afterColumns
	inValues
	inTuple
)

// A passwordClause counts the words of SET PASSWORD FOR that were read. After the three words the literal
// after = is a secret.
type passwordClause uint8

const (
	noSet passwordClause = iota
	setSeen
	setPassword
	setPasswordFor
)

// A statement reads the tokens of SQL and decides for each literal whether it is a secret.
//
// Literals are secrets while hiding is set. It is set by =, LIKE, IN, IDENTIFIED or the bracket of a
// function, at the depth hidingDepth of brackets, and cleared by a comma, a keyword or a bracket that ends
// the expression at that depth.
type statement struct {
	sqltoken.Scanner

	depth           int // of brackets
	hiding          bool
	hidingDepth     int
	afterIdentified bool           // hiding because of IDENTIFIED
	insideCall      bool           // hiding until the bracket of a function closes
	skipMethod      bool           // the next literal is the name of an authentication method
	afterName       bool           // the token before was the name of a secret
	afterFunction   bool           // the token before was a function that takes secrets
	set             passwordClause // how much of SET PASSWORD FOR was read

	insert        insertState
	listDepth     int // of the brackets of the list of columns, or of values
	column        int // in that list
	secretColumns uint64
}

// readToken reads the current token and reports whether it is a secret.
func (s *statement) readToken() bool {
	named, function := s.afterName, s.afterFunction
	s.afterName, s.afterFunction = false, false
	switch s.Kind {
	case sqltoken.Literal:
		return s.isSecretLiteral(named)
	case sqltoken.Word, sqltoken.Name:
		s.readWord()
		if named && s.Kind == sqltoken.Word && (s.Is("LIKE") || s.Is("IN")) {
			s.startHiding()
		}
	case sqltoken.Punctuation:
		s.readPunctuation(s.SQL[s.From], named, function)
	}
	return false
}

func (s *statement) isSecretLiteral(named bool) bool {
	if s.skipMethod {
		s.skipMethod = false
		return false
	}
	secretColumn := s.insert == inTuple && s.column < 64 && s.secretColumns&(1<<s.column) != 0
	if s.hiding || named || secretColumn {
		return true
	}
	if s.SQL[s.From] == '"' || s.Escaped && s.AtEscapedQuote() {
		s.afterName = SecretName(s.Text()) // with ANSI_QUOTES it is a name
	}
	return false
}

func (s *statement) startHiding() { s.hiding, s.hidingDepth = true, s.depth }

func (s *statement) stopHiding() {
	s.hiding, s.afterIdentified, s.insideCall, s.skipMethod = false, false, false, false
}

func (s *statement) readWord() {
	if s.Kind == sqltoken.Word {
		// The word may begin a secret, or end one.
		switch {
		case s.Is("IDENTIFIED"):
			s.startHiding()
			s.afterIdentified = true
			return
		case s.afterIdentified:
			s.skipMethod = s.Is("WITH") || s.Is("VIA")
			if s.Is("REQUIRE") || s.Is("ACCOUNT") || s.Is("COMMENT") || s.Is("ATTRIBUTE") {
				s.stopHiding()
			}
		case s.hiding && s.depth <= s.hidingDepth && s.endsComparison():
			s.stopHiding()
		}
		s.readKeyword()
		s.afterFunction = s.IsAny(secretFunctions[:])
	}
	s.afterName = SecretName(s.Text())
	if s.insert == inColumns && s.afterName && s.column < 64 {
		s.secretColumns |= 1 << s.column
	}
}

// readKeyword follows SET PASSWORD FOR and INSERT.
func (s *statement) readKeyword() {
	// SET PASSWORD FOR, word by word.
	switch {
	case s.set == setPasswordFor:
	case s.Is("SET"):
		s.set = setSeen
	case s.set == setSeen && s.Is("PASSWORD"):
		s.set = setPassword
	case s.set == setPassword && s.Is("FOR"):
		s.set = setPasswordFor
	default:
		s.set = noSet
	}

	// The list of columns of an INSERT. An INSERT with SET or SELECT has none.
	switch {
	case s.insert == noInsert && s.depth == 0 && (s.Is("INSERT") || s.Is("REPLACE")) && !s.hiding:
		s.insert = inserting
	case s.insert == afterColumns && (s.Is("VALUES") || s.Is("VALUE")):
		s.insert = inValues
	case s.insert == inserting && (s.Is("SET") || s.Is("SELECT") || s.Is("VALUES")),
		s.insert == inValues && s.Is("ON"):
		s.insert = noInsert
	}
}

func (s *statement) readPunctuation(c byte, named, function bool) {
	switch c {
	case '(':
		s.depth++
		if function && !s.hiding { // until the bracket closes
			s.hiding, s.insideCall, s.hidingDepth = true, true, s.depth-1
		}
		s.openList()
	case ')':
		s.depth--
		s.closeList()
		if s.hiding && (s.depth < s.hidingDepth || s.insideCall && s.depth == s.hidingDepth) {
			s.stopHiding()
		}
	case ',':
		if s.hiding && s.depth <= s.hidingDepth {
			s.stopHiding()
		}
		if s.depth == s.listDepth && (s.insert == inColumns || s.insert == inTuple) {
			s.column++
		}
	case ';':
		s.stopHiding()
		s.insert, s.set, s.depth = noInsert, noSet, 0
	case '=':
		if named || s.set == setPasswordFor {
			s.startHiding()
		}
	case '!', '<', '>', ':':
		s.afterName = named // an operator of two characters
	case '|', '&':
		if s.hiding && s.depth <= s.hidingDepth {
			s.stopHiding()
		}
	}
}

// openList and closeList follow the lists of an INSERT; depth already counts the bracket.
func (s *statement) openList() {
	switch s.insert {
	case inserting:
		s.insert, s.listDepth, s.column, s.secretColumns = inColumns, s.depth, 0, 0
	case inValues:
		s.insert, s.listDepth, s.column = inTuple, s.depth, 0
	}
}

func (s *statement) closeList() {
	if s.depth >= s.listDepth {
		return
	}
	switch s.insert {
	case inColumns:
		if s.insert = afterColumns; s.secretColumns == 0 {
			s.insert = noInsert
		}
	case inTuple:
		s.insert = inValues
	}
}

// endsComparison reports whether the current word ends the expression behind = or LIKE.
func (s *statement) endsComparison() bool {
	switch s.To - s.From {
	case 2:
		return s.Is("OR") || s.Is("ON")
	case 3:
		return s.Is("AND") || s.Is("XOR")
	case 4:
		return s.Is("FROM")
	case 5:
		return s.Is("WHERE") || s.Is("ORDER") || s.Is("GROUP") || s.Is("LIMIT") || s.Is("UNION")
	case 6:
		return s.Is("HAVING") || s.Is("SELECT")
	}
	return false
}

// secretFunctions are the functions of MySQL whose arguments are passwords or keys.
var secretFunctions = [...]string{
	"PASSWORD", "OLD_PASSWORD", "ENCRYPT", "AES_ENCRYPT", "AES_DECRYPT", "DES_ENCRYPT", "DES_DECRYPT",
	"ENCODE", "DECODE",
}
