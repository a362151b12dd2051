package mysql

import (
	"bytes"
	"strings"

	"tidegate/protocols"
)

// redacted stands in place of a literal.
const redacted = "'REDACTED'"

// redact replaces the secrets of a statement: dst with the text, and true, if there were any, else sql itself.
//
// Secret is a quoted or hexadecimal literal
//   - behind IDENTIFIED (BY, AS, USING, VIA … PASSWORD; not the name of a method behind WITH or VIA),
//   - in the call of a function that takes a password or a key, like PASSWORD('…') or AES_ENCRYPT(…, '…'),
//   - behind = (or !=, <=>, :=, LIKE, IN) of a column, variable or option that is named like one: password, user_pwd, api_key, …,
//   - right behind such a name (OPTIONS (PASSWORD '…')), and behind the = of SET PASSWORD FOR somebody,
//   - in an INSERT with a list of columns, at the place of a column that is named so.
//
// A literal that is cut off counts to the end. It is one pass over the text, without a grammar: it errs by hiding too much.
func redact(dst, sql []byte) ([]byte, bool) {
	if bytes.IndexByte(sql, '\'') < 0 && bytes.IndexByte(sql, '"') < 0 && !bytes.Contains(sql, []byte("0x")) {
		return sql, false
	}
	s := redactor{scanner: scanner{b: sql}, dst: dst}
	for s.next() {
		s.token()
	}
	if s.copied == 0 {
		return sql, false
	}
	return append(s.dst, sql[s.copied:]...), true
}

type insert uint8

const (
	noInsert insert = iota
	inserting
	inColumns
	afterColumns
	inValues
	inTuple
)

// A redactor remembers, token by token, whether the next literal is a secret.
type redactor struct {
	scanner
	dst    []byte
	copied int // of b

	depth       int
	hot         bool // literals are secrets, until something at hotDepth ends it
	hotDepth    int
	identified  bool // it is hot because of IDENTIFIED
	call        bool // it is hot until the bracket of a function closes
	skipMethod  bool // the next literal is the name of a method
	named       bool // the token before was the name of a secret
	function    bool // the token before was a function that takes secrets
	begun       bool // the statement's first token was seen
	set         bool // the token before was SET, the statement's first
	setPassword bool // SET PASSWORD: what follows = is one

	insert  insert
	at      int // depth of the list
	column  int
	secrets uint64 // columns of the INSERT that are secrets
}

// token looks at the token that the scanner is at.
func (s *redactor) token() {
	named, function, set, begun := s.named, s.function, s.set, s.begun
	s.named, s.function, s.begun = false, false, true
	s.set = !begun && s.kind == word && s.is("SET")
	switch s.kind {
	case literal:
		s.literal(named)
	case word, quoted:
		s.word(set)
		if named && s.kind == word && (s.is("LIKE") || s.is("IN")) {
			s.heat()
		}
	case punctuation:
		s.punctuation(s.b[s.from], named, function)
	}
}

func (s *redactor) literal(named bool) {
	if s.skipMethod {
		s.skipMethod = false
		return
	}
	inTuple := s.insert == inTuple && s.column < 64 && s.secrets&(1<<s.column) != 0
	if !s.hot && !named && !inTuple {
		s.named = s.b[s.from] == '"' && s.secretName() // with ANSI_QUOTES it is a name
		return
	}
	s.dst = append(append(s.dst, s.b[s.copied:s.from]...), redacted...)
	s.copied = s.to
}

func (s *redactor) heat() { s.hot, s.hotDepth = true, s.depth }

func (s *redactor) cool() { s.hot, s.identified, s.call, s.skipMethod = false, false, false, false }

func (s *redactor) word(set bool) {
	if s.kind == word {
		switch {
		case s.is("IDENTIFIED"):
			s.heat()
			s.identified = true
			return
		case s.identified:
			s.skipMethod = s.is("WITH") || s.is("VIA")
			if s.is("REQUIRE") || s.is("ACCOUNT") || s.is("COMMENT") || s.is("ATTRIBUTE") {
				s.cool()
			}
		case s.hot && s.depth <= s.hotDepth && s.ends():
			s.cool()
		}
		s.keyword(set)
		s.function = s.takesSecrets()
	}
	s.named = s.secretName()
	if s.insert == inColumns && s.named && s.column < 64 {
		s.secrets |= 1 << s.column
	}
}

// keyword follows the few statements whose form matters.
func (s *redactor) keyword(set bool) {
	switch {
	case set && s.is("PASSWORD"):
		s.setPassword = true
	case s.insert == noInsert && s.depth == 0 && (s.is("INSERT") || s.is("REPLACE")) && !s.hot:
		s.insert = inserting
	case s.insert == afterColumns && (s.is("VALUES") || s.is("VALUE")):
		s.insert = inValues
	case s.insert == inserting && (s.is("SET") || s.is("SELECT") || s.is("VALUES")), s.insert == inValues && s.is("ON"):
		s.insert = noInsert
	}
}

func (s *redactor) punctuation(c byte, named, function bool) {
	switch c {
	case '(':
		s.depth++
		if function && !s.hot {
			s.hot, s.call, s.hotDepth = true, true, s.depth-1
		}
		s.open()
	case ')':
		s.depth--
		s.close()
		if s.hot && (s.depth < s.hotDepth || s.call && s.depth == s.hotDepth) {
			s.cool()
		}
	case ',':
		if s.hot && s.depth <= s.hotDepth {
			s.cool()
		}
		if s.depth == s.at && (s.insert == inColumns || s.insert == inTuple) {
			s.column++
		}
	case ';':
		s.cool()
		s.insert, s.setPassword, s.begun, s.depth = noInsert, false, false, 0
	case '=':
		if named || s.setPassword {
			s.heat()
		}
	case '!', '<', '>', ':':
		s.named = named // an operator of two characters
	case '|', '&':
		if s.hot && s.depth <= s.hotDepth {
			s.cool()
		}
	}
}

