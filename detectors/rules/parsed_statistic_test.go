package rules

import (
	"fmt"
	"testing"

	"tidegate/pipeline/correlate"
)

// TestBoundsOfStatistics: an average has no whole numbers, so that its bounds may be open; a percentile is
// one of the values.
func TestBoundsOfStatistics(t *testing.T) {
	check := func(keys, want string) {
		t.Helper()
		set, err := compileText(t, "- id: a\n  title: t\n  severity: low\n  when: redis.key == \"a\"\n  within: 1m\n  group: [source.ip]\n"+
			"  let: {size: number(redis.key)}\n  "+keys+"\n  tests:\n    - {fires: true, event: {redis.key: a, source.ip: 10.0.0.1}}\n")
		if err != nil {
			t.Errorf("%s: %v", keys, err)
			return
		}
		r := set.Correlations()[0]
		highest := fmt.Sprint(r.Max)
		if r.Max == correlate.NoMax {
			highest = "any"
		}
		got := fmt.Sprintf("%d %v to %s %v of %d, %d%%%%", r.Min, r.OpenMin, highest, r.OpenMax, r.MinEvents, r.Percent)
		if got != want {
			t.Errorf("%s: %s, want %s", keys, got, want)
		}
	}
	check(`average: {field: source.bytes, value: "> 5"}`, "5 true to any false of 1, 0%%")
	check(`average: {field: source.bytes, value: ">= 1KiB", events: 20}`, "1024 false to any false of 20, 0%%")
	check(`average: {field: source.bytes, value: "< 5"}`, "0 false to 5 true of 1, 0%%")
	check(`average: {field: source.bytes, value: "<= 5"}`, "0 false to 5 false of 1, 0%%")
	check(`average: {field: event.duration, value: "1s..2s"}`, "1000000000 false to 2000000000 false of 1, 0%%")
	check(`average: {field: size, value: "> 0"}`, "0 true to any false of 1, 0%%")
	check(`percentile: {field: source.bytes, percent: 99.9, value: "> 5"}`, "6 false to any false of 1, 9990%%")
	check(`percentile: {field: size, percent: 50, value: "< 5", events: 3}`, "0 false to 4 false of 3, 5000%%")
	check(`percentile: {field: source.bytes, percent: "100", value: 5}`, "5 false to any false of 1, 10000%%")
}
