package main

import (
	"path/filepath"
	"strings"
	"testing"

	"tidegate/detectors/feeds"
	"tidegate/pipeline"
	"tidegate/protocols/all"
	"tidegate/protocols/protocoltest"
)

// TestHostsOfACaptureAreAskedOfTheFeeds: of seven requests, four of them by way of a proxy, each has a verdict, whatever
// the form of the host.
func TestHostsOfACaptureAreAskedOfTheFeeds(t *testing.T) {
	dir := filepath.Join(protocoltest.SharedData(t, "../.."), "cases")
	const capture = "15-host-is-an-address-zeek-1844.pcap"
	set, _, err := feeds.Load(t.Context(), []feeds.Config{{Name: "test", Path: filepath.Join(dir, "15-feed.txt")}})
	if err != nil {
		t.Fatal(err)
	}
	requests := 0
	for _, event := range protocoltest.Capture(t, all.Protocols, filepath.Join(dir, capture)) {
		if event.Dataset != pipeline.Dataset_HTTP {
			continue
		}
		requests++
		event.Source, event.Destination = nil, nil // the host alone
		set.Evaluate([]*pipeline.Event{event})
		if len(event.Verdicts) != 1 || !strings.HasPrefix(event.Verdicts[0].Evidence, "url.domain ") {
			t.Errorf("%s %s: verdicts %v", event.Http.UrlDomain, event.Http.UrlOriginal, event.Verdicts)
		}
	}
	if requests != 7 {
		t.Errorf("%d requests", requests)
	}
}
