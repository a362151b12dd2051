package sigma

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// TestEvaluatorAgreesWithPySigma compares the evaluator that judges examples with pySigma 2.0.1, the
// reference implementation: testdata/pysigma.jsonl.gz has samples of the shared rules and whether the
// conditions hold that pySigma parses them to.
func TestEvaluatorAgreesWithPySigma(t *testing.T) {
	shared := os.Getenv("TIDEGATE_SHARED")
	if shared == "" {
		t.Skip("TIDEGATE_SHARED names no folder with Sigma rules")
	}
	file, err := os.Open("testdata/pysigma.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	documents := map[string]*document{}
	compared := 0
	for lines := bufio.NewScanner(unzipped); lines.Scan(); compared++ {
		var want JudgedSample
		if err := json.Unmarshal(lines.Bytes(), &want); err != nil {
			t.Fatal(err)
		}
		d := documents[want.File]
		if d == nil {
			data, err := os.ReadFile(filepath.Join(shared, "data", "sigma", want.File))
			if err != nil {
				t.Fatal(err)
			}
			d = parseFile(want.File, data)[0]
			documents[want.File] = d
		}
		if d.condition == nil {
			t.Fatalf("%s: %v", want.File, d.refusal)
		}
		if got := holds(d.condition, want.Sample); got != want.Holds {
			t.Errorf("%s: %v: got %v", want.File, want.Sample, got)
		}
	}
	if compared < 2500 {
		t.Errorf("%d samples compared", compared)
	}
}
