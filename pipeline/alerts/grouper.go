package alerts

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"tidegate/pipeline"
)

// GrouperConfig bounds the fold of one partition.
type GrouperConfig struct {
	Window     time.Duration `yaml:"window"`       // matches of a group within it are one alert
	Horizon    time.Duration `yaml:"horizon"`      // how far behind the newest window a late match may lie; what is older counts there
	MaxOpen    int           `yaml:"max_open"`     // windows that are kept, per partition
	MaxPerRule int           `yaml:"max_per_rule"` // of them, for one rule; further groups share one alert
}

// DefaultGrouper is five minutes, an hour, and some 15 MB a partition at the worst.
func DefaultGrouper() GrouperConfig {
	return GrouperConfig{Window: 5 * time.Minute, Horizon: time.Hour, MaxOpen: 20000, MaxPerRule: 5000}
}

// Check names every key that cannot be right.
func (c GrouperConfig) Check() []error {
	var errs []error
	if c.Window < time.Second || c.Window > 24*time.Hour {
		errs = append(errs, fmt.Errorf("alerts.window: %v: 1s to 24h is meant", c.Window))
	}
	if c.Horizon < c.Window || c.Horizon > 24*c.Window {
		errs = append(errs, fmt.Errorf("alerts.horizon: %v: 1 to 24 times alerts.window is meant", c.Horizon))
	}
	if c.MaxOpen < 1 {
		errs = append(errs, errors.New("alerts.max_open: at least 1 is needed"))
	}
	if c.MaxPerRule < 1 {
		errs = append(errs, errors.New("alerts.max_per_rule: at least 1 is needed"))
	}
	return errs
}

// OtherGroups is the group of the one alert that the groups of a rule share beyond FoldConfig.MaxPerRule.
const OtherGroups = "(other groups)"

// A Grouper turns the verdicts of one partition into alerts. It is a function of the verdicts and their order alone: no clock is
// read, and what it remembers at the border of a block is what its alerts say that were written before it. So a worker that was
// killed restores it from the store (Restore) and repeats the block with the same alerts under the same ids and revisions.
//
// The time of a match is the smallest of when it happened, when it was shipped and when its block was formed: a collector whose
// clock is ahead closes nobody's window. The windows of a group begin at least one window apart: a match less than a window
// before one belongs to it (packets and lines are seldom in order), one that is further behind opens an alert of its own.
type Grouper struct {
	cfg            GrouperConfig
	partition      int32
	groups         map[groupKey]*alertGroup
	windowsPerRule map[string]int // windows, without those of OtherGroups
	openCount      int
	newestStart    int64 // the newest window's start
	touched        []*window
}

type groupKey struct{ rule, group string }

// A alertGroup is the windows of one rule and group, the oldest first: at most horizon/window + 2.
type alertGroup struct {
	groupKey
	fingerprint [8]byte
	windows     []*window
}

type window struct {
	start       int64
	alert       pipeline.Alert
	lastVerdict *pipeline.Verdict // since the last Flush; it lies in the block
	touched     bool
	opened      bool // it was opened since the last Flush
}

// NewGrouper makes an empty fold of one partition of the events topic.
func NewGrouper(cfg GrouperConfig, partition int32) *Grouper {
	return &Grouper{cfg: cfg, partition: partition, groups: map[groupKey]*alertGroup{}, windowsPerRule: map[string]int{}}
}

// Lookback is how far before the newest window's start the alerts begin that Restore needs.
func (c GrouperConfig) Lookback() time.Duration { return c.Horizon + c.Window }

// Restore takes up the windows as they stood at the border of a block: of each alert of this partition the last revision whose
// Offset lies before it.
func (f *Grouper) Restore(list []*pipeline.Alert) {
	for _, a := range list {
		k := groupKey{a.Rule, a.Group}
		s := f.groups[k]
		if s == nil {
			s = f.newGroup(k)
		}
		w := &window{start: a.WindowStart.UnixNano(), alert: *a}
		f.insertWindow(s, w)
	}
	f.expireWindows()
}

