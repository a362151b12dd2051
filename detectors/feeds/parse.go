package feeds

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// A feedParser adds the indicators of the files of a feed to a list: those of lines here, of rows of CSV in columns.go, of
// objects of JSON in json.go and stix.go. A line has one of three forms:
//
//   - one indicator, with a comment behind # or not
//   - indicator, confidence and note, separated by commas, semicolons or tabs; a semicolon and no number begin a note
//   - as in a hosts file, an unspecified or loopback address and the names that it blocks
//
// An indicator may be quoted. A port, a leading dot or *., the marks of an ad blocker (||name^) and brackets
// around dots, which keep people from following a link, are removed.
type feedParser struct {
	list       *list
	confidence uint8 // of lines without a confidence
	allowLocal bool
	room       int // maximum number of indicators

	path   string   // the file that is read
	source string   // of records that name none
	header []column // of CSV, once a line has named them

	identities map[string]string // names of the sources of a STIX bundle, by id
	rows       bool              // a line with indicators was read: none names columns from then on

	domain [maxDomain]byte   // the domain that is added, normalized
	key    [maxText + 1]byte // of an indicator of another kind
}

const (
	maxDomain        = 253
	maxUnicodeDomain = 4 * maxDomain // before the conversion to punycode
)

// parse adds the indicators of a line. It skips an invalid line.
func (p *feedParser) parse(line []byte, number int) {
	line = bytes.TrimSpace(line)
	if len(line) > 0 && !p.rows {
		if columns := header(line); columns != nil {
			p.header, p.rows = columns, line[0] != '#'
			return
		}
	}
	if len(line) == 0 || line[0] == '#' || line[0] == ';' || line[0] == '!' {
		return
	}
	if first := !p.rows; first && p.header != nil {
		// A comment has named columns, or is a sentence with commas: the first line decides.
		if fields, ok := splitCSV(line); !ok || len(fields) != len(p.header) {
			p.header = nil
		}
	}
	p.rows = true
	if p.header != nil {
		p.parseRow(line, number)
		return
	}
	if hasScheme(unquoteStart(line)) {
		p.parseURLLine(line, number)
		return
	}
	if names, ok := namesOfHostsLine(line); ok {
		for name := range bytes.FieldsSeq(names) {
			p.addOrSkip(name, "", noConfidence, number)
		}
		return
	}

	// The first separator of the line is that of its fields. A comment ends a line of one indicator.
	separator := bytes.IndexAny(line, ",;\t")
	if comment := bytes.IndexByte(line, '#'); comment > 0 && (separator < 0 || comment < separator) {
		line, separator = bytes.TrimSpace(line[:comment]), -1
	}
	if separator < 0 {
		if bytes.ContainsAny(line, " ") {
			p.skip(number, fmt.Errorf(
				"%q is neither one indicator, nor a line of a hosts file, nor CSV", shorten(line)))
			return
		}
		p.addOrSkip(line, "", noConfidence, number)
		return
	}

	text := line[:separator]
	score, note, _ := bytes.Cut(line[separator+1:], line[separator:separator+1])
	confidence, err := parseConfidence(unquote(score))
	if err != nil && line[separator] == ';' {
		note, confidence, err = line[separator+1:], noConfidence, nil // as in Spamhaus' DROP
	}
	if err != nil {
		p.skip(number, err)
		return
	}
	p.addOrSkip(text, truncate(unquote(note), maxNote), confidence, number)
}

// unquoteStart returns a line without the quote that begins it.
func unquoteStart(line []byte) []byte { return bytes.TrimLeft(line, `"' `) }

