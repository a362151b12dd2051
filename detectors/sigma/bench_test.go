package sigma_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tidegate/detectors/rules"
	"tidegate/detectors/sigma"
	"tidegate/pipeline"
)

// cpuTime returns the processor time of the process.
func cpuTime(b *testing.B) time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkSharedRules evaluates all shared rules that load over ordinary events: log lines in four forms,
// requests, look-ups and sessions.
func BenchmarkSharedRules(b *testing.B) {
	loaded, _ := rules.ConvertSigma(sharedFiles(b))
	set, err := rules.Compile(rules.Default(), []rules.Source{{Name: "sigma", Data: sigma.Join(loaded)}}, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	var block []*pipeline.Event
	for i := range 256 {
		switch i % 8 {
		case 1:
			block = append(block, logLine(`<Event><System><Provider Name="Linux-Sysmon"/><EventID>1</EventID></System><EventData><Data Name="RuleName">-</Data>`+
				`<Data Name="UtcTime">2026-11-28 10:00:00.000</Data><Data Name="ProcessId">4711</Data><Data Name="Image">/usr/bin/python3.11</Data>`+
				`<Data Name="CommandLine">python3 /srv/app/main.py --port 8080</Data><Data Name="CurrentDirectory">/srv/app</Data><Data Name="User">app</Data>`+
				`<Data Name="ParentImage">/usr/bin/dash</Data><Data Name="ParentCommandLine">sh -c run</Data></EventData></Event>`))
		case 0:
			block = append(block, logLine(fmt.Sprintf("2026-11-28T10:00:00Z INFO order %d of customer 17 was shipped in 12 ms, 3 items", i)))
		case 2:
			block = append(block, logLine(fmt.Sprintf(`{"time":"2026-11-28T10:00:00Z","level":"info","msg":"request done","user":{"id":%d,"name":"ann"},"path":"/cart","ms":12}`, i)))
		case 3:
			block = append(block, logLine(fmt.Sprintf(`time="2026-11-28T10:00:00Z" level=info msg="request done" user=%d path=/cart ms=12`, i)))
		case 4:
			block = append(block, logLine(fmt.Sprintf(`192.0.2.1 - - [28/Nov/2026:10:00:00 +0000] "GET /cart/%d HTTP/1.1" 200 1234 "-" "Mozilla/5.0 (X11; Linux x86_64)"`, i)))
		case 5:
			block = append(block, request("GET", "shop.example", fmt.Sprintf("/cart/%d?page=2&sort=price", i), "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36", 200))
		case 6:
			block = append(block, &pipeline.Event{Dataset: pipeline.Dataset_DNS, Dns: &pipeline.DNSMessage{QuestionName: "shop.example", QuestionType: "A", AnswersData: []string{"192.0.2.7"}}})
		default:
			block = append(block, &pipeline.Event{Dataset: pipeline.Dataset_SESSION, Destination: &pipeline.Endpoint{Port: 443, Ip: []byte{192, 0, 2, 7}}, Session: &pipeline.Session{}})
		}
	}
	matched := 0
	begin := cpuTime(b)
	for b.Loop() {
		set.Evaluate(block)
		for _, event := range block {
			matched += len(event.Verdicts)
			event.Verdicts = event.Verdicts[:0]
		}
	}
	b.ReportMetric(float64(len(block)*b.N)/(cpuTime(b)-begin).Seconds(), "events/cpu-s")
	b.ReportMetric(float64(matched)/float64(b.N), "matches/op")
}
