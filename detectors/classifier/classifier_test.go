package classifier_test

import (
	"fmt"
	"math"
	"math/rand"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/net/publicsuffix"

	"tidegate/detectors/classifier"
	"tidegate/models"
	"tidegate/pipeline"
	"tidegate/pipeline/lineartest"
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

// TestShadowCountsButHasNoVerdicts: a shadow counts the names that it would have flagged, and only those.
func TestShadowCountsButHasNoVerdicts(t *testing.T) {
	for _, shadow := range []bool{false, true} {
		reg := prometheus.NewRegistry()
		cfg := classifier.Default()
		cfg.Enabled, cfg.Shadow = true, shadow
		domains, err := classifier.New(cfg, models.GeneratedDomains, reg)
		if err != nil {
			t.Fatal(err)
		}
		events := []*pipeline.Event{lookup("xjq7kvw2zt9hpb4m.example", "A"), lookup("wikipedia.org", "A")}
		domains.Evaluate(events)
		if got := len(events[0].Verdicts); (got == 0) != shadow || len(events[1].Verdicts) != 0 {
			t.Errorf("shadow %t: %d verdicts of the generated name, %d of the other", shadow, got, len(events[1].Verdicts))
		}
		want := fmt.Sprintf(`
# HELP tidegate_detectors_classifier_flagged_total Domains that the classifier scored at or above its threshold; `+
			`shadow is true for those that got no verdict.
# TYPE tidegate_detectors_classifier_flagged_total counter
tidegate_detectors_classifier_flagged_total{shadow="%t"} 1
`, shadow)
		name := "tidegate_detectors_classifier_flagged_total"
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), name); err != nil {
			t.Error(err)
		}
	}
}

// tenants are the forms in which clouds name the resources of their customers: %x is hexadecimal, %a lower-case
// letters and digits. All are below private suffixes of the Public Suffix List.
var tenants = []string{
	"d%a13.cloudfront.net", "%a10.execute-api.eu-central-1.amazonaws.com", "%a32.lambda-url.us-east-1.on.aws",
	"%a20.supabase.co", "%a18.blob.core.windows.net", "%a15.azurewebsites.net", "%a12.azurestaticapps.net",
	"%a10.elasticbeanstalk.com", "%x16.awsapprunner.com", "%a20.s3.amazonaws.com", "%a12.s3.eu-west-1.amazonaws.com",
	"%a10.cloudfunctions.net", "%a12-uc.a.run.app", "%a12.web.app", "%a14.firebaseapp.com", "%a12.appspot.com",
	"%a12.herokuapp.com", "%a9.vercel.app", "%a16.netlify.app", "%a14.pages.dev", "%a12.workers.dev", "%a11.fly.dev",
	"%a12.onrender.com", "%a16.github.io", "%a14.gitlab.io", "%a12.duckdns.org", "%a11.ddns.net", "%a10.dyndns.org",
	"%a12.hopto.org", "%a14.ngrok.io", "%a12.ngrok-free.app", "%a12.r2.dev", "%x32.myfritz.net", "%a14.synology.me",
	"%a12.translate.goog", "%a14.b-cdn.net", "%a12.global.ssl.fastly.net", "%x16.cdn77.org", "%a12.digitaloceanspaces.com",
	"%a13.ondigitalocean.app", "%a14.elb.amazonaws.com", "%x17.eu-west-1.compute.amazonaws.com", "%a12.deno.dev",
}

// tenantNames returns names of tenants, some of each form.
func tenantNames(each int) (names []string) {
	rng := rand.New(rand.NewSource(11))
	for _, form := range tenants {
		for range each {
			at := strings.IndexByte(form, '%')
			kind, rest := form[at+1], form[at+2:]
			size := 0
			for len(rest) > 0 && rest[0] >= '0' && rest[0] <= '9' {
				size, rest = size*10+int(rest[0]-'0'), rest[1:]
			}
			alphabet := "abcdefghijklmnopqrstuvwxyz0123456789"
			if kind == 'x' {
				alphabet = "0123456789abcdef"
			}
			label := make([]byte, size)
			for i := range label {
				label[i] = alphabet[rng.Intn(len(alphabet))]
			}
			names = append(names, form[:at]+string(label)+rest, "www."+form[:at]+string(label)+rest)
		}
	}
	return names
}

// ordinaryNames returns registered domains that the model was not trained on.
func ordinaryNames(t *testing.T) (names []string) {
	t.Helper()
	text, err := os.ReadFile("testdata/ordinary.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line[0] != '#' {
			names = append(names, strings.TrimSpace(line))
		}
	}
	return names
}

// TestNamesThatNobodyRegisteredAreNotScored: names of tenants below private suffixes, as clouds make them up, are
// no generated domains, whether or not the collector has set dns.question.registered_domain. Of ordinary
// registered names hardly any is.
func TestNamesThatNobodyRegisteredAreNotScored(t *testing.T) {
	domains := shipped(t, classifier.Default())
	flagged := func(names []string, registered bool) (out []string) {
		for _, name := range names {
			event := lookup(name, "A")
			if registered {
				event.Dns.RegisteredDomain, _ = publicsuffix.EffectiveTLDPlusOne(name)
			}
			if domains.Evaluate([]*pipeline.Event{event}); len(event.Verdicts) > 0 {
				out = append(out, name)
			}
		}
		return out
	}
	clouds, ordinary := tenantNames(12), ordinaryNames(t)
	for _, registered := range []bool{false, true} {
		if wrong := flagged(clouds, registered); len(wrong) > 0 {
			t.Errorf("%d of %d names of tenants are flagged: %v", len(wrong), len(clouds), wrong[:min(len(wrong), 20)])
		}
		wrong := flagged(ordinary, registered)
		t.Logf("%d of %d ordinary names are flagged: %v", len(wrong), len(ordinary), wrong)
		if len(wrong) > len(ordinary)/50 {
			t.Errorf("%d of %d ordinary names are flagged: %v", len(wrong), len(ordinary), wrong)
		}
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
		lineartest.CheckRepeatedPair(t, lineartest.Default, label, suffix, func(label, suffix string) {
			if score := model.Score(label, suffix); score < 0 || score > 1 {
				t.Errorf("score %v", score)
			}
		})
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

// TestCheckRefusesThresholdsThatAreNoProbability: 0 stands for the threshold of the model.
func TestCheckRefusesThresholdsThatAreNoProbability(t *testing.T) {
	for threshold, want := range map[float64]int{0: 0, 0.5: 0, 1: 0, -0.1: 1, 1.1: 1, math.Inf(1): 1, math.NaN(): 1} {
		if problems := (classifier.Config{Threshold: threshold}).Check(); len(problems) != want || want > 0 && problems[0].Key != "threshold" {
			t.Errorf("%v: %v", threshold, problems)
		}
	}
}
