package bundles

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	kafkago "github.com/segmentio/kafka-go"

	"tidegate/detectors"
	"tidegate/detectors/feeds"
	"tidegate/detectors/rules"
	"tidegate/pipeline"
	"tidegate/pipeline/embedded"
	"tidegate/pipeline/kafka"
)

var quiet = slog.New(slog.DiscardHandler)

// startBroker starts an embedded broker and returns a client, with the topics.
func startBroker(t *testing.T) *kafka.Client {
	t.Helper()
	cfg := embedded.DefaultBroker()
	cfg.Dir, cfg.Addr, cfg.Retention = t.TempDir(), "127.0.0.1:0", time.Hour
	cfg.RetentionCheckInterval = 20 * time.Millisecond
	broker, err := embedded.StartBroker(t.Context(), cfg, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	return newClient(t, broker.Addr())
}

func newClient(t *testing.T, addr string) *kafka.Client {
	t.Helper()
	cfg := kafka.Default()
	cfg.Brokers = []string{addr}
	client, err := kafka.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := EnsureTopics(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	return client
}

// A testEngine is a follower with real detectors.
type testEngine struct {
	t         *testing.T
	client    *kafka.Client
	dir       string
	keys      []ed25519.PublicKey
	store     *Store
	loader    *detectors.Loader
	metrics   *Metrics
	failpoint func(string)
	stop      func()
	loadError atomic.Pointer[func(*Bundle) error] // of loads, before they begin
}

// ruleText returns a rule file with one rule.
func ruleText(id string) string {
	return "- {id: " + id + ", title: t, severity: low, when: 'message contains \"" + id + "\"'}\n"
}

// startEngine starts an engine with its own folder of rules, which has the rule "configured".
func startEngine(t *testing.T, client *kafka.Client, dir string, keys []ed25519.PublicKey) *testEngine {
	t.Helper()
	engine := &testEngine{t: t, client: client, dir: dir, keys: keys}
	if err := os.MkdirAll(filepath.Join(dir, "rules"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "rules", "r.yaml"), []byte(ruleText("configured")), 0o600); err != nil {
		t.Fatal(err)
	}
	engine.start()
	t.Cleanup(func() { engine.stop() })
	return engine
}

// start does what cmd/tidegate does.
func (e *testEngine) start() {
	e.t.Helper()
	check := func(err error) {
		e.t.Helper()
		if err != nil {
			e.t.Fatal(err)
		}
	}
	var err error
	e.store, err = OpenStore(filepath.Join(e.dir, "bundles"), e.keys, testTopic)
	check(err)
	stored, since, problem := e.store.Load()
	cfg := detectors.Config{Rules: rules.Default()}
	cfg.Rules.Dir, cfg.Rules.Shipped = filepath.Join(e.dir, "rules"), false
	if sigma := filepath.Join(e.dir, "sigma"); isFolder(sigma) {
		cfg.Rules.Sigma = sigma
	}
	follower := FollowerConfig{Kafka: e.client, Store: e.store, Current: stored, Since: since, Host: "h", Program: "test"}
	if problem != nil {
		follower.Problem = problem.Error()
	}
	replacement := func(bundle *Bundle) (*detectors.Replacement, error) {
		if loadError := e.loadError.Load(); loadError != nil {
			if err := (*loadError)(bundle); err != nil {
				return nil, err
			}
		}
		list, err := e.store.WriteFeeds(bundle)
		return &detectors.Replacement{Name: "bundle " + bundle.Name(), Rules: bundle.Rules(), Sigma: bundle.Sigma(), Feeds: list}, err
	}
	if stored != nil {
		if cfg.Replacement, err = replacement(stored); err != nil {
			cfg.Replacement, follower.UnloadedErr = nil, err
		}
	}
	loader, err := detectors.NewLoader(cfg, quiet, prometheus.NewRegistry())
	check(err)
	e.loader = loader
	if err := errors.Join(follower.UnloadedErr, loader.ReplacementError()); err != nil {
		follower.Current, follower.Unloaded, follower.UnloadedErr = nil, stored, err
	}
	follower.Load = func(bundle *Bundle) error {
		next, err := replacement(bundle)
		if err != nil {
			return err
		}
		return loader.Replace(next)
	}
	follower.retryPause = 50 * time.Millisecond
	follower.Detectors = func() string { return loader.Bundle().Version }
	follower.Failpoint = e.failpoint
	name, release, err := e.store.Engine(e.t.Context(), "h")
	check(err)
	follower.Engine = name
	e.metrics = NewMetrics(prometheus.NewRegistry())

	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = NewFollower(follower, quiet, e.metrics).Run(ctx) })
	e.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		release()
	})
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// restart stops the engine and starts it from its folder.
func (e *testEngine) restart() {
	e.t.Helper()
	e.stop()
	e.start()
}

