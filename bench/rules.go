package main

import (
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

// madeRules returns n rules of four conditions over fields of five datasets, in the style of people who write
// rules. None of them matches mixedEvents. plain holds the same conditions in expr's language, over the
// environment plainEvent.
func madeRules(n int) (ours, plain []string) {
	rng := rand.New(rand.NewPCG(3, 3))
	word := func(k int) string {
		data := make([]byte, k)
		for i := range data {
			data[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[rng.IntN(36)]
		}
		return string(data)
	}
	dotted := strings.NewReplacer("http.request.", "http_", "http.response.", "http_", "url.", "url_", "source.", "source_", "dns.question.", "dns_", "dns.", "dns_", "mysql.", "mysql_",
		"redis.", "redis_", "user.", "user_", "log.", "log_", "container.", "container_")
	for i := range n {
		var dataset, when, tail string
		switch i % 5 {
		case 0:
			dataset, when = "http", fmt.Sprintf(`http.request.method == "GET" and lower(url.query) contains "%s=%s" and http.response.status_code == 200 and source.port > 1024`, word(4), word(8))
		case 1:
			dataset, when = "http", fmt.Sprintf(`url.path startsWith "/%s/%s" and http.response.status_code in [200, 302] and url.domain != "%s" and source.port > 1024`, word(5), word(7), word(6))
		case 2:
			dataset, when = "mysql", fmt.Sprintf(`mysql.command == "COM_QUERY" and lower(mysql.query) contains "%s %s" and mysql.rows > 10 and user.name != "backup"`, word(6), word(6))
		case 3:
			dataset = "dns"
			when, tail = fmt.Sprintf(`dns.question.name endsWith ".%s.%s" and dns.question.type in ["A", "AAAA"] and dns.response_code == "NOERROR"`, word(9), word(3)), ` and len(dns.question.name) < 80`
		default:
			dataset = "log"
			when, tail = fmt.Sprintf(`lower(message) contains "%s %s" and log.stream == "stderr" and container.name != "%s"`, word(7), word(6), word(5)), ` and len(message) > 10`
		}
		ours = append(ours, when+tail)
		plain = append(plain, fmt.Sprintf(`dataset == "%s" and %s`, dataset, dotted.Replace(when+tail)))
	}
	return ours, plain
}

func ruleFile(list []string) string {
	var out strings.Builder
	out.WriteString("rules:\n")
	for i, when := range list {
		fmt.Fprintf(&out, "  - id: bench-%05d\n    title: Made up\n    severity: low\n    when: '%s'\n", i, when)
	}
	return out.String()
}

// ruleSet compiles n generated rules, and the shipped rules if shipped is set.
func ruleSet(n int, shipped bool) (*rules.Set, error) {
	dir, err := os.MkdirTemp("", "tidegate-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	cfg := rules.Default()
	if cfg.Shipped = shipped; n > 0 {
		ours, _ := madeRules(n)
		if err := os.WriteFile(filepath.Join(dir, "bench.yaml"), []byte(ruleFile(ours)), 0o600); err != nil {
			return nil, err
		}
		cfg.Dir = dir
	}
	return rules.Load(cfg, slog.New(slog.DiscardHandler), nil)
}

// newBundle returns the detectors of `tidegate run`: the shipped rules and n more, a feed of 10,000
// indicators, the classifier.
func newBundle(n int) (*pipeline.Bundle, error) {
	set, err := ruleSet(n, true)
	if err != nil {
		return nil, err
	}
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
	feed, _, err := feeds.Load([]feeds.Config{{Name: "bench", Path: path}})
	if err != nil {
		return nil, err
	}
	c, err := classifier.New(classifier.Default(), models.GeneratedDomains, prometheus.NewRegistry())
	if err != nil {
		return nil, err
	}
	return &pipeline.Bundle{Version: fmt.Sprintf("bench%d", n), Detectors: []pipeline.Detector{set, feed, c}}, nil
}
