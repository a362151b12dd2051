package ship

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector"
	"tidegate/collector/ship/frame"
	"tidegate/collector/ship/journal"
	"tidegate/collector/ship/spool"
	"tidegate/pipeline"
	"tidegate/pipeline/config"
	"tidegate/pipeline/kafka"
	"tidegate/pipeline/metrics"
	"tidegate/pipeline/retry"
	"tidegate/pipeline/statedir"
)

// ErrClosed is the error of Ship after Close.
var ErrClosed = errors.New("the shipper is closed")

const (
	maxPartitions    = 4096
	maintainInterval = 200 * time.Millisecond
	topicInterval    = time.Minute // between two checks of the number of partitions
)

// missingInterval is topicInterval while events wait for partitions that do not exist.
var missingInterval = 5 * time.Second

// A Shipper sends the events of one collector. Its methods may be called by any goroutine.
type Shipper struct {
	// Set before the first goroutine starts.
	cfg          Config
	log          *slog.Logger
	reg          prometheus.Registerer // registry with which s is registered; nil: none
	id           pipeline.ID
	host         *pipeline.Host
	topic        string
	kafka        *kafka.Client
	lock         *statedir.Lock
	journal      *journal.Journal
	spool        *spool.Spool
	failpoints   failpoints
	fileEpoch    uint64
	packetEpoch  uint64
	packetBudget *byteBudget // memory for the packets of all partitions

	// filesToReplay are the files of earlier processes with ranges that must be read again. The slice does
	// not change after recovery.
	filesToReplay []*fileProducer

	counters   counters
	health     brokerHealth
	partitions atomic.Pointer[[]*partition] // partitions in use; a prefix of allPartitions

	mu            sync.Mutex
	allPartitions []*partition // every partition ever used; none is removed
	senders       map[senderKey]*sender
	files         map[string]*fileProducer // by name; closed files are not in it

	unwrittenMu sync.Mutex
	unwritten   []*batchRange // abandoned ranges that could not be written to the journal

	lifecycle
	progress    chan struct{} // a batch was finished; holds one signal
	maintainNow chan struct{} // wakes maintain; holds one signal
}

// A lifecycle ends the goroutines of a Shipper in two steps: closing rejects new events, the end of ctx stops
// all goroutines.
type lifecycle struct {
	closing   atomic.Bool
	stop      chan struct{} // closed when closing is set
	ctx       context.Context
	cancel    context.CancelFunc
	producing sync.WaitGroup // produce requests
	workers   sync.WaitGroup // all other goroutines
}

// batchID identifies a batch of this collector.
type batchID = journal.BatchID

type senderKey struct {
	epoch     uint64
	partition uint32
}

// failpoints are hooks of tests: they end goroutines at chosen points, simulate a full disk, and observe
// which batches are safe.
type failpoints struct {
	beforeProduce, afterProduce func(batchID)
	afterConfirm                func(batch []byte)
	wrapFile                    func(frame.File) frame.File
	compactAt                   int64 // size at which the journal is compacted
}

// failpoint calls hook, if it is set, with the id of a batch.
func failpoint(hook func(batchID), id batchID) {
	if hook != nil {
		hook(id)
	}
}

var (
	_ collector.Shipper    = (*Shipper)(nil)
	_ prometheus.Collector = (*Shipper)(nil)
)

// New returns a running Shipper. It recovers the unsent batches and the checkpoints that earlier processes
// left in cfg.StateDir. Kafka may be unavailable.
func New(cfg Config, kafkaCfg kafka.Config, id pipeline.ID, log *slog.Logger, reg prometheus.Registerer,
) (*Shipper, error) {
	return newShipper(cfg, kafkaCfg, id, log, reg, failpoints{})
}

