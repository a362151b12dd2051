package feeds

import (
	"bytes"
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A column is a meaning that a named field of a record may have: a column of CSV, a key of JSON.
type column uint8

const (
	noColumn column = iota
	columnValue
	columnURL
	columnAddr
	columnHost
	columnMD5
	columnSHA1
	columnSHA256
	columnJA3
	columnJA4
	columnUserAgent
	columnType
	columnConfidence
	columnExpires
	columnTags
	columnThreat
	columnSource
	columnNote
	columnName
	columnFamily
	columnForDetection // MISP's to_ids
	columnDeleted
	columnPattern
	columnPatternType
	columnURLStatus
	columnID
	columnCreatedBy
	columns
)

// columnsByName holds the names, in lower case, with _ for what stands between words: those of URLhaus, ThreatFox, Feodo
// Tracker and SSLBL (abuse.ch), of MISP, STIX 2.1 and AlienVault OTX, and common ones.
var columnsByName = map[string]column{
	"indicator": columnValue, "ioc": columnValue, "ioc_value": columnValue, "value": columnValue, "observable": columnValue,
	"url": columnURL, "uri": columnURL,
	"ip": columnAddr, "ip_address": columnAddr, "ipaddress": columnAddr, "ipv4": columnAddr, "ipv6": columnAddr, "dst_ip": columnAddr,
	"dstip": columnAddr, "src_ip": columnAddr, "address": columnAddr, "cidr": columnAddr, "network": columnAddr, "ip_range": columnAddr,
	"range": columnAddr, "subnet": columnAddr, "prefix": columnAddr,
	"domain": columnHost, "domain_name": columnHost, "hostname": columnHost, "fqdn": columnHost, "host": columnHost,
	"md5": columnMD5, "md5_hash": columnMD5, "sha1": columnSHA1, "sha1_hash": columnSHA1, "sha256": columnSHA256, "sha256_hash": columnSHA256,
	"hash": columnSHA256, "ja3": columnJA3, "ja3_md5": columnJA3, "ja3_hash": columnJA3, "ja3s": columnJA3, "ja3_fingerprint": columnJA3,
	"ja4": columnJA4, "user_agent": columnUserAgent, "useragent": columnUserAgent,
	"type": columnType, "ioc_type": columnType, "indicator_type": columnType,
	"confidence": columnConfidence, "confidence_level": columnConfidence, "score": columnConfidence,
	"valid_until": columnExpires, "expires": columnExpires, "expires_at": columnExpires, "expiration": columnExpires, "expiry": columnExpires,
	"tags": columnTags, "tag": columnTags, "labels": columnTags, "indicator_types": columnTags,
	"threat": columnThreat, "threat_type": columnThreat, "category": columnThreat,
	"source": columnSource, "reporter": columnSource, "provider": columnSource,
	"note": columnNote, "comment": columnNote, "description": columnNote, "malware_printable": columnNote, "malware": columnFamily,
	"listingreason": columnNote, "reason": columnNote, "name": columnName,
	"to_ids": columnForDetection, "deleted": columnDeleted, "revoked": columnDeleted,
	"pattern": columnPattern, "pattern_type": columnPatternType, "url_status": columnURLStatus, "id": columnID, "created_by_ref": columnCreatedBy,
}

// columnOf returns the meaning of a name.
func columnOf(name string) column {
	if len(name) > 40 {
		return noColumn
	}
	name = strings.ToLower(strings.TrimSpace(name))
	return columnsByName[strings.NewReplacer(" ", "_", "-", "_").Replace(name)]
}

// kindsByType holds the kinds of indicators by the types that records state: those of ThreatFox, MISP and OTX.
var kindsByType = map[string]kind{
	"": kindAny, "any": kindAny, "indicator": kindAny,
	"domain": kindHost, "hostname": kindHost, "fqdn": kindHost, "host": kindHost, "domain_name": kindHost,
	"ip": kindAddr, "ip:port": kindAddr, "ipv4": kindAddr, "ipv6": kindAddr, "ip_src": kindAddr, "ip_dst": kindAddr, "cidr": kindAddr,
	"ipv4_addr": kindAddr, "ipv6_addr": kindAddr, "ip_address": kindAddr, "network": kindAddr, "address": kindAddr, "ip_range": kindAddr,
	"range": kindAddr, "ip_src|port": kindAddr, "ip_dst|port": kindAddr, "hostname|port": kindHost,
	"url": kindURL, "uri": kindURL, "link": kindURL,
	"md5": kindHash, "sha1": kindHash, "sha256": kindHash, "md5_hash": kindHash, "sha1_hash": kindHash, "sha256_hash": kindHash,
	"filehash_md5": kindHash, "filehash_sha1": kindHash, "filehash_sha256": kindHash, "hash": kindHash,
	"ja3": kindHash, "ja3_md5": kindHash, "ja3_fingerprint_md5": kindHash, "ja3s": kindHash, "ja4": kindJA4, "ja4_fingerprint": kindJA4,
	"user_agent": kindUserAgent,
}

func kindOf(name string) (kind, bool) {
	name = strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(strings.TrimSpace(name)))
	kind, ok := kindsByType[name]
	return kind, ok
}

