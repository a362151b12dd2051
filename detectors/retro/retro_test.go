package retro_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"tidegate/detectors/feeds"
	"tidegate/detectors/retro"
	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded/embeddedtest"
)

func TestMain(m *testing.M) { os.Exit(embeddedtest.Run(m)) }

// loadFeeds returns a set of a feed with each kind of indicator, one of half of its lines, and an allow-list.
func loadFeeds(t *testing.T, before bool) *feeds.Set {
	t.Helper()
	rows := []string{
		"indicator,type,valid_until", "evil.example,,", "deep.bad.example,,", "old.example,,2020-01-01", "late.example,,2099-01-01", "münchen.example,,",
		"203.0.113.7,,", "198.51.100.0/24,,", "2001:db8:1::/48,,", "http://site.example/a'b\\c?x=1,,", "http://site.example/plain,,", "http://203.0.113.50/u,,",
		"e7d705a3286e19ea42f587b344ee6865,,", strings.Repeat("ab", 32) + ",,", `"bad agent/1.0, 'quoted' \ ü",user-agent,`,
	}
	if before {
		rows = rows[:len(rows)/2]
	}
	path := filepath.Join(t.TempDir(), "list.csv")
	allow := filepath.Join(t.TempDir(), "allow.csv")
	for name, text := range map[string]string{path: strings.Join(rows, "\n"), allow: "domain,valid_until\nfine.evil.example,\n198.51.100.9,\nevil.example,2020-01-01\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set, skipped, err := feeds.Load(t.Context(), []feeds.Config{{Name: "list", Path: path}, {Name: "own", Path: allow, Allow: true}})
	if err != nil || skipped.Count != 0 {
		t.Fatal(err, skipped.Errors)
	}
	return set
}

// events returns events of all datasets that feeds are asked for, over five hours before end. Their values are listed ones,
// forms of them, and others.
func events(end time.Time) (out []*pipeline.Event) {
	random := rand.New(rand.NewPCG(7, 15))
	pick := func(from ...string) string { return from[random.IntN(len(from))] }
	host := func() string {
		return pick("evil.example", "www.EVIL.example.", "fine.evil.example", "a.fine.evil.example", "bad.example", "x.deep.bad.example", "old.example", "late.example",
			"münchen.example", "xn--mnchen-3ya.example", "site.example", "good.example", "notevil.example", "203.0.113.7", "203.0.113.7:8080", "198.51.100.200", "198.51.100.9",
			"[2001:db8:1::5]:443", "2001:db8:2::5", "::ffff:203.0.113.7", "example", "")
	}
	addr := func() []byte {
		return netip.MustParseAddr(pick("203.0.113.7", "198.51.100.1", "198.51.100.9", "192.0.2.1", "10.0.0.1", "2001:db8:1::9", "2001:db8:9::9")).AsSlice()
	}
	for i := range 4000 {
		event := &pipeline.Event{
			Id: binary.BigEndian.AppendUint64(make([]byte, 8), uint64(i+1)), Timestamp: end.Add(-time.Duration(random.Int64N(int64(5 * time.Hour)))).UnixNano(),
			Ingested: time.Now().UnixNano(), Source: &pipeline.Endpoint{Ip: netip.MustParseAddr("10.0.0.2").AsSlice()},
		}
		if random.IntN(3) == 0 {
			event.Destination = &pipeline.Endpoint{Ip: addr()}
		}
		if random.IntN(9) == 0 {
			event.Destination = &pipeline.Endpoint{Ip: netip.MustParseAddr("10.0.0.3").AsSlice(), NatIp: addr()}
		}
		if random.IntN(9) == 0 {
			event.Container = &pipeline.Container{Id: fmt.Sprint("c", random.IntN(4)), ImageId: pick("", "sha256:"+strings.Repeat("ab", 32), "sha256:"+strings.Repeat("cd", 32))}
		}
		switch random.IntN(4) {
		case 0:
			event.Dataset = pipeline.Dataset_SESSION
		case 1:
			event.Dataset = pipeline.Dataset_DNS
			event.Dns = &pipeline.DNSMessage{QuestionName: host()}
			for range random.IntN(3) {
				typ := pick("CNAME", "MX", "A", "TXT")
				data := map[string]string{"CNAME": host(), "MX": "10 " + host(), "A": "203.0.113.7", "TXT": "evil.example"}[typ]
				event.Dns.AnswersName = append(event.Dns.AnswersName, "x.example")
				event.Dns.AnswersType, event.Dns.AnswersData = append(event.Dns.AnswersType, typ), append(event.Dns.AnswersData, data)
				event.Dns.AnswersTtl = append(event.Dns.AnswersTtl, 60)
				if typ == "A" {
					event.Dns.ResolvedIp = append(event.Dns.ResolvedIp, data)
				}
			}
		case 2:
			event.Dataset = pipeline.Dataset_HTTP
			event.Http = &pipeline.HTTPExchange{
				UrlDomain: host(), UrlPath: pick("/a'b\\c", "/plain", "/u", "/", "/other"), UrlQuery: pick("", "x=1", "x=2"),
				UserAgent: pick(`bad agent/1.0, 'quoted' \ ü`, "curl/8", ""),
			}
			if random.IntN(3) == 0 {
				event.Http.UrlDomain = pick("site.example", "203.0.113.50")
			}
			for range random.IntN(3) {
				event.Http.XForwardedFor = append(event.Http.XForwardedFor, host())
			}
		case 3:
			event.Dataset = pipeline.Dataset_TLS
			event.Tls = &pipeline.TLSHandshake{
				ServerName: host(), Ja3: pick("e7d705a3286e19ea42f587b344ee6865", "00000000000000000000000000000000", ""), Ja3S: pick("", "E7D705A3286E19EA42F587B344EE6865"),
			}
		}
		out = append(out, event)
	}
	return out
}

func key(id, rule, group string, known bool) string {
	return fmt.Sprintf("%s %s %q known=%t", id, rule, group, known)
}

// TestRetroFindsWhatTheEngineWouldFind: over events of all datasets, the matches are the verdicts that the engine would give the
// events of that time now; known are those that it gave with the indicators of before.
func TestRetroFindsWhatTheEngineWouldFind(t *testing.T) {
	before, now := loadFeeds(t, true), loadFeeds(t, false)
	end := time.Now().Add(-time.Hour).Truncate(time.Second)
	from := end.Add(-3*time.Hour - 30*time.Minute)
	all := events(end)
	later := make([]*pipeline.Event, len(all)) // with the verdicts of now
	for i, event := range all {
		later[i] = proto.CloneOf(event)
	}
	before.Evaluate(all)
	now.Evaluate(later)
	store := embeddedtest.Store(t, "retro", "native")
	block := clickhouse.NewColumnBlock()
	for i, event := range all {
		block.Append(event, pipeline.Position{Offset: int64(i)}, "events")
	}
	if err := store.Insert(t.Context(), block, "a"); err != nil {
		t.Fatal(err)
	}

	options := retro.Options{Store: store.Config(), Set: now, From: from, To: end}
	check(t, options, all, later)

	// A step is divided until its results are small enough. No event is found twice.
	t.Cleanup(retro.SetLimits(" SETTINGS max_result_rows = 60, max_block_size = 50"))
	options.From = end.Add(-10 * time.Minute)
	if result := check(t, options, all, later); result.Values <= 60 {
		t.Errorf("%d values", result.Values)
	}
}

// check runs a search, and compares what it finds with the verdicts of later; known are those that stored has.
func check(t *testing.T, options retro.Options, stored, later []*pipeline.Event) retro.Result {
	t.Helper()
	want := map[string]int{}
	known := 0
	for i, event := range later {
		for _, verdict := range event.Verdicts {
			if event.Timestamp < options.From.UnixNano() || event.Timestamp >= options.To.UnixNano() {
				continue
			}
			isKnown := slices.ContainsFunc(stored[i].Verdicts, func(v *pipeline.Verdict) bool { return v.Rule == verdict.Rule && v.Group == verdict.Group })
			want[key(event.IDText(), verdict.Rule, verdict.Group, isKnown)]++
			if isKnown {
				known++
			}
		}
	}
	got := map[string]int{}
	steps := 0
	result, err := retro.Run(t.Context(), retro.Options{
		Store: options.Store, Set: options.Set, From: options.From, To: options.To, Progress: func(time.Time, retro.Result) { steps++ },
		Match: func(match retro.Match) error {
			got[key(match.Event, match.Rule, match.Group, match.Known)]++
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) || len(want) == 0 || known == 0 || known == len(want) {
		t.Errorf("%d matches, want %d, of which %d are known", len(got), len(want), known)
		for _, text := range slices.Sorted(maps.Keys(want)) {
			if got[text] != want[text] {
				t.Errorf("%s: %d times, want %d", text, got[text], want[text])
			}
		}
		for _, text := range slices.Sorted(maps.Keys(got)) {
			if want[text] == 0 {
				t.Errorf("%s is not wanted", text)
			}
		}
	}
	if hours := int(options.To.Sub(options.From).Hours()) + 1; result.Matches != int64(len(want)) || result.Known != int64(known) || steps != hours || result.Events == 0 {
		t.Errorf("result %+v after %d steps", result, steps)
	}
	return result
}
