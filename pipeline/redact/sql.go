package redact

import (
	"bytes"

	"tidegate/pipeline/redact/sqltoken"
)

// SQL returns a statement without its secrets, and reports whether there were any. sql is not changed.
//
// A quoted or hexadecimal literal is secret
//   - after IDENTIFIED (BY, AS, USING, VIA … PASSWORD; not the name of a method after WITH or VIA),
//   - in the call of a function that takes a password or a key, like PASSWORD('…') or AES_ENCRYPT(…, '…'),
//   - after = (or !=, <=>, :=, LIKE, IN) of a column, variable or option with the name of a secret:
//     password, api_key, …,
//   - directly after such a name (OPTIONS (PASSWORD '…')), and after the = of SET PASSWORD FOR,
//   - in an INSERT or a comparison of rows with a list of columns, in the position of a column with such a name,
//   - in the arguments of a routine that gets a password or a key in a known position (routines.go),
//   - in an INSERT without a list of columns into a table of accounts or secrets.
//
// So is a number of three to eight digits, in quotes or not, after = of a column with the name of a PIN (pin.go), or in the
// position of one in an INSERT.
//
// In other literals and in comments, what Line hides is hidden: a URL, a document, another statement.
//
// An unterminated literal extends to the end. The text is read once, token by token, without a grammar.
func (r *Redactor) SQL(sql []byte) ([]byte, bool) {
	if !containsWord(sql, statementWordsBy) && bytes.IndexByte(sql, '@') < 0 && !r.mayHoldSecret(sql) {
		return sql, false
	}
	r.spans = r.spans[:0]
	statement, v := statement{Scanner: sqltoken.Scanner{SQL: sql}, codes: hasCodeName(sql)}, view{text: sql}
	for more, end := true, 0; more; end = statement.To {
		more = statement.Next()
		if statement.From > end {
			r.readComment(v, end, statement.From)
		}
		switch {
		case !more:
		case statement.readToken():
			if !bytes.Equal(statement.Text(), []byte(Marker)) {
				r.hideAs(v, statement.From, statement.To, RuleSQL, sqlMarker)
			}
		case statement.Kind == sqltoken.Literal:
			r.readLiteral(v, &statement)
		}
	}
	if len(r.spans) == 0 {
		return sql, false
	}
	return r.replaced(sql), true
}

// statementWordsBy has the words without which no statement has a secret: parts of names, routines, tables of accounts.
var statementWordsBy = newWordTable(append(append(wordsOf(sqlNeedle, routineNeedle), loginFronts[:]...), accountTables[:]...))

// minComment is the length of the shortest comment with a secret.
const minComment = 8

// readComment hides what Line hides in the comments of v.text[from:to], between two tokens.
func (r *Redactor) readComment(v view, from, to int) {
	if to-from < minComment || len(bytes.TrimSpace(v.text[from:to])) == 0 {
		return
	}
	if r.mayHoldSecret(v.text[from:to]) {
		r.readText(v.part(from, to), 0)
	}
}

// readLiteral hides what Line hides in the current token, a literal that is not secret as a whole.
func (r *Redactor) readLiteral(v view, s *statement) {
	from, to := s.Inner()
	if to-from < minComment || !r.mayHoldSecret(v.text[from:to]) {
		return
	}
	quote := v.text[s.From]
	literal := r.decoded(v.part(from, to), 0, func(out, text []byte, i int) ([]byte, int) {
		if text[i] == quote && i+1 < len(text) && text[i+1] == quote {
			return append(out, quote), 2
		}
		return decodeEscape(out, text, i)
	})
	r.readText(literal, 1)
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
	afterBy         bool           // the token before was the BY of IDENTIFIED BY: a word is the password
	afterRow        bool           // the token before closed a list of names, with secretColumns among them
	accounts        bool           // the last name is that of a table of accounts or secrets
	set             passwordClause // how much of SET PASSWORD FOR was read
	keyed           bool           // PRAGMA or ATTACH was read, whose key is that of an encrypted database

	codes         bool // the text has the name of a short number that is a secret, see isCodeName
	afterCode     bool // the token before was such a name
	comparingCode bool // hiding such numbers, at the depth codeDepth of brackets
	codeDepth     int
	codeColumns   uint64 // those of an INSERT

	call call // the routine whose arguments are read

	insert        insertState
	listDepth     int // of the brackets of the list of columns, or of values
	column        int // in that list
	secretColumns uint64
}

