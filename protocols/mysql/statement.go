package mysql

import (
	"strings"

	"tidegate/pipeline/redact/sqltoken"
	"tidegate/protocols"
)

// method returns the first word of a statement in upper case, or "".
func method(sql []byte) string {
	s := sqltoken.Scanner{SQL: sql}
	for s.Next() {
		if s.Kind == sqltoken.Punctuation && (s.SQL[s.From] == '(' || s.SQL[s.From] == ';') {
			continue
		}
		if s.Kind != sqltoken.Word {
			return ""
		}
		for _, m := range statementWords {
			if s.Is(m) {
				return m
			}
		}
		if t := s.Text(); len(t) <= 32 && isLetters(t) {
			return strings.ToUpper(string(t))
		}
		return ""
	}
	return ""
}

func isLetters(b []byte) bool {
	for _, c := range b {
		if c|0x20 < 'a' || c|0x20 > 'z' {
			return false
		}
	}
	return len(b) > 0
}

// statementWords are the words that statements begin with.
var statementWords = [...]string{
	"SELECT", "INSERT", "UPDATE", "DELETE", "SET", "COMMIT", "BEGIN", "ROLLBACK", "START", "SHOW", "USE", "REPLACE", "CALL", "CREATE", "ALTER",
	"DROP", "TRUNCATE", "RENAME", "GRANT", "REVOKE", "FLUSH", "KILL", "LOAD", "LOCK", "UNLOCK", "PREPARE", "EXECUTE", "DEALLOCATE", "DESCRIBE",
	"DESC", "EXPLAIN", "ANALYZE", "OPTIMIZE", "CHECK", "CHECKSUM", "REPAIR", "WITH", "DO", "HANDLER", "SAVEPOINT", "RELEASE", "XA", "CHANGE",
	"RESET", "PURGE", "STOP", "INSTALL", "UNINSTALL", "VALUES", "TABLE", "IMPORT", "BINLOG", "CACHE", "HELP", "SHUTDOWN", "RESTART", "SIGNAL",
}

// matchStatement judges whether b begins as a statement does. whole says that no more of it comes.
func matchStatement(b []byte, whole bool) protocols.Match {
	if len(b) > 1 && b[0] <= 16 && b[1] == 1 { // query attributes
		if b = b[2:]; len(b) > 0 && b[0] < ' ' {
			return protocols.More
		}
	}
	b = b[:min(len(b), 256)]
	s := sqltoken.Scanner{SQL: b}
	for s.Next() {
		switch {
		case s.Kind == sqltoken.Punctuation && s.SQL[s.From] == '(':
			continue
		case s.Kind != sqltoken.Word:
			return protocols.No
		case s.To == len(b) && !whole && len(b) < 256:
			return protocols.More
		}
		if s.IsAny(statementWords[:]) {
			return protocols.Yes
		}
		return protocols.No
	}
	if whole || len(b) == 256 {
		return protocols.No
	}
	return protocols.More
}

// databaseOfUse returns the database of a USE statement.
func databaseOfUse(sql []byte) []byte {
	s := sqltoken.Scanner{SQL: sql}
	for s.Next() {
		if s.Kind == sqltoken.Name || s.Kind == sqltoken.Word && !s.Is("USE") {
			return s.Text()
		}
	}
	return nil
}
