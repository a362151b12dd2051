package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/detectors/classifier"
	"tidegate/detectors/feeds"
	"tidegate/detectors/rules"
	"tidegate/models"
	"tidegate/pipeline"
)

// exprNames replaces the names of fields by those of plainEvent.
var exprNames = strings.NewReplacer(
	"http.request.", "http_", "http.response.", "http_", "url.", "url_", "source.", "source_",
	"dns.question.", "dns_", "dns.", "dns_", "mysql.", "mysql_", "redis.", "redis_",
	"user.", "user_", "log.", "log_", "container.", "container_",
)

// generateRules returns the conditions of count rules over fields of four datasets, four terms each, in the
// style of hand-written rules. None of them matches an event of mixedEvents. plain holds the same conditions
// in the language of expr, over the environment plainEvent.
func generateRules(count int) (ours, plain []string) {
	rng := rand.New(rand.NewPCG(3, 3))
	for i := range count {
		dataset, when := generateRule(rng, i%5)
		ours = append(ours, when)
		plain = append(plain, fmt.Sprintf(`dataset == "%s" and %s`, dataset, exprNames.Replace(when)))
	}
	return ours, plain
}

// generateRule returns the dataset and the condition of a rule of the given kind, 0 to 4.
func generateRule(rng *rand.Rand, kind int) (dataset, when string) {
	word := func(letters int) string {
		data := make([]byte, letters)
		for i := range data {
			data[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[rng.IntN(36)]
		}
		return string(data)
	}
	switch kind {
	case 0:
		return "http", fmt.Sprintf(`http.request.method == "GET" and lower(url.query) contains "%s=%s"`+
			` and http.response.status_code == 200 and source.port > 1024`, word(4), word(8))
	case 1:
		return "http", fmt.Sprintf(`url.path startsWith "/%s/%s" and http.response.status_code in [200, 302]`+
			` and url.domain != "%s" and source.port > 1024`, word(5), word(7), word(6))
	case 2:
		return "mysql", fmt.Sprintf(`mysql.command == "COM_QUERY" and lower(mysql.query) contains "%s %s"`+
			` and mysql.rows > 10 and user.name != "backup"`, word(6), word(6))
	case 3:
		return "dns", fmt.Sprintf(`dns.question.name endsWith ".%s.%s" and dns.question.type in ["A", "AAAA"]`+
			` and dns.response_code == "NOERROR" and len(dns.question.name) < 80`, word(9), word(3))
	}
	return "log", fmt.Sprintf(`lower(message) contains "%s %s" and log.stream == "stderr"`+
		` and container.name != "%s" and len(message) > 10`, word(7), word(6), word(5))
}

// ruleFile returns a rule file with a rule for each condition.
func ruleFile(conditions []string) string {
	var out strings.Builder
	out.WriteString("rules:\n")
	for i, when := range conditions {
		fmt.Fprintf(&out, "  - id: bench-%05d\n    title: Made up\n    severity: low\n    when: '%s'\n", i, when)
	}
	return out.String()
}

// ruleSet compiles generated rules, and the shipped rules if shipped is set, but for those that disabled names.
func ruleSet(generated int, shipped bool, disabled ...string) (*rules.Set, error) {
	dir, err := os.MkdirTemp("", "tidegate-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	cfg := rules.Default()
	cfg.Disable = disabled
	if cfg.Shipped = shipped; generated > 0 {
		ours, _ := generateRules(generated)
		path := filepath.Join(dir, "bench.yaml")
		if err := os.WriteFile(path, []byte(ruleFile(ours)), 0o600); err != nil {
			return nil, err
		}
		cfg.Dir = dir
	}
	return rules.Load(cfg, slog.New(slog.DiscardHandler), nil)
}

// newBundle returns the detectors of `tidegate run`: the shipped rules and generated ones, a feed of 10,000
// indicators, the classifier. stateless leaves out the rules over several events.
func newBundle(generated int, stateless bool) (*pipeline.Bundle, error) {
	set, err := ruleSet(generated, true)
	if err == nil && stateless {
		var over []string
		for _, rule := range set.Correlations() {
			over = append(over, rule.ID)
		}
		set, err = ruleSet(generated, true, over...)
	}
	if err != nil {
		return nil, err
	}

	// The feed is loaded from a file, as in production.
	dir, err := os.MkdirTemp("", "tidegate-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var text strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&text, "bad%d.example.org\n", i*7919)
	}
	path := filepath.Join(dir, "feed.txt")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		return nil, err
	}
	feed, _, err := feeds.Load(context.Background(), []feeds.Config{{Name: "bench", Path: path}})
	if err != nil {
		return nil, err
	}

	domains, err := classifier.New(classifier.Default(), models.GeneratedDomains, prometheus.NewRegistry())
	if err != nil {
		return nil, err
	}
	return &pipeline.Bundle{
		Version:   fmt.Sprintf("bench%d", generated),
		Detectors: []pipeline.Detector{set, feed, domains},
	}, nil
}
