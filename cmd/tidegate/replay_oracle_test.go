package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
)

// measures are the columns of the oracle. counted describes what is counted as one transaction of each.
var measures = []string{"dns_queries", "dns_responses", "http_requests", "http_responses", "mysql_queries", "redis_cmds", "tls_client_hello"}

// protocolCounts holds the count of each measure.
type protocolCounts map[string]int

// A replayLine is the part of a printed event that the tests read.
type replayLine struct {
	Event struct {
		ID, Dataset string
		Partial     bool
	}
	Source struct{ Bytes int }
	DNS    struct{ Type string }
	HTTP   struct {
		Request  struct{ Method string }
		Response struct {
			StatusCode int `json:"status_code"`
		}
	}
	MySQL struct{ Command string }
	Redis struct{ Command string }
}

// counted adds an event to the counts in the way of tshark, which counts packets: an event with request and
// response is one of each.
func (n protocolCounts) counted(l *replayLine) {
	add := func(measure string, is bool) {
		if is {
			n[measure]++
		}
	}
	add("dns_queries", l.DNS.Type == "query" || l.DNS.Type == "answer" && l.Source.Bytes > 0)
	add("dns_responses", l.DNS.Type == "answer")
	add("http_requests", l.HTTP.Request.Method != "")
	add("http_responses", l.HTTP.Response.StatusCode > 0)
	add("mysql_queries", l.MySQL.Command == "COM_QUERY")
	add("redis_cmds", l.Redis.Command != "")
	add("tls_client_hello", l.Event.Dataset == "tls")
}

// A replayReader reads the standard output of replay: each line must be one JSON object with an id that occurs
// once. It also measures the heap.
type replayReader struct {
	t     *testing.T
	rest  []byte
	ids   map[string]bool
	each  func(*replayLine)
	lines int
	peak  uint64
}

func (r *replayReader) Write(b []byte) (int, error) {
	r.peak = max(r.peak, heapBytes())
	r.rest = append(r.rest, b...)
	for {
		one, rest, ok := bytes.Cut(r.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		var l replayLine
		if err := json.Unmarshal(one, &l); err != nil || l.Event.ID == "" || l.Event.Dataset == "" {
			r.t.Errorf("this line is no event: %v: %.300s", err, one)
		}
		if r.ids[l.Event.ID] {
			r.t.Errorf("two events have the id %s", l.Event.ID)
		}
		r.ids[l.Event.ID] = true
		r.lines++
		r.each(&l)
		r.rest = rest
	}
}

// heapBytes returns the size of the heap, including dead objects that are not swept yet.
func heapBytes() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// replayCapture runs `tidegate replay -o jsonl` on a file and calls each with every event. Output on standard
// error fails the test unless the file is broken.
func replayCapture(t *testing.T, path string, each func(*replayLine)) *replayReader {
	t.Helper()
	out := &replayReader{t: t, ids: map[string]bool{}, each: each}
	var said bytes.Buffer
	err := (&replay{printEvents: true}).readFiles(t.Context(), []string{path}, out, &said)
	if err != nil && !strings.Contains(err.Error(), "the file is malformed") {
		t.Errorf("%s: %v", path, err)
	}
	if said.Len() > 0 || len(out.rest) > 0 {
		t.Errorf("%s: said %q, left %q", path, said.String(), out.rest)
	}
	return out
}

// sharedFolder returns the folder of the captures and tools that are not part of the project. The test is
// skipped if it does not exist.
func sharedFolder(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("TIDEGATE_SHARED")
	if dir == "" {
		dir = "../../../shared"
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "pcaps")); err != nil {
		t.Skip("no shared captures: ", err)
	}
	return dir
}

// Limits of the heap above its size before the test: while a capture is read, and after all of them.
const (
	replayPeak = 64 << 20
	replayLeft = 16 << 20
)

// TestReplayOfEveryCapture replays every capture of the shared folder: no panic, bounded memory, and the counts
// of tshark, except for the explained differences of knownDifferences.
func TestReplayOfEveryCapture(t *testing.T) {
	dir := filepath.Join(sharedFolder(t), "data")
	truth := oracleCounts(t, filepath.Join(dir, "oracle", "counts.tsv"))
	runtime.GC()
	before, peak, files := heapBytes(), uint64(0), 0
	ours, theirs := protocolCounts{}, protocolCounts{}
	var rows []string
	for _, name := range captureFiles(t, filepath.Join(dir, "pcaps")) {
		got := protocolCounts{}
		r := replayCapture(t, filepath.Join(dir, "pcaps", name), got.counted)
		peak = max(peak, r.peak)
		files++
		want, ok := truth[name]
		if !ok {
			t.Errorf("%s: the oracle does not know it", name)
			continue
		}
		for _, m := range measures {
			rows = compareCount(t, rows, name, m, got[m], want[m])
			ours[m] += got[m]
			theirs[m] += want[m]
		}
	}
	for k := range knownDifferences {
		if _, ok := truth[k.file]; !ok {
			t.Errorf("a difference is explained of %s, which is not there", k.file)
		}
	}
	printCounts(t, rows)
	for _, m := range measures {
		explained := 0
		for k, why := range knownDifferences {
			if k.measure == m {
				explained += why.difference
			}
		}
		t.Logf("%-18s ours %5d  tshark %5d  difference %4d, of it explained %4d", m, ours[m], theirs[m], ours[m]-theirs[m], explained)
		if floor := theirs[m] * 98 / 100; m != "tls_client_hello" && ours[m] < floor { // tshark also counts those in QUIC
			t.Errorf("%s: %d in all captures, tshark has %d", m, ours[m], theirs[m])
		}
	}
	runtime.GC()
	after := heapBytes()
	t.Logf("%d captures; heap %d MiB before, %d at its highest, %d after", files, before>>20, peak>>20, after>>20)
	if peak > before+replayPeak || after > before+replayLeft {
		t.Errorf("heap: %d MiB before, %d at its highest, %d after", before>>20, peak>>20, after>>20)
	}
}

