package rules

import (
	"bytes"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Bounds of the draft of a log line that is JSON.
const (
	maxDraftJSON  = 64 << 10 // bytes of the line
	maxDraftKeys  = 4        // conditions
	maxDraftDepth = 3        // objects in each other
	maxDraftWord  = 60       // bytes of a value that is compared as a whole
)

// tellingKeys are the last keys of the values of a log line that say what it is about, the most telling one first. In the texts of
// sentenceKeys a piece is looked for.
var (
	tellingKeys = []string{
		"event", "eventName", "event_type", "action", "operation", "type", "kind", "verb", "method", "reason", "error", "err", "exception",
		"msg", "message", "level", "severity", "status", "status_code", "code", "result", "outcome", "resource", "path", "uri", "component", "logger",
	}
	sentenceKeys = []string{"msg", "message", "error", "err", "exception", "reason", "path", "uri"}
)

// plainKey matches the keys that a path in JSON has without quotes.
var plainKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,40}$`)

// jsonConditions returns a condition for each of the most telling values of a line that is a JSON object; nil if it is none, or has none.
func jsonConditions(message draftCondition) []draftCondition {
	if len(message.value) > maxDraftJSON {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader([]byte(message.value)))
	decoder.UseNumber()
	var object map[string]any
	if decoder.Decode(&object) != nil || decoder.More() {
		return nil
	}
	var found []draftCondition
	var walk func(object map[string]any, path []string)
	walk = func(object map[string]any, path []string) {
		for _, key := range slices.Sorted(maps.Keys(object)) {
			if !plainKey.MatchString(key) {
				continue
			}
			condition := draftCondition{field: message.field, operator: "==", path: append(slices.Clone(path), key)}
			switch value := object[key].(type) {
			case map[string]any:
				if len(path)+1 < maxDraftDepth {
					walk(value, condition.path)
				}
				continue
			case string:
				condition.value = value
			case bool:
				condition.value = strconv.FormatBool(value)
			case json.Number:
				_, err := strconv.ParseUint(value.String(), 10, 32)
				condition.value, condition.number = value.String(), true
				if err != nil {
					continue
				}
			default:
				continue
			}
			if slices.Contains(tellingKeys, key) && condition.isTelling(key) {
				found = append(found, condition)
			}
		}
	}
	walk(object, nil)
	slices.SortStableFunc(found, func(a, b draftCondition) int {
		return slices.Index(tellingKeys, a.path[len(a.path)-1]) - slices.Index(tellingKeys, b.path[len(b.path)-1])
	})
	return found[:min(len(found), maxDraftKeys)]
}

// isTelling reports whether the next line of the same kind may have the same value. Of a sentence it keeps the longest piece without digits.
func (c *draftCondition) isTelling(key string) bool {
	hasDigit := strings.ContainsFunc(c.value, unicode.IsDigit)
	switch {
	case c.value == "" || strings.ContainsFunc(c.value, func(r rune) bool { return !unicode.IsPrint(r) }):
		return false
	case c.number:
		return true
	case slices.Contains(sentenceKeys, key) && (hasDigit || len(c.value) > maxDraftWord):
		piece := longestPiece(c.value)
		c.operator, c.value = "contains", cutText(piece, maxDraftText)
		return len(piece) >= minDraftPiece
	}
	return !hasDigit && len(c.value) <= maxDraftWord
}

// longestPiece returns the longest part of a text without digits: times, addresses and numbers differ in the next line.
func longestPiece(text string) (longest string) {
	for piece := range strings.FieldsFuncSeq(text, unicode.IsDigit) {
		if piece = strings.TrimSpace(piece); len(piece) > len(longest) {
			longest = piece
		}
	}
	return longest
}

// jsonExpression returns a condition of a value of a line as an expression.
func (c *draftCondition) jsonExpression() string {
	value := c.field.Name + `, "$.` + strings.Join(c.path, ".") + `"`
	if c.number {
		return "number(json(" + value + ")) " + c.operator + " " + c.value
	}
	return "json(" + value + ") " + c.operator + " " + c.literal()
}

// jsonLine returns a line with the values of the conditions that have a path.
func jsonLine(conditions []draftCondition) string {
	root := map[string]any{}
	for _, condition := range conditions {
		if condition.path == nil {
			continue
		}
		object, last := root, len(condition.path)-1
		for _, key := range condition.path[:last] {
			inner, ok := object[key].(map[string]any)
			if !ok {
				inner = map[string]any{}
				object[key] = inner
			}
			object = inner
		}
		if object[condition.path[last]] = condition.value; condition.number {
			object[condition.path[last]] = json.Number(condition.value)
		}
	}
	var line strings.Builder
	encoder := json.NewEncoder(&line)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(root) // of texts and numbers
	return strings.TrimSpace(line.String())
}