// AddVerdicts counts the verdicts of e, which was shipped at and stands in the message at offset.
func (f *Grouper) AddVerdicts(e *pipeline.Event, shipped, offset int64) {
	at := e.Timestamp
	if shipped > 0 {
		at = min(at, shipped)
	}
	if e.Ingested > 0 {
		at = min(at, e.Ingested)
	}
	for _, v := range e.Verdicts {
		f.addVerdict(e, v, at, offset)
	}
}

func (f *Grouper) addVerdict(e *pipeline.Event, v *pipeline.Verdict, at, offset int64) {
	if f.newestStart != 0 {
		at = max(at, f.newestStart-int64(f.cfg.Horizon))
	}
	w := f.findWindow(groupKey{v.Rule, groupName(e, v)}, at)
	if w == nil {
		w = f.openWindow(e, v, at)
	}
	if !w.touched {
		w.touched = true
		f.touched = append(f.touched, w)
	}
	a := &w.alert
	a.Count++
	a.Revision = a.Count
	a.Offset = offset
	a.Score = max(a.Score, v.Score)
	if t := time.Unix(0, e.Timestamp).UTC(); t.After(a.Last) {
		a.Last = t
	}
	w.lastVerdict = v
}

// findWindow is the window that a match at the time belongs to: the one that spans it, else the one that begins less than a window
// later; nil: none.
func (f *Grouper) findWindow(k groupKey, at int64) *window {
	s := f.groups[k]
	if s == nil {
		return nil
	}
	size := int64(f.cfg.Window)
	for i, w := range slices.Backward(s.windows) {
		if w.start <= at {
			if at-w.start < size {
				return w
			}
			if i+1 < len(s.windows) && s.windows[i+1].start-at < size {
				return s.windows[i+1]
			}
			return nil
		}
	}
	if len(s.windows) > 0 && s.windows[0].start-at < size {
		return s.windows[0]
	}
	return nil
}

// openWindow opens a window for the first match of a group; where there is no more room, for all further groups of its rule.
func (f *Grouper) openWindow(e *pipeline.Event, v *pipeline.Verdict, at int64) *window {
	k := groupKey{v.Rule, groupName(e, v)}
	if f.openCount >= f.cfg.MaxOpen || f.windowsPerRule[v.Rule] >= f.cfg.MaxPerRule {
		k.group = OtherGroups
		if w := f.findWindow(k, at); w != nil {
			return w
		}
	}
	s := f.groups[k]
	if s == nil {
		s = f.newGroup(groupKey{strings.Clone(k.rule), strings.Clone(k.group)})
	}
	w := &window{start: at, opened: true, alert: f.newAlert(e, v, s, at)}
	f.insertWindow(s, w)
	return w
}

func (f *Grouper) newGroup(k groupKey) *alertGroup {
	s := &alertGroup{groupKey: k, fingerprint: fingerprint(k)}
	f.groups[k] = s
	return s
}

func (f *Grouper) insertWindow(s *alertGroup, w *window) {
	i, _ := slices.BinarySearchFunc(s.windows, w.start, func(w *window, t int64) int { return cmp.Compare(w.start, t) })
	s.windows = slices.Insert(s.windows, i, w)
	f.newestStart = max(f.newestStart, w.start)
	if s.group != OtherGroups {
		f.openCount++
		f.windowsPerRule[s.rule]++
	}
}

// Flush gives one revision of each alert that was touched since the last Flush, in an order that depends on nothing but them, and
// forgets the windows that no match can reach any more. opened are those of them that are new.
func (f *Grouper) Flush() (all, opened []*pipeline.Alert) {
	for _, w := range f.touched {
		a := &w.alert
		if v := w.lastVerdict; v != nil {
			a.Evidence = truncate(v.Evidence, 2048)
			if v.Version != a.Version {
				a.Version = truncate(v.Version, 128)
			}
		}
		out := *a
		all = append(all, &out)
		if w.opened {
			opened = append(opened, &out)
		}
		w.lastVerdict, w.touched, w.opened = nil, false, false
	}
	byID := func(a, b *pipeline.Alert) int { return cmp.Compare(a.ID, b.ID) }
	slices.SortFunc(all, byID)
	slices.SortFunc(opened, byID)
	f.touched = f.touched[:0]
	f.expireWindows()
	return all, opened
}

