package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// This file knows the names that authors bring from Zeek, Suricata, Sigma, Splunk and other languages.

// foreignFields maps fields of other systems to what stands for them here.
var foreignFields = map[string]string{
	// Suricata's eve.json
	"src_ip": "source.ip", "src_port": "source.port", "dest_ip": "destination.ip", "dest_port": "destination.port", "proto": "network.transport",
	"app_proto": "network.protocol", "event_type": "event.dataset", "dns.rrname": "dns.question.name", "dns.rrtype": "dns.question.type", "dns.rcode": "dns.response_code",
	"http.hostname": "url.domain", "http.url": "url.original", "http.http_method": "http.request.method", "http.status": "http.response.status_code",
	"http.http_user_agent": "user_agent.original", "http.http_refer": "http.request.referrer", "tls.sni": "tls.client.server_name", "tls.ja3.hash": "tls.client.ja3",
	"flow.bytes_toserver": "source.bytes", "flow.bytes_toclient": "destination.bytes", "flow.pkts_toserver": "source.packets", "community_id": "network.community_id",
	// Zeek
	"id.orig_h": "source.ip", "id.orig_p": "source.port", "id.resp_h": "destination.ip", "id.resp_p": "destination.port", "orig_bytes": "source.bytes",
	"resp_bytes": "destination.bytes", "conn_state": "session.state", "history": "session.history", "qtype_name": "dns.question.type", "rcode_name": "dns.response_code",
	"server_name": "tls.client.server_name", "status_code": "http.response.status_code", "user_agent": "user_agent.original", "uri": "url.original",
	// Sigma's proxy and webserver
	"c_ip": "source.ip", "cs_method": "http.request.method", "cs_host": "url.domain", "cs_uri": "url.original", "cs_uri_query": "url.query", "cs_uri_stem": "url.path",
	"c_uri": "url.original", "cs_user_agent": "user_agent.original", "sc_status": "http.response.status_code", "sc_bytes": "destination.bytes", "cs_bytes": "source.bytes",
	"querytype": "dns.question.type", "dst_ip": "destination.ip", "dst_port": "destination.port", "destinationip": "destination.ip", "destinationport": "destination.port",
	"sourceip": "source.ip", "sourceport": "source.port", "destinationhostname": "url.domain", "commandline": `value(message, "CommandLine")`, "image": `value(message, "Image")`,
	"eventid": `value(message, "EventID")`, "user": "user.name", "username": "user.name", "computer": "host.name", "computername": "host.name",
	// Splunk, and names that come to mind
	"src": "source.ip", "dest": "destination.ip", "dst": "destination.ip", "srcip": "source.ip", "dstip": "destination.ip", "src.ip": "source.ip", "dst.ip": "destination.ip",
	"dest.ip": "destination.ip", "src.port": "source.port", "dst.port": "destination.port", "dest.port": "destination.port", "client.ip": "source.ip", "server.ip": "destination.ip",
	"client.port": "source.port", "server.port": "destination.port", "bytes_in": "source.bytes", "bytes_out": "destination.bytes", "http_method": "http.request.method",
	"http_user_agent": "user_agent.original", "uri_path": "url.path", "uri_query": "url.query", "url": "url.original", "status": "http.response.status_code", "site": "url.domain",
	"host": "host.name", "hostname": "host.name", "_raw": "message", "_time": "timestamp", "msg": "message", "log.message": "message", "log": "message", "event.message": "message",
	"sourcetype": "event.dataset", "query": "dns.question.name", "domain": "url.domain", "ip": "source.ip", "port": "destination.port", "method": "http.request.method",
	"path": "url.path", "useragent": "user_agent.original", "dns.query": "dns.question.name", "container": "container.name", "image_name": "container.image.name",
	"duration": "event.duration", "level": "log.level", "severity": "log.level", "dns.query.name": "dns.question.name", "http.method": "http.request.method",
	"http.host": "url.domain", "http.request.uri": "url.original", "process.command_line": `value(message, "CommandLine")`,
}

