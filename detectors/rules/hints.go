package rules

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr/file"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// This file words the errors for the most frequent mistakes of authors: operators of other languages,
// misspelled names, constructs of other regular expressions.

// foreignWords maps operators of SQL, Sigma, KQL and Python to the advice what to write instead.
var foreignWords = map[string]string{
	"like":       `use contains, glob(url.path, "*admin*") or matches`,
	"ilike":      `use lower(message) contains "error"`,
	"icontains":  `use lower(message) contains "error"`,
	"iequals":    `use lower(message) == "error"`,
	"equals":     "compare with ==",
	"is":         "compare with ==",
	"between":    "write x >= 1 and x <= 5",
	"regex":      `use matches "…"`,
	"starts":     `use startsWith "…"`,
	"ends":       `use endsWith "…"`,
	"startswith": `use startsWith "…"`,
	"endswith":   `use endsWith "…"`,
	"and":        "write and in lower case",
	"or":         "write or in lower case",
	"not":        "write not in lower case",
	"in":         "write in in lower case",
}

// foreignOperators maps operators of other languages that expr's lexer accepts as tokens to advice.
var foreignOperators = map[string]string{
	"=": "compare with ==", "===": "compare with ==", "&": "write and", "=*": "use glob", "~": "use matches",
}

// The messages of expr that parseMessage recognizes.
var (
	unexpectedToken = regexp.MustCompile(`^unexpected token (\w+)(?:\("(.*)"\))?$`)
	badNumber       = regexp.MustCompile(`^bad number syntax: "(.*)"$`)
	badCharacter    = regexp.MustCompile(`^unrecognized character: U\+[0-9A-F]+(?: '(.+)')?$`)
)

// parseError returns an error of expr's parser in the words of the rule language.
func parseError(source string, err error) syntaxError {
	var parserError *file.Error
	if !errors.As(err, &parserError) {
		return syntaxError{0, err.Error()}
	}
	at := min(parserError.From, len([]rune(source)))

	// expr reads <> as two operators and reports the second one.
	before := string([]rune(source)[:at])
	if strings.HasSuffix(before, "<") && strings.HasPrefix(parserError.Message, `unexpected token Operator(">")`) {
		return syntaxError{at - 1, "<> is not an operator: compare with !="}
	}

	// expr reads =~ as = and an unknown character.
	if strings.HasPrefix(string([]rune(source)[at:]), "=~") {
		return syntaxError{at, `=~ is not an operator: use matches "…"`}
	}
	// expr takes the NOT of SQL for a name and reports what follows it.
	if word := strings.TrimSpace(before); strings.HasSuffix(word, "NOT") && strings.Trim(word, "NOT( ") == "" {
		return syntaxError{at - len(before) + strings.Index(before, "NOT"), "NOT is not an operator: write not in lower case"}
	}
	message := shown(parserError.Message)
	if badNumber.MatchString(message) {
		// expr's lexer stops within the literal.
		runes := []rune(source)
		begin := at
		for begin > 0 && endOfName(runes[:at], begin-1) == at {
			begin--
		}
		if literal := string(runes[begin:endOfName(runes, begin)]); unitHint(literal) != "" {
			return syntaxError{begin, fmt.Sprintf("%s has no unit of this language%s", literal, unitHint(literal))}
		}
	}
	return syntaxError{at, parseMessage(source, message)}
}

// parseMessage returns a message of expr's parser in the words of the rule language. It returns a message
// that it does not recognize as it is, shortened.
func parseMessage(source, message string) string {
	// 1. Messages that quote a part of the expression.
	if match := unexpectedToken.FindStringSubmatch(message); match != nil {
		return unexpected(source, match[1], match[2])
	}
	if match := badNumber.FindStringSubmatch(message); match != nil {
		return fmt.Sprintf("%q is not a number: a duration has the unit ns, us, ms, s, m, h or d, as in 5s, a size KiB, MiB or GiB", match[1])
	}
	if match := badCharacter.FindStringSubmatch(message); match != nil {
		if match[1] == "@" {
			return "@ cannot stand alone: the time of an event is @timestamp, or timestamp"
		}
		if match[1] == "~" {
			return `~ is not an operator: use matches "…"`
		}
		return fmt.Sprintf("unexpected character %s", match[1])
	}

	// 2. Messages of constant text.
	switch {
	case strings.Contains(message, "invalid char escape"):
		return "unknown escape in a text between quotes: write \\\\. for \\., or put the text between backquotes"
	case strings.Contains(message, "literal not terminated"):
		return "a closing quote is missing"
	case strings.Contains(message, "exceeds maximum allowed nodes"):
		return fmt.Sprintf("expression is too large: more than %d parts, macros expanded", maxNodes)
	}
	const most = 300
	if len(message) > most {
		message = strings.ToValidUTF8(message[:most], "") + "…"
	}
	return message
}

