package feeds

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/bits-and-blooms/bloom/v3"
	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"tidegate/pipeline"
)

const (
	maxLine       = 4 << 10 // bytes
	maxIndicators = 20_000_000
	maxNote       = 200 // bytes
	maxErrors     = 100 // that SkippedLines keeps

	defaultConfidence = 75
	noConfidence      = 255 // of a line that names none
)

// A LineError is an invalid line of a feed. The other lines of the file are used.
type LineError struct {
	Path string
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %v", e.Path, e.Line, e.Err) }

// Unwrap returns the cause.
func (e *LineError) Unwrap() error { return e.Err }

// Load reads all feeds. A file that cannot be read is an error. An invalid line is skipped and reported in
// the second result.
func Load(cfgs []Config) (*Set, SkippedLines, error) {
	set := newSet()
	set.files = filesState(cfgs)
	var skipped SkippedLines
	all := sha256.New()
	for i, cfg := range cfgs {
		feed := feed{name: cfg.Name, severity: pipeline.Severity_HIGH}
		if cfg.Severity != "" {
			feed.severity = pipeline.SeverityByName(cfg.Severity)
		}
		set.feeds = append(set.feeds, feed)
		sum := sha256.New()
		// The settings of a feed decide its verdicts, so they are part of its version. They also separate its
		// file from the next one.
		fmt.Fprintf(io.MultiWriter(sum, all), "feed %q %v %d\n", cfg.Name, feed.severity, cfg.Confidence)
		if err := set.readFile(cfg, uint16(i), io.MultiWriter(sum, all), &skipped); err != nil {
			return nil, skipped, fmt.Errorf("read feed %s: %w", cfg.Name, err)
		}
		set.feeds[i].version = shortHash(sum)
	}
	set.version = shortHash(all)
	set.buildFilter()
	return set, skipped, nil
}

func newSet() *Set {
	return &Set{domains: map[string]int32{}, addrs: map[netip.Addr]int32{}, prefixes: map[netip.Prefix]int32{}}
}

// shortHash returns the first bytes of a hash, in hex.
func shortHash(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)[:6]) }

// SkippedLines are the invalid lines of all feeds.
type SkippedLines struct {
	Count  int
	Errors []*LineError // the first 100
}

func (s *SkippedLines) addError(path string, line int, err error) {
	s.Count++
	if len(s.Errors) < maxErrors {
		s.Errors = append(s.Errors, &LineError{path, line, err})
	}
}

func (s *Set) readFile(cfg Config, feed uint16, sum io.Writer, skipped *SkippedLines) error {
	file, err := os.Open(cfg.Path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	return s.readLines(cfg, feed, io.TeeReader(file, sum), skipped)
}

// readLines adds the indicators of a feed, whose index is feed.
func (s *Set) readLines(cfg Config, feed uint16, in io.Reader, skipped *SkippedLines) error {
	confidence := uint8(cfg.Confidence)
	if confidence == 0 {
		confidence = defaultConfidence
	}
	lines := bufio.NewReaderSize(in, maxLine)
	for number := 1; ; number++ {
		skip := func(err error) { skipped.addError(cfg.Path, number, err) }
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			// Read on to the end of the line, which is not used.
			skip(fmt.Errorf("the line is longer than %d bytes", maxLine))
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = lines.ReadSlice('\n')
			}
			line = nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%s:%d: %w", cfg.Path, number, err)
		}
		if number == 1 {
			line = bytes.TrimPrefix(line, byteOrderMark)
		}

		for _, ind := range parseLine(string(line), skip) {
			if ind.confidence == noConfidence {
				ind.confidence = confidence
			}
			ind.feed = feed
			if err := s.addIndicator(ind); err != nil {
				skip(err)
			}
		}
		if err != nil {
			return nil // the end of the file; its last line may have no newline
		}
	}
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// parseLine returns the indicators of a line, which has one of three forms: one indicator; CSV of indicator,
// confidence and note; or, as in a hosts file, an unspecified or loopback address and the names that it
// blocks. An invalid line is reported to skip.
func parseLine(line string, skip func(error)) []indicator {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' || line[0] == ';' || line[0] == '!' {
		return nil
	}
	if strings.Contains(line, ",") {
		ind, err := parseCSV(line)
		if err != nil {
			skip(err)
			return nil
		}
		return []indicator{ind}
	}

	// One indicator, or a line of a hosts file: an address that leads nowhere and the names that it blocks.
	line, _, _ = strings.Cut(line, "#")
	words := strings.Fields(line)
	if len(words) > 1 {
		if addr, err := netip.ParseAddr(words[0]); err != nil || !addr.IsUnspecified() && !addr.IsLoopback() {
			skip(fmt.Errorf("%q is neither one indicator, nor a line of a hosts file, nor CSV", shorten(line)))
			return nil
		}
		words = words[1:]
	}
	var out []indicator
	for _, word := range words {
		out = append(out, indicator{text: word, confidence: noConfidence})
	}
	return out
}

