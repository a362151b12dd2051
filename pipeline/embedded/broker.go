package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
)

// BrokerConfig is the embedded Kafka.
type BrokerConfig struct {
	Dir        string        `yaml:"dir"`        // its data
	Addr       string        `yaml:"addr"`       // 127.0.0.1:port; port 0 takes a free one
	Partitions int           `yaml:"partitions"` // of a topic that is made without saying how many
	MaxBytes   int64         `yaml:"max_bytes"`  // of the data on disk, all topics: above it the oldest messages go
	Retention  time.Duration `yaml:"retention"`  // messages older than this go

	RetentionInterval time.Duration `yaml:"retention_interval"` // between looks at what must go
}

// DefaultBroker is a broker that a small host bears.
func DefaultBroker() BrokerConfig {
	return BrokerConfig{Addr: "127.0.0.1:19092", Partitions: 4, MaxBytes: 2 << 30, Retention: 48 * time.Hour, RetentionInterval: 5 * time.Second}
}

// Check names every key that cannot be right.
func (c BrokerConfig) Check() []error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("embedded.broker.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if c.Dir == "" {
		bad("dir", "is empty")
	}
	if _, err := c.port(); err != nil {
		bad("addr", "%q: 127.0.0.1:port is meant; the embedded broker listens on loopback only", c.Addr)
	}
	if c.Partitions < 1 || c.Partitions > 256 {
		bad("partitions", "%d: 1 to 256 is meant", c.Partitions)
	}
	if least := int64(c.Partitions) * minSegment * 4; c.MaxBytes < least {
		bad("max_bytes", "%d is too little for %d partitions: %d is the least", c.MaxBytes, c.Partitions, least)
	}
	if c.Retention < time.Minute {
		bad("retention", "%s is too short: 1m is the least", c.Retention)
	}
	if c.RetentionInterval <= 0 {
		bad("retention_interval", "%s is no interval", c.RetentionInterval)
	}
	return errs
}

func (c BrokerConfig) port() (int, error) {
	host, port, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return 0, err
	}
	if host != "127.0.0.1" && host != "localhost" {
		return 0, errors.New("not loopback")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return int(n), err
}

const (
	minSegment = 1 << 20
	maxSegment = 64 << 20
	maxMessage = 16 << 20
)

// Broker is a running embedded Kafka.
type Broker struct {
	cfg           BrokerConfig
	log           *slog.Logger
	lock          *os.File
	cluster       *kfake.Cluster
	addr          string
	bytes         prometheus.Gauge
	trimmed       prometheus.Counter
	stop          context.CancelFunc
	retentionLoop sync.WaitGroup
	once          sync.Once
}

// StartBroker starts the broker on the data that is in its folder. Topics are made by the clients. Only one process can work in a folder: that
// lock is what fences clients that assign partitions statically. Without SyncWrites data outlives a killed process, not a power cut.
func StartBroker(ctx context.Context, cfg BrokerConfig, log *slog.Logger, reg prometheus.Registerer) (*Broker, error) {
	if errs := cfg.Check(); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	b := &Broker{
		cfg: cfg, log: log,
		bytes:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "tidegate_embedded_broker_disk_bytes", Help: "Bytes of the embedded broker's messages on disk."}),
		trimmed: prometheus.NewCounter(prometheus.CounterOpts{Name: "tidegate_embedded_broker_trimmed_bytes_total", Help: "Bytes of messages that went because of age or of the cap on disk, whether they were read or not; a reader that finds them gone counts them as lost."}),
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "data"), 0o700); err != nil {
		return nil, fmt.Errorf("start the embedded broker: %w", err)
	}
	var err error
	if b.lock, err = lockFile(filepath.Join(cfg.Dir, "lock"), time.Second); err != nil {
		return nil, fmt.Errorf("start the embedded broker: %w", err)
	}
	if err := b.startCluster(); err != nil {
		b.lock.Close()
		return nil, err
	}
	if reg != nil {
		reg.MustRegister(b.bytes, b.trimmed)
	}
	var run context.Context
	run, b.stop = context.WithCancel(context.Background())
	b.retentionLoop.Go(func() { b.enforceRetention(run) })
	return b, ctx.Err()
}