// readToken reads the current token and reports whether it is a secret.
func (s *statement) readToken() bool {
	named, function, by, row := s.afterName, s.afterFunction, s.afterBy, s.afterRow
	s.afterName, s.afterFunction, s.afterBy, s.afterRow = false, false, false, false
	if s.codes && s.readCode() {
		return true
	}
	switch s.Kind {
	case sqltoken.Literal:
		return s.isSecretLiteral(named)
	case sqltoken.Word, sqltoken.Name:
		if by && !s.Is("PASSWORD") && !s.Is("RANDOM") && !s.Is("VALUES") {
			return true // IDENTIFIED BY hunter2
		}
		s.readWord()
		if named && s.Kind == sqltoken.Word {
			if s.IsAny(comparisons[:]) {
				s.startHiding()
			}
			s.afterName = s.afterName || s.Is("NOT") || s.Is("BINARY")
		}
	case sqltoken.Punctuation:
		if c := s.SQL[s.From]; row && (c == '=' || c == '<' || c == '>' || c == '!') {
			if s.afterRow = c != '='; !s.afterRow && s.insert == noInsert {
				s.insert = inValues // (name, password) = ('a', '…')
			}
		}
		s.readPunctuation(s.SQL[s.From], named, function)
	}
	return false
}

// readCode follows the names of short numbers, and reports whether the current token is such a number, and a secret.
func (s *statement) readCode() bool {
	after := s.afterCode
	s.afterCode = false
	switch s.Kind {
	case sqltoken.Literal, sqltoken.Number:
		s.afterCode = s.SQL[s.From] == '"' && isCodeName(s.Text()) // with ANSI_QUOTES it is a name
		isColumn := s.insert == inTuple && s.column < 64 && s.codeColumns>>s.column&1 != 0
		isDecimal := byteBefore(s.SQL, s.From) == '.' || s.To < len(s.SQL) && s.SQL[s.To] == '.'
		return (s.comparingCode || isColumn) && !isDecimal && isShortNumber(s.Text())
	case sqltoken.Word, sqltoken.Name:
		switch {
		case isCodeName(s.Text()):
			s.afterCode = true
			if s.insert == inColumns && s.column < 64 {
				s.codeColumns |= 1 << s.column
			}
		case after && (s.Is("NOT") || s.Is("BINARY")):
			s.afterCode = true
		case after && s.IsAny(comparisons[:]):
			s.comparingCode, s.codeDepth = true, s.depth
		case s.depth <= s.codeDepth && s.endsComparison():
			s.comparingCode = false
		}
	case sqltoken.Punctuation:
		switch c := s.SQL[s.From]; {
		case after && c == '=':
			s.comparingCode, s.codeDepth = true, s.depth
		case after && (c == '!' || c == '<' || c == '>' || c == ':'):
			s.afterCode = true
		case c == ',' && s.depth <= s.codeDepth, c == ')' && s.depth <= s.codeDepth, c == ';':
			s.comparingCode = false
		}
	}
	return false
}

func (s *statement) isSecretLiteral(named bool) bool {
	if s.skipMethod {
		s.skipMethod = false
		return false
	}
	secretColumn := s.insert == inTuple && s.column < 64 && s.secretColumns&(1<<s.column) != 0
	if s.hiding || named || secretColumn || s.isSecretArgument() {
		return true
	}
	if s.SQL[s.From] == '"' || s.Escaped && s.AtEscapedQuote() {
		s.afterName = SecretName(s.Text()) // with ANSI_QUOTES it is a name
	}
	return false
}

