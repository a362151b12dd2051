package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"

	"tidegate/pipeline/config"
	"tidegate/pipeline/logging"
	"tidegate/pipeline/metrics"
	"tidegate/pipeline/statedir"
)

const (
	minSegment = 1 << 20
	maxSegment = 64 << 20
	maxMessage = 16 << 20
)

// Broker is a running embedded broker.
type Broker struct {
	cfg           BrokerConfig
	log           *slog.Logger
	lock          *statedir.Lock
	cluster       *kfake.Cluster
	addr          string
	bytes         prometheus.Gauge
	trimmed       prometheus.Counter
	stop          context.CancelFunc
	retentionLoop sync.WaitGroup
	once          sync.Once
}

// StartBroker starts the broker on the data in its folder. Clients create the topics. Acknowledged data
// survives a killed process, but not a power failure, because kfake does not sync each write.
func StartBroker(
	ctx context.Context, cfg BrokerConfig, log *slog.Logger, reg prometheus.Registerer,
) (*Broker, error) {
	if err := config.Join("embedded.broker", cfg.Check()); err != nil {
		return nil, err
	}
	factory := metrics.With(reg)
	broker := &Broker{
		cfg: cfg, log: log,
		bytes: factory.Gauge("tidegate_embedded_broker_disk_bytes",
			"Size of the embedded broker's messages on disk, in bytes."),
		trimmed: factory.Counter("tidegate_embedded_broker_trimmed_bytes_total",
			"Bytes of messages that the embedded broker deleted because of their age or of the cap on disk, read or unread. "+
				"A reader counts messages that were deleted before it read them as lost."),
	}

	// Lock the folder before the broker opens its data.
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "data"), 0o700); err != nil {
		return nil, fmt.Errorf("start the embedded broker: %w", err)
	}
	var err error
	if broker.lock, err = lockFolder(ctx, cfg.Dir, LockFile, time.Second); err != nil {
		return nil, fmt.Errorf("start the embedded broker: %w", err)
	}
	if err := broker.startCluster(); err != nil {
		_ = broker.lock.Unlock()
		return nil, err
	}

	// Retention runs until Close, which may come after ctx has ended.
	var run context.Context
	run, broker.stop = context.WithCancel(context.Background())
	broker.retentionLoop.Go(func() { broker.enforceRetention(run) })
	return broker, ctx.Err()
}

func (b *Broker) startCluster() error {
	port, _ := b.cfg.port()
	port, err := freePort("broker", "embedded.broker.addr", port)
	if err != nil {
		return err
	}
	// Each partition gets a share of the cap. Retention deletes whole segments, so a partition may exceed its
	// limit by one.
	share := int64(b.cfg.MaxBytes) / int64(b.cfg.Partitions)
	segment := min(max(share/8, minSegment), maxSegment)
	b.cluster, err = kfake.NewCluster(
		kfake.Ports(port), kfake.ClusterID("tidegate-embedded"), kfake.DataDir(filepath.Join(b.cfg.Dir, "data")),
		kfake.DefaultNumPartitions(b.cfg.Partitions), kfake.WithLogger(brokerLog{b.log, logging.NewThrottle(time.Second)}),
		kfake.BrokerConfigs(map[string]string{
			"log.retention.bytes":       strconv.FormatInt(share-segment, 10),
			"log.retention.ms":          strconv.FormatInt(b.cfg.Retention.Milliseconds(), 10),
			"log.segment.bytes":         strconv.FormatInt(segment, 10),
			"message.max.bytes":         strconv.Itoa(maxMessage),
			"offsets.retention.minutes": strconv.Itoa(10 * 365 * 24 * 60), // an idle group keeps its offsets
		}))
	if err != nil {
		return fmt.Errorf("start the embedded broker in %s: %w", b.cfg.Dir, err)
	}
	b.addr = b.cluster.ListenAddrs()[0]
	return nil
}

