package rules

import (
	"fmt"
	"strconv"
	"strings"
)

// The bounds of a JSON path.
const (
	maxPathBytes = 200
	maxPathSteps = 10
)

// A jsonPath is a path of RFC 9535 that leads to one value at most: $.a, ['a'] and [0].
type jsonPath []jsonStep

// A jsonStep leads from an object to the value of a name, or from an array to an element.
type jsonStep struct {
	name    string
	index   int
	isIndex bool
}

// parseJSONPath parses a path.
func parseJSONPath(text string) (path jsonPath, err error) {
	rest, ok := strings.CutPrefix(text, "$")
	if !ok || rest == "" || len(text) > maxPathBytes {
		return nil, fmt.Errorf(`%s is not a path in JSON such as "$.user.name" or "$.items[0]['a b']", of at most %d bytes`, quoteShort(text), maxPathBytes)
	}
	for rest != "" {
		var step jsonStep
		switch {
		case rest[0] == '.':
			step.name, rest = cutName(rest[1:])
			if step.name == "" {
				return nil, fmt.Errorf("json: a name is missing in %s: wildcards and .. are not supported", quoteShort(text))
			}
		case strings.HasPrefix(rest, "['") || strings.HasPrefix(rest, `["`):
			end := strings.Index(rest[2:], rest[1:2]+"]")
			if end < 0 || strings.Contains(rest[2:2+end], `\`) {
				return nil, fmt.Errorf("json: the name in brackets in %s does not end, or has a backslash", quoteShort(text))
			}
			step.name, rest = rest[2:2+end], rest[2+end+2:]
		default:
			number, behind, closed := strings.Cut(strings.TrimPrefix(rest, "["), "]")
			if step.index, err = strconv.Atoi(number); err != nil || rest[0] != '[' || !closed || step.index < 0 || number[0] == '+' {
				return nil, fmt.Errorf("json: %s in %s is none of .name, ['name'] and [0]", quoteShort(rest), quoteShort(text))
			}
			step.isIndex, rest = true, behind
		}
		if path = append(path, step); len(path) > maxPathSteps {
			return nil, fmt.Errorf("json: more than %d steps in %s", maxPathSteps, quoteShort(text))
		}
	}
	return path, nil
}

// cutName divides a path behind the name at its beginning.
func cutName(path string) (name, rest string) {
	end := strings.IndexAny(path, ".[]*'\"")
	if end < 0 {
		end = len(path)
	}
	return path[:end], path[end:]
}

// find returns the value at p in text, which is JSON: a text without its escapes, anything else as it is written, and "" for
// null and what is not there. Of names that an object has twice the last one counts, as most parsers read it. Each step
// reads the value that the step before has found once.
func (p jsonPath) find(buf *[]byte, text string) string {
	for i := range p {
		start := skipBlanks(text, 0)
		if text = p[i].find(buf, text[start:]); text == "" {
			return ""
		}
	}
	switch {
	case text == "null":
		return ""
	case text[0] != '"':
		return text
	case len(text) == 1 || text[len(text)-1] != '"': // it is cut
		return ""
	case !strings.Contains(text, `\`):
		return text[1 : len(text)-1]
	}
	return unescapeJSONInto(buf, text[1:len(text)-1])
}

// find returns the value to which s leads from the value at the beginning of text.
func (s *jsonStep) find(buf *[]byte, text string) (found string) {
	if text == "" || text[0] != '{' && !s.isIndex || text[0] != '[' && s.isIndex {
		return ""
	}
	i := skipBlanks(text, 1)
	for element := 0; i < len(text) && text[i] != ']' && text[i] != '}'; element++ {
		name := ""
		if !s.isIndex {
			end := jsonEnd(text, i)
			if text[i] != '"' || end-i < 2 {
				return found
			}
			name = text[i+1 : end-1]
			if i = skipBlanks(text, end); i >= len(text) || text[i] != ':' {
				return found
			}
			i = skipBlanks(text, i+1)
		}
		end := jsonEnd(text, i)
		switch {
		case end == i: // no value
			return found
		case s.isIndex && element == s.index:
			return text[i:end]
		case !s.isIndex && (name == s.name || strings.Contains(name, `\`) && unescapeJSONInto(buf, name) == s.name):
			found = text[i:end]
		}
		if i = skipBlanks(text, end); i >= len(text) || text[i] != ',' {
			return found
		}
		i = skipBlanks(text, i+1)
	}
	return found
}
