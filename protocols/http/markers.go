package http

import (
	"bytes"

	"tidegate/pipeline"
	"tidegate/pipeline/log4j"
)

// maxMarkers is the number of markers of one request that are kept.
const maxMarkers = 16

// A form is a form of attacks: texts of which an attack has one, in lower case and without percent-encoding.
type form struct {
	name  string
	texts []string
}

// forms are the values of http.request.markers behind the colon. Values of header fields are not kept, secrets in
// the target are redacted, and long targets are cut; the marker remains.
var forms = [...]form{
	{"traversal", []string{"../", `..\`, "..;/"}},
	{"system_file", []string{
		"etc/passwd", "etc/shadow", "etc/hosts", "proc/self", "win.ini", "boot.ini", "web-inf/web.xml", ".ssh/id_",
		"wp-config.php", "/root/.", "var/log/", "var/run/secrets",
	}},
	{"jndi", []string{log4j.JNDI}}, // in the text with its lookups resolved
	{"script", []string{"<script", "javascript:", "onerror=", "onload=", "<svg", "<iframe"}},
	{"sql", []string{
		"union select", "union all select", "union/**/select", "' or '", "' or 1", "\" or \"", "or 1=1", "sleep(", "benchmark(",
		"waitfor delay", "information_schema", "into outfile", "extractvalue(", "xp_cmdshell", ";select ", ";select(", "; select ",
		"(select ", "(case when", "select case when", "union distinct select", "updatexml(", "load_file(", "randomblob(",
	}},
	{"shell", []string{
		"() {", ";wget ", ";curl ", "|wget ", "|curl ", "&wget ", "&curl ", "`wget ", "`curl ", "$(wget ", "$(curl ", ";/bin/sh",
		"|/bin/sh", ";/bin/bash", "|/bin/bash", ";cat /etc/", "|cat /etc/", "$(cat /etc/", "`cat /etc/", "/dev/tcp/", "${ifs}",
		";nc -e", "|nc -e", ";busybox ", ";chmod 777",
	}},
	{"php", []string{"<?php", "php://", "phar://", "expect://"}},
}

// A formText is a text of a form without its first byte.
type formText struct {
	rest string
	bit  uint8
}

// formTexts has the texts of forms by their first bytes.
var formTexts = func() (table [256][]formText) {
	for i, form := range forms {
		for _, text := range form.texts {
			table[text[0]] = append(table[text[0]], formText{rest: text[1:], bit: 1 << i})
		}
	}
	return table
}()

// mayHoldMarker reports whether head may hold a text of forms in one of its header fields. Nearly every head has
// none of these bytes, each of which is searched for many bytes at a time.
func mayHoldMarker(head []byte) bool {
	for _, c := range [...]byte{'$', '<', '`', '\''} {
		if bytes.IndexByte(head, c) >= 0 {
			return true
		}
	}
	if bytes.Contains(head, []byte("..")) || bytes.Contains(head, []byte("()")) {
		return true
	}

	// Percent-encoded, once or twice: any of %2_, %3c, %5c, %60, %7_.
	for rest := head; ; {
		at := bytes.IndexByte(rest, '%')
		if at < 0 || at+2 >= len(rest) {
			return false
		}
		switch rest[at+1] {
		case '2', '5', '6', '7':
			return true
		case '3':
			if rest[at+2]|0x20 == 'c' {
				return true
			}
		}
		rest = rest[at+1:]
	}
}

// addMarkers adds the forms of attacks in value to the markers of event. where is "url" or the name of a header
// field.
func (p *parser) addMarkers(event *pipeline.Event, where, value []byte) {
	body := event.Http
	p.plain = append(p.plain[:0], value...)
	p.plain = unescape(unescape(p.plain))
	found := formsIn(p.plain)
	if bytes.IndexByte(p.plain, '$') >= 0 {
		size := len(p.plain)
		p.plain = log4j.Resolve(p.plain, p.plain)
		found |= formsIn(unescape(p.plain[size:]))
	}
	for i := range forms {
		if found&(1<<i) == 0 || len(body.RequestMarkers) >= maxMarkers {
			continue
		}
		p.plain = append(p.plain[:0], p.lower(capped(where, 64))...)
		p.plain = append(append(p.plain, ':'), forms[i].name...)
		body.RequestMarkers = append(body.RequestMarkers, p.conn.Intern(p.plain))
	}
}

// sqlForm is the bit of the form sql.
var sqlForm = func() uint8 {
	for i, form := range forms {
		if form.name == "sql" {
			return 1 << i
		}
	}
	panic("http: no form of SQL")
}()

// hasEqualNumbers reports whether data has a comparison of a number with itself behind a blank, a bracket or
// a quote, as in "1 where 5929=5929".
func hasEqualNumbers(data []byte) bool {
	for from := 0; ; {
		found := bytes.IndexByte(data[from:], '=')
		if found < 0 {
			return false
		}
		left, right := bytes.TrimRight(data[from:from+found], " '\""), bytes.TrimLeft(data[from+found+1:], " '\"")
		from += found + 1
		digits := 0
		for digits < len(left) && digits < 20 && isDigit(left[len(left)-1-digits]) {
			digits++
		}
		if digits == 0 || digits == len(left) || !bytes.HasPrefix(right, left[len(left)-digits:]) {
			continue
		}
		begins := bytes.IndexByte([]byte(" ('\""), left[len(left)-1-digits]) >= 0
		if ends := len(right) == digits || !isDigit(right[digits]); begins && ends {
			return true
		}
	}
}

// formsIn returns the forms with a text in data, as bits.
func formsIn(data []byte) (found uint8) {
	if hasEqualNumbers(data) {
		found |= sqlForm
	}
	for i, c := range data {
		for _, text := range formTexts[c] {
			if rest := data[i+1:]; len(rest) >= len(text.rest) && string(rest[:len(text.rest)]) == text.rest {
				found |= text.bit
			}
		}
	}
	return found
}

// unescape undoes percent-encoding in place, makes + a blank and letters lower case.
func unescape(data []byte) []byte {
	out := data[:0]
	for i := 0; i < len(data); i++ {
		c := data[i]
		switch {
		case c == '%' && i+2 < len(data):
			if value, ok := parseHex(data[i+1 : i+3]); ok {
				c = byte(value)
				i += 2
			}
		case c == '+':
			c = ' '
		}
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		out = append(out, c)
	}
	return out
}