// parseURLLine adds the URL of a line. Of the characters that separate fields, a URL may have all but white space: a comma
// separates it from a confidence, and # behind white space begins a comment.
func (p *feedParser) parseURLLine(line []byte, number int) {
	text, rest, _ := bytes.Cut(line, []byte("\t"))
	if at := bytes.Index(text, []byte(" #")); at >= 0 {
		text, rest = text[:at], nil
	}
	if url, fields, ok := bytes.Cut(text, []byte(",")); ok && len(rest) == 0 {
		score, _, _ := bytes.Cut(fields, []byte(","))
		if _, err := parseConfidence(unquote(score)); err == nil {
			text, rest = url, fields
		}
	}
	separator := []byte(",")
	if bytes.HasPrefix(rest, []byte("\t")) || bytes.IndexByte(line, '\t') >= 0 {
		separator = []byte("\t")
	}
	score, note, _ := bytes.Cut(rest, separator)
	confidence, err := parseConfidence(unquote(score))
	if err != nil {
		p.skip(number, err)
		return
	}
	if bytes.ContainsAny(unquote(text), " ") {
		p.skip(number, fmt.Errorf("%q is not one URL", shorten(text)))
		return
	}
	about := detail{confidence: p.confidence, source: p.source, note: truncate(unquote(note), maxNote)}
	if confidence != noConfidence {
		about.confidence = confidence
	}
	p.addOrSkipKind(kindURL, text, about, number)
}

// namesOfHostsLine returns the names of a line of a hosts file without its comment. ok is false if the line does
// not begin with an unspecified or loopback address and a name.
func namesOfHostsLine(line []byte) (names []byte, ok bool) {
	if line[0] != '0' && line[0] != '1' && line[0] != ':' {
		return nil, false
	}
	end := bytes.IndexAny(line, " \t")
	if end < 0 {
		return nil, false
	}
	addr, err := netip.ParseAddr(unsafeText(line[:end]))
	if err != nil || !addr.IsUnspecified() && !addr.IsLoopback() {
		return nil, false
	}
	names, _, _ = bytes.Cut(line[end:], []byte("#"))
	return names, len(bytes.TrimSpace(names)) > 0
}

