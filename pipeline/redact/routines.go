package redact

import (
	"bytes"

	"tidegate/pipeline/redact/sqltoken"
)

// Routines of SQL with secrets among their arguments, without a name beside them: CALL login('bob', 'X'),
// s3('https://…', 'key', 'X').

// A routine is a function or procedure with a secret in known positions, counted from 0.
type routine struct {
	name      string
	positions uint64 // of its secrets
	fewer     uint64 // the same, if it has at most four arguments
}

// routines are the table functions and engines of ClickHouse, and procedures of Amazon RDS. Names are in
// upper case.
var routines = [...]routine{
	{"S3", 1 << 2, 1 << 2},
	{"S3CLUSTER", 1 << 3, 1 << 3},
	{"S3QUEUE", 1 << 2, 1 << 2},
	{"GCS", 1 << 2, 1 << 2},
	{"COSN", 1 << 2, 1 << 2},
	{"OSS", 1 << 2, 1 << 2},
	{"HUDI", 1 << 2, 1 << 2},
	{"DELTALAKE", 1 << 2, 1 << 2},
	{"ICEBERG", 1 << 2, 1 << 2},
	{"ICEBERGS", 1 << 2, 1 << 2},
	{"AZUREBLOBSTORAGE", 1 << 4, 0},
	{"MYSQL", 1 << 4, 1 << 3},
	{"MATERIALIZEDMYSQL", 1 << 4, 1 << 3},
	{"POSTGRESQL", 1 << 4, 1 << 3},
	{"MATERIALIZEDPOSTGRESQL", 1 << 4, 1 << 3},
	{"MONGODB", 1 << 4, 1 << 3},
	{"REMOTE", 1<<3 | 1<<4, 1 << 3},
	{"REMOTESECURE", 1<<3 | 1<<4, 1 << 3},
	{"EXTERNALDISTRIBUTED", 1 << 5, 0},
	{"REDIS", 1 << 4, 1 << 2},
	{"RDS_SET_EXTERNAL_MASTER", 1 << 3, 1 << 3},
	{"RDS_SET_EXTERNAL_SOURCE", 1 << 3, 1 << 3},
}

// loginWords are the parts of the names of routines that get a user's name and then the password.
var loginWords = [...]string{
	"login", "logon", "signin", "signup", "signon", "authenticate", "addlogin", "addlinkedsrvlogin", "adduser",
	"createuser", "verifyuser", "checkuser", "register", "registeruser", "userlogin", "validateuser", "checklogin",
	"verifylogin", "authuser", "newuser", "dologin", "adminlogin",
}

// routineWordsBy has the needles of routines, and loginWordsBy those of names with a login.
var routineWordsBy, loginWordsBy = newWordTable(wordsOf(routineNeedle)), newWordTable(loginFronts[:])

// loginFronts are the words that names with a login contain.
var loginFronts = [...]string{"login", "logon"}

// afterFirst are all positions but the first.
const afterFirst = ^uint64(1)

// routinePositions returns the positions of the secrets of the routine whose name is the current token; 0:
// it has none.
func (s *statement) routinePositions() uint64 {
	for i := range routines {
		if known := &routines[i]; s.Is(known.name) {
			if s.countArguments() > 4 {
				return known.positions
			}
			return known.fewer
		}
	}
	words := splitName(s.Text())
	if words.count == 0 {
		return 0
	}
	joined := words.letters[:words.size]
	for _, front := range [...]string{"sp", "usp", "fn", "proc", "do", "user", "p", "f"} {
		if words.count > 1 && string(words.part(0)) == front {
			joined = joined[len(front):]
			break
		}
	}
	if !isOneOf(joined, loginWords[:]) {
		return 0
	}
	if s.countArguments() == 1 {
		return 1
	}
	return afterFirst
}

// maxArguments bounds the text in which the arguments of a routine are counted.
const maxArguments = 512

// countArguments returns the number of arguments in the brackets behind the current token; 0: there are none.
func (s *statement) countArguments() int {
	scanner := s.Scanner
	scanner.SQL = scanner.SQL[:min(len(scanner.SQL), s.To+maxArguments)]
	count, depth := 0, 0
	for scanner.Next() {
		if scanner.Kind != sqltoken.Punctuation {
			if depth == 0 {
				break
			}
			count = max(count, 1)
			continue
		}
		switch scanner.SQL[scanner.From] {
		case '(':
			depth++
		case ')':
			if depth--; depth <= 0 {
				return count
			}
		case ',':
			if depth == 1 {
				count++
			}
		}
		if depth == 0 {
			break
		}
	}
	return count
}

// A call is a routine whose arguments are read.
type call struct {
	positions uint64 // of its secrets; 0: there is no call
	depth     int    // of its arguments
	argument  int    // the position of the current one
	pending   uint64 // the positions of the routine whose name was read, before its bracket
	executed  bool   // EXEC was read: the arguments of the procedure have no brackets
}

// readRoutine follows the word or name of the current token, which may be that of a routine.
func (s *statement) readRoutine() {
	switch {
	case s.Is("EXEC") || s.Is("EXECUTE"):
		s.call = call{executed: true}
	case s.call.executed && s.call.positions == 0:
		if SecretName(s.Text()) && s.countArguments() == 0 {
			s.call = call{positions: ^uint64(0), depth: s.depth}
			return
		}
		if s.call.pending = s.routinePositions(); s.call.pending != 0 && s.countArguments() == 0 {
			s.call = call{positions: afterFirst, depth: s.depth}
		}
	default:
		s.call.pending = s.routinePositions()
	}
}

// isSecretArgument reports whether the current token, a literal, is a secret by its position.
func (s *statement) isSecretArgument() bool {
	if s.call.positions == 0 || s.depth < s.call.depth || s.call.argument > 63 {
		return false
	}
	// A list of columns with their types, which ClickHouse has among the arguments, has blanks. It may be left to the server.
	from, to := s.Inner()
	return s.call.positions&(1<<s.call.argument) != 0 &&
		(s.call.positions >= afterFirst || bytes.IndexByte(s.Text(), ' ') < 0 && string(s.SQL[from:to]) != "auto")
}

// readCall follows the punctuation c of a call; depth already counts the bracket.
func (s *statement) readCall(c byte) {
	switch {
	case c == '(' && s.call.pending != 0:
		s.call = call{positions: s.call.pending, depth: s.depth}
	case c == ',' && s.depth == s.call.depth:
		s.call.argument++
	case c == ';', c == ')' && s.depth < s.call.depth:
		s.call = call{}
	}
	if c != '.' {
		s.call.pending = 0
	}
}

// hasRoutine reports whether one of routines, or of those with loginWords, may be in a text.
func hasRoutine(text []byte) bool {
	if containsWord(text, routineWordsBy) {
		return true
	}
	for i := 0; i+len("login") <= len(text); i++ {
		if text[i]|0x20 == 'l' && containsWord(text[i:i+len("login")], loginWordsBy) &&
			isRoutineEnd(text, i+len("login")) {
			return true
		}
	}
	return false
}

// isRoutineEnd reports whether text goes on at pos as behind the name of a routine of SQL.
func isRoutineEnd(text []byte, pos int) bool {
	for limit := pos + maxName; pos < min(len(text), limit) && folded[text[pos]] > separator; {
		pos++
	}
	pos = skipBlanks(text, pos)
	return pos < len(text) && (text[pos] == '(' || isQuote(text[pos]) || text[pos] == '\\')
}
