package feeds

import (
	"bufio"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Match is an indicator that a feed lists for a value.
type Match struct {
	Feed       string     `json:"feed"`
	Indicator  string     `json:"indicator"` // the value, or what contains it
	Type       string     `json:"type"`
	Confidence uint8      `json:"confidence"`
	Severity   string     `json:"severity"`
	Source     string     `json:"source,omitempty"`
	Tags       []string   `json:"tags,omitempty"`
	Note       string     `json:"note,omitempty"`
	ValidUntil *time.Time `json:"valid_until,omitempty"`
	Expired    bool       `json:"expired,omitempty"`
	Allow      bool       `json:"allow,omitempty"` // the feed is an allow-list
}

// Find returns what the feeds list for a value at a time, in the forms that Has takes, then what had expired by then. If an
// allow-list has it, what other feeds list of the same width and wider is not returned, as it has no verdict.
func (s *Set) Find(value string, at time.Time) (matches []Match) {
	seen := map[string]bool{} // a value may be asked as more than one kind
	matched := func(l *list, about *detail, key []byte) {
		id := l.name + "\x00" + string(key)
		if seen[id] {
			return
		}
		seen[id] = true
		match := Match{
			Feed: l.name, Indicator: keyText(key), Type: typeOf(key), Confidence: about.confidence, Severity: l.severity.Name(),
			Source: about.source, Tags: about.tagList(), Note: about.note, Allow: l.config.Allow,
		}
		if about.expires != 0 {
			until := time.Unix(about.expires, 0).UTC()
			match.ValidUntil = &until
			match.Expired = about.expiredAt(at.UnixNano())
		}
		matches = append(matches, match)
	}
	s.checkAny(target{at: at.UnixNano(), matched: matched}, value, &feedSet{})
	s.checkAny(target{matched: matched}, value, &feedSet{})
	return matches
}

// CheckIndicator returns why no feed can list a text, or nil.
func CheckIndicator(text string, allowLocal bool) error {
	parser := (&list{config: Config{AllowLocal: allowLocal}, details: details{room: 1}}).newParser(maxIndicators)
	if len(text) > maxLine {
		return errors.New("it is longer than a line of a feed")
	}
	return parser.addKind(kindAny, []byte(text), detail{})
}

// Stats describes what was read of a feed.
type Stats struct {
	Feed       string         `json:"feed"`
	Path       string         `json:"path"`
	Severity   string         `json:"severity"`
	Allow      bool           `json:"allow"`
	Indicators int            `json:"indicators"` // without those that are in the feed twice
	Types      map[string]int `json:"types"`      // with them
	Bytes      int            `json:"bytes"`      // of memory, about
	Skipped    int            `json:"skipped"`    // lines, or objects of JSON
	Reasons    map[string]int `json:"reasons"`    // why they were skipped
	Examples   []string       `json:"examples"`   // the first that were skipped
	TextsLeft  int            `json:"texts_left_out"`
	Version    string         `json:"version"`

	// Of the engine that runs, see AddLoadTimes.
	LastLoad     *time.Time `json:"last_load,omitempty"`
	LastGoodLoad *time.Time `json:"last_good_load,omitempty"`
}

// AddLoadTimes sets the times of loads of feeds by the metrics of an engine, in the text format of Prometheus.
func AddLoadTimes(all []Stats, metrics io.Reader) error {
	lines := bufio.NewScanner(metrics)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		for i := range all {
			feed := &all[i]
			label := `{feed="` + labelEscaper.Replace(feed.Feed) + `"} `
			for name, at := range map[string]**time.Time{lastLoadMetric: &feed.LastLoad, lastGoodLoadMetric: &feed.LastGoodLoad} {
				value, ok := strings.CutPrefix(lines.Text(), name+label)
				if seconds, err := strconv.ParseFloat(value, 64); ok && err == nil && seconds > 0 {
					loaded := time.Unix(int64(seconds), 0).UTC()
					*at = &loaded
				}
			}
		}
	}
	return lines.Err()
}

// labelEscaper escapes the value of a label.
var labelEscaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// maxExamples is the number of skipped lines that Stats quote.
const maxExamples = 5

// Stats returns a description of each feed, in the order of the configuration.
func (s *Set) Stats() (out []Stats) {
	for _, list := range s.lists {
		stats := Stats{
			Feed: list.name, Path: list.config.Path, Severity: list.severity.Name(), Allow: list.config.Allow,
			Indicators: list.index.count, Types: maps.Clone(list.types), Skipped: list.skipped.Count, Reasons: maps.Clone(list.reasons),
			Version: list.version, TextsLeft: list.details.dropped, Bytes: list.index.count*(entrySize+filterBits/8) + list.details.bytes(),
		}
		for _, lineError := range list.skipped.Errors[:min(len(list.skipped.Errors), maxExamples)] {
			stats.Examples = append(stats.Examples, lineError.Error())
		}
		out = append(out, stats)
	}
	return out
}

// bytes returns about what the details take.
func (d *details) bytes() (size int) {
	for i := range d.all {
		size += 64 + len(d.all[i].source) + len(d.all[i].tags) + len(d.all[i].note)
	}
	return size
}

// LoadEach is Load for the feeds that can be read, with the errors of the others.
func LoadEach(ctx context.Context, cfgs []Config) (*Set, []error) {
	var errs []error
	readable := slices.DeleteFunc(slices.Clone(cfgs), func(cfg Config) bool {
		_, _, err := Load(ctx, []Config{cfg})
		if err != nil {
			errs = append(errs, err)
		}
		return err != nil
	})
	set, _, err := Load(ctx, readable)
	if err != nil {
		return newSet(nil), append(errs, err)
	}
	return set, errs
}
