// Command train makes the models in tidegate/models from the labelled data in the folder that TIDEGATE_SHARED
// names. It measures them on families of generated domains that they were not trained on, and writes model
// and card. The same data makes the same bytes. `make models` runs it.
package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"tidegate/detectors/classifier"
)

func main() {
	out := flag.String("o", "models", "folder that the model is written to")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "train:", err)
		os.Exit(1)
	}
}

// run reads the samples, measures models of them by cross-validation, and writes the model of all samples and
// its card to the folder out.
func run(out string) error {
	dir := os.Getenv("TIDEGATE_SHARED")
	if dir == "" {
		dir = "../shared"
	}

	// 1. Read the samples and measure. The threshold of the model comes from the cross-validation.
	samples, sums, err := readSamples(filepath.Join(dir, "data", "dga"), infrastructure)
	if err != nil {
		return err
	}
	families := familiesOf(samples)
	fmt.Printf("train: %d domains, %d families\n", len(samples), len(families))
	result, err := crossValidate(samples, families)
	if err != nil {
		return err
	}

	// 2. Train the model on all samples.
	fmt.Printf("train: final model on all\n")
	model, err := train(samples, defaultOptions(), classifier.Card{
		Name: "generated-domains", Task: "the label below the public suffix of a domain was made by an algorithm", TrainedOn: sums,
		Scope: "names that queries for an address ask for, by their registered domain below a suffix of ICANN; not scored are " +
			"labels of fewer than 6 characters or in punycode, and names below the private suffixes of the Public Suffix List: " +
			"there clouds name the resources of their tenants (cloudfront.net, execute-api, lambda-url, storage accounts, dynamic DNS)",
		Rows: map[string]int{
			"ordinary": countSamples(samples, false), "generated": countSamples(samples, true), "families": len(families),
		},
		Threshold: result.threshold, Metrics: result.metrics, FeatureNames: classifier.Features[:],
		HowMeasured: "4 folds by family: the families of a fold, and a quarter of the ordinary names, " +
			"are scored by a model that was trained on none of them; the threshold is that of one false alarm in 1,000 ordinary names",
	})
	if err != nil {
		return err
	}

	// 3. Write the model and its card.
	file, err := model.Encode()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "generated-domains.model"), file, 0o644); err != nil {
		return err
	}
	card, err := json.MarshalIndent(model.Card, "", "  ")
	if err != nil {
		return err
	}
	fmt.Printf("train: %d bytes, sha256 %x\n%s\n", len(file), sha256.Sum256(file), card)
	return os.WriteFile(filepath.Join(out, "generated-domains.card.json"), append(card, '\n'), 0o644)
}

