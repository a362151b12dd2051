package feeds

import (
	"fmt"
	"strings"
)

// stixPaths holds the kinds of the object paths of STIX patterns (STIX 2.1, section 9). The name of an algorithm may be
// quoted.
var stixPaths = map[string]kind{
	"domain-name:value": kindHost, "ipv4-addr:value": kindAddr, "ipv6-addr:value": kindAddr, "url:value": kindURL,
	"file:hashes.md5": kindHash, "file:hashes.sha-1": kindHash, "file:hashes.sha-256": kindHash, "file:hashes.sha1": kindHash,
	"file:hashes.sha256": kindHash, "network-traffic:dst_ref.value": kindHost, "network-traffic:src_ref.value": kindHost,
	"network-traffic:extensions.http-request-ext.request_header.user-agent": kindUserAgent,
}

// A stixComparison is one comparison of a pattern.
type stixComparison struct {
	kind  kind
	value string
}

// parseSTIX returns the comparisons of a pattern of which one suffices: [path = 'value'], also several joined by OR, within
// brackets or between them, and path IN (…). Every other pattern is refused: one side of an AND alone finds more than the
// pattern means.
func parseSTIX(pattern string) (out []stixComparison, err error) {
	tokens, err := stixTokens(pattern)
	if err != nil {
		return nil, err
	}
	next := func() string {
		if len(tokens) == 0 {
			return ""
		}
		token := tokens[0]
		tokens = tokens[1:]
		return token
	}
	for {
		if token := next(); token != "[" {
			return nil, skipf("STIX pattern", "%q where [ is expected", token)
		}
		for more := true; more; {
			path, operator := next(), strings.ToUpper(next())
			kind, ok := stixPaths[strings.ToLower(strings.NewReplacer("'", "", `"`, "").Replace(path))]
			if !ok {
				return nil, skipf("type that no field has", "%q is looked up in no field", shorten(path))
			}
			var values []string
			switch {
			case operator == "=", operator == "ISSUBSET" && kind == kindAddr:
				values = []string{next()}
			case operator == "IN" && next() == "(":
				for token := ","; token == ","; token = next() {
					values = append(values, next())
				}
			default:
				return nil, skipf("STIX pattern", "operator %q is more than a comparison", shorten(operator))
			}
			for _, value := range values {
				if len(value) < 2 || value[0] != '\'' {
					return nil, skipf("STIX pattern", "%q is not a text", shorten(value))
				}
				out = append(out, stixComparison{kind, value[1 : len(value)-1]})
			}
			switch token := strings.ToUpper(next()); token {
			case "]":
				more = false
			case "OR":
			default:
				return nil, skipf("STIX pattern", "%q is more than a comparison", shorten(token))
			}
		}
		switch token := strings.ToUpper(next()); token {
		case "":
			return out, nil
		case "OR":
		default:
			return nil, skipf("STIX pattern", "%q between observations", shorten(token))
		}
	}
}

// stixTokens returns the tokens of a pattern. A text keeps its quotes, without its escapes.
func stixTokens(pattern string) (tokens []string, err error) {
	for at := 0; at < len(pattern); {
		switch c := pattern[at]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			at++
		case c == '\'':
			var text strings.Builder
			text.WriteByte('\'')
			for at++; ; at++ {
				if at >= len(pattern) {
					return nil, skipf("STIX pattern", "a text has no end")
				}
				if pattern[at] == '\'' {
					break
				}
				if pattern[at] == '\\' && at+1 < len(pattern) {
					at++
				}
				text.WriteByte(pattern[at])
			}
			at++
			text.WriteByte('\'')
			tokens = append(tokens, text.String())
		case strings.IndexByte("[](),", c) >= 0:
			tokens = append(tokens, pattern[at:at+1])
			at++
		case c == '=' || c == '!' || c == '<' || c == '>':
			end := at
			for end < len(pattern) && strings.IndexByte("=!<>", pattern[end]) >= 0 {
				end++
			}
			tokens = append(tokens, pattern[at:end])
			at = end
		default:
			// A word or a path, of which parts may be quoted: file:hashes.'SHA-256'.
			end := at
			for end < len(pattern) && strings.IndexByte(" \t\n\r[](),=!<>", pattern[end]) < 0 {
				if quote := pattern[end]; quote == '\'' || quote == '"' {
					closing := strings.IndexByte(pattern[end+1:], quote)
					if closing < 0 {
						return nil, skipf("STIX pattern", "a name has no end")
					}
					end += closing + 1
				}
				end++
			}
			tokens = append(tokens, pattern[at:end])
			at = end
		}
	}
	return tokens, nil
}

// addIndicator adds the indicators of a STIX indicator.
func (p *feedParser) addIndicator(r *record, number int) {
	if isTrue(r[columnDeleted]) {
		return
	}
	if typ := r[columnPatternType]; typ != "" && typ != "stix" {
		p.skip(number, skipf("STIX pattern", "a pattern of type %q is not one of STIX", shorten(typ)))
		return
	}
	comparisons, err := parseSTIX(r[columnPattern])
	if err != nil {
		p.skip(number, fmt.Errorf("pattern %q: %w", shorten(r[columnPattern]), err))
		return
	}
	if r[columnNote] = r[columnName]; r[columnNote] == "" {
		r[columnNote] = r[columnID]
	}
	about, err := p.describe(r)
	if err != nil {
		p.skip(number, err)
		return
	}
	for _, c := range comparisons {
		p.addOrSkipKind(c.kind, []byte(c.value), about, number)
	}
}
