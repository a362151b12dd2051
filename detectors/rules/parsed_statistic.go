package rules

import (
	"math"
	"strconv"
	"strings"

	"tidegate/pipeline/config"
	"tidegate/pipeline/correlate"
)

type yamlAverage struct {
	Field  config.Text `yaml:"field"`
	Value  config.Node `yaml:"value"`
	Events config.Node `yaml:"events"`
}

type yamlPercentile struct {
	Field   config.Text `yaml:"field"`
	Percent config.Node `yaml:"percent"`
	Value   config.Node `yaml:"value"`
	Events  config.Node `yaml:"events"`
}

// parseAverage sets the bounds of an average.
func (r *parsedRule) parseAverage(form *yamlAverage) {
	compiled := r.correlation.compiled
	compiled.Kind = correlate.Average
	r.parseStatistic("average", form.Field, form.Value, form.Events)

	// An average may lie between two whole numbers, so that "> 5" is not ">= 6" as it is of a count.
	written, _ := form.Value.Scalar()
	switch written = strings.TrimSpace(written); {
	case strings.HasPrefix(written, ">") && !strings.HasPrefix(written, ">="):
		compiled.Min, compiled.OpenMin = compiled.Min-1, true
	case strings.HasPrefix(written, "<") && !strings.HasPrefix(written, "<="):
		compiled.Max, compiled.OpenMax = compiled.Max+1, true
	}
}

// parsePercentile sets which percentile it is, and its bounds.
func (r *parsedRule) parsePercentile(form *yamlPercentile) {
	compiled := r.correlation.compiled
	compiled.Kind, compiled.Percent = correlate.Percentile, 5000
	r.parseStatistic("percentile", form.Field, form.Value, form.Events)
	if !form.Percent.IsSet() {
		r.node.Named(r.node.Key() + "percentile.percent").Errorf("is missing")
		return
	}
	written, _ := form.Percent.Scalar()
	percent, err := strconv.ParseFloat(strings.TrimSpace(written), 64)
	hundredths := math.Round(percent * 100)
	if err != nil || !(percent > 0 && percent <= 100) || math.Abs(percent*100-hundredths) > 1e-6 {
		form.Percent.Errorf("must be a number above 0 and up to 100, with at most two decimals: 50 is the median")
		return
	}
	compiled.Percent = int64(hundredths)
}

// parseStatistic sets what average and percentile have in common.
func (r *parsedRule) parseStatistic(key string, field config.Text, value, events config.Node) {
	compiled := r.correlation.compiled
	parse := parseSize
	if field.Value == "event.duration" {
		parse = parseNanoseconds
	}
	compiled.Min, compiled.Max = r.parseBounds(key+".value", value, parse)
	r.addValue(key+".field", field, isNumber, "is no number")
	compiled.MinEvents = 1
	if events.IsSet() {
		number, ok := events.Int()
		if !ok || number < 1 || number > math.MaxInt32 {
			events.Errorf("must be a whole number from 1 on: how many events a window must have")
			return
		}
		compiled.MinEvents = number
	}
}
