package rules

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"tidegate/pipeline"
)

// benchRules returns rules of three or four conditions each, over the datasets of benchEvents. None of them
// matches an event of benchEvents.
func benchRules(count int) string {
	rng := rand.New(rand.NewPCG(3, 3))
	word := func(length int) string {
		letters := make([]byte, length)
		for i := range letters {
			letters[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[rng.IntN(36)]
		}
		return string(letters)
	}
	var text strings.Builder
	for i := range count {
		var when string
		switch i % 5 {
		case 0:
			when = fmt.Sprintf(`http.request.method == "GET" and lower(url.query) contains "%s=%s"`+
				` and http.response.status_code == 200 and source.port > 1024`, word(4), word(8))
		case 1:
			when = fmt.Sprintf(`url.path startsWith "/%s/%s" and http.response.status_code in [200, 302]`+
				` and not cidr(source.ip, "10.0.0.0/8")`, word(5), word(7))
		case 2:
			when = fmt.Sprintf(`mysql.command == "COM_QUERY" and lower(mysql.query) contains "%s %s"`+
				` and mysql.rows > 100 and user.name != "backup"`, word(6), word(6))
		case 3:
			when = fmt.Sprintf(`dns.question.name endsWith ".%s.%s" and dns.question.type in ["A", "AAAA"]`+
				` and dns.response_code == "NOERROR" and len(dns.question.name) < 80`, word(9), word(3))
		default:
			when = fmt.Sprintf(`lower(message) contains "%s %s" and log.stream == "stderr"`+
				` and container.name != "%s" and len(message) > 10`, word(7), word(6), word(5))
		}
		text.WriteString(ruleYAML(fmt.Sprintf("bench-%05d", i), when))
	}
	return text.String()
}

// benchEvents returns ordinary traffic and logs of a shop.
func benchEvents(count int) []*pipeline.Event {
	rng := rand.New(rand.NewPCG(5, 5))
	container := &pipeline.Container{Id: strings.Repeat("ab", 32), Name: "shop-web-1", Image: "nginx:1.25"}
	out := make([]*pipeline.Event, count)
	for i := range out {
		event := &pipeline.Event{
			Container:   container,
			Source:      &pipeline.Endpoint{Ip: []byte{172, 17, 0, byte(rng.IntN(250))}, Port: uint32(30000 + rng.IntN(9999))},
			Destination: &pipeline.Endpoint{Ip: []byte{172, 17, 0, 2}, Port: 80},
		}
		switch i % 5 {
		case 0, 1:
			event.Dataset = pipeline.Dataset_HTTP
			event.Http = &pipeline.HTTPExchange{
				Method: "GET", StatusCode: 200, UrlDomain: "shop.example.com",
				UrlOriginal: fmt.Sprintf("/catalog/items/%d?page=%d&sort=price&session=%08x",
					rng.IntN(9999), rng.IntN(20), rng.Uint32()),
				UrlPath:   fmt.Sprintf("/catalog/items/%d", rng.IntN(9999)),
				UrlQuery:  fmt.Sprintf("page=%d&sort=price&Session=%08x", rng.IntN(20), rng.Uint32()),
				UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0",
			}
		case 2:
			event.Dataset = pipeline.Dataset_MYSQL
			event.Mysql = &pipeline.MySQLCommand{
				Command: "COM_QUERY", Method: "SELECT", Rows: 20, Database: "shop",
				Query: fmt.Sprintf("SELECT id, name, price, stock FROM items WHERE category = %d AND price < %d"+
					" ORDER BY price LIMIT 20", rng.IntN(90), rng.IntN(900)),
			}
		case 3:
			event.Dataset = pipeline.Dataset_DNS
			event.Dns = &pipeline.DNSMessage{
				QuestionName: fmt.Sprintf("cdn%d.images.example.net", rng.IntN(900)), QuestionType: "A",
				ResponseCode: "NOERROR", AnswersData: []string{"203.0.113.9"},
			}
		default:
			event.Dataset = pipeline.Dataset_LOG
			const format = "2026-11-24T10:%02d:%02d.123Z INFO order %d accepted from customer %d in %d ms"
			event.Log = &pipeline.LogLine{Stream: "stderr", Message: fmt.Sprintf(format,
				rng.IntN(60), rng.IntN(60), rng.IntN(99999), rng.IntN(9999), rng.IntN(300))}
		}
		out[i] = event
	}
	return out
}

// BenchmarkEvaluate measures events that no rule matches, against 10 to 10,000 rules.
func BenchmarkEvaluate(b *testing.B) {
	for _, rules := range []int{10, 100, 1000, 10000} {
		b.Run(fmt.Sprintf("rules=%d", rules), func(b *testing.B) {
			set, err := compileText(b, benchRules(rules))
			if err != nil {
				b.Fatal(err)
			}
			benchmark(b, set)
		})
	}
}

// BenchmarkShipped measures events that no rule matches, against the shipped rules.
func BenchmarkShipped(b *testing.B) {
	set, err := Load(Default(), nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	benchmark(b, set)
}

// benchmark evaluates b.N events in blocks of up to 1,024. It fails if a rule matches.
func benchmark(b *testing.B, set *Set) {
	events := benchEvents(4096)
	set.Evaluate(events)
	b.ReportAllocs()
	b.ResetTimer()
	done := 0
	for done < b.N {
		size := min(1024, b.N-done)
		at := done % 4096
		size = min(size, 4096-at)
		set.Evaluate(events[at : at+size])
		done += size
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	for _, event := range events {
		if len(event.Verdicts) > 0 {
			b.Fatalf("%s fired", fired(event))
		}
	}
}

// BenchmarkCompile measures the time to compile 1,000 rules.
func BenchmarkCompile(b *testing.B) {
	text := benchRules(1000)
	for b.Loop() {
		if _, err := compileText(b, text); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCandidates measures rules that the index cannot rule out: ten of them for each event. None
// matches.
func BenchmarkCandidates(b *testing.B) {
	var text strings.Builder
	for i := range 10 {
		text.WriteString(ruleYAML(fmt.Sprintf("c%d", i), fmt.Sprintf(`(url.path contains "/catalog"`+
			` or mysql.query contains "LIMIT" or dns.question.name contains "images" or message contains "order")`+
			` and source.port < %d and container.name != "x%d" and len(container.name) > 99`, 60000+i, i)))
	}
	set, err := compileText(b, text.String())
	if err != nil {
		b.Fatal(err)
	}
	benchmark(b, set)
}

// BenchmarkRule measures a rule of five conditions that is evaluated for every event. Nine copies of it share
// the cost of the event itself.
func BenchmarkRule(b *testing.B) {
	const copies = 9
	var text strings.Builder
	for i := range copies {
		text.WriteString(ruleYAML(fmt.Sprintf("r%d", i), fmt.Sprintf(`url.path startsWith "/catalog"`+
			` and http.request.method == "GET" and http.response.status_code in [200, 302]`+
			` and source.port < 60000 and container.name == "none-%d"`, i)))
	}
	set, err := compileText(b, text.String())
	if err != nil {
		b.Fatal(err)
	}
	var block []*pipeline.Event
	for _, event := range benchEvents(4096) {
		if event.Dataset == pipeline.Dataset_HTTP {
			block = append(block, event)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		set.Evaluate(block)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(block)*copies), "ns/rule")
}
