package alerts

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tidegate/pipeline"
)

// OtherGroups is the group of the one alert that all further groups of a rule share once the rule has
// GrouperConfig.MaxPerRule open windows.
const OtherGroups = "(other groups)"

// A Grouper turns the verdicts of one partition into alerts. Matches of one rule in one group within one
// window are one alert; each Flush returns a revision of every alert that was touched.
//
// A Grouper depends on nothing but the verdicts and their order. It reads no clock, and its state at the
// border of a block follows from the alerts that were written before the block. A worker that was killed
// restores it from the store (Restore) and repeats the block: the same alerts come out, with the same ids and
// revisions.
//
// The time of a match is the earliest of when the event happened, when it was shipped and when its block was
// formed: a collector whose clock is ahead cannot close the windows of others. If the clock of the engine was
// ahead as well, the newest window begins far after the blocks that follow. IsAheadOf reports that, and the
// worker restores the grouper without the windows that lie ahead. The windows of a group begin
// at least one window length apart. A match that is less than a window length before a window belongs to
// that window, because packets and lines are often out of order; a match that is further back opens a
// window of its own.
type Grouper struct {
	cfg           GrouperConfig
	policies      map[string]pipeline.AlertPolicy // by rule
	topic         string                          // events topic; "": the default one
	partition     int32
	groups        map[groupKey]*alertGroup
	groupsPerRule map[string]int // groups with open windows, without OtherGroups
	openCount     int            // open windows, without those of OtherGroups
	newestStart   int64          // start of the newest window; 0: there was none yet
	touched       []*window      // since the last Flush
}

type groupKey struct{ rule, group string }

// maxWindows is the number of windows of a group that are kept, the newest ones. A match before all of them
// counts in the oldest. With a window for each window length of AllowedLateness, steady groups would take most
// of the memory for windows that hardly any match reaches.
const maxWindows = 4

// An alertGroup holds the open windows of one rule and group, the oldest first, and at most maxWindows.
type alertGroup struct {
	groupKey
	fingerprint [8]byte
	windows     []*window
}

// A window is an open alert with the state of its next revision.
type window struct {
	start       int64 // ns since 1970
	alert       pipeline.Alert
	lastVerdict *pipeline.Verdict // newest since the last Flush; it belongs to the block
	touched     bool              // is in Grouper.touched
	opened      bool              // since the last Flush
}

// NewGrouper returns an empty grouper for a partition of the signals topic.
func NewGrouper(cfg GrouperConfig, partition int32) *Grouper {
	return &Grouper{
		cfg: cfg, partition: partition,
		groups: map[groupKey]*alertGroup{}, groupsPerRule: map[string]int{},
	}
}

// ForTopic sets the name of the signals topic and returns g. The alerts of two topics in one database have different
// ids.
func (g *Grouper) ForTopic(topic string) *Grouper {
	g.topic = topic
	return g
}

// SetPolicies sets the policies of the rules. The windows that are open stay.
func (g *Grouper) SetPolicies(policies map[string]pipeline.AlertPolicy) { g.policies = policies }

// windowLength returns the length of the windows of a rule in ns.
func (g *Grouper) windowLength(rule string) int64 {
	if suppress := g.policies[rule].Suppress; suppress > 0 {
		return int64(suppress)
	}
	return int64(g.cfg.Window)
}

// Lookback returns how far before the start of the newest window the alerts begin that Restore needs.
func (g *Grouper) Lookback() time.Duration {
	longest := g.cfg.Window
	for _, policy := range g.policies {
		longest = max(longest, policy.Suppress)
	}
	return g.cfg.AllowedLateness + longest
}

// Restore opens the windows as they were at the border of a block. alerts holds the newest revision of each
// alert of the partition that the block has not touched.
func (g *Grouper) Restore(alerts []*pipeline.Alert) {
	for _, alert := range alerts {
		key := groupKey{alert.Rule, alert.Group}
		group := g.groups[key]
		if group == nil {
			group = g.newGroup(key)
		}
		restored := *alert
		restored.Topic = g.topic // a revision of an earlier version names none
		g.insertWindow(group, &window{start: alert.WindowStart.UnixNano(), alert: restored})
	}
	g.expireWindows()
}

// AddVerdicts counts the verdicts of e. shipped is the time at which its batch was shipped, ns since 1970;
// offset is the offset of its message.
func (g *Grouper) AddVerdicts(event *pipeline.Event, shipped, offset int64) {
	at := event.Timestamp
	if shipped > 0 {
		at = min(at, shipped)
	}
	if event.Ingested > 0 {
		at = min(at, event.Ingested)
		if g.IsAheadOf(event.Ingested) {
			g.dropWindowsAfter(g.LatestStart(event.Ingested))
		}
	}
	for _, v := range event.Verdicts {
		g.addVerdict(event, v, at, offset)
	}
}

