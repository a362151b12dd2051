package sigma

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

// Samples for the tests of package sigma_test, which has the rules to evaluate them with.

// A JudgedSample is a sample of a rule, and whether the rule's detection holds for it.
type JudgedSample struct {
	File   string
	Sample map[string][]string
	Holds  bool
}

// JudgedSamples returns samples of the first rule of a file.
func JudgedSamples(file Source, count int) (out []JudgedSample) {
	d := parseFile(file.Name, file.Data)[0]
	if d.refusal != nil || d.condition == nil {
		return nil
	}
	match, other := exampleSamples(d.condition)
	random := rand.New(rand.NewPCG(1, 2))
	for _, s := range append([]sample{match, other, {}}, randomSamples(random, d.condition, count)...) {
		out = append(out, JudgedSample{file.Name, s, holds(d.condition, s)})
	}
	return out
}

// CasesOf returns a conversion with a case for each sample in place of its own.
func CasesOf(file Source, samples []JudgedSample) []byte {
	d := parseFile(file.Name, file.Data)[0]
	c := d.convert()
	c.rule, _, _ = strings.Cut(c.rule, "    tests:\n")
	var out strings.Builder
	out.WriteString(c.rule + "    tests:\n")
	for _, s := range samples {
		writeCase(&out, d.source.eventOf(s.Sample), s.Holds)
	}
	c.rule = out.String()
	return c.Text()
}

// randomSamples returns samples that make some items of a condition true, and others false.
func randomSamples(random *rand.Rand, c *condition, count int) (out []sample) {
	items := c.items()
	for range count {
		s := sample{}
		for _, it := range items {
			if random.IntN(3) == 0 {
				continue
			}
			ways := waysOfItem(it, true)
			way := slices.Clone(ways[random.IntN(len(ways))])
			if len(way) > 1 && random.IntN(4) == 0 {
				way = way[1:] // all but one value of an "all"
			}
			for field, values := range buildSample(way, random.IntN(3) == 0) {
				if len(s[field]) > 0 && field != "type" && field != "sc-status" && random.IntN(2) == 0 { // these are one word
					values = []string{s[field][0] + " " + values[0]}
				}
				s[field] = values
			}
		}
		out = append(out, s)
	}
	return out
}

func (c *condition) items() (out []*item) {
	if c.item != nil {
		out = append(out, c.item)
	}
	for _, arg := range c.args {
		out = append(out, arg.items()...)
	}
	return out
}

// WriteSamples writes samples to the file that SIGMA_SAMPLES names, for a comparison with another
// implementation of Sigma.
func WriteSamples(t *testing.T, all []JudgedSample) {
	name := os.Getenv("SIGMA_SAMPLES")
	if name == "" {
		return
	}
	var out strings.Builder
	for _, s := range all {
		line, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s\n", line)
	}
	if err := os.WriteFile(name, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