// readSamples reads all lists and returns the hash of each. It uses the label of a domain below the public
// suffix, and each label once.
func readSamples(dir string, infrastructure []byte) ([]sample, map[string]string, error) {
	sums := map[string]string{}
	seen := map[string]bool{}
	var out []sample
	for _, name := range []string{"benign.txt.gz", infrastructureName, "dga.csv.gz"} {
		content := infrastructure
		if name != infrastructureName {
			var err error
			if content, err = os.ReadFile(filepath.Join(dir, name)); err != nil {
				return nil, nil, fmt.Errorf("read the labelled data in the folder that TIDEGATE_SHARED names: %w", err)
			}
		}
		sum := sha256.Sum256(content)
		sums[name] = hex.EncodeToString(sum[:])
		var reader io.Reader = bytes.NewReader(content)
		if strings.HasSuffix(name, ".gz") {
			unzipped, err := gzip.NewReader(reader)
			if err != nil {
				return nil, nil, fmt.Errorf("read %s: %w", name, err)
			}
			reader = unzipped
		}
		lines := bufio.NewScanner(reader)
		for lines.Scan() {
			domain, family, _ := strings.Cut(strings.ToLower(strings.TrimSpace(lines.Text())), ",")
			registered, err := publicsuffix.EffectiveTLDPlusOne(domain)
			isNoDomain := domain == "domain" || strings.HasPrefix(domain, "#") // the head line of the CSV file, a comment
			if err != nil || seen[registered] || isNoDomain {
				continue
			}
			seen[registered] = true
			label, suffix := classifier.Split(registered)
			if len(label) >= 6 && !classifier.IsPrivateSuffix(suffix) { // others are not scored
				out = append(out, sample{label, suffix, family})
			}
		}
		if err := lines.Err(); err != nil { // A truncated list must not train a model.
			return nil, nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	return out, sums, nil
}

// infrastructure holds ordinary names of a form that the labelled data has few of.
//
//go:embed infrastructure.txt
var infrastructure []byte

const infrastructureName = "infrastructure.txt"

// familiesOf returns the families of generated domains, those with most samples first.
func familiesOf(samples []sample) []string {
	counts := map[string]int{}
	for _, sample := range samples {
		counts[sample.family]++
	}
	delete(counts, "")
	var out []string
	for family := range counts {
		out = append(out, family)
	}
	slices.SortFunc(out, func(a, b string) int {
		if counts[a] != counts[b] {
			return counts[b] - counts[a]
		}
		return strings.Compare(a, b)
	})
	return out
}

// countSamples returns the number of samples of one class.
func countSamples(samples []sample, generated bool) int {
	count := 0
	for _, sample := range samples {
		if (sample.family != "") == generated {
			count++
		}
	}
	return count
}

// A result holds the measures of a cross-validation.
type result struct {
	threshold float64
	metrics   map[string]float64
}

const folds = 4

// crossValidate trains a model for each fold on the other folds and scores the fold with it. Families,
// largest first, go to the folds in turn, and so do ordinary names.
func crossValidate(samples []sample, families []string) (result, error) {
	// 1. Assign each family to a fold, so that no model is tested on a family it was trained on.
	foldOf := map[string]int{}
	for i, family := range families {
		foldOf[family] = i % folds
	}

	// 2. Train and score. good and bad collect the scores of all folds, by class.
	var good, bad []float64
	byFamily := map[string][]float64{}
	for fold := range folds {
		training, test := splitFold(samples, foldOf, fold)
		fmt.Printf("train: fold %d of %d: %d rows\n", fold+1, folds, len(training))
		model, err := train(training, defaultOptions(), classifier.Card{})
		if err != nil {
			return result{}, err
		}
		for _, sample := range test {
			score := model.Score(sample.label, sample.suffix)
			if sample.family == "" {
				good = append(good, score)
			} else {
				bad = append(bad, score)
				byFamily[sample.family] = append(byFamily[sample.family], score)
			}
		}
	}
	if len(good) == 0 || len(bad) == 0 {
		return result{}, errors.New("no samples to measure on")
	}

	// 3. Compute thresholds and rates. at returns the threshold above which the share fpr of ordinary names
	// score.
	slices.Sort(good)
	at := func(fpr float64) float64 { return math.Nextafter(good[int(float64(len(good))*(1-fpr))], 2) }
	measured := result{threshold: math.Ceil(at(0.001)*1000) / 1000}
	measured.metrics = map[string]float64{
		"auc":              round(auc(good, bad)),
		"tpr_at_fpr_0.01":  round(shareAbove(bad, at(0.01))),
		"tpr_at_fpr_0.001": round(shareAbove(bad, measured.threshold)),
		"fpr_at_threshold": round(shareAbove(good, measured.threshold)),
	}

	// 4. The mean over families weighs small families like large ones.
	mean := 0.0
	for _, family := range families {
		found := shareAbove(byFamily[family], measured.threshold)
		mean += found / float64(len(families))
		fmt.Printf("train:   %-14s %5d rows, found %.2f\n", family, len(byFamily[family]), found)
	}
	measured.metrics["tpr_at_fpr_0.001_mean_over_families"] = round(mean)
	return measured, nil
}

// splitFold returns the samples outside a fold, to train on, and those in it, to test on. foldOf holds the
// fold of each family; ordinary names go to the folds in turn.
func splitFold(samples []sample, foldOf map[string]int, fold int) (training, test []sample) {
	for i, sample := range samples {
		inFold := i%folds == fold
		if sample.family != "" {
			inFold = foldOf[sample.family] == fold
		}
		if inFold {
			test = append(test, sample)
		} else {
			training = append(training, sample)
		}
	}
	return training, test
}

// round keeps four decimals, so that a card shows a difference only where there is one.
func round(v float64) float64 { return math.Round(v*1e4) / 1e4 }

// shareAbove returns the share of scores that reach threshold.
func shareAbove(scores []float64, threshold float64) float64 {
	above := 0
	for _, score := range scores {
		if score >= threshold {
			above++
		}
	}
	return float64(above) / float64(max(len(scores), 1))
}

// auc returns the probability that a generated domain scores higher than an ordinary one; good is sorted.
func auc(good, bad []float64) float64 {
	sum := 0.0
	for _, score := range bad {
		low, _ := slices.BinarySearch(good, score)
		high, _ := slices.BinarySearch(good, math.Nextafter(score, 2))
		sum += float64(low) + float64(high-low)/2
	}
	return sum / float64(len(good)) / float64(len(bad))
}
