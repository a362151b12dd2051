package feeds

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

const (
	maxLine       = 4 << 10 // bytes
	maxIndicators = 20_000_000
	maxNote       = 200 // bytes
	maxErrors     = 100 // kept by SkippedLines

	defaultConfidence = 75
	noConfidence      = 255 // a line without a confidence
)

// A list holds the indicators of one feed. It is immutable once it is read.
type list struct {
	name, version string // the version is a hash of the file and the settings
	severity      pipeline.Severity
	config        Config
	fileState     string // from before the file was read
	skipped       SkippedLines

	indicators []indicator
	chunks     [][]byte // the keys and notes of the indicators

	prefixLengths4, prefixLengths6 [129]bool // of the networks
}

// An indicator is one domain, address or network of a list. Its key and, behind it, its note are in a chunk.
type indicator struct {
	start      uint32 // chunk and offset in it
	keySize    uint8
	noteSize   uint8
	confidence uint8
}

const (
	chunkBits = 20
	chunkSize = 1 << chunkBits
)

// key returns the bytes by which the indicator is looked up: a domain, or the networkKey of an address or
// network.
func (l *list) key(index int) []byte {
	ind := l.indicators[index]
	from := ind.start & (chunkSize - 1)
	return l.chunks[ind.start>>chunkBits][from : from+uint32(ind.keySize)]
}

func (l *list) note(index int) string {
	ind := l.indicators[index]
	from := ind.start&(chunkSize-1) + uint32(ind.keySize)
	return string(l.chunks[ind.start>>chunkBits][from : from+uint32(ind.noteSize)])
}

// text returns the indicator as a person writes it, normalized.
func (l *list) text(index int) string {
	key := l.key(index)
	if len(key) != networkKeySize || key[0] != 0 {
		return string(key)
	}
	addr := netip.AddrFrom16([16]byte(key[1:17]))
	bits := int(key[17] &^ is4)
	switch {
	case key[17]&is4 != 0:
		addr = addr.Unmap()
	case bits == 0:
		bits = 128
	}
	if bits == addr.BitLen() {
		return addr.String()
	}
	return netip.PrefixFrom(addr, bits).String()
}

// networkKeySize is the size of the key of a network: a zero byte, which no domain has, 16 bytes of the address,
// and one for prefix length and address family.
const networkKeySize = 18

// is4 marks an IPv4 network.
const is4 = 0x80

// networkKey writes the key of a network into buf and returns it. The network of one address has all its bits.
func networkKey(buf *[networkKeySize]byte, addr netip.Addr, bits int) []byte {
	bytes := addr.As16()
	buf[0] = 0
	copy(buf[1:], bytes[:])
	buf[17] = byte(bits & 0x7f) // 0 stands for 128: no feed may list the whole Internet
	if addr.Is4() {
		buf[17] |= is4
	}
	return buf[:]
}

// add appends an indicator. The list copies key and note.
func (l *list) add(key, note []byte, confidence uint8) {
	note = note[:min(len(note), 255)]
	last := len(l.chunks) - 1
	if last < 0 || len(l.chunks[last])+len(key)+len(note) > cap(l.chunks[last]) {
		// A small list takes a small chunk.
		size := chunkSize
		if last < 0 {
			size = 4 << 10
		}
		l.chunks = append(l.chunks, make([]byte, 0, size))
		last++
	}
	start := uint32(last)<<chunkBits | uint32(len(l.chunks[last]))
	l.chunks[last] = append(append(l.chunks[last], key...), note...)
	l.indicators = append(l.indicators, indicator{start, uint8(len(key)), uint8(len(note)), confidence})
}

// readList reads the file of a feed. It returns an error if the file cannot be read, and skips invalid lines.
// room is the number of indicators that it may have.
func readList(cfg Config, room int) (*list, error) {
	out := &list{name: cfg.Name, config: cfg, severity: pipeline.Severity_HIGH}
	if cfg.Severity != "" {
		out.severity = pipeline.SeverityByName(cfg.Severity)
	}
	out.fileState = fileState(cfg.Path) // before reading, so that a Watcher detects a change that comes meanwhile
	file, err := config.OpenRegular(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("read feed %s: %w", cfg.Name, err)
	}
	defer func() { _ = file.Close() }()

	// The settings of a feed decide its verdicts, so they are part of its version.
	sum := sha256.New()
	fmt.Fprintf(sum, "feed %q %v %d %t\n", cfg.Name, out.severity, cfg.Confidence, cfg.AllowLocal)
	if err := out.readLines(io.TeeReader(file, sum), room); err != nil {
		return nil, fmt.Errorf("read feed %s: %w", cfg.Name, err)
	}
	out.version = shortHash(sum)
	return out, nil
}

// readLines adds the indicators of the lines of in.
func (l *list) readLines(in io.Reader, room int) error {
	reader := bufio.NewReaderSize(in, maxLine)
	parser := lineParser{list: l, confidence: uint8(l.config.Confidence), room: room, allowLocal: l.config.AllowLocal}
	if parser.confidence == 0 {
		parser.confidence = defaultConfidence
	}
	for number := 1; ; number++ {
		// Read one line; line is valid until the next ReadSlice. A line that is too long is discarded up to its
		// end.
		line, err := reader.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			l.skip(number, fmt.Errorf("the line is longer than %d bytes", maxLine))
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = reader.ReadSlice('\n')
			}
			line = nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%s:%d: %w", l.config.Path, number, err)
		}
		if number == 1 {
			line = bytes.TrimPrefix(line, byteOrderMark)
		}
		parser.parse(line, number)
		if err != nil {
			return nil // The end of the file: its last line may have no newline, so it was parsed first.
		}
	}
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// SkippedLines describes the invalid lines of feeds.
type SkippedLines struct {
	Count  int
	Errors []*LineError // at most maxErrors, the first ones
}

// A LineError describes an invalid line of a feed. The line is skipped; the rest of the file is used.
type LineError struct {
	Path string
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %v", e.Path, e.Line, e.Err) }

// Unwrap returns the cause.
func (e *LineError) Unwrap() error { return e.Err }

func (l *list) skip(line int, err error) {
	l.skipped.Count++
	if len(l.skipped.Errors) < maxErrors {
		l.skipped.Errors = append(l.skipped.Errors, &LineError{l.config.Path, line, err})
	}
}