// A record is a row of CSV or an object of JSON: the texts of its columns.
type record [columns]string

// addRecord adds the indicators of a record.
func (p *feedParser) addRecord(r *record, number int) {
	about, err := p.describe(r)
	if err != nil {
		p.skip(number, err)
		return
	}
	if isFalse(r[columnForDetection]) || isTrue(r[columnDeleted]) {
		return // context, or taken back: neither an indicator nor a mistake
	}
	add := func(kind kind, text string) {
		if text != "" {
			p.addOrSkipKind(kind, []byte(text), about, number)
		}
	}
	switch {
	case r[columnValue] != "":
		p.addTyped(r[columnType], r[columnValue], add, number)
	case r[columnURL] != "":
		add(kindURL, r[columnURL])
	case r[columnAddr] != "":
		add(kindAddr, r[columnAddr])
	case r[columnHost] != "":
		add(kindHost, r[columnHost])
	case r[columnMD5]+r[columnSHA1]+r[columnSHA256]+r[columnJA3]+r[columnJA4]+r[columnUserAgent] != "":
		for _, column := range []column{columnMD5, columnSHA1, columnSHA256, columnJA3} {
			add(kindHash, r[column])
		}
		add(kindJA4, r[columnJA4])
		add(kindUserAgent, r[columnUserAgent])
	default:
		p.skip(number, fmt.Errorf("it has no indicator"))
	}
}

// addTyped calls add for the value of a type. A type of MISP may join two values.
func (p *feedParser) addTyped(typ, value string, add func(kind, string), number int) {
	first, second, joined := strings.Cut(value, "|")
	switch strings.ToLower(typ) {
	case "domain|ip":
		if joined {
			add(kindHost, first)
			add(kindAddr, second)
			return
		}
	case "filename|md5", "filename|sha1", "filename|sha256":
		add(kindHash, second)
		return
	}
	kind, ok := kindOf(typ)
	if !ok {
		p.skip(number, skipf("type that no field has", "type %q is looked up in no field", shorten(typ)))
		return
	}
	if kind == kindAddr || kind == kindHost {
		value = first // a port may follow
	}
	add(kind, value)
}

// describe returns what a record says about its indicators.
func (p *feedParser) describe(r *record) (about detail, err error) {
	about.confidence = p.confidence
	if r[columnConfidence] != "" {
		confidence, err := parseConfidence([]byte(strings.TrimSpace(r[columnConfidence])))
		if err != nil {
			return about, err
		}
		if confidence != noConfidence {
			about.confidence = confidence
		}
	}
	if about.expires, err = parseTime(r[columnExpires]); err != nil {
		return about, err
	}
	about.source = p.source
	if r[columnSource] != "" {
		about.source = shortNote(r[columnSource])
	}
	about.tags = shortNote(joinTags(r[columnThreat], r[columnTags]))
	about.note = shortNote(cmp.Or(r[columnNote], r[columnFamily]))
	return about, nil
}

// joinTags returns the tags of both texts, which commas separate, without those that mean none.
func joinTags(texts ...string) string {
	var out []string
	for _, text := range texts {
		for tag := range strings.SplitSeq(text, ",") {
			if tag = strings.TrimSpace(tag); isTag(tag) {
				out = append(out, tag)
			}
		}
	}
	return strings.Join(out, ",")
}

