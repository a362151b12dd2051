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

func shipped(t testing.TB, cfg classifier.Config) *classifier.Classifier {
	t.Helper()
	c, err := classifier.New(cfg, models.GeneratedDomains, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func lookup(name, qtype string) *pipeline.Event {
	return &pipeline.Event{Dataset: pipeline.Dataset_DNS, Dns: &pipeline.DNSMessage{QuestionName: name, QuestionType: qtype}}
}

func TestGeneratedNamesAreFoundAndChosenOnesAreNot(t *testing.T) {
	c := shipped(t, classifier.Default())
	check := func(name string, want bool) {
		t.Helper()
		e := lookup(name, "A")
		c.Evaluate([]*pipeline.Event{e})
		if (len(e.Verdicts) == 1) != want {
			t.Errorf("%s: verdicts %v, want one: %v", name, e.Verdicts, want)
		}
		if want && len(e.Verdicts) == 1 && !strings.Contains(e.Verdicts[0].Evidence, "mostly by") {
			t.Errorf("%s: the verdict does not say why: %s", name, e.Verdicts[0].Evidence)
		}
	}
	check("xjq7kvw2zt9hpb4m.example", true)
	check("www.qpwzkxjvhg8t3nrd.example", true)
	check("wikipedia.org", false)
	check("static.stackoverflow.com", false)
	check("payments.example", false)
	check("debian.org", false)
	check("my-little-bakery.co.uk", false)
	check("a1b2.com", false) // too short to tell
	check("xn--bcher-kva.example", false)
	check("com", false)
	check("", false)
}

func TestOnlyAddressQueriesAreEvaluated(t *testing.T) {
	c := shipped(t, classifier.Default())
	e := lookup("xjq7kvw2zt9hpb4m.example", "PTR")
	c.Evaluate([]*pipeline.Event{e, {Dataset: pipeline.Dataset_HTTP}})
	if len(e.Verdicts) != 0 {
		t.Errorf("got %v", e.Verdicts)
	}
}

func TestAShadowSaysNothing(t *testing.T) {
	c := shipped(t, classifier.Config{Enabled: true, Shadow: true})
	e := lookup("xjq7kvw2zt9hpb4m.example", "A")
	c.Evaluate([]*pipeline.Event{e})
	if len(e.Verdicts) != 0 {
		t.Errorf("got %v", e.Verdicts)
	}
}

// A sample is a name of either class.
type sample struct{ label, suffix string }

// samples returns n pairs of a name of syllables and of random characters.
func samples(n int) []sample {
	rng := rand.New(rand.NewSource(7))
	syllables := strings.Fields("ba na to mi ler shop ing da ta blue green tech soft work net cloud house press media ra")
	var out []sample
	for range n {
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
	c := shipped(t, classifier.Default())
	e := lookup("static.stackoverflow.com", "A")
	e.Dns.RegisteredDomain = "stackoverflow.com"
	block := []*pipeline.Event{e}
	if n := testing.AllocsPerRun(100, func() { c.Evaluate(block) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestDecodeRefusesWhatWouldLeaveItsArrays(t *testing.T) {
	for _, b := range [][]byte{nil, []byte("x"), models.GeneratedDomains[:1000]} {
		if _, err := classifier.Decode(b); err == nil {
			t.Errorf("%d bytes of nonsense were taken", len(b))
		}
	}
}

// FuzzScore: any label is scored without leaving the arrays, the longest included.
func FuzzScore(f *testing.F) {
	m, err := classifier.Decode(models.GeneratedDomains)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("wikipedia", "org")
	f.Add(strings.Repeat("\xff", 300), "")
	f.Fuzz(func(t *testing.T, label, suffix string) {
		if s := m.Score(label, suffix); s < 0 || s > 1 {
			t.Errorf("score %v", s)
		}
	})
}

func BenchmarkEvaluate(b *testing.B) {
	c := shipped(b, classifier.Default())
	var block []*pipeline.Event
	for i := range 64 {
		e := lookup(fmt.Sprintf("www.shop-number-%d.com", i), "A")
		e.Dns.RegisteredDomain = e.Dns.QuestionName[4:]
		block = append(block, e)
	}
	b.ReportAllocs()
	for b.Loop() {
		c.Evaluate(block)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(block)), "ns/domain")
}

// BenchmarkEvaluateManifold scores names of many shapes, so that neither the caches nor the branch predictor
// know the way.
func BenchmarkEvaluateManifold(b *testing.B) {
	c := shipped(b, classifier.Default())
	rng := rand.New(rand.NewSource(5))
	all := samples(4096)
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var block []*pipeline.Event
	for _, s := range all {
		name := s.label[:6+rng.Intn(len(s.label)-5)] + "." + s.suffix
		e := lookup("www."+name, "A")
		e.Dns.RegisteredDomain = name
		block = append(block, e)
	}
	b.ReportAllocs()
	for b.Loop() {
		c.Evaluate(block)
		for _, e := range block {
			e.Verdicts = e.Verdicts[:0]
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(block)), "ns/domain")
}