// open and close follow the lists of an INSERT.
func (s *redactor) open() {
	switch s.insert {
	case inserting:
		s.insert, s.at, s.column, s.secrets = inColumns, s.depth, 0, 0
	case inValues:
		s.insert, s.at, s.column = inTuple, s.depth, 0
	}
}

func (s *redactor) close() {
	if s.depth >= s.at {
		return
	}
	switch s.insert {
	case inColumns:
		if s.insert = afterColumns; s.secrets == 0 {
			s.insert = noInsert
		}
	case inTuple:
		s.insert = inValues
	}
}

// ends tells whether the word ends what a comparison began.
func (s *redactor) ends() bool {
	switch len(s.text()) {
	case 2:
		return s.is("OR") || s.is("ON")
	case 3:
		return s.is("AND") || s.is("XOR")
	case 4:
		return s.is("FROM")
	case 5:
		return s.is("WHERE") || s.is("ORDER") || s.is("GROUP") || s.is("LIMIT") || s.is("UNION")
	case 6:
		return s.is("HAVING") || s.is("SELECT")
	}
	return false
}

// takesSecrets tells whether the word is a function whose arguments are secrets.
func (s *redactor) takesSecrets() bool {
	for _, f := range [...]string{"PASSWORD", "OLD_PASSWORD", "ENCRYPT", "AES_ENCRYPT", "AES_DECRYPT", "DES_ENCRYPT", "DES_DECRYPT", "ENCODE", "DECODE"} {
		if s.is(f) {
			return true
		}
	}
	return false
}

// secretNames are the ends of names of what is secret.
var secretNames = [...]string{
	"PASSWORD", "PASSWD", "PASSPHRASE", "PWD", "SECRET", "TOKEN", "API_KEY", "APIKEY", "ACCESS_KEY", "SECRET_KEY", "PRIVATE_KEY",
	"PASSWORD_HASH", "PASS",
}

func (s *redactor) secretName() bool {
	t := s.text()
	if len(t) < 3 {
		return false
	}
	last := t[len(t)-1] &^ 0x20
	for _, n := range secretNames {
		if n[len(n)-1] == last && len(t) >= len(n) && fold(t[len(t)-len(n):], n) {
			return n != "PASS" || len(t) == 4 || t[len(t)-5] == '_' || len(t) == 8 && fold(t, "USERPASS")
		}
	}
	return false
}

// method is the first word of a statement in upper case.
func method(sql []byte) string {
	s := scanner{b: sql}
	for s.next() {
		if s.kind == punctuation && (s.b[s.from] == '(' || s.b[s.from] == ';') {
			continue
		}
		if s.kind != word {
			return ""
		}
		for _, m := range methods {
			if s.is(m) {
				return m
			}
		}
		if t := s.text(); len(t) <= 32 && letters(t) {
			return strings.ToUpper(string(t))
		}
		return ""
	}
	return ""
}

func letters(b []byte) bool {
	for _, c := range b {
		if c|0x20 < 'a' || c|0x20 > 'z' {
			return false
		}
	}
	return len(b) > 0
}

// methods are the words that statements begin with.
var methods = [...]string{
	"SELECT", "INSERT", "UPDATE", "DELETE", "SET", "COMMIT", "BEGIN", "ROLLBACK", "START", "SHOW", "USE", "REPLACE", "CALL", "CREATE", "ALTER",
	"DROP", "TRUNCATE", "RENAME", "GRANT", "REVOKE", "FLUSH", "KILL", "LOAD", "LOCK", "UNLOCK", "PREPARE", "EXECUTE", "DEALLOCATE", "DESCRIBE",
	"DESC", "EXPLAIN", "ANALYZE", "OPTIMIZE", "CHECK", "CHECKSUM", "REPAIR", "WITH", "DO", "HANDLER", "SAVEPOINT", "RELEASE", "XA", "CHANGE",
	"RESET", "PURGE", "STOP", "INSTALL", "UNINSTALL", "VALUES", "TABLE", "IMPORT", "BINLOG", "CACHE", "HELP", "SHUTDOWN", "RESTART", "SIGNAL",
}

// sqlWord tells whether b begins as a statement does. Whole says that no more of it comes.
func sqlWord(b []byte, whole bool) protocols.Match {
	if len(b) > 1 && b[0] <= 16 && b[1] == 1 { // query attributes
		if b = b[2:]; len(b) > 0 && b[0] < ' ' {
			return protocols.More
		}
	}
	b = b[:min(len(b), 256)]
	s := scanner{b: b}
	for s.next() {
		switch {
		case s.kind == punctuation && s.b[s.from] == '(':
			continue
		case s.kind != word:
			return protocols.No
		case s.to == len(b) && !whole && len(b) < 256:
			return protocols.More
		}
		for _, m := range methods {
			if s.is(m) {
				return protocols.Yes
			}
		}
		return protocols.No
	}
	if whole || len(b) == 256 {
		return protocols.No
	}
	return protocols.More
}

// useTarget is the database of a USE statement.
func useTarget(sql []byte) []byte {
	s := scanner{b: sql}
	for s.next() {
		if s.kind == quoted || s.kind == word && !s.is("USE") {
			return s.text()
		}
	}
	return nil
}