// unsafeText returns the text of b without a copy. It is valid while b does not change.
func unsafeText(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// parseConfidence returns a confidence, which may be a fraction and may end with a percent sign.
func parseConfidence(text []byte) (uint8, error) {
	if len(text) == 0 {
		return noConfidence, nil
	}
	value, err := strconv.ParseFloat(string(bytes.TrimSuffix(text, []byte("%"))), 64)
	if err != nil || !(value >= 0 && value <= 100) {
		return 0, skipf("confidence", "confidence %q is not a number from 0 to 100", shorten(text))
	}
	return uint8(math.Round(value)), nil
}

// unquote removes white space and quotes around text.
func unquote(text []byte) []byte {
	text = bytes.TrimSpace(text)
	for _, quote := range []byte{'"', '\''} {
		if n := len(text); n > 1 && text[0] == quote && text[n-1] == quote {
			return bytes.TrimSpace(text[1 : n-1])
		}
	}
	return bytes.Trim(text, `"`)
}

// shorten cuts a text that an error quotes.
func shorten[T ~string | ~[]byte](text T) string { return truncate(text, 80) }

// shortNote returns a text of a feed as it is kept: source, tags or note.
func shortNote(text string) string { return truncate(strings.TrimSpace(text), maxNote) }

// truncate returns at most size bytes of text, and an ellipsis if it cut something.
func truncate[T ~string | ~[]byte](text T, size int) string {
	if len(text) > size {
		return strings.ToValidUTF8(string(text[:size]), "") + "…"
	}
	return string(text)
}

// errNotIndicator is wrapped in the error of a text that is no indicator at all.
var errNotIndicator = errors.New("is not a network, an address or a domain")

// addOrSkip adds the indicator of a line that states no kind. It skips one that is invalid or would match ordinary traffic.
func (p *feedParser) addOrSkip(text []byte, note string, confidence uint8, number int) {
	if confidence == noConfidence {
		confidence = p.confidence
	}
	p.addOrSkipKind(kindAny, text, detail{confidence: confidence, source: p.source, note: note}, number)
}

// addOrSkipKind is addOrSkip for an indicator of a kind.
func (p *feedParser) addOrSkipKind(kind kind, text []byte, about detail, number int) {
	if p.list.index.count >= p.room {
		p.skip(number, skipf("too many indicators", "more than %d indicators", maxIndicators))
		return
	}
	if err := p.addKind(kind, text, about); err != nil {
		p.skip(number, err)
	}
}

// skip counts a line or a record that is left out.
func (p *feedParser) skip(number int, err error) {
	p.list.skip(cmp.Or(p.path, p.list.config.Path), number, err)
}

// cleanIndicator removes what stands around an indicator.
func cleanIndicator(text []byte) []byte {
	text = unquote(text)
	text = cleanDots(text)
	text = bytes.TrimSuffix(bytes.TrimPrefix(text, []byte("||")), []byte("^"))

	// A port follows an IPv6 address in brackets, or anything else with one colon.
	if end := bytes.IndexByte(text, ']'); end > 0 && text[0] == '[' && (end == len(text)-1 || isPort(text[end+1:])) {
		return text[1:end]
	}
	if colon := bytes.IndexByte(text, ':'); colon > 0 && isPort(text[colon:]) {
		return text[:colon]
	}
	return text
}

// cleanDots removes the brackets around dots and colons that keep people from following a link.
func cleanDots(text []byte) []byte {
	if bytes.ContainsAny(text, "[({") {
		for _, bracketed := range []string{"[.]", "(.)", "{.}", "[dot]"} {
			text = bytes.ReplaceAll(text, []byte(bracketed), []byte("."))
		}
		text = bytes.ReplaceAll(text, []byte("[:]"), []byte(":"))
	}
	return text
}

// isPort reports whether text is a colon and a number.
func isPort(text []byte) bool {
	if len(text) < 2 || len(text) > 6 || text[0] != ':' {
		return false
	}
	for _, char := range text[1:] {
		if char < '0' || char > '9' {
			return false
		}
	}
	return true
}

// add adds an address, a network or a domain. It returns an error if the text is none of these, or would match
// ordinary traffic.
func (p *feedParser) add(text []byte, about detail) error {
	// The last label of a domain is no number, so these are the only texts that can be an address.
	if n := len(text); n > 0 && (text[n-1] >= '0' && text[n-1] <= '9' || bytes.IndexByte(text, ':') >= 0) {
		if addr, err := netip.ParseAddr(unsafeText(text)); err == nil {
			addr = addr.Unmap().WithZone("")
			return p.addNetwork(netip.PrefixFrom(addr, addr.BitLen()), about)
		}
	}
	if bytes.IndexByte(text, '/') >= 0 {
		prefix, err := netip.ParsePrefix(unsafeText(text))
		if err != nil {
			return fmt.Errorf("%q %w", shorten(text), errNotIndicator)
		}
		if prefix.Addr().Is4In6() {
			return fmt.Errorf("network %q: write IPv4 as IPv4", shorten(text))
		}
		return p.addNetwork(prefix.Masked(), about)
	}

	name, err := p.normalizeDomain(text)
	if err != nil {
		return err
	}
	p.list.add(name, about)
	return nil
}

// notForeign are the networks of the own host, of its neighbours, of private networks, and of no host at all.
var notForeign = []struct {
	netip.Prefix
	meaning string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared by customers of a provider"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
	{netip.MustParsePrefix("::/127"), "loopback or unspecified"},
	{netip.MustParsePrefix("fc00::/7"), "private"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// addNetwork adds a network or an address. It rejects networks so wide that they match ordinary traffic, and
// addresses that are not those of foreign hosts: they name other hosts in each network.
func (p *feedParser) addNetwork(prefix netip.Prefix, about detail) error {
	if err := p.checkNetwork(prefix); err != nil {
		return err
	}
	var key [networkKeySize]byte
	p.list.add(networkKey(&key, prefix.Addr(), prefix.Bits()), about)
	if prefix.IsSingleIP() {
		return nil
	}
	if prefix.Addr().Is4() {
		p.list.prefixLengths4[prefix.Bits()] = true
	} else {
		p.list.prefixLengths6[prefix.Bits()] = true
	}
	return nil
}

// checkNetwork returns why a network or an address is none of foreign hosts, or is too wide.
func (p *feedParser) checkNetwork(prefix netip.Prefix) error {
	shortest := 16
	if prefix.Addr().Is4() {
		shortest = 8
	}
	if prefix.Bits() < shortest {
		return skipf("network too wide", "network %s is too wide: at least /%d", prefix, shortest)
	}
	for _, near := range notForeign {
		if !near.Overlaps(prefix) || p.allowLocal && (near.meaning == "private" || strings.HasPrefix(near.meaning, "shared")) {
			continue
		}
		if prefix.IsSingleIP() {
			return skipf("special-use address", "address %s is not that of one host outside: %s", prefix.Addr(), near.meaning)
		}
		return skipf("special-use address", "network %s is not one outside: %s is %s", prefix, near.Prefix, near.meaning)
	}
	return nil
}

// profile converts names in Unicode to punycode as browsers do, and leaves odd ASCII characters alone.
var profile = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false))

func punycode(name string) (string, error) { return profile.ToASCII(name) }

// normalizeDomain returns a domain as checkDomain compares it: in lower case, in ASCII, without a dot at either
// end. It rejects names that would match ordinary traffic: public suffixes, which would match all domains below
// them, and the names of private networks. The result is valid until the next call.
func (p *feedParser) normalizeDomain(text []byte) ([]byte, error) {
	// A leading *. or dot is dropped, since every domain matches its sub-domains.
	name := bytes.TrimSuffix(text, []byte("."))
	name = bytes.TrimPrefix(bytes.TrimPrefix(name, []byte("*")), []byte("."))
	if !isASCII(unsafeText(name)) {
		if len(name) > maxUnicodeDomain { // the time that punycode takes is not linear
			return nil, fmt.Errorf("%q %w", shorten(text), errNotIndicator)
		}
		ascii, err := punycode(string(name))
		if err != nil {
			return nil, fmt.Errorf("%q is not a domain: %w", shorten(text), err)
		}
		name = []byte(ascii)
	}
	if len(name) > maxDomain || bytes.IndexByte(name, '.') < 0 {
		return nil, fmt.Errorf("%q %w", shorten(text), errNotIndicator)
	}

	// Fold the case, and check each label. Host names have no underscores, but DNS names do.
	out := p.domain[:len(name)]
	label := 0 // length of the label so far
	for i, char := range name {
		if 'A' <= char && char <= 'Z' {
			char += 'a' - 'A'
		}
		out[i] = char
		switch {
		case char == '.' && label > 0:
			label = 0
			continue
		case label < 63 && (char == '-' || char == '_' || '0' <= char && char <= '9' || 'a' <= char && char <= 'z'):
			label++
			continue
		}
		return nil, fmt.Errorf("%q is not a domain: a label is empty, too long, or has a character %q", shorten(text), char)
	}
	if label == 0 {
		return nil, fmt.Errorf("%q is not a domain: its last label is empty", shorten(text))
	}
	if err := checkDomainScope(unsafeText(out)); err != nil {
		return nil, err
	}
	return out, nil
}

// localDomains are top-level domains of private networks: special-use domains (RFC 6761, 6762, 8375, 9476, ICANN's
// .internal), the zone of the infrastructure of DNS, with names that every host looks up (RFC 7050, 9462), those
// that RFC 6762, appendix G, lists as in use, that ICANN delegates to nobody, and that clusters of containers use.
var localDomains = map[string]bool{
	"localhost": true, "local": true, "internal": true, "arpa": true, "alt": true,
	"intranet": true, "private": true, "corp": true, "home": true, "mail": true, "lan": true,
	"localdomain": true, "localdomain4": true, "localdomain6": true, "svc": true, "consul": true,
}

func checkDomainScope(name string) error {
	top := name[strings.LastIndexByte(name, '.')+1:]
	if localDomains[top] {
		return skipf("special-use name", "%q is a name of private networks: %s", name, top)
	}
	if !isTopLevel(top) {
		return fmt.Errorf("%q is not a domain: its last label is not that of a top-level domain, nor is it an address",
			name)
	}

	// A private suffix, such as that of a hosting service, may be listed; one of ICANN's may not.
	if suffix, icann := publicsuffix.PublicSuffix(name); icann && suffix == name {
		return skipf("public suffix", "%q is a public suffix: it would cover every domain below it", name)
	}
	return nil
}

// isTopLevel reports whether a label may be that of a top-level domain: two letters or more, or punycode. What ends
// with another one is an address that is written wrong, or a part of one: 192.0.2.1-5, 0xcb.0.0x71.9, 192.0.2.x.
func isTopLevel(label string) bool {
	if len(label) < 2 {
		return false
	}
	punycode := strings.HasPrefix(label, "xn--")
	for i := range len(label) {
		letter := 'a' <= label[i] && label[i] <= 'z'
		digit := '0' <= label[i] && label[i] <= '9' || label[i] == '-'
		if !letter && !(punycode && digit) {
			return false
		}
	}
	return true
}
