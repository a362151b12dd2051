package dns

import (
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"

	"tidegate/protocols"
)

// appendData appends the data of r to the text in the form of a zone file. Malformed data, and the data of an
// unknown type, is written as \# length hex.
func (m *message) appendData(r record) {
	from := len(m.text)
	// The data must be well formed and read to its end; otherwise its text is replaced by hex.
	body := data{b: m.data, off: r.data, end: r.end, text: m.text}
	if known := body.write(r.typ); !known || body.bad || body.off != body.end {
		body.text = append(body.text[:from], `\# `...)
		body.text = strconv.AppendInt(body.text, int64(r.end-r.data), 10)
		if raw := m.data[r.data:r.end]; len(raw) > 0 {
			body.text = append(body.text, ' ')
			body.text = hex.AppendEncode(body.text, raw[:min(len(raw), maxData/2)])
		}
	}
	if length := len(body.text); length > from && body.text[length-1] == ' ' {
		body.text = body.text[:length-1] // every field writes a space after itself
	}
	m.text = body.text
	if len(body.text)-from > maxData || r.end-r.data > maxData {
		m.cut = true
		text, _ := protocols.CutMiddle(nil, body.text[from:], maxData)
		m.text = append(body.text[:from], text...)
	}
}

// data reads the data of a record and writes it as text. bad is set when the data ends early or has a
// malformed name. After that every read returns zero or nil.
type data struct {
	b        []byte
	off, end int
	text     []byte
	bad      bool
}

// write writes the data of a record of type typ. It reports whether typ is known.
func (d *data) write(typ uint16) bool {
	switch typ {
	case typeA:
		d.addr(4)
	case typeAAAA:
		d.addr(16)
	case 2, 3, 4, 5, 7, 8, 9, 12, 39: // NS MD MF CNAME MB MG MR PTR DNAME
		d.name()
	case typeSOA:
		d.name().name().u32().u32().u32().u32().u32()
	case 14, 17: // MINFO RP
		d.name().name()
	case 15, 18, 21, 36: // MX AFSDB RT KX
		d.u16().name()
	case 13, 16, 19, 20, 56, 99, 258, 261, 262: // HINFO TXT X25 ISDN NINFO SPF AVC RESINFO WALLET
		d.strings()
	case 33: // SRV
		d.u16().u16().u16().name()
	case 35: // NAPTR
		d.u16().u16().str().str().str().name()
	case 257: // CAA
		d.u8().tag().quoted(d.rest())
	case 256: // URI
		d.u16().u16().quoted(d.rest())
	case 64, 65: // SVCB HTTPS
		d.u16().name().params()
	case 43, 59, 32768, 32769: // DS CDS TA DLV
		d.u16().u8().u8().hex()
	case 44: // SSHFP
		d.u8().u8().hex()
	case 52, 53: // TLSA SMIMEA
		d.u8().u8().u8().hex()
	case 48, 60, 25: // DNSKEY CDNSKEY KEY
		d.u16().u8().u8().base64()
	case 37: // CERT
		d.u16().u16().u8().base64()
	case 49, 61: // DHCID OPENPGPKEY
		d.base64()
	case 63: // ZONEMD
		d.u32().u8().u8().hex()
	case 46, 24: // RRSIG SIG
		d.typ().u8().u8().u32().instant().instant().u16().name().base64()
	case 47: // NSEC
		d.name().types()
	case 50: // NSEC3
		d.u8().u8().u16().salt().hash().types()
	case 51: // NSEC3PARAM
		d.u8().u8().u16().salt()
	case 62: // CSYNC
		d.u32().u16().types()
	default:
		return false
	}
	return true
}

// take returns the next size bytes. If there are fewer, it returns nil and sets bad.
func (d *data) take(size int) []byte {
	if size > d.end-d.off {
		d.bad, d.off = true, d.end
		return nil
	}
	d.off += size
	return d.b[d.off-size : d.off]
}