// newShipper is New with failpoints, for tests.
func newShipper(cfg Config, kafkaCfg kafka.Config, id pipeline.ID, log *slog.Logger, reg prometheus.Registerer,
	failpoints failpoints,
) (*Shipper, error) {
	if err := config.Join("shipper", cfg.Check()); err != nil {
		return nil, err
	}
	client, err := kafka.New(kafkaCfg)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	shipper := &Shipper{
		cfg: cfg, log: log, id: id, topic: client.Topic(pipeline.TopicEvents), kafka: client,
		failpoints: failpoints, fileEpoch: newEpoch(), packetEpoch: newEpoch(),
		packetBudget: newByteBudget(int64(cfg.BufferBytes / 2)), health: newBrokerHealth(),
		senders: map[senderKey]*sender{}, files: map[string]*fileProducer{},
		lifecycle: lifecycle{stop: make(chan struct{})},
		progress:  make(chan struct{}, 1), maintainNow: make(chan struct{}, 1),
	}
	shipper.host = &pipeline.Host{Name: cfg.Host, Id: hex.EncodeToString(id[:]), Cluster: cfg.Cluster}

	// The lock is taken before any file of the folder is read: another process may still be writing there.
	if shipper.lock, err = lockState(cfg.StateDir); err != nil {
		client.Close()
		return nil, err
	}
	shipper.ctx, shipper.cancel = context.WithCancel(context.Background())
	if err := shipper.recoverAndStart(reg); err != nil {
		shipper.cancel()
		client.Close()
		_ = shipper.lock.Unlock()
		return nil, err
	}
	return shipper, nil
}

// recoverAndStart recovers the state of earlier processes and starts the goroutines.
func (s *Shipper) recoverAndStart(reg prometheus.Registerer) error {
	if err := s.recoverState(); err != nil {
		return err
	}
	if reg != nil && metrics.With(reg).Register(s) {
		s.reg = reg
	}

	// Read the number of partitions from Kafka before the first event is routed, but do not wait long for a
	// broker that is unavailable.
	ctx, cancel := context.WithTimeout(s.ctx, 3*time.Second)
	s.refreshTopic(ctx, true)
	cancel()

	s.dispatchRecovered()
	s.workers.Go(s.maintain)
	s.workers.Go(s.watchTopic)
	return nil
}

// File returns the producer of the file with that name. Calls with one name return the same producer until it
// is closed for good.
func (s *Shipper) File(name string) collector.FileProducer {
	s.mu.Lock()
	defer s.mu.Unlock()
	producer := s.files[name]
	if producer == nil || !producer.reopen() {
		producer = newFileProducer(s, name, s.journal.AddFile(name))
		producer.reopen()
		s.files[name] = producer
	}
	return producer
}

// Packets returns a producer of events that cannot be read again.
func (s *Shipper) Packets(string) collector.PacketProducer {
	return &packetProducer{shipper: s, router: partitionCache{shipper: s}}
}

// Files returns the names of files that are not open, have a checkpoint and begin with prefix.
func (s *Shipper) Files(prefix string) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, file := range s.files {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		if _, ok := file.Resume(); ok && file.inState(fileIdle) {
			names = append(names, name)
		}
	}
	return names
}

// Prune drops the checkpoints of files that are not open and for which exists returns false. A file with
// lines in an unfinished batch of an earlier process is dropped when its replay has ended.
func (s *Shipper) Prune(exists func(name string) bool) {
	// The lock is held throughout: a file that is opened meanwhile must not be marked as missing.
	var missing []*fileProducer
	s.mu.Lock()
	for name, file := range s.files {
		file.mu.Lock()
		if file.inState(fileIdle) && !exists(name) {
			file.setState(fileMissing)
			missing = append(missing, file)
		}
		file.mu.Unlock()
	}
	s.mu.Unlock()
	for _, file := range missing {
		s.dropFinishedFile(file)
	}
	if len(missing) > 0 {
		s.requestMaintenance() // their replays end
	}
}

