package protocols

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
)

// scriptSteps are the steps of the scripts of TestScriptsMatchTheirGoldens, in the form of run.
var scriptSteps = []string{
	">hi\n", ">hi\nmore\n", ">h", ">i\n", ">yo\n", ">y", ">unknown\n", ">line\n", ">half a ", ">line#\n", ">#event\nevent\n", ">!wrong\n", ">!#event\n",
	">skip 5\n", ">12345", ">become other\n", ">become \n", ">become nobody\n", ">drop\n", ">flip\n", ">stop why\n", ">panic\n", "> gap 3", "> gap 100", "> end", "> restart",
	"<hi\n", "<h", "<i\n", "<yo\n", "<unknown\n", "<line\n", "<half a ", "<#event\nevent\n", "<!wrong\n", "<skip 5\n", "<12345", "<flip\n", "< gap 3", "< end",
	">" + strings.Repeat("x", 70), "<" + strings.Repeat("y", 70), ">\r\n\r\n",
}

// playScript plays steps to a connection of the toys and returns the calls of the parsers, the events, and what is counted.
func playScript(t *testing.T, info Info, steps []string) string {
	t.Helper()
	var log []string
	reg := prometheus.NewRegistry()
	set, _ := toys(&log, reg)
	set.Panicked = func(protocol string, value any, _ []byte) {
		log = append(log, fmt.Sprintf("%s panics: %v", protocol, value))
	}
	conn := set.Open(info, func(event *pipeline.Event) {
		partial := map[bool]string{true: " partial", false: ""}[event.Partial]
		log = append(log, fmt.Sprintf("event %s%s %v", event.Dataset.Name(), partial, event.Tags))
		event.ReturnToVTPool()
	})
	run(conn, steps...)
	out := fmt.Sprintf("%s, offsets %d %d, flipped %t, mid-stream %t", conn.Protocol(), conn.streams[0].offset, conn.streams[1].offset, conn.Flipped(), conn.Info().MidStream)
	conn.Close(99)
	out = strings.Join(log, ", ") + "; " + out
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if value := metric.GetCounter().GetValue(); value != 0 {
				out += ", " + strings.TrimPrefix(family.GetName(), "tidegate_protocols_")
				for _, label := range metric.GetLabel() {
					out += " " + label.GetValue()
				}
				out += fmt.Sprint(" ", value)
			}
		}
	}
	return out
}

// TestScriptsMatchTheirGoldens: what random conversations of the toys yield stands in testdata/scripts.golden. GOLDEN=1 in the
// environment rewrites it.
func TestScriptsMatchTheirGoldens(t *testing.T) {
	rng := rand.New(rand.NewPCG(20, 26))
	var out strings.Builder
	for i := range 600 {
		info := Info{Server: netip.AddrPortFrom(netip.Addr{}, []uint16{7, 9}[i%2]), MidStream: i%5 == 4}
		var steps []string
		if i%3 > 0 { // the others begin with what is not known
			steps = append(steps, []string{">hi\n", ">yo\n", "<hi\n", ">h"}[rng.IntN(4)])
		}
		for range 2 + rng.IntN(6) {
			steps = append(steps, scriptSteps[rng.IntN(len(scriptSteps))])
		}
		what := map[bool]string{true: "midstream ", false: ""}[info.MidStream]
		fmt.Fprintf(&out, "port %d %s%q: %s\n", info.Server.Port(), what, steps, playScript(t, info, steps))
	}
	const golden = "testdata/scripts.golden"
	if os.Getenv("GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(string(data), "\n")
	for i, line := range strings.Split(out.String(), "\n") {
		if !slices.Contains(want[i:min(i+1, len(want))], line) {
			t.Fatalf("GOLDEN=1 go test ./protocols -run Goldens rewrites %s\ngot:\n%s\nwant:\n%s", golden, line, want[min(i, len(want)-1)])
		}
	}
}