func (d *data) rest() []byte { return d.take(d.end - d.off) }

// uint and the methods below write one field each, followed by a space. They return d, so that calls chain.
func (d *data) uint(v uint64) *data {
	d.text = strconv.AppendUint(d.text, v, 10)
	d.text = append(d.text, ' ')
	return d
}

func (d *data) u8() *data {
	if raw := d.take(1); raw != nil {
		d.uint(uint64(raw[0]))
	}
	return d
}

func (d *data) u16() *data {
	if raw := d.take(2); raw != nil {
		d.uint(uint64(binary.BigEndian.Uint16(raw)))
	}
	return d
}

func (d *data) u32() *data {
	if raw := d.take(4); raw != nil {
		d.uint(uint64(binary.BigEndian.Uint32(raw)))
	}
	return d
}

func (d *data) addr(size int) {
	if addr, ok := netip.AddrFromSlice(d.take(size)); ok {
		d.text = addr.AppendTo(d.text)
	}
}

// name writes a name; the root is ".".
func (d *data) name() *data {
	text, off, err := appendName(d.text, d.b[:d.end], d.off)
	if err != nil {
		d.bad, d.off = true, d.end
		return d
	}
	d.text, d.off = append(text, ' '), off
	return d
}

// typ writes a record type.
func (d *data) typ() *data {
	if raw := d.take(2); raw != nil {
		d.text = append(append(d.text, typeName(binary.BigEndian.Uint16(raw))...), ' ')
	}
	return d
}

// str writes one character-string: a byte of length, then as many bytes.
func (d *data) str() *data {
	if raw := d.take(1); raw != nil {
		d.quoted(d.take(int(raw[0])))
	}
	return d
}

// strings writes the character strings up to the end of the data, as TXT has them.
func (d *data) strings() {
	for d.off < d.end && len(d.text) < maxText+maxData {
		d.str()
	}
	d.off = d.end
}

// tag writes the property tag of a CAA record.
func (d *data) tag() *data {
	if raw := d.take(1); raw != nil {
		tag := d.take(int(raw[0]))
		for _, c := range tag {
			if c <= ' ' || c > '~' {
				d.bad = true
			}
		}
		d.text = append(append(d.text, tag...), ' ')
	}
	return d
}

// quoted writes text in double quotes.
func (d *data) quoted(text []byte) {
	d.text = append(d.text, '"')
	d.text = appendQuoted(d.text, text)
	d.text = append(d.text, '"', ' ')
}

// appendQuoted appends data to dst, escaped as between double quotes. Printable UTF-8 is not escaped, since
// it is common in TXT records.
func appendQuoted(dst, data []byte) []byte {
	for i := 0; i < len(data); {
		c := data[i]
		if c >= utf8.RuneSelf {
			if r, size := utf8.DecodeRune(data[i:]); r != utf8.RuneError && r >= 0xa0 {
				dst = append(dst, data[i:i+size]...)
				i += size
				continue
			}
		}
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ' || c > '~':
			dst = appendOctet(dst, c)
		default:
			dst = append(dst, c)
		}
		i++
	}
	return dst
}

func (d *data) hex() {
	raw := d.rest()
	d.text = hex.AppendEncode(d.text, raw[:min(len(raw), maxData)])
}

func (d *data) base64() {
	raw := d.rest()
	d.text = base64.StdEncoding.AppendEncode(d.text, raw[:min(len(raw), maxData)])
}

// instant writes the time of a signature.
func (d *data) instant() *data {
	if raw := d.take(4); raw != nil {
		d.text = time.Unix(int64(binary.BigEndian.Uint32(raw)), 0).UTC().AppendFormat(d.text, "20060102150405")
		d.text = append(d.text, ' ')
	}
	return d
}

// salt writes the salt of an NSEC3 record in hex, or "-" if it is empty.
func (d *data) salt() *data {
	if raw := d.take(1); raw != nil {
		if raw[0] == 0 {
			d.text = append(d.text, '-')
		}
		d.text = append(hex.AppendEncode(d.text, d.take(int(raw[0]))), ' ')
	}
	return d
}

