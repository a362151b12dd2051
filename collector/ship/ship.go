// Package ship carries events from the sources of a host to Kafka: lanes, batches, stamps, journal, spool.
//
// A source ships on lanes (collector.Shipper). The event is encoded into the open batch of the partition that its container hashes
// to, and is free again. Batches are cut by size or age, stamped (collector, boot, partition, sequence), and produced, several at a
// time per partition; the engine drops repeats by their stamps. Sources learn by Lane.Acked what is safe. cmd/tidegate makes the
// shipper, prints its Ledger when it stops, and closes it last.
//
// Two things differ by where an event comes from.
//
// Lines of files (Lane.Ship with a Mark) can be read again, so they wait: Ship blocks while their share of memory is taken, and
// the files are the buffer. Before a batch of them is produced, the journal says which lines of which files are in it. After a kill
// the same lines are put into the same batches under the same stamps, so that the engine knows whether it has them: nothing is
// lost, nothing comes twice.
//
// Events of the wire (Lane.TryShip) cannot be seen again, so they are shed, in a declared order (shed.go), when memory is short, and go
// to the spool on disk when Kafka is away. So do lines whose file was unlinked (Lane.Seal).
//
// The boot of a stamp is drawn at random per process, one for each of the two: neither then waits for a gap in the other's
// sequence. A batch is tied to its partition and stamp for ever, in the journal and in the spool, also if the number of partitions
// changes or the process is killed while it sends what an earlier one left.
package ship

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"tidegate/collector"
	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
	"tidegate/pipeline/retry"
	"tidegate/pipeline/statedir"
)

// ErrClosed is what Ship says of a shipper that is closed.
var ErrClosed = errors.New("the shipper is closed")

const (
	maxPartitions = 4096
	janitorEvery  = 200 * time.Millisecond
	askEvery      = time.Minute // how many partitions there are
)

// A Shipper sends the events of one collector. Its methods may be called by any goroutine.
type Shipper struct {
	cfg    Config
	log    *slog.Logger
	reg    prometheus.Registerer
	id     pipeline.ID
	hostID string
	host   *pipeline.Host
	topic  string
	kafka  *kafka.Client

	fileEpoch, packetEpoch uint64

	lock         *statedir.Lock
	journal      journal
	spool        *spool
	counters     counters
	packetBudget *byteBudget
	partitions   atomic.Pointer[[]*partition] // of the topic as it is known; those of fewer partitions are prefixes of those of more
	started      time.Time
	failpoints   failpoints

	mu             sync.Mutex
	allPartitions  []*partition // ever made
	senders        map[senderKey]*sender
	files          map[string]*fileProducer
	recoveredFiles []*fileProducer // of the journal, with portions that are cut again

	closing     atomic.Bool
	stop        chan struct{} // closed with closing
	ctx         context.Context
	cancel      context.CancelFunc
	producing   sync.WaitGroup
	workers     sync.WaitGroup
	progress    chan struct{} // a batch was finished or journaled
	maintainNow chan struct{}
	health      brokerHealth
	diskSaid    sync.Map // file → when its error was logged last
}

type senderKey struct {
	epoch     uint64
	partition uint32
}

// failpoints are where tests kill the process.
type failpoints struct {
	beforeProduce, afterProduce func(batchID)
	afterConfirm                func(batch []byte)
	journalFile                 func(journalFile) journalFile
	spoolFile                   func(spoolFile) spoolFile
}

// failpoint calls f, if it is set, with the id of the batch at hand.
func failpoint(f func(batchID), id batchID) {
	if f != nil {
		f(id)
	}
}

var (
	_ collector.Shipper    = (*Shipper)(nil)
	_ prometheus.Collector = (*Shipper)(nil)
)

// New takes over what earlier lives of this collector left in cfg.StateDir and begins to ship. Kafka may be away.
func New(cfg Config, kafkaCfg kafka.Config, id pipeline.ID, log *slog.Logger, reg prometheus.Registerer) (*Shipper, error) {
	return newShipper(cfg, kafkaCfg, id, log, reg, failpoints{})
}

