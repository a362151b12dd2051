package sigma

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// eventOf returns a sample as an event of ours, in YAML: the field, and its value as it is written.
func (s *source) eventOf(values sample) map[string]string {
	event, record, words := map[string]string{}, map[string]string{}, []string(nil)
	maps.Copy(record, s.constant)
	for _, field := range sortedFields(values) {
		text := values[field][0]
		if field == "" {
			continue // the keywords come last, where there is place
		}
		mappings := s.mappings(field)
		if len(mappings) == 0 {
			continue
		}
		switch m := mappings[0]; m.kind {
		case keyMapping:
			record[m.key] = text
		case urlMapping:
			setURL(event, text)
		case stemMapping:
			if strings.ContainsAny(text, "?=&") {
				setURL(event, text)
			} else {
				event["url.path"] = yamlQuote(text)
			}
		case decisionMapping:
			passed := decisions[strings.ToLower(text)] || field == "blocked" && strings.HasPrefix(strings.ToLower(text), "f")
			event[m.field] = map[bool]string{true: "fin", false: "refused"}[passed]
		case targetMapping:
			if path, query, ok := strings.Cut(text, "?"); ok && event["url.path"] == "" && strings.HasPrefix(path, "/") {
				event["url.path"], event["url.query"] = yamlQuote(path), yamlQuote(query)
			} else if strings.HasPrefix(text, "/") && event["url.path"] == "" {
				event["url.path"] = yamlQuote(text)
			} else {
				event["url.query"] = yamlQuote(strings.TrimPrefix(text, "?"))
			}
		case extensionMapping:
			if event["url.original"] == "" && event["url.path"] == "" {
				event["url.path"] = yamlQuote("/file." + text)
			}
		default:
			setField(event, m, text, text)
		}
	}

	if keywords := values[""]; len(keywords) > 0 {
		free := slices.IndexFunc(s.keywords, func(m fieldMapping) bool {
			taken := event[m.field] != "" || m.field == "url.original" && (event["url.path"] != "" || event["url.query"] != "")
			return m.field != "message" && !taken
		})
		if free >= 0 {
			setField(event, s.keywords[free], "/?"+keywords[0], keywords[0])
		} else {
			words = keywords
		}
	}

	mergeTarget(event)

	dataset := s.datasets[0]
	if len(event) == 0 || len(words) > 0 || len(record) > len(s.constant) {
		if slices.Contains(s.datasets, "log") {
			dataset = "log"
			event["message"] = yamlQuote(s.messageOf(record, words))
		}
	}
	event["event.dataset"] = dataset
	return event
}

// mergeTarget makes one target of url.original, url.path and url.query, where several of them were set: of an
// event they follow from each other.
func mergeTarget(event map[string]string) {
	original, path, query := unquote(event["url.original"]), unquote(event["url.path"]), unquote(event["url.query"])
	if original == "" || path == "" && query == "" {
		return
	}
	target, ownQuery, _ := strings.Cut(original, "?")
	switch {
	case target == "/" && path != "":
		target = path
	case !strings.Contains(target, path):
		target += path
	}
	if ownQuery != "" && query != "" {
		ownQuery += "&"
	}
	if query = ownQuery + query; query != "" {
		target += "?" + query
	}
	event["url.original"] = yamlQuote(target)
	delete(event, "url.path")
	delete(event, "url.query")
}

// unquote returns the text of a scalar that yamlQuote has written, "" if there is none.
func unquote(text string) string {
	value, err := strconv.Unquote(text)
	if err != nil {
		return ""
	}
	return value
}