// A Match is a match of a rule over several events, or the matches of a rule over one event about the same time.
type Match struct {
	Event       *pipeline.Event // that the alert shows
	Verdict     *pipeline.Verdict
	At          int64    // when the rule was fulfilled, ns since 1970, as are First, Last and Ingested
	First, Last int64    // begin of the earliest and latest of the events
	Count       int64    // of events; 0: the rule was fulfilled because there were none
	Events      []string // of some of them, as Alert.Events has them
	Offset      int64    // of the record of the signals topic at which it was fulfilled
	Ingested    int64    // time of the block
}

// AddMatch counts a match of a rule over several events, or matches of a rule over one. Count of its alert is the number of events. The revision grows with
// each match, also with one that has no events.
func (g *Grouper) AddMatch(m Match) {
	if g.IsAheadOf(m.Ingested) {
		g.dropWindowsAfter(g.LatestStart(m.Ingested))
	}
	event := &pipeline.Event{
		Id: m.Event.GetId(), Dataset: m.Event.GetDataset(), Timestamp: m.Last, Ingested: m.Ingested, Host: m.Event.GetHost(),
		Container: m.Event.GetContainer(), Source: m.Event.GetSource(), Destination: m.Event.GetDestination(),
	}
	window := g.addVerdict(event, m.Verdict, min(m.At, m.Ingested), m.Offset)
	alert := &window.alert
	for _, event := range m.Events[:min(len(m.Events), maxAlertEvents-len(alert.Events))] {
		alert.Events = append(alert.Events, truncate(event, maxAlertEventBytes))
	}
	alert.Revision += uint64(max(m.Count, 1)) - 1
	alert.Count += uint64(m.Count) - 1
	if first := time.Unix(0, m.First).UTC(); first.Before(alert.First) {
		alert.First = first
	}
}

// Bounds of Alert.Events.
const (
	maxAlertEvents     = 20
	maxAlertEventBytes = 128
)

// NewestOffset returns the largest offset of an open alert, -1 if there is none.
func (g *Grouper) NewestOffset() int64 {
	newest := int64(-1)
	for _, group := range g.groups {
		for _, window := range group.windows {
			newest = max(newest, window.alert.Offset)
		}
	}
	return newest
}

// IsAheadOf reports whether the newest window begins more than AllowedLateness after blockTime, the time of a
// block in ns since 1970: a clock was ahead. Matches of the block would count in its future.
func (g *Grouper) IsAheadOf(blockTime int64) bool { return g.newestStart > g.LatestStart(blockTime) }

// LatestStart returns the latest start of a window for a block of the given time.
func (g *Grouper) LatestStart(blockTime int64) int64 { return blockTime + int64(g.cfg.AllowedLateness) }

// dropWindowsAfter closes the windows that begin after latest.
func (g *Grouper) dropWindowsAfter(latest int64) {
	g.newestStart = 0
	for _, group := range g.groups {
		kept := len(group.windows)
		for kept > 0 && group.windows[kept-1].start > latest {
			kept--
		}
		g.countClosed(group, len(group.windows)-kept)
		clear(group.windows[kept:])
		group.windows = group.windows[:kept]
		if kept == 0 {
			g.removeGroup(group)
			continue
		}
		g.newestStart = max(g.newestStart, group.windows[kept-1].start)
	}
}

// countClosed updates the counts for windows of group that are closed.
func (g *Grouper) countClosed(group *alertGroup, windows int) {
	if group.group != OtherGroups {
		g.openCount -= windows
	}
}

// removeGroup removes a group without windows.
func (g *Grouper) removeGroup(group *alertGroup) {
	delete(g.groups, group.groupKey)
	if group.group == OtherGroups {
		return
	}
	if g.groupsPerRule[group.rule]--; g.groupsPerRule[group.rule] == 0 {
		delete(g.groupsPerRule, group.rule)
	}
}

// addVerdict counts one verdict of a match at the time at. A match that is too late, by
// AllowedLateness behind the newest window, counts at that limit, where windows are still open.
func (g *Grouper) addVerdict(event *pipeline.Event, verdict *pipeline.Verdict, at, offset int64) *window {
	// Find the window of the match, or open one, and mark it for the next Flush.
	if g.newestStart != 0 {
		at = max(at, g.newestStart-int64(g.cfg.AllowedLateness))
	}
	window := g.findWindow(groupKey{verdict.Rule, GroupOf(event, verdict)}, at)
	if window == nil {
		window = g.openWindow(event, verdict, at)
	}
	if !window.touched {
		window.touched = true
		g.touched = append(g.touched, window)
	}

	// The revision grows with each match and can be restored from the alert. Of a rule over one event it is the count.
	alert := &window.alert
	alert.Count++
	alert.Revision++
	alert.Offset = offset
	if event.Ingested > 0 {
		alert.Ingested = time.Unix(0, event.Ingested).UTC()
	}
	alert.Score = max(alert.Score, verdict.Score)
	// A rule whose severity was raised raises the alerts that are open.
	alert.Severity = max(pipeline.SeverityByName(alert.Severity), verdict.Severity).Name()
	// Events are evaluated in the order in which they ended: one that began earlier may come later.
	if t := time.Unix(0, event.Timestamp).UTC(); t.After(alert.Last) {
		alert.Last = t
	} else if t.Before(alert.First) {
		alert.First = t
	}
	window.lastVerdict = verdict
	return window
}

