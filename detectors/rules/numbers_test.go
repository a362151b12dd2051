package rules

import (
	"math"
	"testing"

	"tidegate/pipeline"
)

// TestTextsThatAreNumbers: numbers as JSON (RFC 8259, section 6) and programs write them. The limits of float64 are those of IEEE 754.
func TestTextsThatAreNumbers(t *testing.T) {
	check := func(text string, want float64) {
		t.Helper()
		if got := parseDecimal(text); got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	none := math.NaN()
	check("0", 0)
	check("-0", 0)
	check("503", 503)
	check("\t 503\n", 503)
	check("+5", 5)
	check("007", 7)
	check(".5", 0.5)
	check("5.", 5)
	check("-12.50e3", -12500)
	check("1E-2", 0.01)
	check("9007199254740992", 1<<53)
	check("9007199254740993", 1<<53) // the next one is a neighbour of two
	check("1e999", math.Inf(1))
	check("-1e999", math.Inf(-1))
	check("1e-999", 0)
	for _, text := range []string{
		"", " ", "-", ".", "e5", "1e", "5 6", "1,000", "1_000", "0x1f", "0x1p3", "inf", "-Inf", "NaN", "nan", "5ms", "10MB", "true", "{}", "\x00", "٥",
	} {
		check(text, none)
	}
}

// TestComparisonsWithAMissingNumberAreFalse, as those of a text that is none; != is the opposite of ==.
func TestComparisonsWithAMissingNumberAreFalse(t *testing.T) {
	check := func(when string, want bool) {
		t.Helper()
		set, err := compileText(t, ruleYAML("r", when))
		if err != nil {
			t.Fatal(err)
		}
		for _, message := range []string{"", `{"status":"none"}`, `{"status":null}`, `{"other":5}`, `{"status":{"a":5}}`} {
			event := &pipeline.Event{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: message}}
			if set.Evaluate([]*pipeline.Event{event}); (len(event.Verdicts) > 0) != want {
				t.Errorf("%s of %s: %t", when, message, !want)
			}
		}
	}
	status := `number(json(message, "$.status"))`
	for _, comparison := range []string{" < 5", " <= 5", " > 5", " >= 5", " == 5", " == 0", " < 0.5", " in [0, 5]", " + 1 > 0", " < source.port", " >= event.duration / 2"} {
		check(status+comparison, false)
		check("not ("+status+comparison+")", true)
	}
	check(status+" != 5", true)
	check(status+" not in [0, 5]", true)
	check("5 < "+status, false)
	check(status+" == "+status, false)
}