// ids returns the rules that match an event whose message has all names that the tests use.
func (e *testEngine) ids() string {
	event := &pipeline.Event{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: "configured one two three four"}}
	for _, detector := range e.loader.Bundle().Detectors {
		detector.Evaluate([]*pipeline.Event{event})
	}
	var ids []string
	for _, verdict := range event.Verdicts {
		ids = append(ids, verdict.Rule)
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

// expect waits until the engine runs these rules.
func (e *testEngine) expect(want string) {
	e.t.Helper()
	waitUntil(e.t, func() string {
		if got := e.ids(); got != want {
			return "the engine runs " + got + ", want " + want
		}
		return ""
	})
}

// expectReport waits until the only report, or the nth, satisfies accept.
func expectReport(t *testing.T, client *kafka.Client, n int, what string, accept func(Report) bool) {
	t.Helper()
	reports := NewReports(client)
	waitUntil(t, func() string {
		list, err := reports.Read(t.Context())
		if err != nil {
			return err.Error()
		}
		if len(list) <= n {
			return "no report yet"
		}
		if !accept(list[n]) {
			return what + ": " + strings.ReplaceAll(strings.TrimSpace(toJSON(list[n])), "\n", " ")
		}
		return ""
	})
}

// waitUntil waits until check returns "".
func waitUntil(t *testing.T, check func() string) {
	t.Helper()
	objection := ""
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if objection = check(); objection == "" {
			return
		}
	}
	t.Fatal(objection)
}

// push pushes a bundle with one rule.
func push(t *testing.T, client *kafka.Client, key ed25519.PrivateKey, text string) *Bundle {
	t.Helper()
	bundle, _, err := Push(t.Context(), client, PushRequest{
		Key: key, Manifest: Manifest{By: "test"}, Contents: packFiles(t, map[string]string{"r.yaml": text}),
	})
	if err != nil {
		t.Fatal(err)
	}
	return bundle
}

// write writes a record to the topic of bundles.
func write(t *testing.T, client *kafka.Client, key string, value []byte) int64 {
	t.Helper()
	record := kafkago.Record{Time: time.Now(), Key: kafkago.NewBytes([]byte(key))}
	if value != nil {
		record.Value = kafkago.NewBytes(value)
	}
	offset, err := client.Produce(t.Context(), testTopic, 0, record)
	if err != nil {
		t.Fatal(err)
	}
	return offset
}