// findWindow returns the window to which a match at the time at belongs: the window that contains it, else
// the one that begins less than a window length later, else the oldest of maxWindows windows; nil if there is
// none of these.
func (g *Grouper) findWindow(key groupKey, at int64) *window {
	group := g.groups[key]
	if group == nil {
		return nil
	}
	length := g.windowLength(key.rule)

	// The last window that begins at or before the match is the only one that can contain it; the next one is
	// the only one that can begin soon after it.
	for i, open := range slices.Backward(group.windows) {
		if open.start > at {
			continue
		}
		if at-open.start < length {
			return open
		}
		if i+1 < len(group.windows) && group.windows[i+1].start-at < length {
			return group.windows[i+1]
		}
		return nil
	}
	// All windows begin after the match.
	if n := len(group.windows); n > 0 && (group.windows[0].start-at < length || n >= maxWindows) {
		return group.windows[0]
	}
	return nil
}

// openWindow opens a window for a match. If the rule has reached its maximum of groups, or the partition its
// maximum of windows, openWindow returns the window that all further groups of the rule share.
func (g *Grouper) openWindow(event *pipeline.Event, verdict *pipeline.Verdict, at int64) *window {
	key := groupKey{verdict.Rule, GroupOf(event, verdict)}
	group := g.groups[key]
	if group == nil && g.groupsPerRule[verdict.Rule] >= g.cfg.MaxPerRule ||
		(group == nil || len(group.windows) < maxWindows) && g.openCount >= g.cfg.MaxOpen {
		key.group = OtherGroups
		if w := g.findWindow(key, at); w != nil {
			return w
		}
	}
	if group = g.groups[key]; group == nil {
		group = g.newGroup(groupKey{strings.Clone(key.rule), strings.Clone(key.group)})
	}
	w := &window{start: at, opened: true, alert: g.newAlert(event, verdict, group, at)}
	g.insertWindow(group, w)
	return w
}

func (g *Grouper) newGroup(key groupKey) *alertGroup {
	group := &alertGroup{groupKey: key, fingerprint: fingerprint(key)}
	g.groups[key] = group
	if key.group != OtherGroups {
		g.groupsPerRule[key.rule]++
	}
	return group
}

// insertWindow adds a window to those of group, which stay ordered by start, and closes the oldest one if there
// are too many.
func (g *Grouper) insertWindow(group *alertGroup, opened *window) {
	i, _ := slices.BinarySearchFunc(group.windows, opened.start,
		func(w *window, start int64) int { return cmp.Compare(w.start, start) })
	group.windows = slices.Insert(group.windows, i, opened)
	g.newestStart = max(g.newestStart, opened.start)
	closed := max(0, len(group.windows)-maxWindows)
	group.windows = slices.Delete(group.windows, 0, closed)
	if group.group != OtherGroups {
		g.openCount += 1 - closed
	}
}

// Flush returns one revision of each alert that was touched since the last Flush; opened are those of them
// that are new. Both are ordered by id, so that a repeat yields the same lists. Flush then closes the windows
// that no further match can reach.
func (g *Grouper) Flush() (revisions, opened []*pipeline.Alert) {
	// Copy each touched alert, with the evidence of its newest verdict, and reset the window.
	for _, window := range g.touched {
		alert := &window.alert
		if verdict := window.lastVerdict; verdict != nil {
			alert.Evidence = truncate(verdict.Evidence, maxEvidence)
			if verdict.Version != alert.Version {
				alert.Version = truncate(verdict.Version, maxVersion)
			}
		}
		alert.Severity = g.policies[alert.Rule].SeverityOf(pipeline.SeverityByName(alert.Severity), alert.Count).Name()
		revision := *alert
		revisions = append(revisions, &revision)
		if window.opened {
			opened = append(opened, &revision)
		}
		window.lastVerdict, window.touched, window.opened = nil, false, false
	}

	byID := func(a, b *pipeline.Alert) int { return cmp.Compare(a.ID, b.ID) }
	slices.SortFunc(revisions, byID)
	slices.SortFunc(opened, byID)
	g.touched = g.touched[:0]
	g.expireWindows()
	return revisions, opened
}