// parseCSV reads indicator,confidence,note. The note may be quoted and may contain commas.
func parseCSV(line string) (indicator, error) {
	first, rest, _ := strings.Cut(line, ",")
	score, note, _ := strings.Cut(rest, ",")
	unquote := func(s string) string { return strings.Trim(strings.TrimSpace(s), `"`) }
	ind := indicator{text: unquote(first), note: truncate(unquote(note), maxNote), confidence: noConfidence}
	if score = strings.TrimSpace(score); score != "" {
		n, err := strconv.ParseUint(score, 10, 8)
		if err != nil || n > 100 {
			return ind, fmt.Errorf("confidence %q is not a number from 0 to 100", shorten(score))
		}
		ind.confidence = uint8(n)
	}
	return ind, nil
}

// shorten cuts what a message quotes.
func shorten(s string) string { return truncate(s, 80) }

func truncate(text string, n int) string {
	if len(text) > n {
		return strings.ToValidUTF8(text[:n], "") + "…"
	}
	return text
}

// addIndicator adds an indicator to the map of its kind: addresses, networks or domains.
func (s *Set) addIndicator(ind indicator) error {
	if len(s.indicators) >= maxIndicators {
		return fmt.Errorf("more than %d indicators", maxIndicators)
	}
	// An address. One that stands for many hosts would be found in ordinary traffic.
	if addr, err := netip.ParseAddr(ind.text); err == nil {
		addr = addr.Unmap()
		if addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast() {
			return fmt.Errorf("address %s is not that of one host", addr)
		}
		ind.text = addr.String()
		keepSurest(s, s.addrs, addr, ind)
		return nil
	}
	if strings.Contains(ind.text, "/") {
		return s.addPrefix(ind)
	}
	name, err := normalizeDomain(ind.text)
	if err != nil {
		return err
	}
	ind.text = strings.Clone(name) // The name is a part of its line, which must not be kept.
	keepSurest(s, s.domains, ind.text, ind)
	return nil
}

func (s *Set) addPrefix(ind indicator) error {
	prefix, err := netip.ParsePrefix(ind.text)
	if err != nil {
		return fmt.Errorf("%q is not a network, an address or a domain", shorten(ind.text))
	}
	if prefix.Addr().Is4In6() {
		return fmt.Errorf("network %q: write IPv4 as IPv4", shorten(ind.text))
	}
	prefix = prefix.Masked()
	shortest := 16
	if prefix.Addr().Is4() {
		shortest = 8
	}
	if prefix.Bits() < shortest {
		return fmt.Errorf("network %s is too wide: at least /%d", prefix, shortest)
	}
	ind.text = prefix.String()
	keepSurest(s, s.prefixes, prefix, ind)
	return nil
}

// keepSurest adds an indicator under its key. Of two with the same key the one of higher confidence stays.
func keepSurest[K comparable](set *Set, m map[K]int32, key K, ind indicator) {
	ind.note = strings.Clone(ind.note) // The note is a part of its line, which may be twenty times as long.
	if i, ok := m[key]; ok {
		if set.indicators[i].confidence < ind.confidence {
			set.indicators[i] = ind
		}
		return
	}
	m[key] = int32(len(set.indicators))
	set.indicators = append(set.indicators, ind)
}

// normalizeDomain returns a name in the form in which names are compared: lower case, ASCII, without the dot
// at the end. A public suffix is refused, since it would cover all domains below it.
func normalizeDomain(text string) (string, error) {
	name := strings.TrimPrefix(strings.TrimSuffix(strings.ToLower(text), "."), "*.")
	if !isASCII(name) {
		ascii, err := idna.Lookup.ToASCII(name)
		if err != nil {
			return "", fmt.Errorf("%q is not a domain: %w", shorten(text), err)
		}
		name = ascii
	}
	if len(name) > 253 || !strings.Contains(name, ".") {
		return "", fmt.Errorf("%q is not a network, an address or a domain", shorten(text))
	}

	// Underscores are not allowed in host names, but occur in DNS names.
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool {
			return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
		}) {
			return "", fmt.Errorf("%q is not a domain: label %q", shorten(text), shorten(label))
		}
	}
	if suffix, icann := publicsuffix.PublicSuffix(name); icann && suffix == name {
		return "", fmt.Errorf("%q is a public suffix: it would cover every domain below it", name)
	}
	return name, nil
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 127 })
}

// buildFilter makes the filter, once the number of its entries is known.
func (s *Set) buildFilter() {
	const falsePositives = 0.001 // These reach the maps, which do not have them.
	s.filter = bloom.NewWithEstimates(uint(max(len(s.indicators), 1024)), falsePositives)
	for name := range s.domains {
		s.filter.AddString(name)
	}
	var key [filterKeySize]byte
	for addr := range s.addrs {
		s.filter.Add(filterKey(&key, addr, addr.BitLen()))
	}
	lengths4, lengths6 := map[int]bool{}, map[int]bool{}
	for prefix := range s.prefixes {
		s.filter.Add(filterKey(&key, prefix.Addr(), prefix.Bits()))
		if prefix.Addr().Is4() {
			lengths4[prefix.Bits()] = true
		} else {
			lengths6[prefix.Bits()] = true
		}
	}
	s.prefixLengths4, s.prefixLengths6 = longestFirst(lengths4), longestFirst(lengths6)
}

func longestFirst(lengths map[int]bool) []int {
	list := slices.Sorted(maps.Keys(lengths))
	slices.Reverse(list)
	return list
}