// hash writes the next hashed owner name of an NSEC3 record, in the base32 of RFC 5155.
func (d *data) hash() *data {
	if raw := d.take(1); raw != nil {
		d.text = append(base32.HexEncoding.WithPadding(base32.NoPadding).AppendEncode(d.text, d.take(int(raw[0]))), ' ')
	}
	return d
}

// types writes the bit maps of record types, RFC 4034 section 4.1.2.
func (d *data) types() {
	for d.off < d.end {
		// A window: the upper byte of its types, then a bit map of up to 32 bytes.
		header := d.take(2)
		if header == nil || header[1] == 0 || header[1] > 32 {
			d.bad = true
			return
		}
		for i, bits := range d.take(int(header[1])) {
			for bit := range 8 {
				if bits&(0x80>>bit) != 0 && len(d.text) < maxText+maxData {
					d.text = append(append(d.text, typeName(uint16(header[0])<<8|uint16(i*8+bit))...), ' ')
				}
			}
		}
	}
}

// svcKeys are the names of service parameters, RFC 9460 section 14.3.2 and later.
var svcKeys = [...]string{
	"mandatory", "alpn", "no-default-alpn", "port", "ipv4hint", "ech", "ipv6hint", "dohpath", "ohttp",
}

// appendKey appends the name of the service parameter k, or key and its number.
func appendKey(dst []byte, k uint16) []byte {
	if int(k) < len(svcKeys) {
		return append(dst, svcKeys[k]...)
	}
	return strconv.AppendUint(append(dst, "key"...), uint64(k), 10)
}

// params writes the service parameters of SVCB and HTTPS.
func (d *data) params() {
	for d.off < d.end && len(d.text) < maxText+maxData {
		// Each parameter is a key, a length and a value.
		header := d.take(4)
		if header == nil {
			return
		}
		value := data{b: d.b, off: d.off, end: d.off + int(binary.BigEndian.Uint16(header[2:]))}
		if d.take(value.end-value.off) == nil && value.end != value.off {
			return
		}

		// The value is read by a data of its own, bounded by the length, that takes over the text meanwhile.
		key := binary.BigEndian.Uint16(header)
		d.text = appendKey(d.text, key)
		if value.end > value.off {
			value.text = append(d.text, '=')
			value.param(key)
			d.text, d.bad = value.text, d.bad || value.bad
		}
		d.text = append(d.text, ' ')
	}
}

// param writes the value of the service parameter key.
func (d *data) param(key uint16) {
	// each calls one for every n bytes of the value, with a comma between them.
	each := func(n int, one func(raw []byte)) {
		for i := 0; d.off < d.end && !d.bad; i++ {
			if i > 0 {
				d.text = append(d.text, ',')
			}
			if raw := d.take(n); raw != nil {
				one(raw)
			}
		}
	}
	ip := func(raw []byte) {
		if addr, ok := netip.AddrFromSlice(raw); ok {
			d.text = addr.AppendTo(d.text)
		}
	}
	switch key { // the indexes of svcKeys
	case 0:
		each(2, func(raw []byte) { d.text = appendKey(d.text, binary.BigEndian.Uint16(raw)) })
	case 1:
		d.text = append(d.text, '"')
		each(1, func(raw []byte) { d.text = appendQuoted(d.text, d.take(int(raw[0]))) })
		d.text = append(d.text, '"')
	case 3:
		each(2, func(raw []byte) { d.text = strconv.AppendUint(d.text, uint64(binary.BigEndian.Uint16(raw)), 10) })
	case 4:
		each(4, ip)
	case 5:
		d.base64()
	case 6:
		each(16, ip)
	default:
		d.text = append(d.text, '"')
		d.text = append(appendQuoted(d.text, d.rest()), '"')
	}
}
