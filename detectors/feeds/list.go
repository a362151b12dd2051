package feeds

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"tidegate/pipeline"
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
	onAdd         func(key []byte) // is called with each key while the list is read; may be nil

	index   index
	details details

	prefixLengths4, prefixLengths6 [129]bool // of the networks

	types   map[string]int // indicators by type, those twice in the list too
	reasons map[string]int // skipped lines by reason
}

// keyText returns the indicator of a key as a person writes it, normalized.
func keyText(key []byte) string {
	switch {
	case len(key) == 0:
		return ""
	case key[0] >= urlMark && key[0] <= userAgentMark:
		return string(key[1:])
	case len(key) != networkKeySize || key[0] != networkMark:
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

// add appends an indicator. The list copies what it keeps of about.
func (l *list) add(key []byte, about detail) {
	l.index.add(hashKey(key), l.details.add(about))
	if l.types == nil {
		l.types = map[string]int{}
	}
	l.types[typeOf(key)]++
	if l.onAdd != nil {
		l.onAdd(key)
	}
}

// finish ends the reading of the list, which is immutable from then on.
func (l *list) finish() {
	l.index.finish(l.details.prefer)
	l.details.byValue = nil
	l.onAdd = nil
}

// A room is what the feeds of a set may still have.
type room struct{ indicators, details int }

var wholeRoom = room{maxIndicators, maxDetails}

// without returns the room that l leaves.
func (r room) without(l *list) room {
	return room{r.indicators - l.index.count, max(r.details-len(l.details.all), 0)}
}

// readList reads the file of a feed. It returns an error if the file cannot be read, and skips invalid lines.
// free is what it may have.
func readList(ctx context.Context, cfg Config, free room) (*list, error) {
	out := &list{name: cfg.Name, config: cfg, severity: pipeline.Severity_HIGH, details: details{room: free.details}}
	if cfg.Severity != "" {
		out.severity = pipeline.SeverityByName(cfg.Severity)
	}
	out.fileState = fileState(cfg.Path) // before reading, so that a Watcher detects a change that comes meanwhile
	// The settings of a feed decide its verdicts, so they are part of its version.
	sum := sha256.New()
	fmt.Fprintf(sum, "feed %q %v %d %t %t\n", cfg.Name, out.severity, cfg.Confidence, cfg.AllowLocal, cfg.Allow)
	if err := out.newParser(free.indicators).readPath(ctx, cfg.Path, sum); err != nil {
		return nil, fmt.Errorf("read feed %s: %w", cfg.Name, err)
	}
	out.finish()
	out.version = shortHash(sum)
	return out, nil
}

// newParser returns a parser that adds to the list, which may have room indicators.
func (l *list) newParser(room int) *feedParser {
	confidence := uint8(l.config.Confidence)
	if confidence == 0 {
		confidence = defaultConfidence
	}
	return &feedParser{list: l, confidence: confidence, room: room, allowLocal: l.config.AllowLocal, path: l.config.Path}
}

// readLines adds the indicators of the lines of in.
func (p *feedParser) readLines(in io.Reader) error {
	reader := bufio.NewReaderSize(in, maxLine)
	for number := 1; ; number++ {
		// Read one line; line is valid until the next ReadSlice. A line that is too long is discarded up to its
		// end.
		line, err := reader.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			p.skip(number, skipf("line too long", "the line is longer than %d bytes", maxLine))
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = reader.ReadSlice('\n')
			}
			line = nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%s:%d: %w", p.path, number, err)
		}
		p.parse(line, number)
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

// A LineError describes an invalid line of a feed, in JSON an invalid object, which Line counts. The line is skipped; the rest of the file is used.
type LineError struct {
	Path string
	Line int
	Err  error
}

func (e *LineError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("%s:%d: %v", e.Path, e.Line, e.Err)
}

// Unwrap returns the cause.
func (e *LineError) Unwrap() error { return e.Err }

// A skipError is the error of an indicator that is left out for a reason that counts name. Other errors count as "no indicator".
type skipError struct {
	reason string
	err    error
}

func skipf(reason, format string, args ...any) error {
	return &skipError{reason, fmt.Errorf(format, args...)}
}

func (e *skipError) Error() string { return e.err.Error() }
func (e *skipError) Unwrap() error { return e.err }

// reasonOf returns the reason of an error of a line.
func reasonOf(err error) string {
	if skipped, ok := errors.AsType[*skipError](err); ok {
		return skipped.reason
	}
	return "no indicator"
}

func (l *list) skip(path string, line int, err error) {
	l.skipped.Count++
	if l.reasons == nil {
		l.reasons = map[string]int{}
	}
	l.reasons[reasonOf(err)]++
	if len(l.skipped.Errors) < maxErrors {
		l.skipped.Errors = append(l.skipped.Errors, &LineError{path, line, err})
	}
}
