package feeds

import (
	"strings"

	"tidegate/pipeline"
)

// A StoredValue is a kind of value that Evaluate looks up, as the table events holds it.
type StoredValue struct {
	Columns []string // of one value
	Lists   bool     // the columns are lists: their elements are the values
	Key     []int    // the columns by which the events with a value are found, by index; empty: all

	lookUp func(s *Set, to target, value []string)
}

// StoredValues are all values that Evaluate looks up: an event has no verdict of a feed unless MayList is true for one of them.
var StoredValues = []StoredValue{
	{Columns: []string{"source.ip"}, lookUp: lookUpHost},
	{Columns: []string{"source.nat.ip"}, lookUp: lookUpHost},
	{Columns: []string{"destination.ip"}, lookUp: lookUpHost},
	{Columns: []string{"destination.nat.ip"}, lookUp: lookUpHost},
	{Columns: []string{"dns.question.name"}, lookUp: lookUpHost},
	{Columns: []string{"dns_answers_type", "dns_answers_data"}, Lists: true, Key: []int{1}, lookUp: func(s *Set, to target, value []string) {
		if host := targetOf(value[0], value[1]); host != "" {
			s.checkHost(to, "", host, &feedSet{})
		}
	}},
	{Columns: []string{"dns_resolved_ip"}, Lists: true, lookUp: lookUpHost},
	{Columns: []string{"url.domain"}, lookUp: lookUpHost},
	{Columns: []string{"http_request_x_forwarded_for"}, Lists: true, lookUp: lookUpHost},
	{Columns: []string{"url.domain", "url.path", "url.query"}, Key: []int{0, 1}, lookUp: func(s *Set, to target, value []string) {
		s.checkURL(to, &pipeline.HTTPExchange{UrlDomain: value[0], UrlPath: value[1], UrlQuery: value[2]}, &feedSet{})
	}},
	{Columns: []string{"user_agent.original"}, lookUp: lookUpText(userAgentMark, UserAgentType)},
	{Columns: []string{"tls.client.server_name"}, lookUp: lookUpHost},
	{Columns: []string{"tls.client.ja3"}, lookUp: lookUpText(hashMark, HashType)},
	{Columns: []string{"tls.server.ja3s"}, lookUp: lookUpText(hashMark, HashType)},
	{Columns: []string{"container.image.hash"}, lookUp: lookUpText(hashMark, HashType)},
}

func lookUpHost(s *Set, to target, value []string) { s.checkHost(to, "", value[0], &feedSet{}) }

func lookUpText(mark byte, typ string) func(*Set, target, []string) {
	return func(s *Set, to target, value []string) {
		s.checkText(to, "", mark, typ, strings.TrimPrefix(value[0], "sha256:"), &feedSet{})
	}
}

// MayList reports whether a feed lists a value of the columns of v, expired or not, and whatever an allow-list says.
func (s *Set) MayList(v *StoredValue, value []string) bool {
	listed := false
	v.lookUp(s, target{ignoreAllowed: true, matched: func(l *list, _ *detail, _ []byte) { listed = listed || !l.config.Allow }}, value)
	return listed
}