// isTag reports whether a text is a tag, not one of those with which feeds say that there is none.
func isTag(text string) bool { return text != "" && text != "None" && text != "null" }

func isTrue(text string) bool  { return text == "1" || strings.EqualFold(text, "true") }
func isFalse(text string) bool { return text == "0" || strings.EqualFold(text, "false") }

// parseTime returns the Unix seconds of a time of a feed; 0: none.
func parseTime(text string) (int64, error) {
	text = strings.TrimSuffix(strings.TrimSpace(text), " UTC")
	if text == "" || text == "None" || text == "null" || text == "never" {
		return 0, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateTime, time.DateOnly, "2006-01-02T15:04:05"} {
		if at, err := time.Parse(layout, text); err == nil {
			return endOf(at.Unix()), nil
		}
	}
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil && seconds > 0 && seconds < 1<<40 {
		return endOf(seconds), nil
	}
	return 0, skipf("time", "%q is not a time, such as 2026-01-31T00:00:00Z", shorten(text))
}

// endOf returns the time of an expiry; 0 for one that is too far away to come, such as the year 9999.
func endOf(seconds int64) int64 {
	const year2200 = 7258118400
	if seconds >= year2200 {
		return 0
	}
	return max(seconds, 1)
}

// header returns the columns of a line that names them, or nil if it does not. A comment may name them, as in the exports of
// abuse.ch.
func header(line []byte) []column {
	line = bytes.TrimSpace(bytes.TrimLeft(line, "#; "))
	fields, ok := splitCSV(line)
	if !ok || len(fields) < 2 {
		return nil
	}
	var out []column
	known := 0
	for _, field := range fields {
		if strings.ContainsAny(field, ".:/") || len(field) > 40 {
			return nil
		}
		column := columnOf(field)
		if column != noColumn && column <= columnUserAgent {
			known++
		}
		out = append(out, column)
	}
	if known == 0 {
		return nil
	}
	return out
}

// maxFields bounds the fields of a line of CSV.
const maxFields = 100

// splitCSV returns the fields of a line of CSV (RFC 4180), which commas separate, or semicolons or tabs if there is no
// comma before them. White space around a field does not count. ok is false if a quote is not closed.
func splitCSV(line []byte) (fields []string, ok bool) {
	separator := byte(',')
	if at := bytes.IndexAny(line, ",;\t"); at >= 0 {
		separator = line[at]
	}
	for {
		line = bytes.TrimLeft(line, " ")
		var field []byte
		if len(line) > 0 && line[0] == '"' {
			line = line[1:]
			for {
				end := bytes.IndexByte(line, '"')
				if end < 0 {
					return fields, false
				}
				field = append(field, line[:end]...)
				line = line[end+1:]
				if len(line) == 0 || line[0] != '"' {
					break
				}
				field, line = append(field, '"'), line[1:]
			}
			if line = bytes.TrimLeft(line, " "); len(line) > 0 && line[0] != separator {
				return fields, false
			}
		} else {
			end := bytes.IndexByte(line, separator)
			if end < 0 {
				end = len(line)
			}
			field, line = line[:end], line[end:]
		}
		fields = append(fields, string(bytes.TrimSpace(field)))
		if len(line) == 0 || len(fields) == maxFields {
			return fields, len(line) == 0
		}
		line = line[1:]
	}
}

// parseRow adds the indicators of a line of CSV below a header. A line may have fewer fields than the header, and more if the
// last is a note.
func (p *feedParser) parseRow(line []byte, number int) {
	fields, closed := splitCSV(line)
	last := len(p.header) - 1
	switch {
	case closed && len(fields) > last+1 && p.header[last] == columnNote:
		fields[last] = strings.Join(fields[last:], ", ")
		fields = fields[:last+1]
	case !closed || len(fields) > last+1:
		p.skip(number, skipf("fields of CSV", "it has %d fields, and the header %d, or a quote is not closed", len(fields), len(p.header)))
		return
	}
	var r record
	for i, field := range fields {
		column := p.header[i]
		if column == columnName {
			column = columnNote
		}
		if column != noColumn && r[column] == "" {
			r[column] = field
		}
	}
	p.addRecord(&r, number)
}