// expireWindows closes the windows that end AllowedLateness before the newest window: no match counts there
// any more.
func (g *Grouper) expireWindows() {
	for _, group := range g.groups {
		// A window that begins at lastExpired or before is closed.
		lastExpired := g.newestStart - int64(g.cfg.AllowedLateness) - g.windowLength(group.rule)
		expired := 0
		for expired < len(group.windows) && group.windows[expired].start <= lastExpired {
			expired++
		}
		if expired == 0 {
			continue
		}

		group.windows = slices.Delete(group.windows, 0, expired)
		g.countClosed(group, expired)
		if len(group.windows) == 0 {
			g.removeGroup(group)
		}
	}
}

// OpenWindows returns how many windows are open, without those of OtherGroups.
func (g *Grouper) OpenWindows() int { return g.openCount }

// Bounds of the texts in an alert, in bytes. Detectors and hosts may supply any length.
const (
	maxEvidence      = 2048
	maxTitle         = 256
	maxVersion       = 128
	maxDetector      = 64
	maxTag, maxTags  = 64, 16
	maxName          = 256 // of a host, cluster or container
	maxContainerID   = 128
	maxImage         = 512
	maxGroup         = 512
	maxGroupReadable = 256 // of a group that exceeds maxGroup
)

// newAlert returns the alert of a window that opens with a match. It copies every string, because the strings
// of event alias the buffer of its record.
func (g *Grouper) newAlert(
	event *pipeline.Event, verdict *pipeline.Verdict, group *alertGroup, start int64,
) pipeline.Alert {
	eventTime := time.Unix(0, event.Timestamp).UTC()
	alert := pipeline.Alert{
		ID: alertID(group.fingerprint, start, g.topic, g.partition), Fingerprint: hex.EncodeToString(group.fingerprint[:]),
		Detector: truncate(verdict.Detector, maxDetector), Rule: group.rule,
		Version: truncate(verdict.Version, maxVersion),
		Title:   truncate(verdict.Title, maxTitle), Severity: verdict.Severity.Name(), Group: group.group,
		WindowStart: time.Unix(0, start).UTC(), First: eventTime, Last: eventTime,
		Dataset: event.Dataset.Name(), Topic: g.topic, Partition: g.partition,
		Source: endpointText(event.Source), Destination: endpointText(event.Destination),
	}
	for _, tag := range verdict.Tags[:min(len(verdict.Tags), maxTags)] {
		alert.Tags = append(alert.Tags, truncate(tag, maxTag))
	}
	alert.EventID = event.IDText()
	if host := event.Host; host != nil {
		alert.Host, alert.Cluster = truncate(host.Name, maxName), truncate(host.Cluster, maxName)
	}
	if container := event.Container; container != nil {
		alert.ContainerID = truncate(container.Id, maxContainerID)
		alert.ContainerName = truncate(container.Name, maxName)
		alert.Image, alert.Demo = truncate(container.Image, maxImage), container.Demo
	}
	return alert
}

// GroupOf returns the group of a verdict: the one that the detector set, else the container, else the
// host. A group longer than maxGroup is replaced by its beginning and a hash of the whole.
func GroupOf(event *pipeline.Event, v *pipeline.Verdict) string {
	group := v.Group
	if group == "" {
		group = event.OwnerGroup()
	}
	group = pipeline.Printable(group)
	if len(group) > maxGroup {
		sum := sha256.Sum256([]byte(group))
		group = truncate(group, maxGroupReadable) + "…" + hex.EncodeToString(sum[:8])
	}
	return group
}

// fingerprint returns the identity of a rule and group. The hash is a cryptographic one, because an attacker
// often chooses the group and two groups that collide would be one alert.
func fingerprint(key groupKey) (out [8]byte) {
	sum := sha256.Sum256([]byte(key.rule + "\x00" + key.group))
	copy(out[:], sum[:])
	return out
}

// alertID returns the identity of the alert of a window. Topic and partition are part of it, because the same
// group may match in two.
func alertID(fingerprint [8]byte, start int64, topic string, partition int32) string {
	b := append([]byte(nil), fingerprint[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(start))
	b = binary.BigEndian.AppendUint32(b, uint32(partition))
	b = append(b, topic...)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// endpointText returns an endpoint as address:port; "" if it has no address.
func endpointText(endpoint *pipeline.Endpoint) string {
	if endpoint == nil {
		return ""
	}
	addr, ok := netip.AddrFromSlice(endpoint.Ip)
	if !ok {
		return ""
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(endpoint.Port)).String()
}

// truncate returns a copy of at most limit bytes of text that does not end within a character. It replaces
// control characters: texts are of foreign origin, and alerts are read on terminals.
func truncate(text string, limit int) string {
	text = pipeline.Printable(text)
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "")
	}
	return strings.Clone(text)
}
