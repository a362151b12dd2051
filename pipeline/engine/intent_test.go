package engine

import (
	"strings"
	"testing"

	"tidegate/pipeline"
)

func TestIntentIsParsedAsItWasWritten(t *testing.T) {
	for _, partitions := range []int{0, 7} {
		written := intent{end: 12, time: testStart, shard: "s1", bundle: "abc", signalPartitions: partitions}
		if got, open, err := parseIntent(3, written.String()); got != written || !open || err != nil {
			t.Errorf("%+v %v %v", got, open, err)
		}
	}
	if _, open, err := parseIntent(3, ""); open || err != nil {
		t.Errorf("no intent gave %v %v", open, err)
	}
	// An intent for offset 3 needs a known version, an end after 3, a time and five words, or a number as the sixth.
	for _, text := range []string{
		"x", "v2 12 1 0 b", "v1 3 1 0 b", "v1 12 0 0 b", "v1 12 1 0", "v1 12 1 0 b c", "v1 12 1 0 b -1", "v1 12 1 0 b 2 2", "v1 a 1 0 b",
	} {
		if _, _, err := parseIntent(3, text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	if word := bundleVersion(&pipeline.Bundle{Version: "a b\n" + strings.Repeat("x", 100)}); !isIntentWord(word) {
		t.Errorf("bundle %q", word)
	}
}