// compareCount compares one count with that of the oracle and adds a row to the table.
func compareCount(t *testing.T, rows []string, name, measure string, got, want int) []string {
	t.Helper()
	why, explained := knownDifferences[difference{name, measure}]
	switch {
	case got-want == why.difference:
	case explained:
		t.Errorf("%s: %s: ours %d, tshark %d; the difference that is explained (%s) is %d: if it became less, strike it out", name, measure, got, want, why.reason, why.difference)
	default:
		t.Errorf("%s: %s: ours %d, tshark %d", name, measure, got, want)
	}
	if got == 0 && want == 0 || !slices.ContainsFunc([]string{"http", "dns", "mysql", "redis"}, func(s string) bool { return strings.Contains(strings.ToLower(name), s) }) {
		return rows
	}
	diff := ""
	if got != want {
		diff = fmt.Sprintf("%+d", got-want)
	}
	return append(rows, fmt.Sprintf("%s\t%s\t%d\t%d\t%s\t%s", name, measure, got, want, diff, why.reason))
}

func printCounts(t *testing.T, rows []string) {
	t.Helper()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 2, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "CAPTURE\tWHAT\tOURS\tTSHARK\tDIFFERENCE\tREASON")
	for _, r := range rows {
		_, _ = fmt.Fprintln(w, r)
	}
	_ = w.Flush()
	t.Logf("captures named for http, dns, mysql or redis:\n%s", b.String())
}

func captureFiles(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".tsv" {
			names = append(names, e.Name())
		}
	}
	if len(names) < 500 {
		t.Fatalf("%d captures in %s: too few to say anything", len(names), dir)
	}
	return names
}

// oracleCounts returns the counts of tshark for each capture.
func oracleCounts(t *testing.T, path string) map[string]protocolCounts {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSpace(string(b)), "\n")
	columns := strings.Split(rows[0], "\t")
	all := map[string]protocolCounts{}
	for _, row := range rows[1:] {
		n := protocolCounts{}
		fields := strings.Split(row, "\t")
		for i, f := range fields[1:] {
			n[columns[i+1]], _ = strconv.Atoi(f)
		}
		all[fields[0]] = n
	}
	return all
}

// TestReplayOfGeneratedTraffic: every transaction of a generated capture is found, complete, also if segments
// are reordered and duplicated.
func TestReplayOfGeneratedTraffic(t *testing.T) {
	tool := filepath.Join(sharedFolder(t), "tools", "trafficgen")
	for _, c := range []struct {
		name string
		args []string
	}{
		{"clean", []string{"-seed", "1"}},
		{"out of order and repeated", []string{"-seed", "2", "-ooo", "0.01", "-dup", "0.01"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, truth := generatedCapture(t, tool, c.args...)
			n, partial := map[string]int{}, map[string]int{}
			replayCapture(t, path, func(l *replayLine) {
				kind := l.Event.Dataset
				if l.MySQL.Command != "" {
					kind = l.MySQL.Command
				}
				n[kind]++
				if l.Event.Partial {
					partial[kind]++
				}
			})
			for kind, name := range map[string]string{"http": "http_tx", "dns": "dns_tx", "COM_QUERY": "mysql_queries", "redis": "redis_cmds"} {
				if n[kind] != truth[name] || partial[kind] > 0 || truth[name] == 0 {
					t.Errorf("%s: %d, of them %d partial; there are %d", kind, n[kind], partial[kind], truth[name])
				}
			}
			t.Logf("%v, truth %v", n, truth)
		})
	}
}

// generatedCapture writes a capture of 20 MB with trafficgen and returns its exact counts.
func generatedCapture(t *testing.T, tool string, args ...string) (path string, truth map[string]int) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "generated.pcap")
	cmd := exec.Command("go", append([]string{"run", ".", "-mb", "20", "-o", path}, args...)...)
	cmd.Dir, cmd.Stderr = tool, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run trafficgen: %v", err)
	}
	if err := json.Unmarshal(out, &truth); err != nil {
		t.Fatalf("read the truth of trafficgen: %v: %s", err, out)
	}
	return path, truth
}