func newShipper(cfg Config, kafkaCfg kafka.Config, id pipeline.ID, log *slog.Logger, reg prometheus.Registerer, seams failpoints) (*Shipper, error) {
	if err := errors.Join(cfg.Check()...); err != nil {
		return nil, err
	}
	client, err := kafka.New(kafkaCfg)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	s := &Shipper{
		cfg: cfg, log: log, id: id, hostID: hex.EncodeToString(id[:]), topic: client.Topic(pipeline.TopicEvents), kafka: client,
		fileEpoch: newEpoch(), packetEpoch: newEpoch(), packetBudget: newByteBudget(cfg.Memory / 2), started: time.Now(), failpoints: seams,
		senders: map[senderKey]*sender{}, files: map[string]*fileProducer{}, stop: make(chan struct{}), progress: make(chan struct{}, 1),
		maintainNow: make(chan struct{}, 1),
	}
	s.host = &pipeline.Host{Name: cfg.Host, Id: s.hostID, Cluster: cfg.Cluster}
	if s.lock, err = lockState(cfg.StateDir); err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.recoverAndStart(reg); err != nil {
		s.cancel()
		s.lock.Unlock()
		return nil, err
	}
	return s, nil
}

// recoverAndStart reads the past, and starts.
func (s *Shipper) recoverAndStart(reg prometheus.Registerer) error {
	text, err := readJournal(s.cfg.StateDir)
	if err != nil {
		return err
	}
	p := replay(text)
	if err := s.recoverSpool(p); err != nil {
		return err
	}
	s.recoverJournal(p)
	if err := s.journal.open(s.cfg.StateDir); err != nil {
		if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
			return err
		}
		s.reportDiskError(&s.counters.journalErr, "journal", err) // files wait until there is room, the wire goes on
	}
	s.setPartitions(max(p.parts, 1))
	if reg != nil {
		if err := reg.Register(s); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
		s.reg = reg
	}
	ctx, cancel := context.WithTimeout(s.ctx, 3*time.Second)
	s.refreshTopic(ctx)
	cancel()
	s.dispatchAll()
	s.workers.Go(s.maintain)
	s.workers.Go(s.watchTopic)
	return nil
}

// File returns the producer of the file of that name: the same one while it is not closed for good.
func (s *Shipper) File(name string) collector.FileProducer {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[name]
	if f == nil || !f.reopen() {
		f = newFileProducer(s, name)
		f.reopen()
		s.files[name] = f
	}
	return f
}

// Packets returns a producer of events that cannot be read again.
func (s *Shipper) Packets(string) collector.PacketProducer {
	return &packetProducer{shipper: s, router: partitionCache{shipper: s}}
}

// Prune drops the checkpoints of files that are not open and do not exist. Files that batches of an earlier process
// wait for are dropped when their replay has expired.
func (s *Shipper) Prune(exists func(name string) bool) {
	var missing []*fileProducer
	s.mu.Lock() // no file is opened meanwhile
	for name, f := range s.files {
		f.mu.Lock()
		if f.is(fileIdle) && !exists(name) {
			f.setState(fileMissing)
			missing = append(missing, f)
		}
		f.mu.Unlock()
	}
	s.mu.Unlock()
	for _, f := range missing {
		s.dropFinishedFile(f)
	}
}

// dropFinishedFile forgets f if nobody will read it again and nothing of it is unfinished.
func (s *Shipper) dropFinishedFile(f *fileProducer) {
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
		s.reportDiskError(&s.counters.journalErr, "journal", s.journal.forget(f))
	}
}

// journalBatch writes full to the journal and reports whether that succeeded.
func (s *Shipper) journalBatch(full *batch, id batchID) bool {
	err := s.journal.batch(full, id)
	s.reportDiskError(&s.counters.journalErr, "journal", err)
	return err == nil
}

func (s *Shipper) ackInJournal(id batchID) {
	s.reportDiskError(&s.counters.journalErr, "journal", s.journal.ack(id))
}