// expireWindows drops the windows that end before the horizon: no match is placed there.
func (f *Grouper) expireWindows() {
	end := f.newestStart - int64(f.cfg.Horizon) - int64(f.cfg.Window)
	for k, s := range f.groups {
		n := 0
		for n < len(s.windows) && s.windows[n].start <= end {
			n++
		}
		if n == 0 {
			continue
		}
		s.windows = slices.Delete(s.windows, 0, n)
		if s.group != OtherGroups {
			f.openCount -= n
			if f.windowsPerRule[s.rule] -= n; f.windowsPerRule[s.rule] == 0 {
				delete(f.windowsPerRule, s.rule)
			}
		}
		if len(s.windows) == 0 {
			delete(f.groups, k)
		}
	}
}

// OpenWindows is how many windows are kept.
func (f *Grouper) OpenWindows() int { return f.openCount }

// newAlert describes an alert by its first match. Every string is copied: those of e lie in Kafka's buffer.
func (f *Grouper) newAlert(e *pipeline.Event, v *pipeline.Verdict, s *alertGroup, at int64) pipeline.Alert {
	t := time.Unix(0, e.Timestamp).UTC()
	a := pipeline.Alert{
		ID: alertID(s.fingerprint, at, f.partition), Fingerprint: hex.EncodeToString(s.fingerprint[:]),
		Detector: truncate(v.Detector, 64), Rule: s.rule, Version: truncate(v.Version, 128), Title: truncate(v.Title, 256), Severity: v.Severity.Name(),
		Group: s.group, WindowStart: time.Unix(0, at).UTC(), First: t, Last: t,
		Dataset: e.Dataset.Name(), Partition: f.partition,
		Source: addrPort(e.Source), Destination: addrPort(e.Destination),
	}
	for _, tag := range v.Tags[:min(len(v.Tags), 16)] {
		a.Tags = append(a.Tags, truncate(tag, 64))
	}
	if id, err := uuid.FromBytes(e.Id); err == nil {
		a.EventID = id.String()
	}
	if h := e.Host; h != nil {
		a.Host, a.Cluster = truncate(h.Name, 256), truncate(h.Cluster, 256)
	}
	if c := e.Container; c != nil {
		a.ContainerID, a.ContainerName, a.Image, a.Demo = truncate(c.Id, 128), truncate(c.Name, 256), truncate(c.Image, 512), c.Demo
	}
	return a
}

// groupName is what the verdict is folded by: its own group, else the container, else the host. A very long one keeps its
// beginning and a hash of all of it.
func groupName(e *pipeline.Event, v *pipeline.Verdict) string {
	g := v.Group
	if g == "" && e.Container != nil {
		g = e.Container.Id
	}
	if g == "" && e.Host != nil {
		if g = e.Host.Id; g == "" {
			g = e.Host.Name
		}
	}
	if len(g) > 512 {
		sum := sha256.Sum256([]byte(g))
		g = truncate(g, 256) + "…" + hex.EncodeToString(sum[:8])
	}
	return g
}

// fingerprint is a cryptographic hash, for groups are often what an attacker chooses, and two that collide would be one alert.
func fingerprint(k groupKey) (out [8]byte) {
	sum := sha256.Sum256([]byte(k.rule + "\x00" + k.group))
	copy(out[:], sum[:])
	return out
}

func alertID(fingerprint [8]byte, start int64, partition int32) string {
	var b [20]byte
	copy(b[:], fingerprint[:])
	binary.BigEndian.PutUint64(b[8:], uint64(start))
	binary.BigEndian.PutUint32(b[16:], uint32(partition))
	sum := sha256.Sum256(b[:])
	return hex.EncodeToString(sum[:16])
}

func addrPort(p *pipeline.Endpoint) string {
	if p == nil {
		return ""
	}
	a, ok := netip.AddrFromSlice(p.Ip)
	if !ok {
		return ""
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p.Port)).String()
}

// truncate copies at most n bytes of s, and never half a letter.
func truncate(s string, n int) string {
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return strings.Clone(s)
}
