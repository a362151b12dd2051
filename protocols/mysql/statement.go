package mysql

import (
	"strings"

	"tidegate/pipeline/redact/sqltoken"
	"tidegate/protocols"
)

// method returns the first word of a statement in upper case, or "".
func method(sql []byte) string {
	scanner := sqltoken.Scanner{SQL: sql}
	for scanner.Next() {
		if scanner.Kind == sqltoken.Punctuation && (scanner.SQL[scanner.From] == '(' || scanner.SQL[scanner.From] == ';') {
			continue
		}
		if scanner.Kind != sqltoken.Word {
			return ""
		}
		for _, word := range statementWords {
			if scanner.Is(word) {
				return word
			}
		}
		if text := scanner.Text(); len(text) <= 32 && isLetters(text) {
			return strings.ToUpper(string(text))
		}
		return ""
	}
	return ""
}

func isLetters(data []byte) bool {
	for _, c := range data {
		if c|0x20 < 'a' || c|0x20 > 'z' {
			return false
		}
	}
	return len(data) > 0
}

// statementWords are the words that statements begin with.
var statementWords = [...]string{
	"SELECT", "INSERT", "UPDATE", "DELETE", "SET", "COMMIT", "BEGIN", "ROLLBACK", "START", "SHOW", "USE", "REPLACE",
	"CALL", "CREATE", "ALTER", "DROP", "TRUNCATE", "RENAME", "GRANT", "REVOKE", "FLUSH", "KILL", "LOAD", "LOCK",
	"UNLOCK", "PREPARE", "EXECUTE", "DEALLOCATE", "DESCRIBE", "DESC", "EXPLAIN", "ANALYZE", "OPTIMIZE", "CHECK",
	"CHECKSUM", "REPAIR", "WITH", "DO", "HANDLER", "SAVEPOINT", "RELEASE", "XA", "CHANGE", "RESET", "PURGE", "STOP",
	"INSTALL", "UNINSTALL", "VALUES", "TABLE", "IMPORT", "BINLOG", "CACHE", "HELP", "SHUTDOWN", "RESTART", "SIGNAL",
}

// matchStatement matches the front of a statement by its first word. whole reports that data is the whole
// statement.
func matchStatement(data []byte, whole bool) protocols.Match {
	if len(data) > 1 && data[0] <= 16 && data[1] == 1 { // query attributes
		if data = data[2:]; len(data) > 0 && data[0] < ' ' {
			return protocols.More
		}
	}
	data = data[:min(len(data), 256)]
	scanner := sqltoken.Scanner{SQL: data}
	for scanner.Next() {
		switch {
		case scanner.Kind == sqltoken.Punctuation && scanner.SQL[scanner.From] == '(':
			continue
		case scanner.Kind != sqltoken.Word:
			return protocols.No
		case scanner.To == len(data) && !whole && len(data) < 256:
			return protocols.More
		}
		if scanner.IsAny(statementWords[:]) {
			return protocols.Yes
		}
		return protocols.No
	}
	if whole || len(data) == 256 {
		return protocols.No
	}
	return protocols.More
}

// databaseOfUse returns the database of a USE statement.
func databaseOfUse(sql []byte) []byte {
	scanner := sqltoken.Scanner{SQL: sql}
	for scanner.Next() {
		if scanner.Kind == sqltoken.Name || scanner.Kind == sqltoken.Word && !scanner.Is("USE") {
			return scanner.Text()
		}
	}
	return nil
}