// Addr returns the address for clients, host:port.
func (b *Broker) Addr() string { return b.addr }

// Close flushes and stops the broker.
func (b *Broker) Close() error {
	b.once.Do(func() {
		b.stop()
		b.retentionLoop.Wait()
		b.cluster.Close()
		_ = b.lock.Unlock()
	})
	return nil
}

// enforceRetention applies the limits on age and size at every RetentionCheckInterval until ctx ends. kfake
// itself applies them once an hour.
func (b *Broker) enforceRetention(ctx context.Context) {
	tick := time.NewTicker(b.cfg.RetentionCheckInterval)
	defer tick.Stop()
	for {
		before := diskBytes(filepath.Join(b.cfg.Dir, "data"))
		b.cluster.ApplyRetention()
		after := diskBytes(filepath.Join(b.cfg.Dir, "data"))
		if after < before {
			b.trimmed.Add(float64(before - after))
		}
		b.bytes.Set(float64(after))
		if after > int64(b.cfg.MaxBytes) {
			b.trimLargestPartition(after)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// diskBytes returns the size of the files below dir. A file that is deleted during the walk counts as empty.
func diskBytes(dir string) (total int64) {
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}

// brokerLog passes kfake's warnings and errors to the log of tidegate.
type brokerLog struct {
	log      *slog.Logger
	throttle *logging.Throttle // of warnings: a full disk refuses each batch
}

func (l brokerLog) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.log.Error("embedded broker", "message", fmt.Sprintf(format, args...))
	case kfake.LogLevelWarn:
		if suppressed, ok := l.throttle.Allow(); ok {
			l.log.Warn("embedded broker", "message", fmt.Sprintf(format, args...), "suppressed", suppressed)
		}
	}
}

// trimLargestPartition deletes the oldest messages of the largest partition, so that the folder falls below
// its cap. Retention alone does not ensure the cap: with more than one topic, the shares of the partitions
// add up to more than the cap. The number of messages is computed from the average message size of the
// partition.
func (b *Broker) trimLargestPartition(used int64) {
	dirs, err := os.ReadDir(filepath.Join(b.cfg.Dir, "data", "partitions"))
	if err != nil {
		return
	}

	// Find the largest partition. kfake names a partition's folder <escaped topic>-<partition>.
	var topic string
	var largest *kfake.PartitionInfo
	for _, dir := range dirs {
		name, number, ok := cutLast(dir.Name(), '-')
		id, err := strconv.ParseInt(number, 10, 32)
		if !ok || err != nil {
			continue
		}
		if name, err = url.PathUnescape(name); err != nil {
			continue
		}
		info := b.cluster.PartitionInfo(name, int32(id))
		if info != nil && (largest == nil || info.NumBytes > largest.NumBytes) {
			topic, largest = name, info
		}
	}
	if largest == nil || largest.NumBytes == 0 {
		return
	}

	// Delete up to the offset before which the excess lies, on average.
	excess := min(used-int64(b.cfg.MaxBytes)+minSegment, largest.NumBytes)
	messages := float64(largest.HighWatermark-largest.LogStartOffset) * float64(excess) / float64(largest.NumBytes)
	to := min(largest.LogStartOffset+int64(messages)+1, largest.HighWatermark)
	if err := b.cluster.DeleteRecords(topic, largest.Partition, to); err != nil {
		b.log.Warn("embedded broker exceeds its cap on disk and cannot delete messages",
			"topic", topic, "partition", largest.Partition, "err", err)
		return
	}
	b.log.Warn("embedded broker exceeds its cap on disk, oldest messages deleted",
		"topic", topic, "partition", largest.Partition, "messages", to-largest.LogStartOffset,
		"used", used, "max_bytes", b.cfg.MaxBytes)
}

func cutLast(text string, sep byte) (before, after string, found bool) {
	i := strings.LastIndexByte(text, sep)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+1:], true
}
