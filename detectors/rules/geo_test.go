package rules

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"tidegate/pipeline"
	"tidegate/pipeline/embedded/embeddedtest"
)

// writeDatabase writes a database with a record for each network.
func writeDatabase(t *testing.T, path string, records map[string]mmdbtype.Map) {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test", IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	for text, record := range records {
		_, network, err := net.ParseCIDR(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Insert(network, record); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if _, err := tree.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func country(code string) mmdbtype.Map {
	return mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(code)}}
}

// geoConfig returns a configuration with a database of places and one of autonomous systems.
func geoConfig(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	cfg := Default()
	cfg.GeoDatabase, cfg.ASNDatabase = filepath.Join(dir, "city.mmdb"), filepath.Join(dir, "asn.mmdb")
	city := mmdbtype.Map{
		"country": mmdbtype.Map{"iso_code": mmdbtype.String("DE")}, "continent": mmdbtype.Map{"code": mmdbtype.String("EU")},
		"city":         mmdbtype.Map{"names": mmdbtype.Map{"en": mmdbtype.String("Munich"), "de": mmdbtype.String("München")}},
		"subdivisions": mmdbtype.Slice{mmdbtype.Map{"iso_code": mmdbtype.String("BY")}},
	}
	writeDatabase(t, cfg.GeoDatabase, map[string]mmdbtype.Map{"203.0.113.0/24": city, "198.51.100.0/24": country("FR"), "2001:db8::/32": country("JP"), "192.0.2.0/24": {}})
	writeDatabase(t, cfg.ASNDatabase, map[string]mmdbtype.Map{"203.0.113.0/24": {"autonomous_system_number": mmdbtype.Uint32(64500)}})
	return cfg
}

// TestPlacesOfAddresses: of a field, of a text that holds an address, and of an element of a list; an address that the database does not have
// is in no place.
func TestPlacesOfAddresses(t *testing.T) {
	cfg := geoConfig(t)
	check := func(when, source, forwarded string, want bool) {
		t.Helper()
		set, err := Compile(cfg, []Source{{Name: "t.yaml", Data: []byte(ruleYAML("r", when))}}, nil, nil)
		if err != nil {
			t.Error(err)
			return
		}
		event := &pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{XForwardedFor: []string{"x", forwarded}, UrlDomain: forwarded}}
		if ip := net.ParseIP(source); ip != nil {
			event.Source = &pipeline.Endpoint{Ip: ip}
		}
		loop := plain(set, event) != ""
		if set.Evaluate([]*pipeline.Event{event}); len(event.Verdicts) > 0 != want || loop != want {
			t.Errorf("%s of %s: matches %t, without the index %t, want %t", when, source, !want, loop, want)
		}
	}
	check(`geo(source.ip, "country") == "DE"`, "203.0.113.9", "", true)
	check(`geo(source.ip, "continent") == "EU" and geo(source.ip, "region") == "BY" and geo(source.ip, "city") == "Munich"`, "203.0.113.9", "", true)
	check(`geo(source.ip, "country") == "DE"`, "198.51.100.9", "", false)
	check(`geo(source.ip, "country") in ["JP", "CN"]`, "2001:db8::1", "", true)
	check(`geo(source.ip, "country") == ""`, "192.0.2.1", "", true)
	check(`geo(source.ip, "city") == ""`, "198.51.100.9", "", true)
	check(`geo(source.ip, "country") == ""`, "10.0.0.1", "", true)
	check(`geo(source.ip, "country") != "DE" and has(source.ip)`, "", "", false)
	check(`geo(source.ip, "country") == ""`, "", "", true)
	check(`asn(source.ip) == 64500`, "203.0.113.9", "", true)
	check(`asn(source.ip) in [64500, 64501]`, "203.0.113.9", "", true)
	check(`asn(source.ip) == 0`, "198.51.100.9", "", true)
	check(`any(http.request.x_forwarded_for, geo(#, "country") == "DE")`, "", "203.0.113.9:80", true)
	check(`any(http.request.x_forwarded_for, asn(#) > 64000)`, "", "203.0.113.9", true)
	check(`geo(url.domain, "country") == "JP"`, "", "[2001:db8::5]", true)
	check(`geo(lower(trim(url.domain)), "country") == "JP"`, "", " 2001:DB8::5 ", true)
	check(`geo(url.domain, "country") == "DE"`, "", "shop.example", false)
}

