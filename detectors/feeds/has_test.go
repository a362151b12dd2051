package feeds

import (
	"os"
	"path/filepath"
	"testing"
)

// TestHasAsksOneFeed: a value is looked up as an event's host is, in the feed that is named only, without allocation.
func TestHasAsksOneFeed(t *testing.T) {
	var cfgs []Config
	for name, text := range map[string]string{"a": "evil.example\n203.0.113.0/24\n", "b": "worse.example\n"} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfgs = append(cfgs, Config{Name: name, Path: path})
	}
	set, _, err := Load(t.Context(), cfgs)
	if err != nil {
		t.Fatal(err)
	}
	check := func(feed, value string, want bool) {
		t.Helper()
		if got := set.Has(feed, value); got != want {
			t.Errorf("feed %s has %q: %t, want %t", feed, value, got, want)
		}
	}
	for _, value := range []string{"evil.example", "www.EVIL.example.", "evil.example:443", "203.0.113.9", "[::ffff:203.0.113.9]:80"} {
		check("a", value, true)
		check("b", value, false)
		check("c", value, false)
	}
	check("a", "worse.example", false)
	check("b", "worse.example", true)
	check("a", "", false)
	if !set.HasFeed("a") || set.HasFeed("c") {
		t.Error("the names of the feeds")
	}
	if allocs := testing.AllocsPerRun(100, func() { set.Has("a", "www.fine.example"); set.Has("a", "192.0.2.7") }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
