package tls

import (
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"unicode/utf8"
)

// The extensions that are read.
const (
	extServerName        = 0
	extGroups            = 10
	extPointFormats      = 11
	extALPN              = 16
	extPreSharedKey      = 41
	extSupportedVersions = 43
)

// Bounds of what is kept of a hello.
const (
	maxServerName = 255
	maxProtocols  = 32 // of ALPN
)

// A hello is a ClientHello or ServerHello. The slices alias the message.
type hello struct {
	legacy    uint16 // the version in its front
	version   uint16 // negotiated, or the highest that is offered
	session   []byte
	random    []byte
	cipher    uint16
	name      []byte
	alpn      []byte // the list as sent
	preShared bool
	hash      [md5.Size]byte // JA3 or JA3S
}

// A cursor reads the fields of a message. Behind its end everything is zero and bad is set.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if n > len(c.b) {
		c.b, c.bad = nil, true
		return nil
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) u8() int {
	if v := c.take(1); v != nil {
		return int(v[0])
	}
	return 0
}

func (c *cursor) u16() int {
	if v := c.take(2); v != nil {
		return int(binary.BigEndian.Uint16(v))
	}
	return 0
}

func (c *cursor) u24() int { return c.u8()<<16 | c.u16() }

// grease reports whether v is one of the values that are sent to be ignored, RFC 8701.
func grease(v int) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

// ja3 is the text that JA3 and JA3S hash: numbers, separated by - within a field and by , between fields.
type ja3 struct {
	text []byte
}

func (j *ja3) number(v int) {
	if n := len(j.text); n > 0 && j.text[n-1] != ',' {
		j.text = append(j.text, '-')
	}
	j.text = strconv.AppendInt(j.text, int64(v), 10)
}

func (j *ja3) field() { j.text = append(j.text, ',') }

// numbers16 writes a list of 16-bit numbers, without GREASE.
func (j *ja3) numbers16(b []byte) {
	for ; len(b) >= 2; b = b[2:] {
		if v := int(binary.BigEndian.Uint16(b)); !grease(v) {
			j.number(v)
		}
	}
}

// readClientHello parses the body of a ClientHello. text is a buffer for JA3. Of a hello that ends early the
// fields before its end count.
func readClientHello(b, text []byte) (hello, []byte) {
	fields := cursor{b: b}
	hello := hello{legacy: uint16(fields.u16())}
	hello.version = hello.legacy
	hello.random = fields.take(32)
	hello.session = fields.take(fields.u8())
	ciphers := fields.take(fields.u16())
	fields.take(fields.u8())
	hashed := ja3{text: text[:0]}
	hashed.number(int(hello.legacy))
	hashed.field()
	hashed.numbers16(ciphers)
	hashed.field()
	var groups, formats []byte
	hello.extensions(&fields, &hashed, func(typ int, ext cursor) {
		switch typ {
		case extServerName:
			hello.name = serverName(ext)
		case extGroups:
			groups = ext.take(ext.u16())
		case extPointFormats:
			formats = ext.take(ext.u8())
		case extALPN:
			hello.alpn = ext.take(ext.u16())
		case extSupportedVersions:
			hello.version = highest(ext.take(ext.u8()), hello.version)
		}
	})
	hashed.field()
	hashed.numbers16(groups)
	hashed.field()
	for _, f := range formats {
		hashed.number(int(f))
	}
	hello.hash = md5.Sum(hashed.text)
	return hello, hashed.text
}

// readServerHello parses the body of a ServerHello. Drafts of TLS 1.3 before the 22nd have no session and no
// compression in it.
func readServerHello(b, text []byte) (hello, []byte) {
	fields := cursor{b: b}
	hello := hello{legacy: uint16(fields.u16())}
	hello.version = hello.legacy
	hello.random = fields.take(32)
	if hello.legacy>>8 != 0x7f {
		hello.session = fields.take(fields.u8())
	}
	hello.cipher = uint16(fields.u16())
	if hello.legacy>>8 != 0x7f {
		fields.take(1)
	}
	hashed := ja3{text: text[:0]}
	hashed.number(int(hello.legacy))
	hashed.field()
	hashed.number(int(hello.cipher))
	hashed.field()
	hello.extensions(&fields, &hashed, func(typ int, ext cursor) {
		switch typ {
		case extALPN:
			hello.alpn = ext.take(ext.u16())
		case extPreSharedKey:
			hello.preShared = true
		case extSupportedVersions:
			hello.version = uint16(ext.u16())
		}
	})
	hello.hash = md5.Sum(hashed.text)
	return hello, hashed.text
}

// extensions calls f for each extension and writes its number to j.
func (h *hello) extensions(fields *cursor, hashed *ja3, f func(typ int, ext cursor)) {
	if len(fields.b) == 0 {
		return
	}
	all := cursor{b: fields.b[min(2, len(fields.b)):]}
	if n := fields.u16(); n < len(all.b) {
		all.b = all.b[:n]
	}
	for len(all.b) >= 4 {
		typ := all.u16()
		if n := all.u16(); n <= len(all.b) {
			f(typ, cursor{b: all.take(n)})
		} else {
			all.b = nil
		}
		if !grease(typ) {
			hashed.number(typ)
		}
	}
}

// serverName returns the first name of the kind host_name.
func serverName(ext cursor) []byte {
	list := cursor{b: ext.take(ext.u16())}
	for len(list.b) > 0 {
		kind := list.u8()
		if name := list.take(list.u16()); kind == 0 && len(name) <= maxServerName {
			return name
		}
	}
	return nil
}

// highest returns the highest version of a list, or v if there is none. TLS 1.3 and its drafts are above
// those before it.
func highest(list []byte, v uint16) uint16 {
	best := uint16(0)
	rank := func(v uint16) int {
		if v>>8 == 0x7f {
			return 0x0303<<8 | int(v&0xff)
		}
		return int(v) << 8
	}
	for ; len(list) >= 2; list = list[2:] {
		if o := binary.BigEndian.Uint16(list); !grease(int(o)) && (o>>8 == 3 || o>>8 == 0x7f) && rank(o) > rank(best) {
			best = o
		}
	}
	if best == 0 {
		return v
	}
	return best
}

// versionName returns the name of a version: "1.2"; "1.3" for a draft of it.
func versionName(v uint16) string {
	switch v {
	case 0x0300:
		return "SSL 3.0"
	case 0x0301:
		return "1.0"
	case 0x0302:
		return "1.1"
	case 0x0303:
		return "1.2"
	case 0x0304:
		return "1.3"
	}
	if v>>8 == 0x7f {
		return "1.3"
	}
	return "0x" + hex.EncodeToString([]byte{byte(v >> 8), byte(v)})
}

// isTLS13 reports whether everything behind the ServerHello is encrypted.
func isTLS13(v uint16) bool { return v == 0x0304 || v>>8 == 0x7f }

// protocolNames appends the names of an ALPN list.
func protocolNames(dst []string, list []byte) []string {
	for c := (cursor{b: list}); len(c.b) > 0 && len(dst) < maxProtocols; {
		name := c.take(c.u8())
		if c.bad {
			break
		}
		if n := len(name); n > 0 && !grease(n<<8|n) {
			dst = append(dst, printable(name))
		}
	}
	return dst
}

// printable returns data as text, or in hex if it is not printable, as a GREASE protocol.
func printable(data []byte) string {
	if !utf8.Valid(data) {
		return "0x" + hex.EncodeToString(data)
	}
	for _, c := range data {
		if c < ' ' || c == 0x7f {
			return "0x" + hex.EncodeToString(data)
		}
	}
	return string(data)
}
