package classifier_test

import (
	"fmt"
	"math/rand"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/detectors/classifier"
	"tidegate/models"
	"tidegate/pipeline"
)

// shipped returns a classifier with the shipped model.
func shipped(t testing.TB, cfg classifier.Config) *classifier.Classifier {
	t.Helper()
	shipped, err := classifier.New(cfg, models.GeneratedDomains, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return shipped
}

// lookup returns a DNS query.
func lookup(name, qtype string) *pipeline.Event {
	return &pipeline.Event{Dataset: pipeline.Dataset_DNS, Dns: &pipeline.DNSMessage{QuestionName: name, QuestionType: qtype}}
}

func TestGeneratedNamesAreFoundAndOrdinaryNamesAreNot(t *testing.T) {
	domains := shipped(t, classifier.Default())
	check := func(name string, want bool) {
		t.Helper()
		event := lookup(name, "A")
		domains.Evaluate([]*pipeline.Event{event})
		if (len(event.Verdicts) == 1) != want {
			t.Errorf("%s: verdicts %v, want one: %v", name, event.Verdicts, want)
		}
		if want && len(event.Verdicts) == 1 && !strings.Contains(event.Verdicts[0].Evidence, "mostly by") {
			t.Errorf("%s: the evidence names no feature: %s", name, event.Verdicts[0].Evidence)
		}
	}
	check("xjq7kvw2zt9hpb4m.example", true)
	check("www.qpwzkxjvhg8t3nrd.example", true)
	check("wikipedia.org", false)
	check("static.stackoverflow.com", false)
	check("payments.example", false)
	check("debian.org", false)
	check("my-little-bakery.co.uk", false)
	check("a1b2.com", false) // too short to be classified
	check("xn--bcher-kva.example", false)
	check("com", false)
	check("", false)
}

func TestOnlyAddressQueriesAreEvaluated(t *testing.T) {
	domains := shipped(t, classifier.Default())
	event := lookup("xjq7kvw2zt9hpb4m.example", "PTR")
	domains.Evaluate([]*pipeline.Event{event, {Dataset: pipeline.Dataset_HTTP}})
	if len(event.Verdicts) != 0 {
		t.Errorf("got %v", event.Verdicts)
	}
}

func TestShadowHasNoVerdicts(t *testing.T) {
	domains := shipped(t, classifier.Config{Enabled: true, Shadow: true})
	event := lookup("xjq7kvw2zt9hpb4m.example", "A")
	domains.Evaluate([]*pipeline.Event{event})
	if len(event.Verdicts) != 0 {
		t.Errorf("got %v", event.Verdicts)
	}
}

// A sample is a registered domain: a label, and the public suffix behind it.
type sample struct{ label, suffix string }

// samples returns pairs of samples: a label of syllables, and a label of random characters.
func samples(pairs int) []sample {
	rng := rand.New(rand.NewSource(7))
	syllables := strings.Fields("ba na to mi ler shop ing da ta blue green tech soft work net cloud house press media ra")
	var out []sample
	for range pairs {
		name := ""
		for len(name) < 8 {
			name += syllables[rng.Intn(len(syllables))]
		}
		random := make([]byte, 12)
		for i := range random {
			random[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[rng.Intn(36)]
		}
		out = append(out, sample{name, "com"}, sample{string(random), "net"})
	}
	return out
}

func TestEvaluatingDoesNotAllocate(t *testing.T) {
	domains := shipped(t, classifier.Default())
	event := lookup("static.stackoverflow.com", "A")
	event.Dns.RegisteredDomain = "stackoverflow.com"
	block := []*pipeline.Event{event}
	if allocations := testing.AllocsPerRun(100, func() { domains.Evaluate(block) }); allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}

func TestDecodeRejectsInvalidModels(t *testing.T) {
	for _, data := range [][]byte{nil, []byte("x"), models.GeneratedDomains[:1000]} {
		if _, err := classifier.Decode(data); err == nil {
			t.Errorf("%d bytes of an invalid model were accepted", len(data))
		}
	}
}

// FuzzScore checks that any label has a score between 0 and 1. The longest labels stay within the arrays too.
func FuzzScore(f *testing.F) {
	model, err := classifier.Decode(models.GeneratedDomains)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("wikipedia", "org")
	f.Add(strings.Repeat("\xff", 300), "")
	f.Fuzz(func(t *testing.T, label, suffix string) {
		if score := model.Score(label, suffix); score < 0 || score > 1 {
			t.Errorf("score %v", score)
		}
	})
}

func BenchmarkEvaluate(b *testing.B) {
	domains := shipped(b, classifier.Default())
	var block []*pipeline.Event
	for i := range 64 {
		event := lookup(fmt.Sprintf("www.shop-number-%d.com", i), "A")
		event.Dns.RegisteredDomain = event.Dns.QuestionName[4:]
		block = append(block, event)
	}
	b.ReportAllocs()
	for b.Loop() {
		domains.Evaluate(block)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(block)), "ns/domain")
}

// BenchmarkEvaluateVariedNames measures names of many shapes: neither the caches nor the branch predictor are
// of much use.
func BenchmarkEvaluateVariedNames(b *testing.B) {
	domains := shipped(b, classifier.Default())
	rng := rand.New(rand.NewSource(5))
	all := samples(4096)
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var block []*pipeline.Event
	for _, domain := range all {
		name := domain.label[:6+rng.Intn(len(domain.label)-5)] + "." + domain.suffix
		event := lookup("www."+name, "A")
		event.Dns.RegisteredDomain = name
		block = append(block, event)
	}
	b.ReportAllocs()
	for b.Loop() {
		domains.Evaluate(block)
		for _, event := range block {
			event.Verdicts = event.Verdicts[:0]
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(block)), "ns/domain")
}
