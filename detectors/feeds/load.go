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

// Bounds of what is read.
const (
	maxLine       = 4 << 10
	maxIndicators = 20_000_000
	maxNote       = 200
)

// noConfidence is the confidence of a line that gives none.
const noConfidence = 255

// A LineError is a line that could not be used; the rest of its file is.
type LineError struct {
	Path string
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %v", e.Path, e.Line, e.Err) }

// Unwrap gives the cause.
func (e *LineError) Unwrap() error { return e.Err }

// Load reads every feed. A file that cannot be read is an error; a line that cannot is skipped and told in
// the second result, of which the first hundred are kept and all are counted.
func Load(cfgs []Config) (*Set, SkippedLines, error) {
	s := &Set{domains: map[string]int32{}, addrs: map[netip.Addr]int32{}, prefixes: map[netip.Prefix]int32{}, files: filesState(cfgs)}
	var skipped SkippedLines
	all := sha256.New()
	for i, cfg := range cfgs {
		f := feed{name: cfg.Name, severity: pipeline.Severity_HIGH}
		if cfg.Severity != "" {
			f.severity = pipeline.SeverityByName(cfg.Severity)
		}
		s.feeds = append(s.feeds, f)
		sum := sha256.New()
		// What the feed is set to is part of what it says, and keeps a file apart from the next.
		fmt.Fprintf(io.MultiWriter(sum, all), "feed %q %v %d\n", cfg.Name, f.severity, cfg.Confidence)
		if err := s.readFile(cfg, uint16(i), io.MultiWriter(sum, all), &skipped); err != nil {
			return nil, skipped, fmt.Errorf("read feed %s: %w", cfg.Name, err)
		}
		s.feeds[i].version = shortHash(sum)
	}
	s.version = shortHash(all)
	s.buildFilter()
	return s, skipped, nil
}

func shortHash(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)[:6]) }

// SkippedLines are the lines that were not used.
type SkippedLines struct {
	Count  int
	Errors []*LineError // the first of them
}

func (s *SkippedLines) addError(path string, line int, err error) {
	s.Count++
	if len(s.Errors) < 100 {
		s.Errors = append(s.Errors, &LineError{path, line, err})
	}
}

func (s *Set) readFile(cfg Config, feed uint16, sum io.Writer, skipped *SkippedLines) error {
	f, err := os.Open(cfg.Path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return s.readLines(cfg, feed, io.TeeReader(f, sum), skipped)
}

func (s *Set) readLines(cfg Config, feed uint16, r io.Reader, skipped *SkippedLines) error {
	confidence := uint8(cfg.Confidence)
	if confidence == 0 {
		confidence = 75
	}
	br := bufio.NewReaderSize(r, maxLine)
	for n := 1; ; n++ {
		line, err := br.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			skipped.addError(cfg.Path, n, fmt.Errorf("the line is longer than %d bytes", maxLine))
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = br.ReadSlice('\n')
			}
			line = nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%s:%d: %w", cfg.Path, n, err)
		}
		if n == 1 {
			line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
		}
		for _, ind := range parseLine(string(line), func(err error) { skipped.addError(cfg.Path, n, err) }) {
			if ind.confidence == noConfidence {
				ind.confidence = confidence
			}
			ind.feed = feed
			if err := s.addIndicator(ind); err != nil {
				skipped.addError(cfg.Path, n, err)
			}
		}
		if err != nil {
			return nil
		}
	}
}

// parseLine reads one line in any of three forms: an indicator; a line of a hosts file, an unspecified or
// loopback address and the names that are sent there; CSV of indicator, confidence and note.
func parseLine(line string, bad func(error)) []indicator {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' || line[0] == ';' || line[0] == '!' {
		return nil
	}
	if strings.Contains(line, ",") {
		ind, err := parseCSV(line)
		if err != nil {
			bad(err)
			return nil
		}
		return []indicator{ind}
	}
	line, _, _ = strings.Cut(line, "#")
	words := strings.Fields(line)
	if len(words) > 1 {
		if a, err := netip.ParseAddr(words[0]); err != nil || !a.IsUnspecified() && !a.IsLoopback() {
			bad(fmt.Errorf("%q is neither one indicator, nor a line of a hosts file, nor CSV", quoteShort(line)))
			return nil
		}
		words = words[1:]
	}
	var out []indicator
	for _, w := range words {
		out = append(out, indicator{text: w, confidence: noConfidence})
	}
	return out
}

