package sigma

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Reference returns the log sources and their fields as Markdown, for docs/SIGMA.md.
func Reference() string {
	var out strings.Builder
	out.WriteString("| log source | read as | fields |\n|---|---|---|\n")
	for _, s := range append(slices.Clone(sources), anyLinux, applications) {
		fmt.Fprintf(&out, "| %s | %s | %s |\n", s.describeSources(), s.title, s.describeFields())
	}
	return out.String()
}

// describeSources returns the log sources that s stands for.
func (s *source) describeSources() string {
	switch s {
	case anyLinux:
		return "`product: linux` alone"
	case applications:
		return "`category: application`, `product:` " + strings.Join(applicationProducts[1:], ", ") + ", or none"
	}
	var names []string
	for _, l := range s.sources {
		var parts []string
		for _, part := range []struct{ key, value string }{{"category", l.category}, {"product", l.product}, {"service", l.service}} {
			if part.value != "" {
				parts = append(parts, part.key+": "+part.value)
			}
		}
		names = append(names, "`"+strings.Join(parts, ", ")+"`")
	}
	return strings.Join(names, ", ")
}

// describeFields returns the fields of s, and which of ours holds each.
func (s *source) describeFields() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(s.fields)) {
		var places []string
		for _, m := range s.fields[name] {
			switch place := m.describe(); {
			case place == name:
				places = append(places, "the same")
			default:
				places = append(places, place)
			}
		}
		if s.form == sysmonForm {
			parts = append(parts, name)
		} else if len(places) > 0 {
			parts = append(parts, "`"+name+"` "+strings.Join(places, " or "))
		}
	}
	if s.form == sysmonForm {
		return "those of Sysmon: " + strings.Join(parts, ", ")
	}
	if s.open {
		parts = append(parts, "any other: the key of that name in the line")
	}
	if len(s.keywords) > 0 {
		parts = append(parts, "keywords in "+strings.Join(fieldNames(s.keywords), ", "))
	}
	return strings.Join(parts, "; ")
}

// describe returns where a value is.
func (m fieldMapping) describe() string {
	switch m.kind {
	case keyMapping:
		return "`" + m.expr() + "`"
	case urlMapping:
		return "scheme, url.domain and url.original together"
	case targetMapping:
		return "url.query, or a part of url.original"
	case extensionMapping:
		return "the end of url.path"
	case conditionMapping:
		return "`" + m.key + "`"
	case signatureMapping:
		return "the signature in `path: signature FOUND`"
	case scannedMapping:
		return "the path in `path: signature FOUND`"
	case decisionMapping:
		return "session.state: refused and no_answer are blocked"
	}
	return m.field
}

func fieldNames(mappings []fieldMapping) (names []string) {
	for _, m := range mappings {
		names = append(names, m.field)
	}
	return names
}
