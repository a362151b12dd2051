package rules

import (
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
)

// TestHourAndWeekdayAreThoseOfTheZone: also where the zone changes to and from daylight saving time.
func TestHourAndWeekdayAreThoseOfTheZone(t *testing.T) {
	check := func(at, when string, want bool) {
		t.Helper()
		stamp, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		set, err := compileText(t, ruleYAML("r", `message contains "x" and (`+when+`)`))
		if err != nil {
			t.Fatal(err)
		}
		event := &pipeline.Event{
			Dataset: pipeline.Dataset_LOG, Timestamp: stamp.UnixNano(), Log: &pipeline.LogLine{Message: "x"},
		}
		set.Evaluate([]*pipeline.Event{event})
		if got := len(event.Verdicts) == 1; got != want {
			t.Errorf("%s at %s: %t", when, at, got)
		}
	}
	const backup = `not (hour("Europe/Berlin") >= 1 and hour("Europe/Berlin") < 3)`
	check("2026-01-15T00:30:00Z", backup, false) // 01:30
	check("2026-01-15T02:30:00Z", backup, true)  // 03:30
	check("2026-07-15T00:30:00Z", backup, false) // 02:30
	check("2026-07-15T01:30:00Z", backup, true)  // 03:30
	check("2026-07-14T23:30:00Z", backup, false) // 01:30
	check("2026-01-15T23:30:00Z", `hour() == 23 and weekday() == 4`, true)
	check("2026-01-15T23:30:00Z", `hour("Asia/Tokyo") == 8 and weekday("Asia/Tokyo") == 5`, true)
	check("2026-01-17T12:00:00Z", `weekday("UTC") in [6, 7]`, true)
	check("2026-01-18T12:00:00Z", `weekday("UTC") == 7`, true)
	check("2026-01-19T12:00:00Z", `weekday("UTC") in [6, 7]`, false)
	check("1969-12-31T23:00:00Z", `hour() == 23 and weekday() == 3`, true)
}

func TestUnknownTimeZoneIsAnError(t *testing.T) {
	for when, want := range map[string]string{
		`hour("Europe/Berlim") == 1`: `unknown time zone "Europe/Berlim"`, `hour("Local") == 1`: "between quotes",
		`hour(source.port) == 1`: "between quotes", `weekday("UTC", 1) == 1`: "between quotes", `@ > 1`: "the time of an event is @timestamp",
		`timestamp > "tomorrow"`: `"tomorrow" is not a time: write it as 2026-11-27T16:20:00Z`, `hour("../../etc/passwd") == 1`: "unknown time zone",
	} {
		if _, err := compileText(t, ruleYAML("r", when)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", when, err)
		}
	}
}