// dropFinishedFile drops f and its checkpoint if f will not be read again and none of its ranges is
// unfinished.
func (s *Shipper) dropFinishedFile(f *fileProducer) {
	// Both locks are held: an owner that opens the file concurrently gets f before the state is checked, or a
	// new producer after f was dropped.
	s.mu.Lock()
	f.mu.Lock()
	droppable := f.droppable()
	if droppable {
		f.setState(fileClosed)
		if s.files[f.name] == f {
			delete(s.files, f.name)
		}
	}
	f.mu.Unlock()
	s.mu.Unlock()
	if droppable {
		s.journal.DropFile(f.id)
	}
}

// batchHeader returns the header of a batch, which is encoded behind its events.
func (s *Shipper) batchHeader(epoch uint64, partition uint32, sequence uint64) *pipeline.Batch {
	return &pipeline.Batch{
		Schema: pipeline.Schema, Collector: s.id[:], Epoch: epoch, Partition: partition, Sequence: sequence,
		Shipped: time.Now().UnixNano(), Host: s.host,
	}
}

// setPartitions routes new events to the first count partitions, and makes batchers for those that are new.
// Partitions are never removed: when the topic has fewer than before, the others keep their batches, which wait, and
// receive no new events.
func (s *Shipper) setPartitions(count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.allPartitions) < count {
		added := &partition{index: len(s.allPartitions)}
		s.initBatcher(&added.files, added, false)
		s.initBatcher(&added.packets, added, true)
		s.allPartitions = append(s.allPartitions, added)
		s.workers.Go(added.files.journalBatches)
	}

	// The partitions in use share equally what the others leave of the memory of files, and at least a quarter.
	memory := int64(s.cfg.BufferBytes) / 2
	free := memory
	for _, unused := range s.allPartitions[count:] {
		free -= unused.files.budget.used.Load()
	}
	for _, existing := range s.allPartitions[:count] {
		existing.files.budget.size.Store(max(free, memory/4) / int64(count))
		existing.files.budget.abandoned.Store(false)
	}

	// The published slice is never modified: its capacity is count, so that a later append to allPartitions copies or
	// writes behind it. Owners of files that wait for memory of an unused partition choose another one after it.
	current := s.allPartitions[:count:count]
	s.partitions.Store(&current)
	for _, unused := range s.allPartitions[count:] {
		unused.files.budget.abandon()
	}
}

// initBatcher prepares a batcher of target and connects it with its sender; s.mu must be held.
func (s *Shipper) initBatcher(b *batcher, target *partition, packets bool) {
	b.shipper, b.partition, b.packets, b.wake = s, target, packets, make(chan struct{}, 1)
	b.closed = s.closing.Load()
	epoch := s.fileEpoch
	if packets {
		epoch, b.budget = s.packetEpoch, s.packetBudget
	} else {
		b.budget = newByteBudget(int64(s.cfg.BufferBytes / 2))
	}
	b.sender = s.senderFor(senderKey{epoch, uint32(target.index)}, packets)
	b.sender.batcher, b.sender.budget = b, b.budget
}

// senderFor returns the sender of key and makes it if there is none. s.mu must be held, except during
// recovery, when no other goroutine runs.
func (s *Shipper) senderFor(key senderKey, packets bool) *sender {
	if s.senders[key] == nil {
		s.senders[key] = &sender{
			shipper: s, epoch: key.epoch, partition: key.partition, packets: packets, budget: s.packetBudget,
			nextSequenceNumber: 1, backoff: retry.Backoff{Min: firstRetry, Max: lastRetry},
		}
	}
	return s.senders[key]
}

// everyPartition returns every partition that was ever used.
func (s *Shipper) everyPartition() []*partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.allPartitions
}

// everySender returns the senders of all epochs and partitions, those of earlier processes included.
func (s *Shipper) everySender() []*sender {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*sender, 0, len(s.senders))
	for _, sender := range s.senders {
		all = append(all, sender)
	}
	return all
}