// foreignFunctions maps functions of other languages to what stands for them here.
var foreignFunctions = map[string]string{
	"int": "number(text)", "float": "number(text)", "tonumber": "number(text)", "toint": "number(text)", "todouble": "number(text)", "parseint": "number(text)",
	"to_long": "number(text)", "to_integer": "number(text)", "double": "number(text)", "to_double": "number(text)",
	"upper": `lower(text), and a constant in lower case`, "toupper": `lower(text), and a constant in lower case`, "tolower": "lower(text)", "lcase": "lower(text)", "lowercase": "lower(text)",
	"cidrmatch": "cidr(address, \"10.0.0.0/8\")", "cidr_match": "cidr(address, \"10.0.0.0/8\")", "ipinrange": "cidr(address, \"10.0.0.0/8\")",
	"wildcard": "glob(text, \"*.example\")", "regex": "text matches \"…\"", "regex_match": "text matches \"…\"", "match": "text matches \"…\"", "regexmatch": "text matches \"…\"",
	"urldecode": "unescape(text)", "url_decode": "unescape(text)", "b64decode": "base64(text)", "frombase64": "base64(text)", "base64_decode": "base64(text)",
	"length": "len(text)", "strlen": "len(text)", "size": "len(text)", "exists": "has(field)", "isnull": "not has(field)", "isnotnull": "has(field)", "isset": "has(field)",
	"jsonpath": `json(message, "$.user.name")`, "spath": `json(message, "$.user.name")`, "json_extract": `json(message, "$.user.name")`, "parse_json": `json(message, "$.user.name")`,
	"fromjson": `json(message, "$.user.name")`, "geoip": `geo(address, "country")`, "iplocation": `geo(address, "country")`, "now": "timestamp, the time of the event",
	"string": "a text as it is; numbers are compared as numbers", "lookup": `feed("name", value), or value in list`, "inlist": "value in list", "concat": "a + b",
}

// foreignField returns what stands for a field of another system, "" if it is not known.
func foreignField(name string) string {
	return foreignFields[strings.NewReplacer("-", "_").Replace(strings.ToLower(name))]
}

// longerNames returns the names that begin with name and go on with another word: http.response.status is http.response.status_code.
func longerNames(name string, known []string) (longer []string) {
	for _, candidate := range known {
		if strings.HasPrefix(candidate, name+"_") || strings.HasPrefix(candidate, name+".") {
			longer = append(longer, candidate)
		}
	}
	if len(longer) > 3 {
		return nil
	}
	return longer
}

// foreignUnits maps units of other languages, in lower case, to those of literals.
var foreignUnits = map[string]string{
	"sec": "s", "secs": "s", "second": "s", "seconds": "s", "min": "m", "mins": "m", "minute": "m", "minutes": "m", "hr": "h", "hrs": "h", "hour": "h", "hours": "h",
	"day": "d", "days": "d", "msec": "ms", "millis": "ms", "kb": "KiB", "k": "KiB", "mb": "MiB", "gb": "GiB", "g": "GiB", "tb": "TiB", "kib": "KiB", "mib": "MiB", "gib": "GiB", "tib": "TiB",
}

var numberWithUnit = regexp.MustCompile(`^([0-9][0-9_.]*)\s*([A-Za-zµ]+)$`)

// unitHint returns how a number with a unit of another language is written, "" if it is none: 10MB is 10MiB.
func unitHint(literal string) string {
	match := numberWithUnit.FindStringSubmatch(strings.TrimSpace(literal))
	if match == nil {
		return ""
	}
	unit := foreignUnits[strings.ToLower(match[2])]
	switch {
	case unit == "":
		if lower := strings.ToLower(match[2]); lower == "w" || strings.HasPrefix(lower, "week") {
			return ": a week is 7d"
		}
		return ""
	case strings.HasSuffix(unit, "iB"):
		return fmt.Sprintf(": write %s%s, in steps of 1,024 bytes", match[1], unit)
	}
	return fmt.Sprintf(": write %s%s", match[1], unit)
}

// attackTag matches what may stand behind "attack." in a tag: a technique, group, program, mitigation or campaign.
var attackTag = regexp.MustCompile(`^(t[0-9]{4}(\.[0-9]{3})?|[gsmc][0-9]{4})$`)

// attackTactics are the tactics of MITRE ATT&CK, as tags name them.
var attackTactics = []string{
	"reconnaissance", "resource_development", "initial_access", "execution", "persistence", "privilege_escalation", "defense_evasion", "stealth", "impair_defenses",
	"credential_access", "discovery", "lateral_movement", "collection", "command_and_control", "exfiltration", "impact",
	"evasion", "inhibit_response_function", "impair_process_control",
}

// wrongTag returns what is wrong with a tag of ATT&CK, "" if nothing is.
func wrongTag(tag string) string {
	prefix, rest, _ := strings.Cut(tag, ".")
	if !strings.EqualFold(prefix, "attack") {
		return ""
	}
	lower := strings.ToLower(rest)
	switch {
	case attackTag.MatchString(lower), slices.Contains(attackTactics, strings.ReplaceAll(lower, "-", "_")):
		if tag != strings.ToLower(tag) {
			return fmt.Sprintf("the tag %s is written in lower case: %s", quoteShort(tag), strings.ToLower(tag))
		}
		return ""
	}
	return fmt.Sprintf("the tag %s is neither a technique (attack.t1059.004) nor a tactic of ATT&CK (attack.initial_access)", quoteShort(tag))
}
