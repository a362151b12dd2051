package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"tidegate/detectors/rules"
)

// coverageCommand returns the command `tidegate rules coverage`.
func coverageCommand() *cobra.Command {
	var flags ruleFlags
	var output string
	cmd := &cobra.Command{
		Use:   "coverage",
		Short: "list the ATT&CK techniques that the rules are tagged with",
		Long: `coverage lists the ATT&CK techniques that the enabled rules are tagged with (attack.tNNNN), with the rules and the number of
their test cases. -o layer prints a layer for the ATT&CK Navigator, in which the score of a technique is its number of rules.
No broker or store is needed.`,
		Example: `  tidegate rules coverage
  tidegate rules coverage -o layer > tidegate-layer.json`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			if err := checkOutput(output, "table", "json", "layer"); err != nil {
				return err
			}
			set, disabled, err := flags.load()
			if err != nil {
				return err
			}
			covered, untagged := coverageOf(set, disabled)
			return printCoverage(&stripControlWriter{out: os.Stdout}, covered, untagged, output)
		},
	}
	flags.addTo(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table, json (one technique a line), or layer, for the ATT&CK Navigator")
	return cmd
}

// A coveredTechnique is a line of `tidegate rules coverage -o json`.
type coveredTechnique struct {
	Technique string   `json:"technique"` // T1190, T1499.004
	Rules     []string `json:"rules"`
	Cases     int      `json:"cases"`
}

var techniqueTag = regexp.MustCompile(`^attack\.(t\d{4}(\.\d{3})?)$`)

// coverageOf returns the techniques of the rules, sorted, and the rules that are tagged with none.
func coverageOf(set *rules.Set, disabled []string) (covered []coveredTechnique, untagged []string) {
	byID := map[string]*coveredTechnique{}
	for _, rule := range set.Rules() {
		if slices.Contains(disabled, rule.ID) {
			continue
		}
		hasTechnique := false
		for _, tag := range rule.Tags {
			found := techniqueTag.FindStringSubmatch(strings.ToLower(tag))
			if found == nil {
				continue
			}
			hasTechnique = true
			id := strings.ToUpper(found[1])
			if byID[id] == nil {
				byID[id] = &coveredTechnique{Technique: id}
			}
			byID[id].Rules = append(byID[id].Rules, rule.ID)
			byID[id].Cases += len(rule.Tests)
		}
		if !hasTechnique {
			untagged = append(untagged, rule.ID)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		covered = append(covered, *byID[id])
	}
	return covered, untagged
}

// A navigatorLayer is a layer of the ATT&CK Navigator, format 4.5.
type navigatorLayer struct {
	Name        string               `json:"name"`
	Versions    map[string]string    `json:"versions"`
	Domain      string               `json:"domain"`
	Description string               `json:"description"`
	Techniques  []navigatorTechnique `json:"techniques"`
	Gradient    navigatorGradient    `json:"gradient"`
}

type navigatorTechnique struct {
	ID      string `json:"techniqueID"`
	Score   int    `json:"score"`
	Comment string `json:"comment"`
	Enabled bool   `json:"enabled"`
}

type navigatorGradient struct {
	Colors []string `json:"colors"`
	Min    int      `json:"minValue"`
	Max    int      `json:"maxValue"`
}

func printCoverage(out io.Writer, covered []coveredTechnique, untagged []string, output string) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	switch output {
	case "json":
		for _, technique := range covered {
			if err := encoder.Encode(technique); err != nil {
				return err
			}
		}
		return nil
	case "layer":
		layer := navigatorLayer{
			Name: "tidegate", Versions: map[string]string{"layer": "4.5", "navigator": "5.1.0"}, Domain: "enterprise-attack",
			Description: "Techniques that the rules of tidegate are tagged with; the score is the number of rules.",
			Techniques:  []navigatorTechnique{}, Gradient: navigatorGradient{Colors: []string{"#dbeafe", "#1d4ed8"}, Min: 0, Max: 1},
		}
		for _, technique := range covered {
			layer.Gradient.Max = max(layer.Gradient.Max, len(technique.Rules))
			layer.Techniques = append(layer.Techniques, navigatorTechnique{
				technique.Technique, len(technique.Rules), strings.Join(technique.Rules, ", "), true,
			})
		}
		encoder.SetIndent("", "  ")
		return encoder.Encode(layer)
	}

	writer := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(writer, "TECHNIQUE\tRULES\tCASES\tRULE IDS")
	for _, technique := range covered {
		for i, id := range technique.Rules {
			if i == 0 {
				_, _ = fmt.Fprintf(writer, "%s\t%5d\t%5d\t%s\n", technique.Technique, len(technique.Rules), technique.Cases, oneLineText(id, 80))
			} else {
				_, _ = fmt.Fprintf(writer, "\t\t\t%s\n", oneLineText(id, 80))
			}
		}
	}
	if err := writer.Flush(); err != nil {
		return err
	}
	if len(untagged) > 0 {
		_, _ = fmt.Fprintf(out, "\n%s without a technique: %s\n", countOf(len(untagged), "rule"), oneLineText(strings.Join(untagged, ", "), 2000))
	}
	return nil
}