// TestEnginesRunTheNewestBundle: two engines, each with the bundle in place of its folder, also after a restart without
// Kafka.
func TestEnginesRunTheNewestBundle(t *testing.T) {
	client := startBroker(t)
	key, keys := newKey(t)
	dirs := []string{t.TempDir(), t.TempDir()}
	first, second := startEngine(t, client, dirs[0], keys), startEngine(t, client, dirs[1], keys)
	first.expect("configured")
	expectReport(t, client, 1, "no bundle", func(r Report) bool { return r.Bundle == "" && r.Detectors != "" && r.IsLive(time.Now()) })
	push(t, client, key, ruleText("one"))
	first.expect("one")
	second.expect("one")
	newest := push(t, client, key, ruleText("two"))
	first.expect("two")
	second.expect("two")
	for n := range 2 {
		expectReport(t, client, n, "the newest", func(r Report) bool { return r.Sequence == newest.Sequence && r.Bundle == newest.Name() })
	}
	reports, err := NewReports(client).Read(t.Context())
	if err != nil || len(reports) != 2 {
		t.Errorf("%v, %v", reports, err)
	}

	// Kafka is away: the stored bundle runs at once.
	first.stop()
	away := kafka.Default()
	away.Brokers = []string{"127.0.0.1:1"}
	if first.client, err = kafka.New(away); err != nil {
		t.Fatal(err)
	}
	first.start()
	if got := first.ids(); got != "two" {
		t.Errorf("after a restart without Kafka the engine runs %s", got)
	}
	if up := testutil.ToFloat64(first.metrics.readable); up != 0 {
		t.Errorf("the topic counts as readable: %v", up)
	}

	// A new engine finds the newest bundle on the topic.
	startEngine(t, client, t.TempDir(), keys).expect("two")
}

// TestWrongMessagesChangeNothing: whoever may write to the topic but has no key changes nothing, and everything is reported.
func TestWrongMessagesChangeNothing(t *testing.T) {
	client := startBroker(t)
	key, keys := newKey(t)
	stranger, _ := newKey(t)
	engine := startEngine(t, client, t.TempDir(), keys)
	one := push(t, client, key, ruleText("one"))
	two := push(t, client, key, ruleText("two"))
	engine.expect("two")

	expectRejected := func(offset int64, reason Reason, count float64) {
		t.Helper()
		expectReport(t, client, 0, string(reason), func(r Report) bool {
			return r.LastRejected != nil && r.LastRejected.Offset == offset && r.LastRejected.Reason == reason && r.Sequence == two.Sequence
		})
		if got := testutil.ToFloat64(engine.metrics.refused.WithLabelValues(string(reason))); got != count {
			t.Errorf("%s: counted %v, want %v", reason, got, count)
		}
		engine.expect("two")
	}
	expectRejected(write(t, client, "bundle/9", []byte("rules: []")), ReasonFormat, 1)
	unsigned, err := Seal(stranger, Manifest{Topic: testTopic, Sequence: two.Sequence + 1}, packFiles(t, map[string]string{"r.yaml": ruleText("four")}))
	if err != nil {
		t.Fatal(err)
	}
	expectRejected(write(t, client, "bundle/10", unsigned), ReasonSignature, 1)
	expectRejected(write(t, client, "bundle/11", one.Message), ReasonReplayed, 1)
	expectRejected(write(t, client, "bundle/12", append(bytes.Clone(two.Message), 0)), ReasonSignature, 2)

	// The bundles are removed from the topic, and an old one is written again.
	for _, bundle := range []*Bundle{one, two} {
		write(t, client, string(recordKey(bundle.Sequence)), nil)
	}
	expectRejected(write(t, client, "bundle/13", one.Message), ReasonReplayed, 2)
	engine.restart()
	engine.expect("two")
	expectReport(t, client, 0, "the stored one", func(r Report) bool { return r.Sequence == two.Sequence && r.Rejected > 0 })

	// A push goes on from there.
	push(t, client, key, ruleText("three"))
	engine.expect("three")
}

// TestOldMessageInANewTopicIsNotLoaded: the sequence of the stored bundle counts, not the order in the log alone.
func TestOldMessageInANewTopicIsNotLoaded(t *testing.T) {
	client := startBroker(t)
	key, keys := newKey(t)
	engine := startEngine(t, client, t.TempDir(), keys)
	one := push(t, client, key, ruleText("one"))
	push(t, client, key, ruleText("two"))
	engine.expect("two")
	_, err := client.Kafka().DeleteTopics(t.Context(), &kafkago.DeleteTopicsRequest{Topics: []string{testTopic}})
	if err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() string { // the engine makes it anew
		if n, err := client.Partitions(t.Context(), testTopic); err != nil || n != 1 {
			return "no topic"
		}
		return ""
	})
	write(t, client, "bundle/1", one.Message)
	expectReport(t, client, 0, "it was read", func(r Report) bool { return r.Next == 1 })
	if got := engine.ids(); got != "two" {
		t.Errorf("the engine runs %s", got)
	}
	push(t, client, key, ruleText("three"))
	engine.expect("three")
}