// unexpected returns the message for a token that is not allowed at its position. kind and value are those of
// expr's lexer.
func unexpected(source, kind, value string) string {
	switch kind {
	case "EOF":
		// The counts include brackets inside texts, so the hint may be wrong; the error itself is right.
		for _, pair := range []string{"()", "[]"} {
			if strings.Count(source, pair[:1]) > strings.Count(source, pair[1:]) {
				return "a closing " + pair[1:] + " is missing"
			}
		}
		return "the expression ends where a value is expected"
	case "Identifier":
		if hint := foreignWords[strings.ToLower(value)]; hint != "" {
			return fmt.Sprintf("%s is not an operator: %s", value, hint)
		}
		known := []string{"and", "or", "not", "in", "contains", "startsWith", "endsWith", "matches"}
		return fmt.Sprintf("unexpected %s%s", value, config.DidYouMean(value, known))
	case "Operator":
		if hint := foreignOperators[value]; hint != "" {
			return fmt.Sprintf("%s is not an operator: %s", value, hint)
		}
	}
	return "unexpected " + value
}

// regexProblem returns the message for an error of package regexp.
func regexProblem(err error) string {
	message := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
	for _, lookaround := range []string{"(?!", "(?=", "(?<"} {
		if strings.HasPrefix(message, "invalid or unsupported Perl syntax: `"+lookaround) ||
			strings.HasPrefix(message, "invalid named capture: `"+lookaround) {
			return `look-ahead and look-behind are not in RE2: write matches "^/admin" and not (…)`
		}
	}
	return "regular expression: " + message
}

// unknownName returns the message for a name that is neither a field nor a macro. ns may be nil where only
// fields are allowed.
func unknownName(name string, ns *names) string {
	switch name {
	case "null", "None", "undefined":
		return name + ` is not part of the rule language: an absent text is "", an absent number 0; ` +
			"has(user.name) is true where there is one"
	}
	if slices.Contains(functions, name) {
		return fmt.Sprintf("%s is a function: write %s(…)", name, name)
	}
	known := fieldNames()
	if ns != nil {
		for m := range ns.macros {
			known = append(known, m)
		}
		slices.Sort(known)
	}
	return fmt.Sprintf("unknown field %q%s", name, didYouMeanField(name, known))
}

// didYouMeanField is config.DidYouMean for names with dots. If no known name is similar, it suggests names
// with the same last word.
func didYouMeanField(name string, known []string) string {
	if longer := longerNames(name, known); len(longer) > 0 {
		return didYouMeanOneOf(longer)
	}
	field := foreignField(name)
	if field != "" && strings.Contains(field, "(") {
		return ", did you mean " + field + "?"
	}
	if field != "" {
		return didYouMeanOneOf([]string{field})
	}
	if hint := config.DidYouMean(name, known); hint != "" {
		return hint
	}

	// Names with the same last word: those with the same first word too, or else the others.
	first, _, _ := strings.Cut(name, ".")
	last := name[strings.LastIndexByte(name, '.')+1:]
	var same, others []string
	for _, candidate := range known {
		if !strings.HasSuffix(candidate, "."+last) {
			continue
		}
		if strings.HasPrefix(candidate, first+".") {
			same = append(same, candidate)
		} else {
			others = append(others, candidate)
		}
	}
	if len(same) == 0 {
		same = others
	}
	if len(same) == 0 || len(same) > 3 { // More than three suggestions do not help.
		return ""
	}
	return didYouMeanOneOf(same)
}

func didYouMeanOneOf(names []string) string {
	quoted := make([]string, len(names))
	for i, candidate := range names {
		quoted[i] = fmt.Sprintf("%q", candidate)
	}
	return ", did you mean " + strings.Join(quoted, " or ") + "?"
}

// fieldNames returns the names of all fields, sorted.
func fieldNames() []string {
	out := make([]string, 0, len(pipeline.Fields))
	for i := range pipeline.Fields {
		out = append(out, pipeline.Fields[i].Name)
	}
	slices.Sort(out)
	return out
}

// foreignKeys maps keys of other rule languages to hints.
var foreignKeys = map[string]string{
	"threshold": "write count: \">= 10\"",
	"timeframe": "write within: 5m",
	"window":    "write within: 5m",
	"group_by":  "write group: [source.ip]",
	"by":        "write group: [source.ip]",
	"steps":     "belongs below sequence: indent it",
	"until":     "belongs below sequence, beside steps",
	"ordered":   "belongs below sequence, beside steps",
	"detection": "this looks like a Sigma rule: write its condition as when: (docs/RULES.md)",
	"logsource": "this looks like a Sigma rule: name the datasets as datasets:",
	"level":     "use severity",
	"condition": "use when",
}