// comparisons are the words between the name of a secret and the literals that it is compared with.
var comparisons = [...]string{"LIKE", "ILIKE", "RLIKE", "REGEXP", "IN", "BETWEEN", "SIMILAR", "GLOB", "IS"}

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
			s.afterBy = s.Is("BY")
			if s.Is("REQUIRE") || s.Is("ACCOUNT") || s.Is("COMMENT") || s.Is("ATTRIBUTE") {
				s.stopHiding()
			}
		case s.hiding && s.depth <= s.hidingDepth && s.endsComparison():
			s.stopHiding()
		}
		s.readKeyword()
		s.readRoutine()
		s.afterFunction = s.IsAny(secretFunctions[:])
	}
	s.keyed = s.keyed || s.depth == 0 && (s.Is("PRAGMA") || s.Is("ATTACH"))
	s.afterName = SecretName(s.Text()) || s.keyed && s.IsAny(databaseKeys[:])
	if s.insert == inserting {
		s.accounts = s.afterName || isAccountTable(s.Text())
	}
	if s.insert == noInsert && s.depth > 0 && s.afterName && s.column < 64 {
		s.secretColumns |= 1 << s.column
	}
	if s.insert == inColumns && s.afterName && s.column < 64 {
		s.secretColumns |= 1 << s.column
	}
}

// databaseKeys are the words in front of the key of an encrypted database of SQLite.
var databaseKeys = [...]string{"KEY", "REKEY", "HEXKEY", "HEXREKEY", "TEXTKEY"}

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
	case s.insert == afterColumns && s.Is("SELECT"):
		s.insert, s.listDepth, s.column = inTuple, s.depth, 0 // its columns are the values
	case s.insert == inserting && s.accounts && (s.Is("VALUES") || s.Is("VALUE")):
		s.insert, s.secretColumns = inValues, ^uint64(0)
	case s.insert == inserting && (s.Is("SET") || s.Is("SELECT") || s.Is("VALUES")),
		s.insert == inValues && s.Is("ON"), s.insert == inTuple && s.depth == s.listDepth && s.Is("FROM"):
		s.insert = noInsert
	}
}

// accountTables are parts of the names of tables whose rows have secrets.
var accountTables = [...]string{
	"user", "account", "cred", "login", "member", "secret", "token", "session", "auth", "passw",
}

// isAccountTable reports whether the rows of a table of that name may have secrets.
func isAccountTable(name []byte) bool {
	return containsWord(name, accountTablesBy)
}

func (s *statement) readPunctuation(c byte, named, function bool) {
	switch c {
	case '(':
		s.depth++
		s.readCall(c)
		if (function || named && s.insert != inserting && s.insert != inColumns) &&
			!s.hiding { // until the bracket closes
			s.hiding, s.insideCall, s.hidingDepth = true, true, s.depth-1
		}
		s.openList()
		if s.insert == noInsert {
			s.secretColumns, s.column, s.listDepth = 0, 0, s.depth
		}
	case ')':
		if s.afterName = named; s.insert == noInsert && s.depth == s.listDepth {
			s.afterRow = s.secretColumns != 0
		}
		s.depth--
		s.readCall(c)
		s.closeList()
		if s.hiding && (s.depth < s.hidingDepth || s.insideCall && s.depth == s.hidingDepth) {
			s.stopHiding()
		}
	case ',':
		s.readCall(c)
		if s.hiding && s.depth <= s.hidingDepth {
			s.stopHiding()
		}
		if s.depth == s.listDepth && (s.insert == inColumns || s.insert == inTuple || s.insert == noInsert) {
			s.column++
		}
	case ';':
		s.readCall(c)
		s.stopHiding()
		s.insert, s.set, s.depth, s.keyed = noInsert, noSet, 0, false
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
		s.insert, s.listDepth, s.column, s.secretColumns, s.codeColumns = inColumns, s.depth, 0, 0, 0
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
		if s.insert = afterColumns; s.secretColumns|s.codeColumns == 0 {
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
	"ENCODE", "DECODE", "CRYPT", "DECRYPT", "TRYDECRYPT", "PGP_SYM_ENCRYPT", "PGP_SYM_DECRYPT", "HMAC",
}