// TestBundleThatDoesNotCompileIsRefused: the engine keeps the one before, reports the errors, and an engine that starts
// takes the newest one that loads.
func TestBundleThatDoesNotCompileIsRefused(t *testing.T) {
	client := startBroker(t)
	key, keys := newKey(t)
	engine := startEngine(t, client, t.TempDir(), keys)
	one := push(t, client, key, ruleText("one"))
	engine.expect("one")
	bad := push(t, client, key, strings.Replace(ruleText("two"), "message", "mesage", 1))
	isRefused := func(r Report) bool {
		return r.Sequence == one.Sequence && r.Refused != nil && r.Refused.Sequence == bad.Sequence && r.Refused.Reason == ReasonCompile &&
			strings.Contains(r.Refused.Error, "bundle "+bad.Name()+"/r.yaml:1:") && strings.Contains(r.Refused.Error, `did you mean "message"?`)
	}
	expectReport(t, client, 0, "refused", isRefused)
	engine.restart()
	engine.expect("one")
	expectReport(t, client, 0, "refused", isRefused)
	fresh := startEngine(t, client, t.TempDir(), keys)
	fresh.expect("one")

	// The next one is loaded, and the refusal is over.
	three := push(t, client, key, ruleText("three"))
	engine.expect("three")
	fresh.expect("three")
	for n := range 2 {
		expectReport(t, client, n, "loaded", func(r Report) bool { return r.Refused == nil && r.Sequence == three.Sequence })
	}
}

// TestRollbackIsANewBundle: the contents of an earlier bundle, signed again with a higher sequence.
func TestRollbackIsANewBundle(t *testing.T) {
	client := startBroker(t)
	key, keys := newKey(t)
	engine := startEngine(t, client, t.TempDir(), keys)
	push(t, client, key, ruleText("one"))
	push(t, client, key, ruleText("two"))
	engine.expect("two")
	topic, err := Read(t.Context(), client, keys)
	if err != nil || topic.Refused != 0 || len(topic.Bundles) != 2 {
		t.Fatal(topic, err)
	}
	list := topic.Bundles
	opened, err := Open(list[1].Message, keys, testTopic)
	if err != nil {
		t.Fatal(err)
	}
	back, _, err := Push(t.Context(), client, PushRequest{Key: key, Manifest: Manifest{RollbackOf: opened.Sequence}, Contents: opened.Contents})
	if err != nil {
		t.Fatal(err)
	}
	engine.expect("one")
	if back.Name() != list[1].Name() || back.Sequence <= list[0].Sequence {
		t.Errorf("the rollback is %+v", back.Manifest)
	}
}

