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
	maxErrors     = 100 // kept by SkippedLines

	defaultConfidence = 75
	noConfidence      = 255 // a line without a confidence
)

// A LineError describes an invalid line of a feed. The line is skipped; the rest of the file is used.
type LineError struct {
	Path string
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %v", e.Path, e.Line, e.Err) }

// Unwrap returns the cause.
func (e *LineError) Unwrap() error { return e.Err }

// Load reads all feeds. It returns an error if a file cannot be read. It skips invalid lines and returns them
// as the second result.
func Load(cfgs []Config) (*Set, SkippedLines, error) {
	set := newSet()
	set.files = filesState(cfgs) // before reading, so that a Watcher detects a change that comes meanwhile
	var skipped SkippedLines
	all := sha256.New()
	for i, cfg := range cfgs {
		feed := feed{name: cfg.Name, severity: pipeline.Severity_HIGH}
		if cfg.Severity != "" {
			feed.severity = pipeline.SeverityByName(cfg.Severity)
		}
		set.feeds = append(set.feeds, feed)

		// The settings of a feed decide its verdicts, so they are part of its version. In the hash of all
		// feeds they also separate the content of one file from the next.
		sum := sha256.New()
		fmt.Fprintf(io.MultiWriter(sum, all), "feed %q %v %d\n", cfg.Name, feed.severity, cfg.Confidence)
		if err := set.readFile(cfg, uint16(i), io.MultiWriter(sum, all), &skipped); err != nil {
			return nil, skipped, fmt.Errorf("read feed %s: %w", cfg.Name, err)
		}
		set.feeds[i].version = shortHash(sum)
	}

	// The filter is sized by the number of indicators, so it is built last.
	set.version = shortHash(all)
	set.buildFilter()
	return set, skipped, nil
}

func newSet() *Set {
	return &Set{domains: map[string]int32{}, addrs: map[netip.Addr]int32{}, prefixes: map[netip.Prefix]int32{}}
}

// shortHash returns the first six bytes of a hash in hex.
func shortHash(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)[:6]) }

// SkippedLines describes the invalid lines of all feeds.
type SkippedLines struct {
	Count  int
	Errors []*LineError // at most maxErrors, the first ones
}

func (s *SkippedLines) addError(path string, line int, err error) {
	s.Count++
	if len(s.Errors) < maxErrors {
		s.Errors = append(s.Errors, &LineError{path, line, err})
	}
}