// TestDatabaseOfARuleMustBeThere: a rule that asks one that is missing does not compile, and rules that ask none need none.
func TestDatabaseOfARuleMustBeThere(t *testing.T) {
	dir := t.TempDir()
	noDatabase := filepath.Join(dir, "text.mmdb")
	if err := os.WriteFile(noDatabase, []byte("not a database"), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(change func(*Config), when, want string) {
		t.Helper()
		cfg := geoConfig(t)
		change(&cfg)
		_, err := Compile(cfg, []Source{{Name: "t.yaml", Data: []byte(ruleYAML("r", when))}}, nil, nil)
		if err == nil && want != "" || err != nil && (want == "" || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %s", when, err, want)
		}
	}
	none := func(cfg *Config) { cfg.GeoDatabase, cfg.ASNDatabase = "", "" }
	check(none, `geo(source.ip, "country") == "DE"`, "t.yaml:4:10: r: when: geo: needs a database in the format of MaxMind: set rules.geo_database;")
	check(none, `asn(source.ip) == 1`, "set rules.asn_database; a command that reads a folder without a configuration takes it from TIDEGATE_ASN_DATABASE")
	check(none, `url.path == "a"`, "")
	check(func(cfg *Config) { cfg.GeoDatabase = dir + "/gone.mmdb" }, `geo(source.ip, "country") == "DE"`, "geo: read rules.geo_database: open "+dir+"/gone.mmdb: no such file or directory")
	check(func(cfg *Config) { cfg.GeoDatabase = noDatabase }, `geo(source.ip, "country") == "DE"`, noDatabase+" is no database in the format of MaxMind")
	check(func(cfg *Config) { cfg.GeoDatabase = dir }, `geo(source.ip, "country") == "DE"`, "geo: read rules.geo_database: ")
	check(func(cfg *Config) { cfg.GeoDatabase = dir + "/gone.mmdb" }, `asn(source.ip) == 1`, "")
	check(func(*Config) {}, `geo(source.ip) == "DE"`, `geo takes an address and one of "country", "continent", "region" and "city"`)
	check(func(*Config) {}, `geo(source.ip, "town") == "DE"`, `geo takes an address and one of`)
	check(func(*Config) {}, `geo(source.port, "city") == "DE"`, "geo takes an address, source.port is a number")
	check(func(*Config) {}, `asn(source.ip, "x") == 1`, "asn takes an address")
}

// TestRulesAreLoadedAgainWhenADatabaseIsRenewed: the set has another version then, and the rule has the same.
func TestRulesAreLoadedAgainWhenADatabaseIsRenewed(t *testing.T) {
	cfg := geoConfig(t)
	cfg.Dir, cfg.Shipped = t.TempDir(), false
	if err := os.WriteFile(filepath.Join(cfg.Dir, "r.yaml"), []byte(ruleYAML("r", `geo(source.ip, "country") == "XK"`)), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := Load(cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	loaded := make(chan *Set, 1)
	go Watcher{Config: cfg, Current: set, Log: slog.New(slog.DiscardHandler), OnChange: func(set *Set) { loaded <- set }}.Run(ctx)
	writeDatabase(t, cfg.GeoDatabase, map[string]mmdbtype.Map{"203.0.113.0/24": country("XK")})
	select {
	case changed := <-loaded:
		event := &pipeline.Event{Dataset: pipeline.Dataset_HTTP, Source: &pipeline.Endpoint{Ip: net.ParseIP("203.0.113.9")}}
		if changed.Evaluate([]*pipeline.Event{event}); len(event.Verdicts) != 1 || changed.rules[0].Version != set.rules[0].Version || changed.Version() == set.Version() {
			t.Errorf("%d verdicts, versions %s and %s", len(event.Verdicts), changed.Version(), set.Version())
		}
	case <-ctx.Done():
		t.Fatal("the rules were not loaded again")
	}
}

// TestStoreQueriesOfPlacesFindTheirMatches: the store has no database, so that they find more.
func TestStoreQueriesOfPlacesFindTheirMatches(t *testing.T) {
	store := embeddedtest.Store(t, "storegeo", "native")
	set, err := Compile(geoConfig(t), []Source{{Name: "t.yaml", Data: []byte(
		ruleYAML("geo", `geo(source.ip, "country") == "DE" and url.path == "/a"`) + ruleYAML("not", `not (geo(source.ip, "country") == "DE") and url.path == "/a"`) +
			ruleYAML("asn", `asn(source.ip) > 0 or url.path == "/b"`))}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var events []*pipeline.Event
	for i, source := range []string{"203.0.113.9", "198.51.100.9", "10.0.0.1"} {
		for j, path := range []string{"/a", "/b", "/c"} {
			id := [16]byte{15: byte(10*i + j + 1)}
			events = append(events, &pipeline.Event{
				Id: id[:], Dataset: pipeline.Dataset_HTTP, Source: &pipeline.Endpoint{Ip: net.ParseIP(source)}, Http: &pipeline.HTTPExchange{UrlPath: path},
			})
		}
	}
	checkStoreQueries(t, store, "geo", set, events)
}

// TestExpressionsAboutPlacesInDocumentsCompile.
func TestExpressionsAboutPlacesInDocumentsCompile(t *testing.T) {
	cfg := geoConfig(t)
	for _, text := range blocks(t, "../../docs/RULES.md", "expr-geo") {
		for line := range strings.Lines(text) {
			if _, err := Compile(cfg, []Source{{Name: "t.yaml", Data: []byte(ruleYAML("r", strings.TrimSpace(line)))}}, nil, nil); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
}
