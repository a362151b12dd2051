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

	lock         *os.File
	journal      journal
	spool        *spool
	counters     counters
	packetBudget *byteBudget
	partitions   atomic.Pointer[[]*partition] // of the topic as it is known; those of fewer partitions are prefixes of those of more
	started      time.Time
	forgot       bool // tidy's: files that were not seen for long have been forgotten
	failpoints   failpoints

	mu             sync.Mutex
	allPartitions  []*partition // ever made
	senders        map[senderKey]*sender
	lanes          map[string]*lane
	recoveredLanes []*lane // of the journal, with portions that are cut again

	closing     atomic.Bool
	stop        chan struct{} // closed with closing
	ctx         context.Context
	cancel      context.CancelFunc
	producing   sync.WaitGroup
	workers     sync.WaitGroup
	delivered   chan struct{} // something was acknowledged
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
	journalFile                 func(journalFile) journalFile
	spoolFile                   func(spoolFile) spoolFile
}

func (failpoints) call(f func(batchID), k batchID) {
	if f != nil {
		f(k)
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
		fileEpoch: randomEpoch(), packetEpoch: randomEpoch(), packetBudget: newByteBudget(cfg.Memory / 2), started: time.Now(), failpoints: seams,
		senders: map[senderKey]*sender{}, lanes: map[string]*lane{}, stop: make(chan struct{}), delivered: make(chan struct{}, 1),
		maintainNow: make(chan struct{}, 1),
	}
	s.host = &pipeline.Host{Name: cfg.Host, Id: s.hostID, Cluster: cfg.Cluster}
	if s.lock, err = lock(cfg.StateDir); err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.recoverAndStart(reg); err != nil {
		s.cancel()
		s.lock.Close()
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

// Lane gives the lane of that name; the same one while it is open.
func (s *Shipper) Lane(name string) collector.Lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[name]
	if l != nil {
		l.mu.Lock()
		over := l.closed && !l.keep // it means another file now
		if !over {
			l.closed, l.seen = false, time.Now().Unix()
		}
		l.mu.Unlock()
		if over {
			l = nil
		}
	}
	if l == nil {
		l = &lane{s: s, name: name, seen: time.Now().Unix(), gone: make(chan struct{})}
		s.lanes[name] = l
	}
	l.lastActive.Store(time.Now().UnixNano())
	l.opened.Store(true)
	return l
}

// dropFinishedLane forgets a lane that is closed and of which nothing is missing.
func (s *Shipper) dropFinishedLane(l *lane) {
	l.mu.Lock()
	over := (l.closed && !l.keep || l.orphan) && len(l.ranges) == 0
	kept := l.closed && l.keep && !l.marked && len(l.ranges) == 0
	l.mu.Unlock()
	if !over && !kept {
		return
	}
	s.mu.Lock()
	if s.lanes[l.name] == l {
		delete(s.lanes, l.name)
	}
	s.mu.Unlock()
	s.reportDiskError(&s.counters.journalErr, "journal", s.journal.forget(l))
}

func (s *Shipper) lanesToReplay() []*lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recoveredLanes
}

// batchHeader is what stands behind the events of a batch.
func (s *Shipper) batchHeader(boot uint64, partition uint32, seq uint64) *pipeline.Batch {
	return &pipeline.Batch{
		Schema: pipeline.Schema, Collector: s.id[:], Epoch: boot, Partition: partition, Sequence: seq,
		Shipped: time.Now().UnixNano(), Host: s.host,
	}
}

// setPartitions makes cutters for n partitions.
func (s *Shipper) setPartitions(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.allPartitions) < n {
		p := &partition{index: len(s.allPartitions)}
		s.initBatcher(&p.files, p.index, false)
		s.initBatcher(&p.packets, p.index, true)
		s.allPartitions = append(s.allPartitions, p)
		s.workers.Go(p.files.journalBatches)
	}
	for _, p := range s.allPartitions[:n] {
		p.files.budget.size.Store(s.cfg.Memory / 2 / int64(n))
	}
	parts := s.allPartitions[:n:n]
	s.partitions.Store(&parts)
}

func (s *Shipper) initBatcher(c *batcher, partition int, wire bool) {
	boot := s.fileEpoch
	c.closed = s.closing.Load()
	c.s, c.index, c.packets, c.wake = s, 2*partition, wire, make(chan struct{}, 1)
	if c.budget = newByteBudget(s.cfg.Memory / 2); wire {
		boot, c.budget, c.index = s.packetEpoch, s.packetBudget, c.index+1
	}
	c.sender = s.senderFor(senderKey{boot, uint32(partition)}, wire)
	c.sender.batcher, c.sender.budget = c, c.budget
}

// senderFor gives the stream of a key, made if need be; s.mu is held.
func (s *Shipper) senderFor(k senderKey, wire bool) *sender {
	st := s.senders[k]
	if st == nil {
		st = &sender{s: s, epoch: k.epoch, partition: k.partition, packets: wire, budget: s.packetBudget, next: 1}
		s.senders[k] = st
	}
	return st
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
