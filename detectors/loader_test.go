package detectors

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/detectors/feeds"
	"tidegate/detectors/rules"
	"tidegate/pipeline"
)

const rule = "- {id: RULE, title: t, severity: low, when: 'message contains \"bad\"'}\n"

// files writes a rule and a feed, and returns a configuration that reads them. write replaces a file of the
// folder.
func files(t *testing.T) (cfg Config, write func(name, text string)) {
	t.Helper()
	dir := t.TempDir()
	write = func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a.yaml", strings.Replace(rule, "RULE", "one", 1))
	write("feed.txt", "evil.example\n")
	cfg.Rules = rules.Default()
	cfg.Rules.Dir, cfg.Rules.Shipped = dir, false
	cfg.Feeds = []feeds.Config{{Name: "test", Path: filepath.Join(dir, "feed.txt")}}
	return cfg, write
}

// newLoader returns a loader that has loaded its files.
func newLoader(t *testing.T, cfg Config) *Loader {
	t.Helper()
	loader, err := NewLoader(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return loader
}

// verdicts evaluates a log line and two DNS queries with a bundle, and returns the rules of the verdicts.
func verdicts(bundle *pipeline.Bundle) string {
	block := []*pipeline.Event{
		{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: "bad"}},
		{Dataset: pipeline.Dataset_DNS, Dns: &pipeline.DNSMessage{QuestionName: "evil.example"}},
		{Dataset: pipeline.Dataset_DNS, Dns: &pipeline.DNSMessage{QuestionName: "worse.example"}},
	}
	var out []string
	for _, detector := range bundle.Detectors {
		detector.Evaluate(block)
	}
	for _, event := range block {
		for _, verdict := range event.Verdicts {
			out = append(out, verdict.Rule)
		}
	}
	return strings.Join(out, " ")
}

// TestRulesAskTheFeedsOfTheirBundle: after a feed has changed the rules of the new bundle see it, and those of the old one do not.
func TestRulesAskTheFeedsOfTheirBundle(t *testing.T) {
	cfg, write := files(t)
	write("a.yaml", "- {id: asks, title: t, severity: low, when: 'feed(\"test\", dns.question.name)'}\n")
	synctest.Test(t, func(t *testing.T) {
		loader := newLoader(t, cfg)
		before := loader.Bundle()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- loader.Watch(ctx) }()
		write("feed.txt", "worse.example\nother.example\n")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		after := loader.Bundle()
		cancel()
		<-done
		if before == after || before.Version == after.Version {
			t.Error("the bundle is the same")
		}
		for _, check := range []struct {
			bundle *pipeline.Bundle
			want   string
		}{{before, "asks evil.example"}, {after, "asks worse.example"}, {before, "asks evil.example"}} {
			got := ""
			for _, name := range []string{"evil.example", "worse.example"} {
				event := &pipeline.Event{Dataset: pipeline.Dataset_DNS, Dns: &pipeline.DNSMessage{QuestionName: name}}
				check.bundle.Detectors[0].Evaluate([]*pipeline.Event{event})
				for _, verdict := range event.Verdicts {
					got += verdict.Rule + " " + name
				}
			}
			if got != check.want {
				t.Errorf("%s, want %s", got, check.want)
			}
		}
	})
	cfg.Feeds = nil
	if _, err := NewLoader(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err == nil || !strings.Contains(err.Error(), `unknown feed "test": the configuration has no feeds`) {
		t.Error(err)
	}
}

func TestBundleHoldsAllDetectors(t *testing.T) {
	cfg, _ := files(t)
	loader := newLoader(t, cfg)
	if got := verdicts(loader.Bundle()); got != "one feed-test" {
		t.Errorf("verdicts of %s", got)
	}
	if got := loader.Summary(); got != "1 rule, 1 indicator" {
		t.Error(got)
	}
}

func TestSameFilesAndSettingsMakeTheSameVersion(t *testing.T) {
	cfg, write := files(t)
	first := newLoader(t, cfg).Bundle().Version
	if again := newLoader(t, cfg).Bundle().Version; again != first {
		t.Errorf("%s and %s", first, again)
	}
	write("feed.txt", "evil.example\nworse.example\n")
	if changed := newLoader(t, cfg).Bundle().Version; changed == first {
		t.Error("a changed feed has the same version")
	}
}