// parseCSV splits at commas; an indicator and a confidence hold none, and a note may be quoted.
func parseCSV(line string) (indicator, error) {
	first, rest, _ := strings.Cut(line, ",")
	score, note, _ := strings.Cut(rest, ",")
	ind := indicator{text: strings.Trim(strings.TrimSpace(first), `"`), note: truncate(strings.Trim(strings.TrimSpace(note), `"`), maxNote), confidence: noConfidence}
	if score = strings.TrimSpace(score); score != "" {
		n, err := strconv.ParseUint(score, 10, 8)
		if err != nil || n > 100 {
			return ind, fmt.Errorf("confidence %q is not a number from 0 to 100", quoteShort(score))
		}
		ind.confidence = uint8(n)
	}
	return ind, nil
}

func quoteShort(s string) string { return truncate(s, 80) }

func truncate(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "") + "…"
	}
	return s
}

// addIndicator files an indicator under what it is: an address, a network or a domain. Of two for the same
// the surer one stays.
func (s *Set) addIndicator(ind indicator) error {
	if len(s.indicators) >= maxIndicators {
		return fmt.Errorf("more than %d indicators", maxIndicators)
	}
	if a, err := netip.ParseAddr(ind.text); err == nil {
		a = a.Unmap()
		if a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() {
			return fmt.Errorf("address %s is everyone's", a)
		}
		ind.text = a.String()
		keepSurest(s, s.addrs, a, ind)
		return nil
	}
	if strings.Contains(ind.text, "/") {
		return s.addPrefix(ind)
	}
	name, err := normalizeDomain(ind.text)
	if err != nil {
		return err
	}
	name = strings.Clone(name)
	ind.text = name
	keepSurest(s, s.domains, name, ind)
	return nil
}

func (s *Set) addPrefix(ind indicator) error {
	p, err := netip.ParsePrefix(ind.text)
	if err != nil {
		return fmt.Errorf("%q is not a network, an address or a domain", quoteShort(ind.text))
	}
	if p.Addr().Is4In6() {
		return fmt.Errorf("network %q: write IPv4 as IPv4", quoteShort(ind.text))
	}
	p = p.Masked()
	if least := map[bool]int{true: 8, false: 16}[p.Addr().Is4()]; p.Bits() < least {
		return fmt.Errorf("network %s is too wide: at least /%d", p, least)
	}
	ind.text = p.String()
	keepSurest(s, s.prefixes, p, ind)
	return nil
}

func keepSurest[K comparable](s *Set, m map[K]int32, key K, ind indicator) {
	if i, ok := m[key]; ok {
		if s.indicators[i].confidence < ind.confidence {
			ind.note = strings.Clone(ind.note)
			s.indicators[i] = ind
		}
		return
	}
	ind.note = strings.Clone(ind.note) // else it keeps its line, which may be twenty times as long
	m[key] = int32(len(s.indicators))
	s.indicators = append(s.indicators, ind)
}

// normalizeDomain is the form in which names are compared: lower case, ASCII, without the last dot. A public
// suffix is refused, since it would cover everybody below it.
func normalizeDomain(text string) (string, error) {
	name := strings.TrimPrefix(strings.TrimSuffix(strings.ToLower(text), "."), "*.")
	if !isASCII(name) {
		ascii, err := idna.Lookup.ToASCII(name)
		if err != nil {
			return "", fmt.Errorf("%q is not a domain: %w", quoteShort(text), err)
		}
		name = ascii
	}
	if len(name) > 253 || !strings.Contains(name, ".") {
		return "", fmt.Errorf("%q is not a network, an address or a domain", quoteShort(text))
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool {
			return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
		}) {
			return "", fmt.Errorf("%q is not a domain: label %q", quoteShort(text), quoteShort(label))
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

// buildFilter makes the filter, once the number of its entries is known: 1 in 1,000 passes it wrongly and is
// found out by the maps.
func (s *Set) buildFilter() {
	s.filter = bloom.NewWithEstimates(uint(max(len(s.indicators), 1024)), 0.001)
	for name := range s.domains {
		s.filter.AddString(name)
	}
	var key [17]byte
	for a := range s.addrs {
		s.filter.Add(filterKey(&key, a, a.BitLen()))
	}
	lengths := map[bool]map[int]bool{true: {}, false: {}}
	for p := range s.prefixes {
		s.filter.Add(filterKey(&key, p.Addr(), p.Bits()))
		lengths[p.Addr().Is4()][p.Bits()] = true
	}
	s.bits4, s.bits6 = longestFirst(lengths[true]), longestFirst(lengths[false])
}

func longestFirst(m map[int]bool) []int {
	var out []int
	for n := range m {
		out = append(out, n)
	}
	slices.Sort(out)
	slices.Reverse(out)
	return out
}
