package tls

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"math"
	"net/netip"
	"time"
	"unicode/utf16"
)

// Bounds on the parts of a certificate that are read.
const (
	maxCertificate = 16 << 10 // bytes of a certificate; a longer one is not parsed
	maxNames       = 64       // alternative names that are kept, of each kind
	maxAttributes  = 64       // attributes of a distinguished name
)

// An x509Certificate holds what is read of an X.509 certificate (RFC 5280 section 4.1). crypto/x509 is not
// used for it: it refuses certificates that a server may send and a client accept, such as those with a
// negative serial number, keys on other curves or a malformed alternative name.
type x509Certificate struct {
	subject, issuer string    // as pkix.Name writes them
	notAfter        time.Time // zero: not readable
	dnsNames        []string  // bytes as they were sent
	addresses       []netip.Addr
}

// readCertificate reads a certificate as far as it goes: an element that cannot be read is left out, and so
// is all behind an element whose end is not known. whole is false if something was left out.
func readCertificate(der []byte) (read x509Certificate, whole bool) {
	outer, outerOK := nextTagged(&der, asn1.TagSequence)
	tbs, tbsOK := nextTagged(&outer.content, asn1.TagSequence)
	whole = outerOK && tbsOK && !outer.cut && !tbs.cut
	body := tbs.content

	// TBSCertificate: version [0] OPTIONAL, serialNumber, signature, issuer, validity, subject,
	// subjectPublicKeyInfo, issuerUniqueID [1] OPTIONAL, subjectUniqueID [2] OPTIONAL, extensions [3] OPTIONAL.
	optional := body
	if version, ok := nextElement(&optional); ok && version.class == asn1.ClassContextSpecific && version.tag == 0 {
		body = optional
	}
	var fields [6]element
	for i, tag := range [...]int{
		asn1.TagInteger, asn1.TagSequence, asn1.TagSequence, asn1.TagSequence, asn1.TagSequence, asn1.TagSequence,
	} {
		var ok bool
		if fields[i], ok = nextTagged(&body, tag); !ok || fields[i].cut {
			whole, body = false, nil
			fields[i] = element{}
			break
		}
	}
	issuer, validity, subject := fields[2], fields[3], fields[4]

	var issuerOK, subjectOK, timeOK bool
	read.issuer, issuerOK = readName(issuer.content)
	read.subject, subjectOK = readName(subject.content)
	_, _ = nextElement(&validity.content) // notBefore
	if notAfter, ok := nextElement(&validity.content); ok && !notAfter.cut {
		read.notAfter, timeOK = readTime(notAfter.tag, notAfter.content)
	}
	extensionsOK := read.readExtensions(body)
	return read, whole && issuerOK && subjectOK && timeOK && extensionsOK
}

// readExtensions reads the alternative names from what follows the public key.
func (c *x509Certificate) readExtensions(body []byte) (whole bool) {
	whole = true
	for len(body) > 0 {
		field, ok := nextElement(&body)
		if !ok {
			return false
		}
		if field.class != asn1.ClassContextSpecific || field.tag != 3 {
			continue
		}
		list, ok := nextTagged(&field.content, asn1.TagSequence)
		whole = whole && ok && !list.cut
		for len(list.content) > 0 {
			extension, ok := nextElement(&list.content)
			if !ok {
				return false
			}
			whole = c.readExtension(extension) && whole
		}
	}
	return whole
}

