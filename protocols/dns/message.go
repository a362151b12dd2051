package dns

import (
	"encoding/binary"
	"errors"

	"github.com/zeebo/xxh3"
)

const (
	headerSize  = 12
	minQuestion = 5  // root name, type, class
	minRecord   = 11 // root name, type, class, ttl, length
	maxMessage  = 65535
	maxOpCode   = 6

	maxName    = 255  // octets of a name on the wire, RFC 1035 section 2.3.4
	maxHops    = 64   // compression pointers in one name; software in use stops at 10 to 128
	maxAnswers = 128  // records of an answer that are kept; the others are counted
	maxData    = 1024 // characters of a record's data that are kept
	maxText    = 32 << 10
)

// The bits of a header's flags.
const (
	flagQR = 1 << 15
	flagAA = 1 << 10
	flagTC = 1 << 9
	flagRD = 1 << 8
	flagRA = 1 << 7
	flagZ  = 1 << 6
	flagAD = 1 << 5
	flagCD = 1 << 4
)

var (
	errShort   = errors.New("dns: message ends early")
	errName    = errors.New("dns: name is not well formed")
	errPointer = errors.New("dns: too many compression pointers")
)

// A span is a part of message.text.
type span struct{ from, to int }

// An answer is a record of the answer section, with its name and its data as text.
type answer struct {
	name, data span
	typ        uint16
	ttl        uint32
}

// A message is a parsed message. It is reused for the next one: text and answers keep their capacity. All
// text is written into one buffer, the name of the question first, so that an event allocates one string
// instead of one for each record.
type message struct {
	id           uint16
	flags        uint16
	qd, an       uint16 // number of questions, of answers
	qtype        uint16
	qclass       uint16
	rcode        uint16
	truncated    bool // records, or the questions, could not be read to their end
	hasQuestion  bool // the first question was read
	cut          bool // data of a record, or a record, is not kept
	soaRecords   int  // SOA records among the answers
	lastSOA      bool // the last answer is a SOA record
	questionHash uint64
	question     span
	answers      []answer
	text         []byte
	data         []byte // the message; valid while it is parsed
}

// parse parses data. It returns an error only for the header and the questions; then the message has what stands
// before the error. If the records are malformed or end early, the message has the records before that position
// and truncated is set.
func (m *message) parse(data []byte) error {
	*m = message{answers: m.answers[:0], text: m.text[:0], data: data}
	if len(data) < headerSize {
		return errShort
	}
	m.id, m.flags = binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:])
	m.qd, m.an = binary.BigEndian.Uint16(data[4:]), binary.BigEndian.Uint16(data[6:])
	ns, ar := int(binary.BigEndian.Uint16(data[8:])), int(binary.BigEndian.Uint16(data[10:]))
	m.rcode = m.flags & 15
	off, err := m.readQuestions(headerSize)
	if err != nil {
		m.truncated, m.an = true, 0
		return err
	}
	m.truncated = m.qd > 1

	// After an error from here on the records that were read are kept.
	if off, err = m.readAnswers(off, int(m.an)); err == nil {
		err = m.readExtended(off, ns+ar)
	}
	m.truncated = m.truncated || err != nil
	return nil
}

// readQuestions reads the questions at off and returns the offset after them. It keeps the first question,
// since no server answers a second one.
func (m *message) readQuestions(off int) (int, error) {
	for i := range int(m.qd) {
		if i > 0 {
			next, err := skipQuestion(m.data, off)
			if err != nil {
				return 0, err
			}
			off = next
			continue
		}

		// Name, type, class.
		var err error
		if m.text, off, err = appendName(m.text, m.data, off); err != nil {
			return 0, err
		}
		if off+4 > len(m.data) {
			return 0, errShort
		}
		m.question, m.hasQuestion = span{0, len(m.text)}, true
		m.qtype, m.qclass = binary.BigEndian.Uint16(m.data[off:]), binary.BigEndian.Uint16(m.data[off+2:])
		m.questionHash = xxh3.HashSeed(m.text, uint64(m.qtype)<<16|uint64(m.qclass))
		off += 4
	}
	return off, nil
}

// readAnswers reads the count records of the answer section and returns the offset after them. Records beyond
// maxAnswers or maxText are only checked.
func (m *message) readAnswers(off, count int) (int, error) {
	for range count {
		record, err := readRecord(m.data, off)
		if err != nil {
			return 0, err
		}
		if m.lastSOA = record.typ == typeSOA; m.lastSOA {
			m.soaRecords++
		}
		if len(m.answers) < maxAnswers && len(m.text) < maxText {
			m.addAnswer(off, record)
		} else {
			m.cut = true
		}
		off = record.end
	}
	return off, nil
}

// addAnswer writes the name and the data of a record as text. A name equal to that of the question or of the
// record before shares its text.
func (m *message) addAnswer(off int, record record) {
	added := answer{typ: record.typ, ttl: record.ttl}
	// Write the name, and take it back if the text is there already.
	added.name.from = len(m.text)
	m.text, _, _ = appendName(m.text, m.data, off) // readRecord has checked it
	added.name.to = len(m.text)
	if m.sameText(added.name, m.question) {
		m.text, added.name = m.text[:added.name.from], m.question
	} else if count := len(m.answers); count > 0 && m.sameText(added.name, m.answers[count-1].name) {
		m.text, added.name = m.text[:added.name.from], m.answers[count-1].name
	}
	added.data.from = len(m.text)
	m.appendData(record)
	added.data.to = len(m.text)
	m.answers = append(m.answers, added)
}

