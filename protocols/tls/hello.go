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

// Bounds of the values that are kept of a hello.
const (
	maxServerName = 255 // bytes
	maxProtocols  = 32  // names in ALPN
)

// A hello is a ClientHello or ServerHello. The slices alias the message.
type hello struct {
	legacy    uint16 // the version field; TLS 1.3 sends that of 1.2 here
	version   uint16 // the negotiated version, or the highest offered one
	session   []byte
	random    []byte
	cipher    uint16
	name      []byte
	alpn      []byte // the list as sent
	preShared bool
	hash      [md5.Size]byte // JA3 or JA3S
}

// A cursor reads the fields of a message. A read past the end sets bad and returns zero or nil.
type cursor struct {
	rest []byte
	bad  bool
}

// take returns the next size bytes.
func (c *cursor) take(size int) []byte {
	if size > len(c.rest) {
		c.rest, c.bad = nil, true
		return nil
	}
	taken := c.rest[:size]
	c.rest = c.rest[size:]
	return taken
}

func (c *cursor) u8() int {
	if raw := c.take(1); raw != nil {
		return int(raw[0])
	}
	return 0
}

func (c *cursor) u16() int {
	if raw := c.take(2); raw != nil {
		return int(binary.BigEndian.Uint16(raw))
	}
	return 0
}

func (c *cursor) u24() int { return c.u8()<<16 | c.u16() }

// grease reports whether v is a GREASE value, which receivers must ignore (RFC 8701).
func grease(v int) bool { return v&0x0f == 0x0a && v>>8 == v&0xff }

// ja3 is the input of the hashes JA3 and JA3S: numbers, separated by - within a field and by , between
// fields.
type ja3 struct {
	text []byte
}

// number writes a number of the current field.
func (j *ja3) number(v int) {
	if length := len(j.text); length > 0 && j.text[length-1] != ',' {
		j.text = append(j.text, '-')
	}
	j.text = strconv.AppendInt(j.text, int64(v), 10)
}

func (j *ja3) field() { j.text = append(j.text, ',') }

// numbers16 writes a list of 16-bit numbers, without GREASE.
func (j *ja3) numbers16(list []byte) {
	for ; len(list) >= 2; list = list[2:] {
		if value := int(binary.BigEndian.Uint16(list)); !grease(value) {
			j.number(value)
		}
	}
}

// readClientHello parses the body of a ClientHello. text is a buffer for JA3, which is returned for reuse. A
// hello that ends early has the fields before its end.
func readClientHello(b, text []byte) (hello, []byte) {
	fields := cursor{rest: b}
	hello := hello{legacy: uint16(fields.u16())}
	hello.version = hello.legacy
	hello.random = fields.take(32)
	hello.session = fields.take(fields.u8())
	ciphers := fields.take(fields.u16())
	fields.take(fields.u8()) // compression methods

	// JA3: version, ciphers, extensions, groups, point formats.
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
	for _, format := range formats {
		hashed.number(int(format))
	}
	hello.hash = md5.Sum(hashed.text)
	return hello, hashed.text
}

// readServerHello parses the body of a ServerHello. In drafts of TLS 1.3 before the 22nd it has no session
// and no compression method. text is a buffer for JA3S, which is returned for reuse.
func readServerHello(b, text []byte) (hello, []byte) {
	fields := cursor{rest: b}
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

	// JA3S: version, cipher, extensions.
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

// extensions calls f for each extension and writes the number of the extension to hashed.
func (h *hello) extensions(fields *cursor, hashed *ja3, f func(typ int, ext cursor)) {
	if len(fields.rest) == 0 {
		return
	}
	// The length of all extensions may exceed the message if that was cut.
	all := cursor{rest: fields.rest[min(2, len(fields.rest)):]}
	if size := fields.u16(); size < len(all.rest) {
		all.rest = all.rest[:size]
	}
	for len(all.rest) >= 4 {
		typ := all.u16()
		if size := all.u16(); size <= len(all.rest) {
			f(typ, cursor{rest: all.take(size)})
		} else {
			all.rest = nil
		}
		if !grease(typ) {
			hashed.number(typ)
		}
	}
}

// serverName returns the first name of the kind host_name.
func serverName(ext cursor) []byte {
	list := cursor{rest: ext.take(ext.u16())}
	for len(list.rest) > 0 {
		kind := list.u8()
		if name := list.take(list.u16()); kind == 0 && len(name) <= maxServerName {
			return name
		}
	}
	return nil
}

// highest returns the highest version of a list, or v if there is none. Drafts of TLS 1.3 (0x7fNN) rank above
// TLS 1.2 and below TLS 1.3.
func highest(list []byte, v uint16) uint16 {
	best := uint16(0)
	rank := func(v uint16) int {
		if v>>8 == 0x7f {
			return 0x0303<<8 | int(v&0xff)
		}
		return int(v) << 8
	}
	for ; len(list) >= 2; list = list[2:] {
		offered := binary.BigEndian.Uint16(list)
		known := offered>>8 == 3 || offered>>8 == 0x7f // final versions and drafts of TLS 1.3
		if known && !grease(int(offered)) && rank(offered) > rank(best) {
			best = offered
		}
	}
	if best == 0 {
		return v
	}
	return best
}

// versionName returns the name of a version, such as "1.2". Drafts of TLS 1.3 are "1.3".
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

// isTLS13 reports whether v is TLS 1.3 or a draft of it, which encrypt everything after the ServerHello.
func isTLS13(v uint16) bool { return v == 0x0304 || v>>8 == 0x7f }

// protocolNames appends the names of an ALPN list.
func protocolNames(dst []string, list []byte) []string {
	for names := (cursor{rest: list}); len(names.rest) > 0 && len(dst) < maxProtocols; {
		name := names.take(names.u8())
		if names.bad {
			break
		}
		if len(name) > 0 {
			dst = append(dst, printable(name))
		}
	}
	return dst
}

// printable returns data as text, or in hex if it is not printable (names of GREASE protocols).
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
