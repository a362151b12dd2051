package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"tidegate/detectors"
	"tidegate/pipeline"
	"tidegate/pipeline/alerts"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded"
	"tidegate/pipeline/engine"
	"tidegate/pipeline/kafka"
	"tidegate/pipeline/statedir"
)

// doctorTimeout bounds the conversation with one server.
const doctorTimeout = 5 * time.Second

// checkServers checks the ports on which the parts listen, Kafka and ClickHouse.
func checkServers(ctx context.Context, cfg *Config, parts role) []diagnosis {
	var list []diagnosis
	if cfg.Metrics.Listen != "" {
		list = append(list, checkMetricsPort(ctx, cfg, parts))
	}
	if parts&^roleStore != 0 {
		list = append(list, checkKafka(ctx, cfg, parts)...)
	}
	if parts&(roleStore|roleEngine) != 0 {
		list = append(list, checkClickHouse(ctx, cfg, parts))
	}
	return list
}

// checkMetricsPort checks that the address of the metrics is free, or that one of the parts serves them there
// already.
func checkMetricsPort(ctx context.Context, cfg *Config, parts role) diagnosis {
	const what, remedy = "metrics", "free it, or set metrics.listen (--metrics-listen)"
	address := cfg.Metrics.Listen
	err := tryListen(address)
	switch {
	case err == nil:
		return pass(what, "http://"+address+"/metrics")
	case errors.Is(err, syscall.EADDRINUSE) && servesMetrics(ctx, address):
		if pid, runs := runningPart(cfg, parts); runs {
			return pass(what, "http://"+address+"/metrics, of a tidegate that runs (process "+pid+")")
		}
		return warning(what, address+" is taken by a tidegate, perhaps of another data folder or with other parts",
			"each process needs an address of its own: set metrics.listen (--metrics-listen)")
	case errors.Is(err, syscall.EADDRINUSE):
		return failure(what, errors.New(address+" is taken by another program"), remedy)
	}
	return failure(what, err, remedy)
}

// runningPart returns the process that runs one of the parts in this data folder, as far as their locks show it: an
// engine and a publisher that share partitions with others take none.
func runningPart(cfg *Config, parts role) (pid string, runs bool) {
	for _, lock := range []struct {
		part role
		path string
	}{
		{roleBroker, filepath.Join(cfg.Embedded.Broker.Dir, embedded.LockFile)},
		{roleStore, filepath.Join(cfg.Embedded.Store.Dir, embedded.LockFile)},
		{roleEngine, filepath.Join(cfg.DataDir, "engine.lock")},
		{rolePublisher, filepath.Join(cfg.DataDir, "publisher.lock")},
		{roleCollector, filepath.Join(cfg.Shipper.StateDir, "lock")},
	} {
		if parts&lock.part != 0 {
			if pid, held := statedir.Holder(lock.path); held {
				return pid, true
			}
		}
	}
	return "", false
}

// tryListen listens on a TCP address for a moment.
func tryListen(address string) error {
	listener, err := net.Listen("tcp", address)
	if err == nil {
		err = listener.Close()
	}
	return err
}

// servesMetrics reports whether the server at an address is a tidegate.
func servesMetrics(ctx context.Context, address string) bool {
	text, err := readMetrics(ctx, address)
	return err == nil && strings.Contains(string(text), "tidegate_build_info")
}

// readMetrics returns the metrics of the server at an address.
func readMetrics(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return io.ReadAll(io.LimitReader(response.Body, 4<<20))
}

