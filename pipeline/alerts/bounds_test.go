package alerts

import (
	"strings"
	"testing"

	"tidegate/pipeline"
)

// TestTextsOfAnAlertAreBounded: detectors, containers and hosts may supply any length.
func TestTextsOfAnAlertAreBounded(t *testing.T) {
	const long = 10_000
	text := func(letter string) string { return strings.Repeat(letter, long) }
	event := match(0, "r", text("g"))
	verdict := event.Verdicts[0]
	verdict.Detector, verdict.Version, verdict.Title, verdict.Evidence = text("d"), text("v"), text("t"), text("e")
	verdict.Tags = nil
	for range 20 {
		verdict.Tags = append(verdict.Tags, text("x"))
	}
	event.Host = &pipeline.Host{Name: text("h"), Cluster: text("c")}
	event.Container = &pipeline.Container{Id: text("i"), Name: text("n"), Image: text("m")}
	grouper := NewGrouper(DefaultGrouper(), 1)
	grouper.AddVerdicts(event, late, 1)
	all, _ := grouper.Flush()
	if len(all) != 1 {
		t.Fatalf("%d alerts", len(all))
	}
	alert := all[0]
	for what, c := range map[string]struct {
		text string
		want int
	}{
		"detector": {alert.Detector, 64}, "version": {alert.Version, 128}, "title": {alert.Title, 256}, "evidence": {alert.Evidence, 2048},
		"host": {alert.Host, 256}, "cluster": {alert.Cluster, 256}, "container": {alert.ContainerName, 256}, "id": {alert.ContainerID, 128},
		"image": {alert.Image, 512}, "tag": {alert.Tags[0], 64}, "group": {alert.Group, 256 + len("…") + 16},
	} {
		if len(c.text) > c.want || len(c.text) < c.want-len("…") {
			t.Errorf("%s: %d bytes, want %d", what, len(c.text), c.want)
		}
	}
	if len(alert.Tags) != 16 {
		t.Errorf("%d tags, want 16", len(alert.Tags))
	}

	// Long groups stay different.
	group := func(name string) string {
		verdict.Group = name
		return GroupOf(event, verdict)
	}
	if got := group(strings.Repeat("g", 512)); got != strings.Repeat("g", 512) {
		t.Errorf("a group of 512 bytes has become one of %d", len(got))
	}
	first, second := group(strings.Repeat("g", 513)), group(strings.Repeat("g", 513)+"x")
	if first == second || len(first) != len(second) {
		t.Errorf("two long groups are %q and %q", first, second)
	}
}

// TestEndpointsAreAddressesWithPorts; addresses of IPv4 have one form.
func TestEndpointsAreAddressesWithPorts(t *testing.T) {
	for want, endpoint := range map[string]*pipeline.Endpoint{
		"10.0.0.1:80":       {Ip: []byte{10, 0, 0, 1}, Port: 80},
		"[2001:db8::1]:443": {Ip: []byte{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, Port: 443},
		"10.0.0.2:0":        {Ip: []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2}},
	} {
		if got := endpointText(endpoint); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, endpoint := range []*pipeline.Endpoint{nil, {}, {Ip: []byte{1, 2, 3}, Port: 80}} {
		if got := endpointText(endpoint); got != "" {
			t.Errorf("%v is %q", endpoint, got)
		}
	}
}

// TestMarkOfAMessageIsReadAsItWasWritten, and nothing else is one.
func TestMarkOfAMessageIsReadAsItWasWritten(t *testing.T) {
	for _, mark := range []recordMark{{isSet: true}, {isSet: true, offset: 5, sum: 0xab}, {isSet: true, offset: 1 << 62, sum: 1<<64 - 1}} {
		if got := parseMark(mark.String()); got != mark {
			t.Errorf("%s is read as %+v", mark, got)
		}
	}
	for _, word := range []string{"", "@", "@5", "5:ab", "@5:", "@:ab", "@-1:ab", "@x:ab", "@5:xyz", "@5:ab:c", "@@5:ab", "@5:1ffffffffffffffff"} {
		if got := parseMark(word); got.isSet {
			t.Errorf("%q is the mark %+v", word, got)
		}
	}
	for _, text := range []string{
		"", progressVersion, progressVersion + " x", progressVersion + " -1", "x 5", progressVersion + " 5 5", progressVersion + " 5 -1",
		progressVersion + " 5 x", progressVersion + " 5 @3:ab 9",
	} {
		if got := parseProgress(text); got.next != 0 || got.pending != nil || got.mark.isSet {
			t.Errorf("%q is read as %+v", text, got)
		}
	}
	if got := parseProgress(progressVersion + " 5 @3:ab 4 0"); got.next != 5 || len(got.pending) != 2 || got.mark.offset != 3 {
		t.Errorf("progress %+v", got)
	}
}

// TestLongGroupIsABeginningAndAHash: 256 bytes of it and 16 hexadecimal digits, which differ with what was left out.
func TestLongGroupIsABeginningAndAHash(t *testing.T) {
	exact := strings.Repeat("x", maxGroup)
	if got := GroupOf(&pipeline.Event{}, &pipeline.Verdict{Group: exact}); got != exact {
		t.Errorf("a group of %d bytes was cut to %d", len(exact), len(got))
	}
	first := GroupOf(&pipeline.Event{}, &pipeline.Verdict{Group: exact + "a"})
	beginning, hash, found := strings.Cut(first, "…")
	if !found || beginning != exact[:256] || len(hash) != 16 || strings.Trim(hash, "0123456789abcdef") != "" {
		t.Errorf("%q", first)
	}
	if first == GroupOf(&pipeline.Event{}, &pipeline.Verdict{Group: exact + "b"}) {
		t.Error("two groups are one")
	}
}