func (b *Broker) startCluster() error {
	port, _ := b.cfg.port()
	port, err := freePort("broker", "embedded.broker.addr", port)
	if err != nil {
		return err
	}
	// A partition may hold a share of the cap; its files end at segments, of which one too many may lie there.
	share := b.cfg.MaxBytes / int64(b.cfg.Partitions)
	segment := min(max(share/8, minSegment), maxSegment)
	b.cluster, err = kfake.NewCluster(
		kfake.Ports(port), kfake.ClusterID("tidegate-embedded"), kfake.DataDir(filepath.Join(b.cfg.Dir, "data")),
		kfake.DefaultNumPartitions(b.cfg.Partitions), kfake.WithLogger(brokerLog{b.log}),
		kfake.BrokerConfigs(map[string]string{
			"log.retention.bytes":       strconv.FormatInt(share-segment, 10),
			"log.retention.ms":          strconv.FormatInt(b.cfg.Retention.Milliseconds(), 10),
			"log.segment.bytes":         strconv.FormatInt(segment, 10),
			"message.max.bytes":         strconv.Itoa(maxMessage),
			"offsets.retention.minutes": strconv.Itoa(10 * 365 * 24 * 60), // a group that rests keeps its place
		}))
	if err != nil {
		return fmt.Errorf("start the embedded broker in %s: %w", b.cfg.Dir, err)
	}
	b.addr = b.cluster.ListenAddrs()[0]
	return nil
}

// Addr is host:port for clients.
func (b *Broker) Addr() string { return b.addr }

// Close writes what is open to disk and ends the broker.
func (b *Broker) Close() error {
	b.once.Do(func() {
		b.stop()
		b.retentionLoop.Wait()
		b.cluster.Close()
		b.lock.Close()
	})
	return nil
}

// enforceRetention does what the broker itself does once an hour only.
func (b *Broker) enforceRetention(ctx context.Context) {
	tick := time.NewTicker(b.cfg.RetentionInterval)
	defer tick.Stop()
	for {
		before := diskBytes(filepath.Join(b.cfg.Dir, "data"))
		b.cluster.ApplyRetention()
		after := diskBytes(filepath.Join(b.cfg.Dir, "data"))
		if after < before {
			b.trimmed.Add(float64(before - after))
		}
		b.bytes.Set(float64(after))
		if after > b.cfg.MaxBytes {
			b.trimLargestPartition(after)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// diskBytes is what the files below dir hold. A file that goes meanwhile holds nothing.
func diskBytes(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

// brokerLog hands on what the broker complains of.
type brokerLog struct{ log *slog.Logger }

func (l brokerLog) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.log.Error("embedded broker", "says", fmt.Sprintf(format, args...))
	case kfake.LogLevelWarn:
		l.log.Warn("embedded broker", "says", fmt.Sprintf(format, args...))
	}
}

// trimLargestPartition brings the whole folder below its cap where the shares of the partitions did not: there may be more topics than one. The
// largest partition gives, in proportion.
func (b *Broker) trimLargestPartition(used int64) {
	dirs, err := os.ReadDir(filepath.Join(b.cfg.Dir, "data", "partitions"))
	if err != nil {
		return
	}
	var topic string
	var largest *kfake.PartitionInfo
	for _, d := range dirs {
		name, number, ok := cutLast(d.Name(), '-')
		p, err := strconv.ParseInt(number, 10, 32)
		if !ok || err != nil {
			continue
		}
		if name, err = url.PathUnescape(name); err != nil {
			continue
		}
		if i := b.cluster.PartitionInfo(name, int32(p)); i != nil && (largest == nil || i.NumBytes > largest.NumBytes) {
			topic, largest = name, i
		}
	}
	if largest == nil || largest.NumBytes == 0 {
		return
	}
	excess := min(used-b.cfg.MaxBytes+minSegment, largest.NumBytes)
	part := float64(largest.HighWatermark-largest.LogStartOffset) * float64(excess) / float64(largest.NumBytes)
	to := min(largest.LogStartOffset+int64(part)+1, largest.HighWatermark)
	if err := b.cluster.DeleteRecords(topic, largest.Partition, to); err != nil {
		b.log.Warn("embedded broker is over its cap on disk and could not drop", "topic", topic, "partition", largest.Partition, "err", err)
		return
	}
	b.log.Warn("embedded broker is over its cap on disk and dropped its oldest messages", "topic", topic, "partition", largest.Partition, "messages", to-largest.LogStartOffset, "used", used, "max_bytes", b.cfg.MaxBytes)
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