func (s *Shipper) shrinkInJournal(r *batchRange) {
	s.reportDiskError(&s.counters.journalErr, "journal", s.journal.shrink(r.replay.pending.id(r.replay.sender), r.file, r))
}

func (s *Shipper) filesToReplay() []*fileProducer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recoveredFiles
}

// batchHeader is what stands behind the events of a batch.
func (s *Shipper) batchHeader(boot uint64, partition uint32, seq uint64) *pipeline.Batch {
	return &pipeline.Batch{
		Schema: pipeline.Schema, Collector: s.id[:], Epoch: boot, Partition: partition, Sequence: seq,
		Shipped: time.Now().UnixNano(), Host: s.host,
	}
}

// setPartitions makes batchers for n partitions. Partitions are never removed: when the topic has fewer than before,
// the rest goes on sending what it has and gets nothing new.
func (s *Shipper) setPartitions(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.allPartitions) < n {
		p := &partition{index: len(s.allPartitions)}
		s.initBatcher(&p.files, p, false)
		s.initBatcher(&p.packets, p, true)
		s.allPartitions = append(s.allPartitions, p)
		s.workers.Go(p.files.journalBatches)
	}
	for _, p := range s.allPartitions[:n] {
		p.files.budget.size.Store(s.cfg.Memory / 2 / int64(n))
	}
	current := s.allPartitions[:n:n]
	s.partitions.Store(&current)
}

// initBatcher prepares a batcher of p and connects it with its sender; s.mu must be held.
func (s *Shipper) initBatcher(b *batcher, p *partition, packets bool) {
	b.shipper, b.partition, b.packets, b.wake = s, p, packets, make(chan struct{}, 1)
	b.closed = s.closing.Load()
	epoch := s.fileEpoch
	if packets {
		epoch, b.budget = s.packetEpoch, s.packetBudget
	} else {
		b.budget = newByteBudget(s.cfg.Memory / 2)
	}
	b.sender = s.senderFor(senderKey{epoch, uint32(p.index)}, packets)
	b.sender.batcher, b.sender.budget = b, b.budget
}

// senderFor returns the sender of key, which is made if need be; s.mu must be held, except while the Shipper starts.
func (s *Shipper) senderFor(key senderKey, packets bool) *sender {
	if s.senders[key] == nil {
		s.senders[key] = &sender{
			shipper: s, epoch: key.epoch, partition: key.partition, packets: packets, budget: s.packetBudget,
			next: 1, backoff: retry.Backoff{Min: firstRetry, Max: lastRetry},
		}
	}
	return s.senders[key]
}

// Ledger accounts for every event so far. It balances only after Close: before, events are on their way from one place to another.
func (s *Shipper) Ledger() Ledger { return s.counters.ledger(s.bufferedEvents()) }

func (s *Shipper) bufferedEvents() (n uint64) {
	for _, p := range s.everyPartition() {
		n += p.files.bufferedEvents() + p.packets.bufferedEvents()
	}
	for _, st := range s.everySender() {
		n += st.bufferedEvents()
	}
	return n
}

func (s *Shipper) fileBytes() (n int64) {
	for _, p := range s.everyPartition() {
		n += p.files.budget.used.Load()
	}
	return n
}

func (s *Shipper) everyPartition() []*partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.allPartitions
}

func (s *Shipper) everySender() []*sender {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*sender, 0, len(s.senders))
	for _, st := range s.senders {
		all = append(all, st)
	}
	return all
}

// newSpool opens the spool, or one that refuses everything.
func (s *Shipper) newSpool(each func(spoolHeader, spoolRef)) error {
	sp, damaged, err := openSpool(filepath.Join(s.cfg.StateDir, "spool"), s.cfg.SpoolBytes, s.cfg.Sync, each)
	if err != nil {
		return err
	}
	sp.wrap = s.failpoints.spoolFile
	s.spool = sp
	s.reportDamage("spool", damaged)
	return nil
}