func TestBrokenRulesAreRejectedWithTheirPositions(t *testing.T) {
	cfg, write := files(t)
	write("b.yaml", strings.Replace(rule, "message", "mesage", 1))
	_, err := NewLoader(cfg, slog.New(slog.DiscardHandler), nil)
	if err == nil || !strings.Contains(err.Error(), `b.yaml:1:`) ||
		!strings.Contains(err.Error(), `unknown field "mesage"`) {
		t.Error(err)
	}
}

func TestChangedFilesReplaceTheBundle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, write := files(t)
		var mu sync.Mutex
		var summaries []string
		cfg.OnReload = func(summary string) {
			mu.Lock()
			defer mu.Unlock()
			summaries = append(summaries, summary)
		}
		loader := newLoader(t, cfg)
		old := loader.Bundle()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- loader.Watch(ctx) }()
		time.Sleep(5 * time.Second)

		write("b.yaml", strings.Replace(rule, "RULE", "two", 1))
		write("feed.txt", "evil.example\nworse.example\n")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := verdicts(loader.Bundle()); got != "one two feed-test feed-test" {
			t.Errorf("verdicts of %s", got)
		}
		if got := verdicts(old); got != "one feed-test" {
			t.Errorf("the old bundle changed: %s", got)
		}
		if loader.Bundle().Version == old.Version {
			t.Error("the version did not change")
		}
		mu.Lock()
		got := strings.Join(summaries, "; ")
		mu.Unlock()
		if !strings.Contains(got, "rules loaded: 2 rules") || !strings.Contains(got, "feeds loaded: 2 indicators") {
			t.Errorf("reported %s", got)
		}

		write("b.yaml", "not a rule")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := verdicts(loader.Bundle()); got != "one two feed-test feed-test" {
			t.Errorf("after a broken file verdicts of %s", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestReconfigureReplacesSettingsAndWhatIsWatched disables a rule, and watches another feed from then on. Settings
// with errors change nothing.
func TestReconfigureReplacesSettingsAndWhatIsWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, write := files(t)
		loader := newLoader(t, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		watching.Go(func() { _ = loader.Watch(ctx) })
		defer watching.Wait()
		defer cancel()
		synctest.Wait()
		before := loader.Bundle()
		if got := verdicts(before); got != "one feed-test" {
			t.Fatalf("verdicts %q", got)
		}

		broken := cfg.Rules
		broken.Dir = "nowhere"
		if err := loader.Reconfigure(broken, nil); err == nil || loader.Bundle() != before {
			t.Errorf("rules that cannot be read: %v", err)
		}
		missing := []feeds.Config{{Name: "missing", Path: "nowhere"}}
		if err := loader.Reconfigure(cfg.Rules, missing); err == nil || loader.Bundle() != before {
			t.Errorf("a feed that cannot be read: %v", err)
		}

		write("other.txt", "worse.example\n")
		disabled := cfg.Rules
		disabled.Disable = []string{"one"}
		other := []feeds.Config{{Name: "other", Path: filepath.Join(cfg.Rules.Dir, "other.txt")}}
		if err := loader.Reconfigure(disabled, other); err != nil {
			t.Fatal(err)
		}
		if got := verdicts(loader.Bundle()); got != "feed-other" || loader.Bundle().Version == before.Version {
			t.Errorf("verdicts %q, version %s", got, loader.Bundle().Version)
		}
		if len(loader.Warnings()) != 0 {
			t.Error(loader.Warnings())
		}

		// The new file is watched, the old one no longer.
		write("feed.txt", "worse.example\n")
		write("other.txt", "evil.example\nworse.example\nmore.example\n")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := verdicts(loader.Bundle()); got != "feed-other feed-other" {
			t.Errorf("verdicts %q after a change", got)
		}
	})
}

