package tls

import (
	"crypto/x509/pkix"
	"encoding/asn1"
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

// An x509Certificate holds what is read of an X.509 certificate (RFC 5280 section 4.1). crypto/x509 is not used for it: it
// refuses certificates that a server may send and a client accept, such as those with a negative serial number, keys
// on other curves or a malformed alternative name.
type x509Certificate struct {
	subject, issuer string    // as pkix.Name writes them
	notAfter        time.Time // zero: not readable
	dnsNames        []string  // bytes as they were sent
	addresses       []netip.Addr
}

// readCertificate reads a certificate as far as it goes. whole is false if a part of it could not be read; the parts
// before it are returned.
func readCertificate(der []byte) (read x509Certificate, whole bool) {
	outer, ok := nextElement(&der, asn1.TagSequence)
	if !ok {
		return read, false
	}
	body, ok := nextElement(&outer, asn1.TagSequence)
	if !ok {
		return read, false
	}

	// TBSCertificate: version [0] OPTIONAL, serialNumber, signature, issuer, validity, subject,
	// subjectPublicKeyInfo, issuerUniqueID [1] OPTIONAL, subjectUniqueID [2] OPTIONAL, extensions [3] OPTIONAL.
	optional := body
	if version, ok := nextRaw(&optional); ok && version.Class == asn1.ClassContextSpecific && version.Tag == 0 {
		body = optional
	}
	if _, ok = nextElement(&body, asn1.TagInteger); !ok {
		return read, false
	}
	if _, ok = nextElement(&body, asn1.TagSequence); !ok {
		return read, false
	}
	var issuerOK, subjectOK, extensionsOK bool
	if read.issuer, issuerOK = readName(&body); !issuerOK {
		return read, false
	}
	validity, ok := nextElement(&body, asn1.TagSequence)
	if !ok {
		return read, false
	}
	_, _ = nextRaw(&validity) // notBefore
	notAfter, timeOK := nextRaw(&validity)
	if timeOK {
		read.notAfter, timeOK = readTime(notAfter)
	}
	if read.subject, subjectOK = readName(&body); !subjectOK {
		return read, false
	}
	if _, ok = nextElement(&body, asn1.TagSequence); !ok {
		return read, false
	}
	extensionsOK = read.readExtensions(body)
	return read, timeOK && extensionsOK
}

// readExtensions reads the alternative names from what follows the public key.
func (c *x509Certificate) readExtensions(body []byte) bool {
	for len(body) > 0 {
		element, ok := nextRaw(&body)
		if !ok {
			return false
		}
		if element.Class != asn1.ClassContextSpecific || element.Tag != 3 {
			continue
		}
		list, ok := nextElement(&element.Bytes, asn1.TagSequence)
		if !ok {
			return false
		}
		for len(list) > 0 {
			extension, ok := nextElement(&list, asn1.TagSequence)
			if !ok {
				return false
			}
			if !c.readExtension(extension) {
				return false
			}
		}
	}
	return true
}

// readExtension reads an extension if it is subjectAltName (RFC 5280 section 4.2.1.6).
func (c *x509Certificate) readExtension(extension []byte) bool {
	id, ok := nextElement(&extension, asn1.TagOID)
	if !ok {
		return false
	}
	const subjectAltName = "\x55\x1d\x11" // 2.5.29.17
	if string(id) != subjectAltName {
		return true
	}
	value, ok := nextRaw(&extension)
	if ok && value.Tag == asn1.TagBoolean { // critical
		value, ok = nextRaw(&extension)
	}
	if !ok || value.Tag != asn1.TagOctetString {
		return false
	}
	names, ok := nextElement(&value.Bytes, asn1.TagSequence)
	if !ok {
		return false
	}
	for len(names) > 0 {
		name, ok := nextRaw(&names)
		if !ok {
			return false
		}
		const dnsName, ipAddress = 2, 7
		switch {
		case name.Class != asn1.ClassContextSpecific || name.IsCompound:
		case name.Tag == dnsName && len(c.dnsNames) < maxNames:
			c.dnsNames = append(c.dnsNames, string(name.Bytes))
		case name.Tag == ipAddress && len(c.addresses) < maxNames:
			if address, ok := netip.AddrFromSlice(name.Bytes); ok {
				c.addresses = append(c.addresses, address)
			}
		}
	}
	return true
}

// readName reads a distinguished name (RFC 5280 section 4.1.2.4). An attribute whose text is of no known type is left
// out.
func readName(data *[]byte) (string, bool) {
	sets, ok := nextElement(data, asn1.TagSequence)
	if !ok {
		return "", false
	}
	var sequence pkix.RDNSequence
	for attributes := 0; len(sets) > 0 && attributes < maxAttributes; {
		set, ok := nextElement(&sets, asn1.TagSet)
		if !ok {
			return "", false
		}
		var relative pkix.RelativeDistinguishedNameSET
		for ; len(set) > 0 && attributes < maxAttributes; attributes++ {
			pair, ok := nextElement(&set, asn1.TagSequence)
			if !ok {
				return "", false
			}
			var attribute pkix.AttributeTypeAndValue
			value, err := asn1.Unmarshal(pair, &attribute.Type)
			if err != nil {
				return "", false
			}
			text, ok := nextRaw(&value)
			if !ok {
				return "", false
			}
			if decoded, ok := readString(text); ok {
				attribute.Value = decoded
				relative = append(relative, attribute)
			}
		}
		sequence = append(sequence, relative)
	}
	var name pkix.Name
	name.FillFromRDNSequence(&sequence)
	return name.String(), true
}

// readString decodes a string. The bytes of most types are taken as UTF-8, whether they are or not; those of
// T61String are Latin-1 in practice.
func readString(value asn1.RawValue) (string, bool) {
	switch value.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagNumericString,
		asn1.TagGeneralString:
		return string(value.Bytes), true
	case asn1.TagT61String:
		runes := make([]rune, len(value.Bytes))
		for i, c := range value.Bytes {
			runes[i] = rune(c)
		}
		return string(runes), true
	case asn1.TagBMPString:
		units := make([]uint16, 0, len(value.Bytes)/2)
		for i := 0; i+1 < len(value.Bytes); i += 2 {
			units = append(units, uint16(value.Bytes[i])<<8|uint16(value.Bytes[i+1]))
		}
		return string(utf16.Decode(units)), true
	}
	return "", false
}