// sameText reports whether the texts of a and b are equal and not empty.
func (m *message) sameText(a, b span) bool {
	return b.to > b.from && string(m.text[a.from:a.to]) == string(m.text[b.from:b.to])
}

// readExtended goes through the authority and additional sections for the OPT record, whose TTL begins with
// the upper eight bits of the response code (RFC 6891 section 6.1.3).
func (m *message) readExtended(off, count int) error {
	for range count {
		record, err := readRecord(m.data, off)
		if err != nil {
			return err
		}
		if record.typ == typeOPT {
			m.rcode |= uint16(record.ttl>>24) << 4
		}
		off = record.end
	}
	return nil
}

// A record is the header of a record, and the position of its data in the message.
type record struct {
	typ, class uint16
	ttl        uint32
	data, end  int // offsets
}

// readRecord reads the record at off.
func readRecord(data []byte, off int) (record, error) {
	off, err := skipName(data, off)
	if err != nil {
		return record{}, err
	}
	if off+10 > len(data) {
		return record{}, errShort
	}
	read := record{
		typ: binary.BigEndian.Uint16(data[off:]), class: binary.BigEndian.Uint16(data[off+2:]),
		ttl: binary.BigEndian.Uint32(data[off+4:]), data: off + 10,
	}
	read.end = read.data + int(binary.BigEndian.Uint16(data[off+8:]))
	if read.end > len(data) {
		return record{}, errShort
	}
	return read, nil
}

func skipRecord(data []byte, off int) (int, error) {
	skipped, err := readRecord(data, off)
	return skipped.end, err
}

// skipQuestion returns the offset after the question at off.
func skipQuestion(data []byte, off int) (int, error) {
	off, err := skipName(data, off)
	if err == nil && off+4 > len(data) {
		err = errShort
	}
	return off + 4, err
}

// skipName returns the offset after the name at off. It checks the whole name, also behind pointers.
func skipName(data []byte, off int) (int, error) {
	walk := labelWalk{data: data, off: off}
	for {
		if label, err := walk.next(); label == nil {
			return walk.end, err
		}
	}
}

// A labelWalk iterates over the labels of a name. A compression pointer may point anywhere, also forward, as
// resolvers follow it. The number of pointers and the length of the name are bounded, so every walk terminates.
type labelWalk struct {
	data []byte
	off  int // offset of the next label or pointer
	end  int // offset after the name in the message; 0 until it is known
	hops int // pointers that were followed
	size int // octets of the labels so far, with their lengths
}

// next returns the next label, or nil at the end of the name or with an error.
func (w *labelWalk) next() ([]byte, error) {
	for {
		if w.off >= len(w.data) {
			return nil, errShort
		}
		// A byte of length. If its upper two bits are set it is the first byte of a pointer.
		length := int(w.data[w.off])
		switch {
		case length == 0:
			if w.end == 0 {
				w.end = w.off + 1
			}
			return nil, nil
		case length < 64:
			if w.off+1+length > len(w.data) {
				return nil, errShort
			}
			if w.size += length + 1; w.size+1 > maxName {
				return nil, errName
			}
			label := w.data[w.off+1 : w.off+1+length]
			w.off += 1 + length
			return label, nil
		case length < 192:
			return nil, errName // reserved; extended labels (RFC 2673) are withdrawn
		}
		if err := w.jump(); err != nil {
			return nil, err
		}
	}
}

// jump follows the compression pointer at off.
func (w *labelWalk) jump() error {
	if w.off+2 > len(w.data) {
		return errShort
	}
	to := int(binary.BigEndian.Uint16(w.data[w.off:]) & 0x3fff)
	if w.end == 0 {
		w.end = w.off + 2
	}
	if w.hops++; w.hops > maxHops {
		return errPointer
	}
	w.off = to
	return nil
}

// appendName appends the name at off to dst and returns the offset after it. The name is in lower case,
// without a dot at its end; the root is ".". Bytes other than visible ASCII are written as \DDD, a dot or a
// backslash within a label as \. or \\ (RFC 4343 section 2.1).
func appendName(dst, data []byte, off int) ([]byte, int, error) {
	walk, from := labelWalk{data: data, off: off}, len(dst)
	for {
		label, err := walk.next()
		if err != nil {
			return dst[:from], 0, err
		}
		if label == nil {
			break
		}
		if len(dst) > from {
			dst = append(dst, '.')
		}
		dst = appendLabel(dst, label)
	}
	if len(dst) == from {
		dst = append(dst, '.')
	}
	return dst, walk.end, nil
}

// appendLabel appends a label in lower case, with escapes where presentation format needs them.
func appendLabel(dst, label []byte) []byte {
	for _, c := range label {
		switch {
		case 'A' <= c && c <= 'Z':
			dst = append(dst, c+'a'-'A')
		case c == '.' || c == '\\':
			dst = append(dst, '\\', c)
		case c <= ' ' || c > '~':
			dst = appendOctet(dst, c)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// appendOctet appends c as \DDD.
func appendOctet(dst []byte, c byte) []byte {
	return append(dst, '\\', '0'+c/100, '0'+c/10%10, '0'+c%10)
}