// readExtension reads an extension if it is subjectAltName (RFC 5280 section 4.2.1.6).
func (c *x509Certificate) readExtension(extension element) (whole bool) {
	id, ok := nextTagged(&extension.content, asn1.TagOID)
	if !ok || id.cut {
		return false
	}
	const subjectAltName = "\x55\x1d\x11" // 2.5.29.17
	if string(id.content) != subjectAltName {
		return !extension.cut
	}
	value, ok := nextElement(&extension.content)
	if ok && value.tag == asn1.TagBoolean { // critical
		value, ok = nextElement(&extension.content)
	}
	if !ok || value.tag != asn1.TagOctetString {
		return false
	}
	names, ok := nextTagged(&value.content, asn1.TagSequence)
	whole = ok && !names.cut
	for len(names.content) > 0 {
		name, ok := nextElement(&names.content)
		if !ok || name.cut {
			return false
		}
		const dnsName, ipAddress = 2, 7
		switch {
		case name.class != asn1.ClassContextSpecific || name.constructed:
		case name.tag == dnsName && len(c.dnsNames) < maxNames:
			c.dnsNames = append(c.dnsNames, string(name.content))
		case name.tag == ipAddress && len(c.addresses) < maxNames:
			if address, ok := netip.AddrFromSlice(name.content); ok {
				c.addresses = append(c.addresses, address)
			}
		}
	}
	return whole
}

// readName reads the content of a distinguished name (RFC 5280 section 4.1.2.4). It leaves out an attribute that cannot
// be read, and one whose text is of no known type.
func readName(sets []byte) (name string, whole bool) {
	whole = true
	var sequence pkix.RDNSequence
	for attributes := 0; len(sets) > 0 && attributes < maxAttributes; {
		set, ok := nextTagged(&sets, asn1.TagSet)
		whole = whole && ok && !set.cut
		if !ok {
			break
		}
		var relative pkix.RelativeDistinguishedNameSET
		for ; len(set.content) > 0 && attributes < maxAttributes; attributes++ {
			pair, ok := nextElement(&set.content)
			if !ok {
				whole = false
				break
			}
			attribute, ok := readAttribute(pair)
			if whole = whole && ok; ok {
				relative = append(relative, attribute)
			}
		}
		sequence = append(sequence, relative)
	}
	var full pkix.Name
	full.FillFromRDNSequence(&sequence)
	return full.String(), whole
}

// readAttribute reads the type and the text of an attribute of a name.
func readAttribute(pair element) (attribute pkix.AttributeTypeAndValue, ok bool) {
	before := pair.content
	id, ok := nextTagged(&pair.content, asn1.TagOID)
	if !ok || id.cut {
		return attribute, false
	}
	if _, err := asn1.Unmarshal(before[:len(before)-len(pair.content)], &attribute.Type); err != nil {
		return attribute, false
	}
	text, ok := nextElement(&pair.content)
	if !ok || text.cut {
		return attribute, false
	}
	attribute.Value, ok = readString(text.tag, text.content)
	return attribute, ok
}

// readString decodes a string. The bytes of most types are taken as UTF-8, whether they are or not; those of
// T61String are Latin-1 in practice.
func readString(tag int, data []byte) (string, bool) {
	const visibleString, universalString = 26, 28
	switch tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagNumericString,
		asn1.TagGeneralString, visibleString:
		return string(data), true
	case asn1.TagT61String:
		runes := make([]rune, len(data))
		for i, c := range data {
			runes[i] = rune(c)
		}
		return string(runes), true
	case asn1.TagBMPString:
		units := make([]uint16, 0, len(data)/2)
		for i := 0; i+1 < len(data); i += 2 {
			units = append(units, binary.BigEndian.Uint16(data[i:]))
		}
		return string(utf16.Decode(units)), true
	case universalString:
		runes := make([]rune, 0, len(data)/4)
		for i := 0; i+3 < len(data); i += 4 {
			runes = append(runes, rune(binary.BigEndian.Uint32(data[i:]))) // string replaces what is no rune
		}
		return string(runes), true
	}
	return "", false
}