// setField sets a field of ours. target is the text as a part of the target of a request.
func setField(event map[string]string, m fieldMapping, target, text string) {
	switch m.kind {
	case numberMapping:
		if number, err := strconv.ParseInt(text, 10, 64); err == nil {
			text = strconv.FormatInt(number*max(m.scale, 1), 10)
		} else {
			text = "1"
		}
		event[m.field] = text
	case addressMapping:
		event[m.field] = yamlQuote(addressLike(text))
	case flagMapping:
		first := strings.ToLower(text + " ")[0]
		event[m.field] = strconv.FormatBool(first == 't' || first == '1')
	case conditionMapping:
		if first := strings.ToLower(text + " ")[0]; first != 't' && first != '1' {
			return
		}
		// The first constant of the condition makes it true: as the value, or as an element of the list.
		_, constant, _ := strings.Cut(m.key, `"`)
		constant, _, _ = strings.Cut(constant, `"`)
		if event[m.field] = yamlQuote(constant); strings.HasPrefix(m.key, "any(") {
			event[m.field] = "[" + yamlQuote(constant) + "]"
		}
	case listMapping:
		event[m.field] = "[" + yamlQuote(text) + "]"
	default:
		if m.field == "url.original" {
			text = target
		}
		event[m.field] = yamlQuote(text)
	}
}

// setURL sets host and target of a request.
func setURL(event map[string]string, text string) {
	_, rest, ok := strings.Cut(text, "://")
	switch {
	case ok:
		host, path, _ := strings.Cut(rest, "/")
		event["url.domain"] = yamlQuote(cmp.Or(trailingPort.ReplaceAllString(host, ""), "host.example"))
		event["url.original"] = yamlQuote("/" + path)
	case strings.HasPrefix(text, "http"):
		event["url.domain"], event["url.original"] = yamlQuote("host.example"), yamlQuote("/")
	case strings.HasPrefix(text, "/"):
		event["url.original"] = yamlQuote(text)
	default:
		event["url.original"] = yamlQuote("/" + text)
	}
}

// messageOf returns a log line with the values of a record and with other words.
func (s *source) messageOf(record map[string]string, words []string) string {
	keys := slices.Sorted(maps.Keys(record))
	var out strings.Builder
	switch {
	case s.form == jsonForm && (len(words) == 0 || len(record) > 0):
		if len(words) > 0 {
			record["log"] = strings.Join(words, " ")
		}
		return jsonOf(record)
	case s.form == auditForm:
		out.WriteString("type=" + cmp.Or(record["type"], "CWD") + " msg=audit(1700000000.123:45):")
		for _, key := range keys {
			if key != "type" {
				out.WriteString(" " + key + "=" + auditText(key, record[key], record["type"]))
			}
		}
	case s.form == sysmonForm:
		out.WriteString("<Event><System><EventID>" + record["EventID"] + "</EventID></System><EventData>")
		escape := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;")
		for _, key := range keys {
			if key != "EventID" {
				out.WriteString(`<Data Name="` + key + `">` + escape.Replace(record[key]) + "</Data>")
			}
		}
		out.WriteString("</EventData></Event>")
	default:
		out.WriteString(s.prefix)
		for _, key := range keys {
			value := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(record[key])
			out.WriteString(key + `="` + value + `" `)
		}
	}
	text := out.String()
	if len(words) > 0 {
		if text != "" && !strings.HasSuffix(text, " ") {
			text += " "
		}
		text += strings.Join(words, " ")
	}
	if strings.TrimSpace(text) == "" {
		return "an ordinary line"
	}
	return text
}

// auditText returns a text as auditd writes it.
func auditText(key, text, recordType string) string {
	plain := !strings.ContainsAny(text, " \"\t\n")
	isArgument := key[0] == 'a' && len(key) > 1 && strings.Trim(key[1:], "0123456789") == ""
	if !plain && (recordType == "EXECVE" && isArgument || slices.Contains([]string{"comm", "exe", "name", "cwd", "proctitle", "key"}, key)) {
		return strings.ToUpper(hex.EncodeToString([]byte(text)))
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

// jsonOf returns an object with the values of keys whose dots step into objects.
func jsonOf(record map[string]string) string {
	root := map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(record)) {
		steps, at := strings.Split(key, "."), root
		for _, step := range steps[:len(steps)-1] {
			next, ok := at[step].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[step] = next
			}
			at = next
		}
		at[steps[len(steps)-1]] = record[key]
	}
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(root) // maps of texts always encode
	return strings.TrimSpace(out.String())
}