// TestTopicKeepsSomeBundles: older ones than the last ten are removed, and neither time nor the broker's retention removes
// the others.
func TestTopicKeepsSomeBundles(t *testing.T) {
	client := startBroker(t)
	key, keys := newKey(t)
	var pushed []*Bundle
	for range History + 3 {
		pushed = append(pushed, push(t, client, key, ruleText("one")))
	}
	topic, err := Read(t.Context(), client, keys)
	if err != nil || len(topic.Bundles) != History || len(topic.Removed) > 0 {
		t.Fatalf("%d bundles, removed %d, %v", len(topic.Bundles), topic.Removed, err)
	}
	list := topic.Bundles
	if list[0].Sequence != pushed[len(pushed)-1].Sequence || list[History-1].Sequence != pushed[3].Sequence {
		t.Error("not the newest ones, or not the newest first")
	}
	removed := map[string]bool{}
	reader := topicReader{client: client, topic: testTopic, next: -1}
	if _, err := reader.readToEnd(t.Context(), time.Minute, func(record kafka.Record) {
		if len(record.Value) == 0 {
			removed[string(record.Key)] = true
		}
	}, nil); err != nil {
		t.Fatal(err)
	}
	for i, bundle := range pushed {
		if want := i < 3; removed[string(recordKey(bundle.Sequence))] != want {
			t.Errorf("bundle %d is removed: %v", i, !want)
		}
	}

	// The embedded broker deletes messages of other topics after an hour.
	old := kafkago.Record{Time: time.Now().Add(-2 * time.Hour), Key: kafkago.NewBytes([]byte("old")), Value: kafkago.NewBytes([]byte("x"))}
	if _, err := client.Produce(t.Context(), testTopic, 0, old); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // ten times the interval of the retention
	if topic, err = Read(t.Context(), client, keys); err != nil || len(topic.Bundles) != History {
		t.Errorf("%d bundles, %v", len(topic.Bundles), err)
	}
}

// TestStoredBundleIsVerified: what was changed on disk, or signed by a key that is trusted no more, is not loaded. The file
// is kept.
func TestStoredBundleIsVerified(t *testing.T) {
	client := startBroker(t)
	key, keys := newKey(t)
	engine := startEngine(t, client, t.TempDir(), keys)
	push(t, client, key, ruleText("one"))
	engine.expect("one")
	path := filepath.Join(engine.dir, "bundles", "bundle")
	waitUntil(t, func() string {
		if _, err := os.Stat(path); err != nil {
			return err.Error()
		}
		return ""
	})
	engine.stop()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Error(err, info.Mode())
	}
	data[len(data)-1] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	other, otherKeys := newKey(t)
	engine.keys = otherKeys
	engine.start()
	engine.expect("configured")
	if kept, err := os.ReadFile(path + ".unreadable"); err != nil || string(kept) != string(data) {
		t.Error("the damaged file is not kept", err)
	}
	expectReport(t, client, 0, "the problem", func(r Report) bool {
		return r.Bundle == "" && strings.Contains(r.Problem, "none of the keys has signed it")
	})
	push(t, client, other, ruleText("two"))
	engine.expect("two")
}

// TestKilledBeforeItStores: an engine that is killed after it has loaded a bundle, before or after it has stored it, loads
// it again.
func TestKilledBeforeItStores(t *testing.T) {
	client := startBroker(t)
	key, keys := newKey(t)
	for _, failpoint := range []string{AfterLoad, AfterStore} {
		engine := startEngine(t, client, t.TempDir(), keys)
		push(t, client, key, ruleText("one"))
		engine.expect("one")
		waitUntil(t, func() string {
			if _, err := os.Stat(engine.store.path()); err != nil {
				return err.Error()
			}
			return ""
		})

		// The folder as it is at the failpoint is what a killed process leaves.
		reached, goOn := make(chan struct{}), make(chan struct{})
		engine.stop()
		engine.failpoint = func(name string) {
			if name == failpoint {
				close(reached)
				<-goOn
			}
		}
		engine.start()
		push(t, client, key, ruleText("two"))
		<-reached
		left := t.TempDir()
		if err := os.CopyFS(filepath.Join(left, "bundles"), os.DirFS(filepath.Join(engine.dir, "bundles"))); err != nil {
			t.Fatal(err)
		}
		close(goOn)
		engine.stop()
		next := startEngine(t, client, left, keys)
		next.expect("two")
		next.stop()
	}
}