// readTime reads UTCTime or GeneralizedTime (RFC 5280 section 4.1.2.5), also without seconds or zone, or with a
// fraction, as ISO 8601 and older certificates have them, and a year of four digits in UTCTime.
func readTime(tag int, data []byte) (time.Time, bool) {
	var layouts []string
	switch tag {
	case asn1.TagUTCTime:
		layouts = []string{"060102150405Z0700", "0601021504Z0700", "060102150405", "0601021504", "20060102150405Z0700"}
	case asn1.TagGeneralizedTime:
		layouts = []string{"20060102150405Z0700", "200601021504Z0700", "20060102150405", "200601021504"}
	}
	for _, layout := range layouts {
		at, err := time.Parse(layout, string(data)) // which takes a fraction behind the seconds of any layout
		if err != nil {
			continue
		}
		if layout[:2] == "06" && at.Year() >= 2050 { // time.Parse pivots at 69, RFC 5280 at 50
			at = at.AddDate(-100, 0, 0)
		}
		return at, true
	}
	return time.Time{}, false
}

// An element is one of BER (X.690 section 8.1), of which DER is a part. cut: the data ends before it does.
type element struct {
	class, tag       int
	constructed, cut bool
	content          []byte // what is there of it
}

// nextTagged takes the element at the front of data, which has to be of this universal type.
func nextTagged(data *[]byte, tag int) (next element, ok bool) {
	next, ok = nextElement(data)
	if !ok || next.class != asn1.ClassUniversal || next.tag != tag {
		return element{}, false
	}
	return next, true
}

// nextElement takes the element at the front of data. Lengths may have more bytes than they need, and may be
// indefinite, as BER allows; OpenSSL takes such certificates. ok is false if data holds no whole header, or a
// length beyond 32 bits.
func nextElement(data *[]byte) (next element, ok bool) {
	header, length, ok := readHeader(*data)
	if !ok {
		return element{}, false
	}
	first := (*data)[0]
	next = element{class: int(first >> 6), tag: int(first & 0x1f), constructed: first&0x20 != 0}
	if next.tag == 0x1f {
		next.tag = -1 // of more than one byte: none that a certificate has
	}
	rest := (*data)[header:]
	after := 0 // bytes of the mark at the end
	if length == indefinite {
		length, after = indefiniteLength(rest)
	}
	if length > len(rest) {
		next.cut, length = true, len(rest)
	}
	next.content, *data = rest[:length], rest[min(length+after, len(rest)):]
	return next, true
}

// indefinite is the length of an element that ends with two zero bytes.
const indefinite = -1

// readHeader returns the size of the header at the front of data and the length that it states.
func readHeader(data []byte) (size, length int, ok bool) {
	if len(data) < 2 {
		return 0, 0, false
	}
	size = 1
	if data[0]&0x1f == 0x1f { // the tag follows, in bytes whose last one has no bit 7
		for size < len(data) && data[size]&0x80 != 0 {
			size++
		}
		if size++; size >= len(data) {
			return 0, 0, false
		}
	}
	first := data[size]
	size++
	switch count := int(first & 0x7f); {
	case first < 0x80:
		return size, int(first), true
	case count == 0:
		return size, indefinite, data[0]&0x20 != 0
	default:
		for ; count > 0; count-- {
			if size >= len(data) || length > math.MaxInt32>>8 {
				return 0, 0, false
			}
			length = length<<8 | int(data[size])
			size++
		}
		return size, length, true
	}
}

// indefiniteLength returns the number of bytes before the two zero bytes that end an element of indefinite length, and
// the number of those bytes. Without them the length is beyond data.
func indefiniteLength(data []byte) (length, end int) {
	open := 1 // elements of indefinite length
	for length < len(data) {
		if length+1 < len(data) && data[length] == 0 && data[length+1] == 0 {
			if open--; open == 0 {
				return length, 2
			}
			length += 2
			continue
		}
		header, inner, ok := readHeader(data[length:])
		switch {
		case !ok:
			return len(data) + 1, 0
		case inner == indefinite:
			open++
			inner = 0
		}
		length += header + inner
	}
	return len(data) + 1, 0
}
