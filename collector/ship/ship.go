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

	bootLogs, bootWire uint64

	lock    *os.File
	journal journal
	spool   *spool
	books   books
	wire    *room
	parts   atomic.Pointer[[]*part] // of the topic as it is known; those of fewer partitions are prefixes of those of more
	started time.Time
	forgot  bool // tidy's: files that were not seen for long have been forgotten
	seams   seams

	mu      sync.Mutex
	all     []*part // ever made
	streams map[streamKey]*stream
	lanes   map[string]*lane
	old     []*lane // of the journal, with portions that are cut again

	closing  atomic.Bool
	stop     chan struct{} // closed with closing
	ctx      context.Context
	cancel   context.CancelFunc
	senders  sync.WaitGroup
	workers  sync.WaitGroup
	settled  chan struct{} // something was acknowledged
	janitor  chan struct{}
	weather  weather
	diskSaid sync.Map // file → when its error was logged last
}

type streamKey struct {
	boot      uint64
	partition uint32
}

// seams are where tests kill the process.
type seams struct {
	beforeProduce, afterProduce func(stampKey)
	journalFile                 func(journalFile) journalFile
	spoolFile                   func(spoolFile) spoolFile
}

func (seams) call(f func(stampKey), k stampKey) {
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
	return newShipper(cfg, kafkaCfg, id, log, reg, seams{})
}

func newShipper(cfg Config, kafkaCfg kafka.Config, id pipeline.ID, log *slog.Logger, reg prometheus.Registerer, seams seams) (*Shipper, error) {
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
		bootLogs: randomBoot(), bootWire: randomBoot(), wire: newRoom(cfg.Memory / 2), started: time.Now(), seams: seams,
		streams: map[streamKey]*stream{}, lanes: map[string]*lane{}, stop: make(chan struct{}), settled: make(chan struct{}, 1),
		janitor: make(chan struct{}, 1),
	}
	s.host = &pipeline.Host{Name: cfg.Host, Id: s.hostID, Cluster: cfg.Cluster}
	if s.lock, err = lock(cfg.StateDir); err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.begin(reg); err != nil {
		s.cancel()
		s.lock.Close()
		return nil, err
	}
	return s, nil
}

// begin reads the past, and starts.
func (s *Shipper) begin(reg prometheus.Registerer) error {
	text, err := readJournal(s.cfg.StateDir)
	if err != nil {
		return err
	}
	p := replay(text)
	if err := s.takeSpool(p); err != nil {
		return err
	}
	s.takeJournal(p)
	if err := s.journal.open(s.cfg.StateDir); err != nil {
		if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
			return err
		}
		s.disk(&s.books.journalErr, "journal", err) // files wait until there is room, the wire goes on
	}
	s.setPartitions(max(p.parts, 1))
	if reg != nil {
		if err := reg.Register(s); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
		s.reg = reg
	}
	ctx, cancel := context.WithTimeout(s.ctx, 3*time.Second)
	s.ask(ctx)
	cancel()
	s.resume()
	s.workers.Go(s.tidy)
	s.workers.Go(s.follow)
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
		l = &lane{s: s, name: name, seen: time.Now().Unix(), sealing: make(chan struct{})}
		s.lanes[name] = l
	}
	l.touched.Store(time.Now().UnixNano())
	l.opened.Store(true)
	return l
}

// retire forgets a lane that is closed and of which nothing is missing.
func (s *Shipper) retire(l *lane) {
	l.mu.Lock()
	over := (l.closed && !l.keep || l.orphan) && len(l.portions) == 0
	kept := l.closed && l.keep && !l.marked && len(l.portions) == 0
	l.mu.Unlock()
	if !over && !kept {
		return
	}
	s.mu.Lock()
	if s.lanes[l.name] == l {
		delete(s.lanes, l.name)
	}
	s.mu.Unlock()
	s.disk(&s.books.journalErr, "journal", s.journal.forget(l))
}

func (s *Shipper) resumed() []*lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.old
}

// head is what stands behind the events of a batch.
func (s *Shipper) head(boot uint64, partition uint32, seq uint64) *pipeline.Batch {
	return &pipeline.Batch{
		Schema: pipeline.Schema, Collector: s.id[:], Boot: boot, Partition: partition, Sequence: seq,
		Shipped: time.Now().UnixNano(), Host: s.host,
	}
}

// setPartitions makes cutters for n partitions.
func (s *Shipper) setPartitions(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.all) < n {
		p := &part{index: len(s.all)}
		s.initCutter(&p.logs, p.index, false)
		s.initCutter(&p.wire, p.index, true)
		s.all = append(s.all, p)
		s.workers.Go(p.logs.pump)
	}
	for _, p := range s.all[:n] {
		p.logs.room.size.Store(s.cfg.Memory / 2 / int64(n))
	}
	parts := s.all[:n:n]
	s.parts.Store(&parts)
}

func (s *Shipper) initCutter(c *cutter, partition int, wire bool) {
	boot := s.bootLogs
	c.closed = s.closing.Load()
	c.s, c.index, c.wire, c.kick = s, 2*partition, wire, make(chan struct{}, 1)
	if c.room = newRoom(s.cfg.Memory / 2); wire {
		boot, c.room, c.index = s.bootWire, s.wire, c.index+1
	}
	c.stream = s.stream(streamKey{boot, uint32(partition)}, wire)
	c.stream.cutter, c.stream.room = c, c.room
}

// stream gives the stream of a key, made if need be; s.mu is held.
func (s *Shipper) stream(k streamKey, wire bool) *stream {
	st := s.streams[k]
	if st == nil {
		st = &stream{s: s, boot: k.boot, partition: k.partition, wire: wire, room: s.wire, next: 1}
		s.streams[k] = st
	}
	return st
}

// Ledger accounts for every event so far. It balances only after Close: before, events are on their way from one place to another.
func (s *Shipper) Ledger() Ledger { return s.books.ledger(s.waiting()) }

func (s *Shipper) waiting() (n uint64) {
	for _, p := range s.everyPart() {
		n += p.logs.waiting() + p.wire.waiting()
	}
	for _, st := range s.everyStream() {
		n += st.waiting()
	}
	return n
}

func (s *Shipper) logBytes() (n int64) {
	for _, p := range s.everyPart() {
		n += p.logs.room.used.Load()
	}
	return n
}

func (s *Shipper) everyPart() []*part {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}

func (s *Shipper) everyStream() []*stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*stream, 0, len(s.streams))
	for _, st := range s.streams {
		all = append(all, st)
	}
	return all
}

// newSpool opens the spool, or one that refuses everything.
func (s *Shipper) newSpool(each func(found, place)) error {
	sp, damaged, err := openSpool(filepath.Join(s.cfg.StateDir, "spool"), s.cfg.SpoolBytes, s.cfg.Sync, each)
	if err != nil {
		return err
	}
	sp.wrap = s.seams.spoolFile
	s.spool = sp
	s.damaged("spool", damaged)
	return nil
}
