package bundles

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/detectors/feeds"
	"tidegate/pipeline/kafka"
)

// packFeed returns contents with a rule and a feed.
func packFeed(t *testing.T, rule string) *Contents {
	t.Helper()
	path := filepath.Join(t.TempDir(), "evil.txt")
	if err := os.WriteFile(path, []byte("evil.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	contents, err := Pack(Selection{Rules: fstest.MapFS{"r.yaml": {Data: []byte(ruleText(rule))}}, Feeds: []feeds.Config{{Name: "evil", Path: path}}})
	if err != nil {
		t.Fatal(err)
	}
	return contents
}

// TestBundleIsTriedAgainUntilTheCauseHasPassed: the folder of the feeds cannot be written.
func TestBundleIsTriedAgainUntilTheCauseHasPassed(t *testing.T) {
	client := startBroker(t)
	key, keys := newKey(t)
	engine := startEngine(t, client, t.TempDir(), keys)
	obstacle := filepath.Join(engine.dir, "bundles", "feeds")
	if err := os.WriteFile(obstacle, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	one, _, err := Push(t.Context(), client, PushRequest{Key: key, Contents: packFeed(t, "one")})
	if err != nil {
		t.Fatal(err)
	}
	isPending := func(r Report) bool {
		return r.Pending != nil && r.Pending.Sequence == one.Sequence && r.Pending.Attempts >= 3 && r.Refused == nil && r.Bundle == "" &&
			strings.Contains(r.Pending.Error, "write the feed evil of the bundle: ") && strings.Contains(r.Pending.Error, "not a directory")
	}
	expectReport(t, client, 0, "pending", isPending)
	if got := testutil.ToFloat64(engine.metrics.pending); got != 1 {
		t.Errorf("pending is %v", got)
	}
	if got := testutil.ToFloat64(engine.metrics.failed); got < 3 {
		t.Errorf("%v failed loads are counted", got)
	}
	engine.restart()
	expectReport(t, client, 0, "pending after a restart", isPending)
	engine.expect("configured")
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	engine.expect("one")
	expectReport(t, client, 0, "loaded", func(r Report) bool { return r.Pending == nil && r.Sequence == one.Sequence })
	if got := testutil.ToFloat64(engine.metrics.pending); got != 0 {
		t.Errorf("pending is %v behind the load", got)
	}
}

// TestCandidatesWhileOneIsPending: the bundle before a pending one is loaded, the pending one behind it once it can be, and
// a newer bundle ends a pending one.
func TestCandidatesWhileOneIsPending(t *testing.T) {
	client := startBroker(t)
	key, keys := newKey(t)
	engine := startEngine(t, client, t.TempDir(), keys)
	engine.expect("configured")
	engine.stop()
	fail := func(name string) {
		isRule := func(bundle *Bundle) error {
			text, err := bundle.Rules().Open("r.yaml")
			if err != nil {
				return err
			}
			defer text.Close()
			data, err := readBounded(text)
			if err == nil && strings.Contains(string(data), name) {
				err = errors.New("no space left on device")
			}
			return err
		}
		engine.loadError.Store(&isRule)
	}
	fail("two")
	one, two := push(t, client, key, ruleText("one")), push(t, client, key, ruleText("two"))
	engine.start()
	engine.expect("one")
	expectReport(t, client, 0, "one runs, two is pending", func(r Report) bool {
		return r.Sequence == one.Sequence && r.Pending != nil && r.Pending.Sequence == two.Sequence
	})
	fail("nothing")
	engine.expect("two")

	fail("three")
	push(t, client, key, ruleText("three"))
	expectReport(t, client, 0, "three is pending", func(r Report) bool { return r.Pending != nil })
	four := push(t, client, key, ruleText("four"))
	engine.expect("four")
	fail("nothing")
	expectReport(t, client, 0, "nothing is pending", func(r Report) bool { return r.Pending == nil && r.Sequence == four.Sequence })
	engine.expect("four")
}

// TestStoredBundleIsTriedAgain: it does not load at the start, and Kafka is away.
func TestStoredBundleIsTriedAgain(t *testing.T) {
	client := startBroker(t)
	key, keys := newKey(t)
	engine := startEngine(t, client, t.TempDir(), keys)
	push(t, client, key, ruleText("one"))
	engine.expect("one")
	waitUntil(t, func() string {
		if _, err := os.Stat(engine.store.path()); err != nil {
			return err.Error()
		}
		return ""
	})
	engine.stop()
	full := func(*Bundle) error { return errors.New("no space left on device") }
	engine.loadError.Store(&full)
	away := kafka.Default()
	away.Brokers = []string{"127.0.0.1:1"}
	var err error
	if engine.client, err = kafka.New(away); err != nil {
		t.Fatal(err)
	}
	engine.start()
	engine.expect("configured")
	engine.loadError.Store(nil)
	engine.expect("one")
}

// TestBundleIsStoredOnceItCanBe: the bundle runs, and its file cannot be replaced at first.
func TestBundleIsStoredOnceItCanBe(t *testing.T) {
	client := startBroker(t)
	key, keys := newKey(t)
	engine := startEngine(t, client, t.TempDir(), keys)
	if err := os.Mkdir(engine.store.path(), 0o700); err != nil {
		t.Fatal(err)
	}
	one := push(t, client, key, ruleText("one"))
	engine.expect("one")
	expectReport(t, client, 0, "a problem", func(r Report) bool {
		return r.Sequence == one.Sequence && strings.Contains(r.Problem, "store the bundle")
	})
	if err := os.Remove(engine.store.path()); err != nil {
		t.Fatal(err)
	}
	expectReport(t, client, 0, "no problem", func(r Report) bool { return r.Sequence == one.Sequence && r.Problem == "" })
	if stored, _, err := engine.store.Load(); err != nil || stored == nil || stored.Sequence != one.Sequence {
		t.Error(stored, err)
	}
}