// readTime reads UTCTime or GeneralizedTime (RFC 5280 section 4.1.2.5), also without seconds, as older ones are.
func readTime(value asn1.RawValue) (time.Time, bool) {
	var layouts []string
	switch value.Tag {
	case asn1.TagUTCTime:
		layouts = []string{"060102150405Z0700", "0601021504Z0700"}
	case asn1.TagGeneralizedTime:
		layouts = []string{"20060102150405Z0700", "200601021504Z0700"}
	}
	for _, layout := range layouts {
		if at, err := time.Parse(layout, string(value.Bytes)); err == nil {
			if value.Tag == asn1.TagUTCTime && at.Year() >= 2050 { // time.Parse pivots at 69, RFC 5280 at 50
				at = at.AddDate(-100, 0, 0)
			}
			return at, true
		}
	}
	return time.Time{}, false
}

// nextElement takes the element at the front of data, which must be of a universal type, and returns its content.
func nextElement(data *[]byte, tag int) ([]byte, bool) {
	element, ok := nextRaw(data)
	return element.Bytes, ok && element.Class == asn1.ClassUniversal && element.Tag == tag
}

// nextRaw takes the element at the front of data.
func nextRaw(data *[]byte) (element asn1.RawValue, ok bool) {
	rest, err := asn1.Unmarshal(*data, &element)
	if err != nil {
		return asn1.RawValue{}, false
	}
	*data = rest
	return element, true
}
