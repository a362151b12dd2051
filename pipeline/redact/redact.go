// Package redact replaces secrets in text (passwords, tokens, keys, cookies) by Marker. The names of secrets
// are in one table (names.go), the forms of secrets that need no name in another (patterns.go). There is a
// function for each form of text: URLs, SQL, the arguments of Redis commands, header fields, log lines, labels.
//
// It is called by the parsers of protocols before they fill in an event, and by collector/logs for every
// line, so a redacted secret never leaves the host. In doubt a value is hidden. There is no guarantee: a
// secret in an unusual place is not found.
//
// # How text is read
//
// A prefilter (prefilter.go) finds the few lines that may hold a secret. These are read by a series of passes,
// each from the front to the end:
//
//	names     password=…, "token": …, <secret>…</secret>   (line.go, value.go, values.go, quotes.go, passphrase.go,
//	          multipart.go, serialized.go)
//	foreign   пароль: …, 密码：…                              (foreign.go)
//	pairs     ["password", "…"], ['Cookie', '…']            (pairs.go)
//	calls     login(user, password) with ('bob', '…')       (parameters.go)
//	flags     --password …, mysql -p…, passwd '…'           (flags.go, commands.go)
//	pipes     echo … | passwd --stdin                       (pipes.go)
//	Redis     CONFIG SET requirepass …, lines of MONITOR    (redis_line.go)
//	phrases   set password … for bob, the password is …     (phrases.go, statements.go, generated.go)
//	          PIN: …, cvv=…; PDO->__construct('…', …), ENCODE('…', …) (pin.go, connect.go)
//	patterns  eyJ…, ghp_…, AKIA…, $2y$…, private keys       (patterns.go, tokens.go)
//	URLs      user:password@, ?code=…, /reset-password/…    (url.go, userinfo.go)
//	SQL       IDENTIFIED BY '…', INSERT … VALUES (…)        (line_sql.go, sql.go, routines.go)
//	tables    id|name|password, then rows                   (bare_table.go)
//	pgpass    db:5432:shop:bob:…                            (password_file.go)
//
// Each pass adds the spans that it hides; overlapping spans are one secret. Text may be written in another
// form: escaped as in JSON, percent-encoded, with + for blanks, with references to characters, with colours of a
// terminal, with doubled quotes, with wide characters. Such text is also read as a view
// (view.go): decoded, with the original offset of each byte. A view may be read as a further one, up to
// maxDepth.
//
// A text that is a JSON document is read value by value (json.go). It stays one, with the same keys.
//
// Of a log with state (NextLine), a private key may extend over several lines (keyblock.go), and the name of a secret
// may be in a line before it (continued.go), or in the heading of a table (table.go, bare_table.go).
//
// Of the parameters of a statement in the log of PostgreSQL (DETAIL:  parameters: $1 = '…'), all are hidden if the same
// text, or one of the sixteen lines before, has a statement with the name of a secret. Without such a statement they are
// read like any text (parameters.go).
//
// Line hides everything in a URL or a statement that URL or SQL hides. Redaction is idempotent. Both are
// tested as properties.
package redact

import (
	"cmp"
	"slices"
	"unsafe"
)

// Marker replaces a secret.
const Marker = "REDACTED"

// A replacement is the text that replaces a secret.
type replacement uint8

const (
	plainMarker replacement = iota
	sqlMarker               // a whole literal of SQL, with its quotes
	jsonMarker              // a number of JSON: the marker is a string
)

var replacements = [...]string{Marker, "'" + Marker + "'", `"` + Marker + `"`}

// A Rule is the reason why something is hidden.
type Rule uint8

// The rules, in the order of the passes.
const (
	RuleName Rule = iota
	RuleHeader
	RuleFlag
	RulePattern
	RulePrivateKey
	RuleUserInfo
	RuleParameter
	RulePath
	RuleSQL
)

var ruleNames = [...]string{
	"name", "header", "flag", "pattern", "private-key", "userinfo", "parameter", "path", "sql",
}

// String returns the name of the rule.
func (r Rule) String() string { return ruleNames[r] }

// A Finding is a hidden part of a text.
type Finding struct {
	From, To int
	Rule     Rule
	with     replacement
}

// Replacement returns the text that replaces the hidden part: Marker, in quotes where the text needs them.
func (f Finding) Replacement() string { return replacements[f.with] }

// A Redactor hides secrets in text. It is used by one goroutine and reuses its buffers: the result of a
// method is valid until the next call of any method. The zero value is ready to use.
type Redactor struct {
	spans []span
	out   []byte
	views [maxDepth]viewBuffer
	names nameCache

	plain     [maxDepth][]byte // the decoded forms of a line that the prefilter searches
	encodings int              // how often the text that is searched was decoded
	readings  int              // the number of decoded forms of the line so far

	keyBegun bool // the last text has the beginning of a private key, and not its end
	nameEnds bool // the name of a secret may be at the end of the last line
}

// BufferBytes returns the size of the buffers of r.
func (r *Redactor) BufferBytes() int {
	sum := cap(r.out) + cap(r.spans)*int(unsafe.Sizeof(span{}))
	for i := range r.views {
		sum += cap(r.views[i].text) + 4*cap(r.views[i].table) + cap(r.plain[i])
	}
	return sum
}

// A span is a part of the text that will be replaced.
type span struct {
	from, to int
	rule     Rule
	with     replacement
}

// hide adds the bytes from:to of view to the spans.
func (r *Redactor) hide(v view, from, to int, rule Rule) { r.hideAs(v, from, to, rule, plainMarker) }

// hideAs is like hide, with another replacement.
func (r *Redactor) hideAs(v view, from, to int, rule Rule, with replacement) {
	if from < to {
		r.spans = append(r.spans, span{v.at(from), v.at(to), rule, with})
	}
}

// sortSpans sorts the spans by their starts, the longer first.
func (r *Redactor) sortSpans() {
	order := func(x, y span) int { return cmp.Or(cmp.Compare(x.from, y.from), cmp.Compare(y.to, x.to)) }
	if !slices.IsSortedFunc(r.spans, order) {
		slices.SortFunc(r.spans, order)
	}
}

// replaced returns data with a marker in place of each span. Spans may overlap and come in any order; each run
// of them is one secret.
func (r *Redactor) replaced(data []byte) []byte {
	r.sortSpans()

	// Invariant: out is the redacted form of data[:done].
	out, done := r.out[:0], 0
	for i := 0; i < len(r.spans); {
		first := r.spans[i]
		to := first.to
		for i++; i < len(r.spans) && r.spans[i].from < to; i++ {
			to = max(to, r.spans[i].to)
		}
		out = append(append(out, data[done:first.from]...), replacements[first.with]...)
		done = to
	}
	r.out = append(out, data[done:]...)
	return r.out
}

// Findings returns what the last call of Line, NextLine, URL or SQL has hidden: parts of its input, in order and
// without overlaps, with the rule of each.
func (r *Redactor) Findings() []Finding {
	r.sortSpans()
	var list []Finding
	for _, s := range r.spans {
		if last := len(list) - 1; last >= 0 && s.from < list[last].To {
			list[last].To = max(list[last].To, s.to)
			continue
		}
		list = append(list, Finding{s.from, s.to, s.rule, s.with})
	}
	return list
}