// TestEnginesWithOneFolder have names of their own, and an older bundle does not replace a newer stored one.
func TestEnginesWithOneFolder(t *testing.T) {
	key, keys := newKey(t)
	store, err := OpenStore(t.TempDir(), keys, testTopic)
	if err != nil {
		t.Fatal(err)
	}
	first, releaseFirst, err := store.Engine(t.Context(), "h")
	if err != nil {
		t.Fatal(err)
	}
	second, releaseSecond, err := store.Engine(t.Context(), "h")
	if err != nil || first == second || !strings.HasSuffix(first, "-1") || !strings.HasSuffix(second, "-2") {
		t.Error(first, second, err)
	}
	releaseFirst()
	if again, release, err := store.Engine(t.Context(), "h"); err != nil || again != first {
		t.Error(again, err)
	} else {
		release()
	}
	releaseSecond()

	open := func(sequence int64) *Bundle {
		bundle, err := Open(sealFiles(t, key, sequence, map[string]string{"r.yaml": ruleText("one")}), keys, testTopic)
		if err != nil {
			t.Fatal(err)
		}
		return bundle
	}
	if err := errors.Join(store.Save(t.Context(), open(2)), store.Save(t.Context(), open(1))); err != nil {
		t.Fatal(err)
	}
	stored, since, err := store.Load()
	if err != nil || stored.Sequence != 2 || time.Since(since) > time.Minute {
		t.Error(stored, since, err)
	}
}

// TestFeedsOfABundle replace configured feeds of the same name.
func TestFeedsOfABundle(t *testing.T) {
	client := startBroker(t)
	key, keys := newKey(t)
	engine := startEngine(t, client, t.TempDir(), keys)
	path := filepath.Join(t.TempDir(), "evil.txt")
	if err := os.WriteFile(path, []byte("evil.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	contents, err := Pack(Selection{Rules: fstest.MapFS{"r.yaml": {Data: []byte(ruleText("one"))}}, Feeds: []feeds.Config{{Name: "evil", Path: path}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Push(t.Context(), client, PushRequest{Key: key, Contents: contents}); err != nil {
		t.Fatal(err)
	}
	engine.expect("one")
	for range 2 {
		event := &pipeline.Event{Dataset: pipeline.Dataset_DNS, Dns: &pipeline.DNSMessage{QuestionName: "evil.example"}}
		for _, detector := range engine.loader.Bundle().Detectors {
			detector.Evaluate([]*pipeline.Event{event})
		}
		if len(event.Verdicts) != 1 || event.Verdicts[0].Rule != "feed-evil" {
			t.Errorf("verdicts %v", event.Verdicts)
		}
		engine.restart()
		engine.expect("one")
	}
	found := 0
	_ = filepath.WalkDir(engine.dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasSuffix(path, "0-evil.txt") {
			found++
		}
		return nil
	})
	if found != 1 {
		t.Errorf("%d files of the feed", found)
	}
}

// TestSigmaRulesOfABundle take the place of the engine's folder, which comes back with a bundle that has none.
func TestSigmaRulesOfABundle(t *testing.T) {
	client := startBroker(t)
	key, keys := newKey(t)
	sigmaRule := func(id string) []byte {
		return []byte("title: t\nid: " + id + "\nlevel: low\nlogsource: {category: application}\ndetection: {s: [three], condition: s}\n")
	}
	dir := t.TempDir()
	own := filepath.Join(dir, "sigma")
	if err := errors.Join(os.Mkdir(own, 0o700), os.WriteFile(filepath.Join(own, "s.yml"), sigmaRule("own"), 0o600)); err != nil {
		t.Fatal(err)
	}
	engine := startEngine(t, client, dir, keys)
	engine.expect("configured own")
	push(t, client, key, ruleText("one"))
	engine.expect("one own")
	contents, err := Pack(Selection{
		Rules: fstest.MapFS{"r.yaml": {Data: []byte(ruleText("two"))}},
		Sigma: fstest.MapFS{"s.yml": {Data: sigmaRule("sent")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Push(t.Context(), client, PushRequest{Key: key, Contents: contents}); err != nil {
		t.Fatal(err)
	}
	engine.expect("sent two")
	engine.restart()
	engine.expect("sent two")
	push(t, client, key, ruleText("one"))
	engine.expect("one own")
}

func toJSON(report Report) string {
	text, err := json.Marshal(report)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