// TestPushKeepsWhatIsHeldBack: a signed bundle lets in neither a feed and a Sigma folder that look like failed updates, or
// cannot be read, nor ends the time for which they are held back. SIGHUP accepts them.
func TestPushKeepsWhatIsHeldBack(t *testing.T) {
	sigmaRule := func(n int) string {
		return fmt.Sprintf("title: t\nid: 00000000-0000-0000-0000-%012d\nlevel: low\nlogsource: {category: webserver}\n"+
			"detection: {s: {cs-uri-stem: /a}, condition: s}\n", n)
	}
	replacement := func(id string) *Replacement {
		return &Replacement{Name: "bundle " + id, Rules: fstest.MapFS{"r.yaml": {Data: []byte(strings.Replace(rule, "RULE", id, 1))}}}
	}
	for _, isWatched := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			cfg, write := files(t)
			domains := func(n int) (text string) {
				for i := range n {
					text += fmt.Sprintf("evil%d.example\n", i)
				}
				return text
			}
			write("feed.txt", domains(100))
			write("other.txt", "worse.example\n")
			cfg.Feeds = append(cfg.Feeds, feeds.Config{Name: "other", Path: filepath.Join(cfg.Rules.Dir, "other.txt")})
			cfg.Rules.Sigma = t.TempDir()
			for n := range 20 {
				if err := os.WriteFile(filepath.Join(cfg.Rules.Sigma, fmt.Sprintf("%d.yml", n)), []byte(sigmaRule(n)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			loader := newLoader(t, cfg)
			expect := func(what, want, held string) {
				t.Helper()
				if isWatched {
					time.Sleep(10 * time.Second)
					synctest.Wait()
				}
				if got := loader.Summary(); got != want {
					t.Errorf("%s: %s, want %s (watched: %t)", what, got, want, isWatched)
				}
				if got := strings.Join(loader.Held(), " "); got != held {
					t.Errorf("%s: held %q, want %q (watched: %t)", what, got, held, isWatched)
				}
			}
			push := func(id string) {
				t.Helper()
				if err := loader.Replace(replacement(id)); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			var watching sync.WaitGroup
			defer watching.Wait()
			defer cancel()
			if isWatched {
				watching.Go(func() { _ = loader.Watch(ctx) })
			}
			expect("at first", "21 rules, 101 indicators", "")

			write("feed.txt", domains(3))
			for n := range 15 {
				if err := os.Remove(filepath.Join(cfg.Rules.Sigma, fmt.Sprintf("%d.yml", n))); err != nil {
					t.Fatal(err)
				}
			}
			if isWatched {
				expect("changed", "21 rules, 101 indicators", "rules.sigma test")
			}
			if err := os.Remove(cfg.Feeds[1].Path); err != nil {
				t.Fatal(err)
			}
			push("two")
			expect("pushed", "21 rules, 101 indicators", "rules.sigma test")
			if got := verdicts(loader.Bundle()); got != "two feed-other" {
				t.Errorf("verdicts of %q", got)
			}
			if err := os.Rename(cfg.Rules.Sigma, cfg.Rules.Sigma+".away"); err != nil {
				t.Fatal(err)
			}
			push("three")
			expect("pushed without the folder", "21 rules, 101 indicators", "rules.sigma test")
			if err := os.Rename(cfg.Rules.Sigma+".away", cfg.Rules.Sigma); err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Minute)
			push("four")
			time.Sleep(31 * time.Minute)
			push("five")
			expect("an hour later", "6 rules, 4 indicators", "")

			// A feed of the bundle is not that of the configuration: it is as its author has signed it.
			write("feed.txt", domains(100))
			push("six")
			expect("whole again", "6 rules, 101 indicators", "")
			write("feed.txt", domains(3))
			push("seven")
			expect("held back again", "6 rules, 101 indicators", "test")
			signed := replacement("eight")
			write("signed.txt", "worse.example\n")
			signed.Feeds = []feeds.Config{{Name: "test", Path: filepath.Join(cfg.Rules.Dir, "signed.txt")}}
			if err := loader.Replace(signed); err != nil {
				t.Fatal(err)
			}
			expect("of the bundle", "6 rules, 2 indicators", "")
		})
	}
}