// readFile adds the indicators of one feed's file, and writes the content of the file to sum.
func (s *Set) readFile(cfg Config, feed uint16, sum io.Writer, skipped *SkippedLines) error {
	file, err := os.Open(cfg.Path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	return s.readLines(cfg, feed, io.TeeReader(file, sum), skipped)
}

// readLines adds the indicators of the feed with index feed.
func (s *Set) readLines(cfg Config, feed uint16, in io.Reader, skipped *SkippedLines) error {
	confidence := uint8(cfg.Confidence)
	if confidence == 0 {
		confidence = defaultConfidence
	}
	lines := bufio.NewReaderSize(in, maxLine)
	for number := 1; ; number++ {
		skip := func(err error) { skipped.addError(cfg.Path, number, err) }

		// 1. Read one line; line is valid until the next ReadSlice. A line that is too long is discarded up
		// to its end.
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
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

		// 2. Add its indicators. A line of a hosts file may have several.
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
			return nil // The end of the file: its last line may have no newline, so it was parsed first.
		}
	}
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// parseLine returns the indicators of a line. A line has one of three forms: one indicator; CSV of indicator,
// confidence and note; or, as in a hosts file, an unspecified or loopback address and the names that it
// blocks. parseLine passes the error of an invalid line to skip.
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

	// Without a comma the line is one indicator, or a line of a hosts file. Both may end with a comment.
	line, _, _ = strings.Cut(line, "#")
	words := strings.Fields(line)
	// In a hosts file the address stands in front of the names.
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

// parseCSV parses indicator,confidence,note. The note may be quoted and may contain commas.
func parseCSV(line string) (indicator, error) {
	first, rest, _ := strings.Cut(line, ",")
	score, note, _ := strings.Cut(rest, ",")
	unquote := func(text string) string { return strings.Trim(strings.TrimSpace(text), `"`) }
	ind := indicator{text: unquote(first), note: truncate(unquote(note), maxNote), confidence: noConfidence}
	if score = strings.TrimSpace(score); score != "" {
		confidence, err := strconv.ParseUint(score, 10, 8)
		if err != nil || confidence > 100 {
			return ind, fmt.Errorf("confidence %q is not a number from 0 to 100", shorten(score))
		}
		ind.confidence = uint8(confidence)
	}
	return ind, nil
}

// shorten cuts a text that an error quotes.
func shorten(s string) string { return truncate(s, 80) }

// truncate returns at most size bytes of text, and an ellipsis if it cut something.
func truncate(text string, size int) string {
	if len(text) > size {
		return strings.ToValidUTF8(text[:size], "") + "…"
	}
	return text
}

// addIndicator adds an indicator to the map of its kind: addresses, networks or domains. It returns an error
// if the text is none of these, or would match ordinary traffic.
func (s *Set) addIndicator(ind indicator) error {
	if len(s.indicators) >= maxIndicators {
		return fmt.Errorf("more than %d indicators", maxIndicators)
	}

	// 1. An address. Unspecified, loopback and multicast addresses stand for many hosts, so they would match
	// ordinary traffic.
	if addr, err := netip.ParseAddr(ind.text); err == nil {
		addr = addr.Unmap()
		if addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast() {
			return fmt.Errorf("address %s is not that of one host", addr)
		}
		ind.text = addr.String()
		keepSurest(s, s.addrs, addr, ind)
		return nil
	}

	// 2. A network, or else a domain.
	if strings.Contains(ind.text, "/") {
		return s.addPrefix(ind)
	}
	name, err := normalizeDomain(ind.text)
	if err != nil {
		return err
	}
	ind.text = strings.Clone(name) // without the rest of the line, which the name would keep in memory
	keepSurest(s, s.domains, ind.text, ind)
	return nil
}

// addPrefix adds a network. Networks so wide that they match ordinary traffic are rejected.
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

// keepSurest adds an indicator to set, and its index to one of the maps of set. If the key exists, the
// indicator of higher confidence is kept.
func keepSurest[K comparable](set *Set, indexes map[K]int32, key K, ind indicator) {
	ind.note = strings.Clone(ind.note) // without the rest of the line, which may be twenty times as long
	if index, ok := indexes[key]; ok {
		if set.indicators[index].confidence < ind.confidence {
			set.indicators[index] = ind
		}
		return
	}
	indexes[key] = int32(len(set.indicators))
	set.indicators = append(set.indicators, ind)
}

// normalizeDomain returns a domain as checkDomain compares it: in lower case, in ASCII, without a dot at the
// end. It rejects public suffixes, which would match all domains below them.
func normalizeDomain(text string) (string, error) {
	// 1. Lower case and punycode. A leading *. is dropped, since every domain matches its sub-domains.
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

	// 2. Check each label. Host names have no underscores, but DNS names do.
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool {
			return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
		}) {
			return "", fmt.Errorf("%q is not a domain: label %q", shorten(text), shorten(label))
		}
	}

	// 3. A private suffix, such as that of a hosting service, may be listed; one of ICANN's may not.
	if suffix, icann := publicsuffix.PublicSuffix(name); icann && suffix == name {
		return "", fmt.Errorf("%q is a public suffix: it would cover every domain below it", name)
	}
	return name, nil
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 127 })
}

// buildFilter builds the filter over the keys of all maps, and collects the lengths of the prefixes.
func (s *Set) buildFilter() {
	const falsePositives = 0.001 // A false positive costs one lookup in a map.
	s.filter = bloom.NewWithEstimates(uint(max(len(s.indicators), 1024)), falsePositives)
	for name := range s.domains {
		s.filter.AddString(name)
	}
	var key [filterKeySize]byte
	for addr := range s.addrs {
		s.filter.Add(filterKey(&key, addr, addr.BitLen()))
	}

	// Few lengths occur, so checkAddr tries each of them instead of walking a tree of prefixes.
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