// checkLoopbackPort checks that a port of an embedded server is free, or that the server of this data folder
// has it. dir is the folder of the server.
func checkLoopbackPort(what, dir, key string, port int, detail string) diagnosis {
	err := tryListen(net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err == nil {
		return pass(what, detail)
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		if pid, held := statedir.Holder(filepath.Join(dir, embedded.LockFile)); held {
			return pass(what, detail+", run by process "+pid)
		}
		err = fmt.Errorf("port %d on 127.0.0.1 is taken by another program", port)
	}
	return failure(what, err, "free it or set "+key)
}

// topicUse is a topic with the ways in which the parts of this process use it.
type topicUse struct {
	topic string
	use   kafka.Use
}

// topicUses returns the topics that the parts use.
func topicUses(cfg *Config, parts role) []topicUse {
	uses := map[string]kafka.Use{}
	if parts&roleCollector != 0 {
		uses[pipeline.TopicEvents] |= kafka.ToProduce
	}
	if parts&roleEngine != 0 {
		uses[pipeline.TopicEvents] |= kafka.ToFetch
		uses[pipeline.TopicSignals] |= kafka.ToProduce | kafka.ToFetch
		uses[pipeline.TopicAlerts] |= kafka.ToProduce
		uses[pipeline.TopicDeadLetter] |= kafka.ToProduce
		if len(cfg.Rules.BundleKeys) > 0 {
			uses[pipeline.TopicBundles] |= kafka.ToFetch
			uses[pipeline.TopicEngines] |= kafka.ToProduce
		}
	}
	if parts&rolePublisher != 0 {
		uses[pipeline.TopicAlerts] |= kafka.ToFetch
		uses[pipeline.TopicDeadLetter] |= kafka.ToProduce
	}
	var list []topicUse
	for _, topic := range []string{
		pipeline.TopicEvents, pipeline.TopicSignals, pipeline.TopicAlerts, pipeline.TopicDeadLetter, pipeline.TopicBundles, pipeline.TopicEngines,
	} {
		if uses[topic] != 0 {
			list = append(list, topicUse{topic, uses[topic]})
		}
	}
	return list
}

// checkKafka checks the port of the embedded broker, or what the parts may do at another Kafka.
func checkKafka(ctx context.Context, cfg *Config, parts role) []diagnosis {
	const what = "kafka"
	if cfg.embeddedBroker() {
		return []diagnosis{checkEmbeddedBroker(what, cfg, parts)}
	}
	client, err := kafka.New(cfg.Kafka)
	if err != nil {
		return []diagnosis{failure(what, err, "check kafka.tls and kafka.sasl")}
	}
	defer client.Close()

	// A server that does not answer would give the same line for each topic.
	answering, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	if _, err := client.AdvertisedBrokers(answering); err != nil {
		return []diagnosis{failure(what, err, "check kafka.brokers, kafka.tls and kafka.sasl")}
	}
	uses := topicUses(cfg, parts)
	list := append([]diagnosis{pass(what, strings.Join(cfg.Kafka.Brokers, ", "))}, make([]diagnosis, len(uses))...)
	var checks sync.WaitGroup
	for i, each := range uses {
		checks.Go(func() { list[1+i] = checkTopic(ctx, client, each) })
	}
	checks.Wait()
	for _, group := range kafkaGroups(cfg, parts) {
		groupCtx, cancel := context.WithTimeout(ctx, doctorTimeout)
		if err := client.CheckGroup(groupCtx, group.name, group.topic); err != nil {
			list = append(list, failure(what, err, "allow the user Read on group "+group.name))
		}
		cancel()
	}
	return list
}

// checkTopic checks what the parts may do with one topic.
func checkTopic(ctx context.Context, client *kafka.Client, each topicUse) diagnosis {
	what := "topic " + client.Topic(each.topic)
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	exists, err := client.CheckTopic(ctx, each.topic, each.use)
	switch {
	case err != nil && kafka.Classify(err) == kafka.Denied:
		return failure(what, err, "allow the user to describe and create the topic, and to write or read it")
	case err != nil:
		return failure(what, err, "check kafka.partitions and kafka.replication_factor, or create the topic")
	case !exists:
		return pass(what, "does not exist yet; it is created at the first start, which this user may do")
	}
	return pass(what, "exists, and this user may use it")
}

// A kafkaGroup is a consumer group and the topic that it reads.
type kafkaGroup struct{ name, topic string }

// kafkaGroups returns the consumer groups of the parts.
func kafkaGroups(cfg *Config, parts role) []kafkaGroup {
	var groups []kafkaGroup
	if parts&roleEngine != 0 {
		group := cmp.Or(cfg.Engine.Group, cfg.Kafka.TopicPrefix+"-engine")
		groups = append(groups, kafkaGroup{group, pipeline.TopicEvents}, kafkaGroup{group + engine.SignalsGroupSuffix, pipeline.TopicSignals})
	}
	if parts&rolePublisher != 0 {
		for _, destination := range cfg.Alerts.DestinationNames() {
			groups = append(groups, kafkaGroup{alerts.GroupName(cfg.Kafka, destination), pipeline.TopicAlerts})
		}
	}
	return groups
}

// checkEmbeddedBroker checks the port of the embedded broker. Parts that another process serves need its
// answer.
func checkEmbeddedBroker(what string, cfg *Config, parts role) diagnosis {
	broker := cfg.Embedded.Broker
	detail := "embedded, at " + broker.Addr
	if parts&roleBroker != 0 {
		_, text, _ := net.SplitHostPort(broker.Addr)
		port, _ := strconv.Atoi(text)
		return checkLoopbackPort(what, broker.Dir, "embedded.broker.addr", port, detail)
	}
	conn, err := net.DialTimeout("tcp", broker.Addr, doctorTimeout)
	if err != nil {
		return warning(what, detail+" of another process, which does not run: "+err.Error(),
			"start `tidegate run --only broker,store`, or set kafka.brokers")
	}
	_ = conn.Close()
	return pass(what, detail+" of another process")
}

// checkClickHouse logs in to ClickHouse and checks the privileges there, or looks for the files and the port of
// the embedded one.
func checkClickHouse(ctx context.Context, cfg *Config, parts role) diagnosis {
	const what = "clickhouse"
	if cfg.embeddedStore() {
		return checkEmbeddedStore(what, cfg, parts)
	}
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	store, err := clickhouse.Open(ctx, cfg.ClickHouse, discardLog(), newRegistry())
	if err != nil {
		return failure(what, err, "check clickhouse.addr, clickhouse.username and clickhouse.password")
	}
	defer func() { _ = store.Close() }()
	if err := store.CheckRights(ctx); err != nil {
		return failure(what, err, "grant them to the user")
	}
	return pass(what, strings.Join(cfg.ClickHouse.Addr, ", "))
}

// checkEmbeddedStore looks for the library of the embedded ClickHouse and for the program that loads it, and
// checks its port.
func checkEmbeddedStore(what string, cfg *Config, parts role) diagnosis {
	store := cfg.Embedded.Store
	if parts&roleStore == 0 {
		if _, err := embedded.StoreAdmin(store.Dir); err != nil {
			return warning(what, err.Error(), "start `tidegate run --only broker,store`, or set clickhouse.addr")
		}
		return pass(what, "embedded, of another process")
	}
	library := cmp.Or(store.Library, embedded.LibraryPath())
	program := cmp.Or(store.Program, embedded.ProgramPath())
	for _, part := range []struct{ path, remedy string }{
		{library, "deploy/fetch-libchdb.sh fetches it"},
		{program, "`make build` builds it"},
	} {
		if _, err := os.Stat(part.path); err != nil {
			return warning(what,
				"embedded, and "+part.path+" does not exist: "+
					"events are evaluated and alerts raised, but nothing is stored",
				part.remedy+"; or set clickhouse.addr")
		}
	}
	detail := "embedded, " + library
	for _, port := range []struct {
		key    string
		number int
	}{{"embedded.store.tcp_port", store.TCPPort}, {"embedded.store.http_port", store.HTTPPort}} {
		if port.number == 0 {
			continue
		}
		result := checkLoopbackPort(what, store.Dir, port.key, port.number, detail)
		if result.Status != "ok" {
			return result
		}
		detail = result.Detail
	}
	return pass(what, detail)
}

// checkDetectors loads rules, feeds and the classifier as the engine does.
func checkDetectors(cfg *Config) []diagnosis {
	loader, err := detectors.NewLoader(detectorConfig(cfg), discardLog(), newRegistry())
	if err != nil {
		list := failures("detectors", err)
		for i := range list {
			list[i].Remedy = detectorRemedy(cfg, list[i].Detail)
		}
		return list
	}
	if _, err := cfg.bundleKeys(); err != nil {
		return []diagnosis{failure("detectors", err, "name PEM files of ed25519 public keys; `tidegate rules keygen` makes a pair")}
	}
	list := []diagnosis{pass("detectors", loader.Summary())}
	for _, text := range loader.Warnings() {
		list = append(list, warning("detectors", text, ""))
	}
	return list
}

// detectorRemedy returns the remedy for an error of a rule or of a feed.
func detectorRemedy(cfg *Config, detail string) string {
	for _, feed := range cfg.Feeds {
		if strings.Contains(detail, feed.Path) || strings.Contains(detail, "feed "+feed.Name) {
			return "make the file readable with one indicator a line, or remove the feed; see docs/OPERATING.md, Feeds"
		}
	}
	return "correct the rule; `tidegate rules test DIR` checks a folder, docs/RULES.md describes the language"
}

// checkDestinations asks each destination of alerts whether it is there.
func checkDestinations(ctx context.Context, cfg *Config) []diagnosis {
	const what = "destination "
	var list []diagnosis
	for _, result := range alerts.CheckDestinations(ctx, cfg.Alerts) {
		if result.Err != nil {
			list = append(list, failure(what+result.Name, result.Err,
				"check its url, credentials and tls under alerts; its alerts wait in Kafka until it answers"))
			continue
		}
		list = append(list, pass(what+result.Name, result.Detail))
	}
	if len(list) == 0 {
		list = append(list, pass("destinations", "none: alerts are stored, and `run` prints them"))
	}
	return list
}
