package feeds

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/lineartest"
)

// read returns the indicators of a text, in its order, with what it says about each, and its skipped lines.
func read(t testing.TB, path string) (indicators []string, skipped []string) {
	t.Helper()
	out := &list{name: "f", config: Config{Path: path}, details: details{room: maxDetails}}
	var keys []string
	out.onAdd = func(key []byte) { keys = append(keys, typeOf(key)+" "+keyText(key)+"\x00"+string(key)) }
	if err := out.newParser(maxIndicators).readPath(t.Context(), path, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	out.finish()
	for _, entry := range keys {
		text, key, _ := strings.Cut(entry, "\x00")
		at, ok := out.index.find(hashKey([]byte(key)))
		if !ok {
			t.Fatalf("%s is not found", text)
		}
		about := out.details.all[at]
		text += fmt.Sprintf(" %d", about.confidence)
		if about.expires != 0 {
			text += " until " + time.Unix(about.expires, 0).UTC().Format(time.DateOnly)
		}
		indicators = append(indicators, fmt.Sprintf("%s|%s|%s|%s", text, about.source, about.tags, about.note))
	}
	for _, lineError := range out.skipped.Errors {
		skipped = append(skipped, strings.TrimPrefix(lineError.Error(), path+":"))
	}
	return indicators, skipped
}

// checkRead compares the indicators of a file, and what is skipped, each with the begin that is expected.
func checkRead(t *testing.T, path string, want, wantSkipped []string) {
	t.Helper()
	got, skipped := read(t, path)
	if !slices.Equal(got, want) {
		t.Errorf("%s: indicators\n%s\nwant\n%s", filepath.Base(path), strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !slices.EqualFunc(skipped, wantSkipped, strings.Contains) {
		t.Errorf("%s: skipped\n%s\nwant\n%s", filepath.Base(path), strings.Join(skipped, "\n"), strings.Join(wantSkipped, "\n"))
	}
}

// TestPublishedFormats: each form in which lists are published has the same indicators, with source, tags and confidence.
func TestPublishedFormats(t *testing.T) {
	urlhaus := []string{
		"url 203.0.113.66/bin.sh 75|geenensp|malware_download,32-bit,elf,mips,Mozi|",
		"url files.evil.example/a,b/x.php?id=1&n=2 75|abuse_ch|malware_download|",
	}
	checkRead(t, "testdata/urlhaus.csv", urlhaus, []string{"192.168.1.7 is not that of one host outside: private"})
	checkRead(t, "testdata/urlhaus.json", urlhaus, []string{"192.168.1.7 is not that of one host outside: private"})
	threatfox := []string{
		"address 203.0.113.67 100|abuse_ch|botnet_cc,AS64500,CobaltStrike|Cobalt Strike",
		"domain c2.worse.example 75|abuse_ch|botnet_cc,lumma|Lumma Stealer",
		"url worse.example/gate.php 50|abuse_ch|botnet_cc|Lumma Stealer",
		"hash d41d8cd98f00b204e9800998ecf8427e 50|abuse_ch|payload|Lumma Stealer",
	}
	checkRead(t, "testdata/threatfox.csv", threatfox, []string{`type "envelope_from" is looked up in no field`})
	checkRead(t, "testdata/threatfox.json", threatfox, []string{`type "envelope_from" is looked up in no field`})
	const activity, delivery = "|Campaign of November|Network activity", "|Campaign of November|Payload delivery"
	checkRead(t, "testdata/misp.json", []string{
		"domain stage.evil.example 75" + activity + ",tlp:green,kill-chain:c2|first stage",
		"address 203.0.113.68 75" + activity + "|",
		"domain pair.evil.example 75" + activity + "|",
		"address 203.0.113.69 75" + activity + "|",
		"user-agent EvilBot/1.0 (x, y) 75" + activity + "|",
		"hash e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 75" + delivery + "|",
		"hash e7d705a3286e19ea42f587b344ee6865 75" + activity + "|",
	}, []string{`type "email-src" is looked up in no field`})
	checkRead(t, "testdata/stix.json", []string{
		"domain stix.evil.example 85 until 2026-12-31|Example Threat Lab|malicious-activity,emotet|C2 domain",
		"address 203.0.113.70 75|||indicator--5",
		"network 198.51.100.0/24 75|||indicator--5",
		"url stix.evil.example/it's 75|||indicator--5",
		"hash aec070645fe53ee3b3763059376134f058cc337247c978add178b6ccdfb0019f 75|||indicator--6",
	}, []string{`"AND" is more than a comparison`, `a pattern of type "sigma"`})
}

// write returns the path of a new file with this text.
func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestNamedColumns: a header, as a line or a comment, says what the columns are; a line of indicators is none.
func TestNamedColumns(t *testing.T) {
	check := func(text string, want []string, skipped ...string) {
		t.Helper()
		checkRead(t, write(t, "f.csv", text), want, skipped)
	}
	check("indicator,confidence,note\nevil.example,90,n\n", []string{"domain evil.example 90|||n"})
	check("note;domain;valid_until\nx;evil.example;2026-12-31\n", []string{"domain evil.example 75 until 2026-12-31|||x"})
	check("# ja3_md5,Firstseen,Lastseen,Listingreason\nb386946a5a44d1ddcc843bc75336dfce,2017-07-14 18:08:15,2019-07-27 20:42:54,Dridex\n",
		[]string{"hash b386946a5a44d1ddcc843bc75336dfce 75|||Dridex"})
	check(`"first_seen_utc","dst_ip","dst_port","c2_status","last_online","malware"`+"\n"+`"2026-01-04 12:30:24","203.0.113.7","443","online","2026-11-20","QakBot"`+"\n",
		[]string{"address 203.0.113.7 75|||QakBot"})
	check("type,value\nuser-agent,\"Bad \"\"Bot\"\", v1\"\nja4,t13d1516h2_8daaf6152771_b186095e22b6\nipv4,not-an-address.example\n", []string{
		`user-agent Bad "Bot", v1 75|||`, "ja4 t13d1516h2_8daaf6152771_b186095e22b6 75|||",
	}, "4: \"not-an-address.example\" is not an address")
	check("indicator,note\nevil.example\n\"open,x\nworse.example,\"a\"b\ngood.example,n,more\n", []string{
		"domain evil.example 75|||", "domain good.example 75|||n, more",
	}, "3: it has", "4: it has")
	check("indicator,score\nevil.example,5,6\n", nil, "2: it has 3 fields")
	check("# domain, note\nevil.example\nworse.example\n", []string{"domain evil.example 75|||", "domain worse.example 75|||"})
	check("# note, domain\nx,evil.example\n", []string{"domain evil.example 75|||x"})
	check("domain,expires\na.example,9999-12-31T23:59:59Z\n", []string{"domain a.example 75|||"})
	check("indicator,confidence\nevil.example,many\nevil.example,\n,5\n", []string{"domain evil.example 75|||"},
		"2: confidence", "4: it has no indicator")
	check("domain,expires\na.example,soon\nb.example,1798675200\nc.example,2026-12-31T10:00:00+02:00\n", []string{
		"domain b.example 75 until 2026-12-31|||", "domain c.example 75 until 2026-12-31|||",
	}, "2: \"soon\" is not a time")
	check("evil.example,90,url\nindicator,confidence\n", []string{"domain evil.example 90|||url"}, "2: confidence")
	check("md5,sha256\nd41d8cd98f00b204e9800998ecf8427e,e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n", []string{
		"hash d41d8cd98f00b204e9800998ecf8427e 75|||", "hash e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 75|||",
	})
}

// TestLinesOfOtherKinds: a line of a plain list may be a URL, a hash, a JA4 or a range.
func TestLinesOfOtherKinds(t *testing.T) {
	check := func(line string, want ...string) {
		t.Helper()
		got, skipped := read(t, write(t, "f.txt", line+"\n"))
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q; skipped %q", line, got, want, skipped)
		}
	}
	check("http://evil.example/a?b=1#c", "url evil.example/a?b=1 75|||")
	check("HTTPS://EVIL.example.:8443", "url evil.example/ 75|||")
	check("hxxp://evil[.]example/A,b;c", "url evil.example/A,b;c 75|||")
	check("hxxps[:]//user:pw@evil[.]example/x # seen", "url evil.example/x 75|||")
	check("http://evil.example/x,90,a note", "url evil.example/x 90|||a note")
	check(`"http://evil.example/x"`, "url evil.example/x 75|||")
	check("http://[2001:DB8::7]:80/x", "url 2001:db8::7/x 75|||")
	check("http://3405803785/x", "url 203.0.113.9/x 75|||")
	check("http://bücher.example/x", "url xn--bcher-kva.example/x 75|||")
	check("http://evil.example?x", "url evil.example/?x 75|||")
	check("D41D8CD98F00B204E9800998ECF8427E", "hash d41d8cd98f00b204e9800998ecf8427e 75|||")
	check("t13d1516h2_8daaf6152771_B186095e22b6,80", "ja4 t13d1516h2_8daaf6152771_b186095e22b6 80|||")
	check("203.0.113.0-203.0.113.255", "network 203.0.113.0/24 75|||")
	check("203.0.113.7 - 203.0.113.9")
	check("203.0.113.7-203.0.113.10", "address 203.0.113.7 75|||", "network 203.0.113.8/31 75|||", "address 203.0.113.10 75|||")
	check("2001:db8::1-2001:db8::2", "address 2001:db8::1 75|||", "address 2001:db8::2 75|||")
	for _, line := range []string{
		"http://10.0.0.1/x", "http://localhost/x", "http://[::1]/x", "http://2130706433/x", "http://0x7f.1/", "http://[::ffff:10.1.2.3]/x",
		"http://db.local/x", "http://evil/x", "http://", "http:///x", "file://evil.example/x", "http://evil.example/" + strings.Repeat("x", maxText),
		"http://evil.example/a b", "http://LOCALHOST./", "http://127.0.0.1./", "gopher://evil.example", "http://a@/x", "http://0/x",
	} {
		check(line)
	}
}

// TestRefusedSTIXPatterns: what is more than a comparison is left out whole.
func TestRefusedSTIXPatterns(t *testing.T) {
	for _, pattern := range []string{
		"", "[", "[]", "domain-name:value = 'x.example'", "[domain-name:value = 'x.example'", "[domain-name:value != 'x.example']",
		"[domain-name:value NOT = 'x.example']", "[domain-name:value LIKE '%.example']", "[domain-name:value MATCHES 'x']",
		"[domain-name:value = 'a.example'] AND [domain-name:value = 'b.example']", "[domain-name:value = 'a.example'] FOLLOWEDBY [domain-name:value = 'b.example']",
		"[domain-name:value = 'a.example'] WITHIN 5 SECONDS", "[domain-name:value = x.example]", "[domain-name:value = 'x.example",
		"[(domain-name:value = 'a.example' OR domain-name:value = 'b.example') AND file:size > 1]", "[process:name = 'x']", "[domain-name:value IN 'a']",
		"[domain-name:value IN ('a.example', 5)]", "[domain-name:value ISSUBSET 'x.example']", "[file:hashes.'SHA-256 = 'a']", "[domain-name:value = '",
		"[domain-name:value = '\\",
	} {
		if got, err := parseSTIX(pattern); err == nil {
			t.Errorf("%s is accepted: %v", pattern, got)
		}
	}
	got, err := parseSTIX("[ domain-name:value IN ('a.example','b.example') or file:hashes.\"SHA-256\"='x' ] OR [url:value='it\\'s \\\\']")
	if err != nil || fmt.Sprint(got) != `[{2 a.example} {2 b.example} {5 x} {4 it's \}]` {
		t.Errorf("%v %v", got, err)
	}
}

// TestDamagedJSONIsAnError: the feed stays as it was loaded, where half of a text would be half of a feed.
func TestDamagedJSONIsAnError(t *testing.T) {
	whole, err := os.ReadFile("testdata/misp.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		string(whole[:len(whole)/2]), string(whole[:len(whole)-4]), "{\"a\": [{\"url\": \"http://x.example/\"}],}", strings.Repeat(`{"a":`, 100),
		`{"a":"` + strings.Repeat("x", 2*maxJSONToken) + `"}`, "PK\x03\x04 zip", "\x1f\x8b\x08 no gzip",
	} {
		if _, _, err := Load(t.Context(), []Config{{Name: "f", Path: write(t, "f.json", text)}}); err == nil || !strings.Contains(err.Error(), "f.json") {
			t.Errorf("%.40s: %v", text, err)
		}
	}
}

// TestFolderIsOneFeed: with the files of a feed of MISP, compressed or not; what a folder lists about its files is none.
func TestFolderIsOneFeed(t *testing.T) {
	dir := t.TempDir()
	var zipped bytes.Buffer
	writer := gzip.NewWriter(&zipped)
	_, _ = writer.Write([]byte("zipped.example\n"))
	_ = writer.Close()
	for name, text := range map[string]string{
		"a.txt": "a.example\nbad line\n", "b.csv": "domain,note\nb.example,n\n", "manifest.json": `{"x":{"info":"y","url":"http://not.example/"}}`,
		"hashes.csv": "d41d8cd98f00b204e9800998ecf8427e,x\n", ".hidden": "hidden.example\n", "z.gz": zipped.String(), "c.txt": "c.example,50,n\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	checkRead(t, dir, []string{
		"domain a.example 75|||", "domain b.example 75|||n", "domain c.example 50|||n", "domain zipped.example 75|||",
	}, []string{"a.txt:2: "})
	before := fileState(dir)
	if err := os.WriteFile(filepath.Join(dir, "d.txt"), []byte("d.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if fileState(dir) == before {
		t.Error("a new file does not change the state of the folder")
	}
	if problems := (Config{Name: "f", Path: dir}).Check(); len(problems) != 0 {
		t.Error(problems)
	}
}

// TestFieldsOfOtherKinds: URL, User-Agent, JA3, JA3S and the image of a container are looked up.
func TestFieldsOfOtherKinds(t *testing.T) {
	const md5 = "e7d705a3286e19ea42f587b344ee6865"
	const sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	set, _, err := Load(t.Context(), []Config{{Name: "f", Path: write(t, "f.csv", "type,value\nurl,http://evil.example:8080/a?b=1\nurl,http://plain.example/x\n"+
		"user-agent,EvilBot/1.0\nmd5,"+md5+"\nsha256,"+sha256+"\nurl,http://203.0.113.9/i\n")}})
	if err != nil {
		t.Fatal(err)
	}
	check := func(event *pipeline.Event, want string) {
		t.Helper()
		if got := evidence(set, event); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	request := func(host, path, query, agent string) *pipeline.Event {
		return &pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{
			UrlDomain: host, UrlPath: path, UrlQuery: query, UserAgent: agent,
		}}
	}
	check(request("EVIL.example.", "/a", "b=1", ""), "url.original evil.example/a?b=1 is listed")
	check(request("evil.example", "/a", "", ""), "")
	check(request("evil.example", "/A", "b=1", ""), "")
	check(request("www.evil.example", "/a", "b=1", ""), "")
	check(request("plain.example", "/x", "any=thing", ""), "url.original plain.example/x is listed")
	check(request("plain.example", "/x", "any="+strings.Repeat("x", 2*maxText), ""), "url.original plain.example/x is listed")
	check(request("plain.example", "/"+strings.Repeat("x", 2*maxText), "", strings.Repeat("x", 2*maxText)), "")
	check(request("[::ffff:203.0.113.9]:80", "/i", "", ""), "url.original 203.0.113.9/i is listed")
	check(request("shop.test", "/", "", "EvilBot/1.0"), "user_agent.original EvilBot/1.0 is listed")
	check(request("shop.test", "/", "", "evilbot/1.0"), "")
	check(&pipeline.Event{Dataset: pipeline.Dataset_TLS, Tls: &pipeline.TLSHandshake{Ja3: md5}}, "tls.client.ja3 "+md5+" is listed")
	check(&pipeline.Event{Dataset: pipeline.Dataset_TLS, Tls: &pipeline.TLSHandshake{Ja3S: md5}}, "tls.server.ja3s "+md5+" is listed")
	check(&pipeline.Event{Container: &pipeline.Container{ImageId: "sha256:" + sha256}}, "container.image.hash "+sha256+" is listed")
	for value, want := range map[string]bool{
		md5: true, strings.ToUpper(md5): true, "https://evil.example/a?b=1": true, "http://evil.example/": false, "EvilBot/1.0": true, sha256[1:] + "0": false,
	} {
		if set.Has("f", value) != want {
			t.Errorf("the feed has %s: %t", value, !want)
		}
	}
	quiet := request("www.fine.example", "/a/b/c", "d=e", "Mozilla/5.0 (X11; Linux x86_64)")
	if allocs := testing.AllocsPerRun(100, func() { set.Evaluate([]*pipeline.Event{quiet}) }); allocs != 0 {
		t.Errorf("%v allocations for an event without an indicator", allocs)
	}
}

// TestExpiredIndicatorHasNoVerdict: the time of the event decides, so that a replay has the same verdicts.
func TestExpiredIndicatorHasNoVerdict(t *testing.T) {
	set, _, err := Load(t.Context(), []Config{{Name: "f", Path: write(t, "f.csv", "domain,valid_until,tags,source,confidence\n"+
		"evil.example,2026-06-01T00:00:00Z,\"a,b\",lab,90\nevil.example,2026-05-01,,,99\nalways.example,,,,5\nalways.example,2026-05-01,,,50\n")}})
	if err != nil {
		t.Fatal(err)
	}
	check := func(name, at string, want string) {
		t.Helper()
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		event := lookup(name)
		event.Timestamp = when.UnixNano()
		set.Evaluate([]*pipeline.Event{event})
		got := ""
		for _, v := range event.Verdicts {
			got += fmt.Sprintf("%d%v%s", v.Score, v.Tags, v.Evidence)
		}
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s at %s: %q, want %q", name, at, got, want)
		}
		if has := set.HasAt("f", name, when.UnixNano()); has != (want != "") {
			t.Errorf("%s at %s: has is %t", name, at, has)
		}
	}
	check("evil.example", "2026-05-31T23:59:59Z", "90[a b]dns.question.name evil.example is listed in feed f, confidence 90, source lab, valid until 2026-06-01T00:00:00Z")
	check("evil.example", "2026-06-01T00:00:00Z", "")
	check("always.example", "2036-06-01T00:00:00Z", "5[]")
}

// TestAllowListHidesWhatItLists: and what is below it, but for a narrower entry of another feed.
func TestAllowListHidesWhatItLists(t *testing.T) {
	set, _, err := Load(t.Context(), []Config{
		{Name: "block", Path: write(t, "b", "good.example\nwww.good.example\nevil.example\n198.51.100.0/24\n203.0.113.0/24\n203.0.113.9\n")},
		{Name: "own", Path: write(t, "a", "good.example\n198.51.100.7\nexample.org\n203.0.113.0/24\n"), Allow: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	check := func(event *pipeline.Event, want int) {
		t.Helper()
		set.Evaluate([]*pipeline.Event{event})
		if len(event.Verdicts) != want {
			t.Errorf("verdicts %v, want %d", event.Verdicts, want)
		}
	}
	check(lookup("good.example"), 0)
	check(lookup("a.good.example"), 0)
	check(lookup("www.good.example"), 1)
	check(lookup("evil.example"), 1)
	check(sessionTo("198.51.100.7"), 0)
	check(sessionTo("198.51.100.8"), 1)
	check(sessionTo("203.0.113.9"), 1)
	check(sessionTo("203.0.113.8"), 0)
	check(lookup("good.example", "198.51.100.8"), 0) // the name is allowed, wherever it points to
	if set.Has("block", "good.example") || !set.Has("own", "good.example") || !set.Has("block", "evil.example") {
		t.Error("Has does not follow the allow-list")
	}
}

// FuzzFeed reads any text as a file of a feed; the seeds have all formats.
func FuzzFeed(f *testing.F) {
	for _, name := range []string{"urlhaus.csv", "urlhaus.json", "threatfox.csv", "threatfox.json", "misp.json", "stix.json"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("domain,valid_until\nevil.example,2026-01-01\n")
	f.Add("203.0.113.1-203.0.113.254\nhttp://evil.example/x,5,n\n")
	f.Fuzz(func(t *testing.T, in string) {
		lineartest.CheckRepeated(t, lineartest.Default, in, func(in string) {
			out := &list{name: "f", config: Config{Path: "f"}, details: details{room: maxDetails}}
			var keys []string
			out.onAdd = func(key []byte) { keys = append(keys, string(key)) }
			left := int64(maxFeedBytes)
			if err := out.newParser(maxIndicators).read(strings.NewReader(in), &left); err != nil {
				return
			}
			out.finish()
			set := newSet([]*list{out})
			for _, key := range keys {
				if _, ok := out.index.find(hashKey([]byte(key))); !ok || !set.filter.mayContain(hashKey([]byte(key))) {
					t.Errorf("%q was read and is not found", key)
				}
			}
		})
	})
}
