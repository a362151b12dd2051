package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/alerts"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/correlate"
	"tidegate/pipeline/retry"
)

// A foldWorker raises the alerts of correlation rules: it reads one partition of the signals topic, which has all signals of
// its groups in one order, and folds them (package correlate).
//
// What it does follows from the records alone. The offset that it commits has two things in its metadata: the place from
// which a fold that begins empty is complete again at the offset (foldState), and the intent of a block with matches. A
// worker that starts reads from that place up to the offset without raising anything, then repeats the block of the intent
// with the same bounds and time, as the workers of the events topic do.
type foldWorker struct {
	*worker
	fold        *correlate.Fold
	correlation *correlation
	bundle      *pipeline.Bundle

	state       *foldState   // behind the last record that was folded
	checkpoints []*foldState // earlier ones, the oldest first: from the first of them on the fold is complete
	memory      time.Duration
	silentUntil int64 // matches of records before it are raised already

	eventPartitions int  // of the events topic, as they were asked last
	askedPartitions bool // since the last answer of the broker

	// Of rules of FirstSeen (fold_seen.go).
	seenRules     map[string]string // versions of those that were restored, by id
	seenStored    time.Time         // when storeSeen stored last
	seenWatermark int64             // of the state when everything was stored last

	grouper   *alerts.Grouper
	counts    foldCounts      // of the fold, as they were exported last
	matches   []foldedMatch   // of the block
	single    []singleMatches // of the block
	size      int             // of single, encoded
	letters   []consumer.DeadLetter
	committed time.Time // when an offset was committed last
	position  string    // as it was committed last

	hasTooMany bool // sources, which was told
}

// A foldedMatch is a match with the offset of the record at which it was fulfilled.
type foldedMatch struct {
	correlate.Match
	offset int64
}

// singleMatches are matches of a rule over one event, with the offset of their record.
type singleMatches struct {
	*pipeline.Matches
	offset int64
}

const (
	// maxSingleBytes is the size of matches of rules over one event from which on a block is complete.
	maxSingleBytes = 4 << 20
	// commitInterval is the time after which the offset of a block without matches is committed.
	commitInterval = time.Second
	// maxFoldRecords bounds a block.
	maxFoldRecords = 1000
)

// SignalsGroupSuffix is what the name of the consumer group of the signals topic has behind that of the events topic.
const SignalsGroupSuffix = "-signals"

// Correlate evaluates the correlation rules until ctx ends: it reads the signals that all engines write, of the partitions
// that this process is assigned, and raises the alerts. Its errors are those of Run.
func (e *Engine) Correlate(ctx context.Context) error {
	if err := e.findAlertsTopic(ctx); err != nil {
		return nil //nolint:nilerr // ctx ended
	}
	cfg := consumer.Config{
		Client: e.deps.Kafka, Topic: e.deps.Kafka.Topic(pipeline.TopicSignals), Group: e.cfg.Group + SignalsGroupSuffix,
	}
	return consumer.Run(ctx, cfg, e.log, func(ctx context.Context, p *consumer.Partition) error {
		f := newFoldWorker(e, p)
		return f.processPartition(ctx)
	})
}

func newFoldWorker(e *Engine, p *consumer.Partition) *foldWorker {
	f := &foldWorker{worker: newWorker(e, p)}
	f.grouper = alerts.NewGrouper(e.cfg.Grouping, f.source.Partition).ForTopic(f.source.Topic)
	return f
}

// processPartition folds the partition until ctx ends, and returns nil then.
func (f *foldWorker) processPartition(ctx context.Context) error {
	defer f.removeMetrics()
	backoff := retry.Backoff{Min: minRestartPause, Max: maxRestartPause}
	for {
		err := f.processFromCommitted(ctx)
		if !errors.Is(err, consumer.ErrLogReplaced) {
			return ignoreCancel(ctx, err)
		}
		if backoff.Wait(ctx) != nil {
			return nil // ctx has ended
		}
	}
}

// exportMetrics exports what the fold holds, and adds what it has counted.
func (f *foldWorker) exportMetrics() {
	f.counts = f.metrics.fold.export(f.partition.ID, f.fold, f.counts)
	f.metrics.openWindows.WithLabelValues(f.label).Set(float64(f.grouper.OpenWindows()))
	f.metrics.fold.lag.WithLabelValues(f.label).Set(float64(max(0, f.logEnd-f.nextOffset)))
}

// removeMetrics removes what the fold holds from the metrics: the partition was revoked.
func (f *foldWorker) removeMetrics() {
	f.metrics.openWindows.DeleteLabelValues(f.label)
	f.metrics.fold.remove(f.label)
}

// processFromCommitted restores the fold and folds the partition until ctx ends.
func (f *foldWorker) processFromCommitted(ctx context.Context) error {
	open, found, end, err := f.resume(ctx)
	if err != nil {
		return err
	}
	fetchCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.fetcher = f.partition.Fetch(fetchCtx, f.state.offset, consumer.FetchConfig{
		MaxBytes: maxFetchBytes, PrefetchBytes: 4 << 20, MaxWait: 250 * time.Millisecond, Decoding: f.decoding,
	})
	f.records, f.fetched = nil, f.state.offset

	// Read up to the committed offset without raising anything.
	if err := f.foldUntil(ctx, end, true); err != nil {
		return err
	}
	f.counts = countsOf(f.fold) // what is read again was counted before
	f.nextOffset = max(end, f.state.offset)
	if found {
		if err := f.replay(ctx, open); err != nil {
			return err
		}
	}
	for {
		if err := f.processNext(ctx); err != nil {
			return err
		}
	}
}

// resume reads the committed offset and its metadata, and begins the fold where it was complete. end is the committed offset.
func (f *foldWorker) resume(ctx context.Context) (open intent, found bool, end int64, err error) {
	committed, metadata, err := f.partition.Committed(ctx)
	if err != nil {
		return open, false, 0, err
	}
	first, logEnd, err := f.partition.Bounds(ctx)
	if err != nil {
		return open, false, 0, err
	}
	state := &foldState{offset: max(first, committed), sources: map[int32]foldSource{}}
	end = state.offset
	place, rest, hasPlace := strings.Cut(metadata, " ")
	if hasPlace && committed >= first && committed <= logEnd {
		if open, found, err = parseIntent(committed, rest); err != nil {
			return open, false, 0, err
		}
		if state, err = parseFoldState(place); err != nil {
			return open, false, 0, fmt.Errorf("offset %d of %s: %w", committed, f.partition, err)
		}
		state.offset = max(state.offset, first)
	} else if committed >= 0 && committed < first {
		f.log.Error("signals were deleted before they were read", "messages", first-committed)
		f.metrics.fold.lost.Add(float64(first - committed))
	} else if committed > logEnd {
		f.log.Error("signals topic is another one than before, or its end was lost: reading it from its beginning",
			"committed", committed, "first", first, "end", logEnd)
		state.offset, end = first, first
	}
	f.state, f.checkpoints, f.nextOffset = state, []*foldState{state.clone()}, end
	// The topic may have been grown since another worker of this process started.
	if err := f.withRetry(ctx, "find the signals topic", func() error {
		partitions, err := f.deps.Kafka.Partitions(ctx, f.source.Topic)
		if err == nil {
			f.foldPartitions.Store(int64(partitions))
		}
		return err
	}); err != nil {
		return open, false, 0, err
	}
	f.fold, f.correlation, f.bundle, f.counts = correlate.New(nil, f.foldLimits()), nil, nil, foldCounts{}
	f.fold.KeepSeen()
	f.seenRules, f.seenStored, f.seenWatermark = nil, time.Now(), 0
	if err := f.loadRules(ctx); err != nil {
		return open, false, 0, err
	}
	if state.watermark > 0 {
		f.fold.Advance(state.watermark)
	}

	// An insert of alerts that appears between the queries of restoreGrouper would be counted twice.
	if err := f.waitForInserts(ctx); err != nil {
		return open, false, 0, err
	}

	// Where the offset is not one of this worker, what was raised before is raised no more.
	f.lastTime, f.silentUntil = open.time, end
	except := pipeline.BlockID{}
	if found {
		except = pipeline.BlockID{TopicPartition: f.source, Start: committed, End: open.end, Time: open.time}
	}
	if err := f.withRetry(ctx, "restore the alert windows", func() error {
		return f.restoreGrouper(ctx, except, max(open.time, f.deps.Now().UnixNano()))
	}); err != nil {
		return open, false, 0, err
	}
	if newest := f.grouper.NewestOffset(); !hasPlace && newest < logEnd {
		f.silentUntil = max(end, newest+1)
	}
	f.log.Info("signals partition assigned", "from", state.offset, "offset", end, "replay_block", found)
	return open, found, end, nil
}

// foldLimits bounds the windows of a partition to its part of a sixteenth of the memory of the engine, and the signals that
// wait to as much, and what rules of FirstSeen remember. A waiting signal takes some KiB at most, a value 32 bytes.
func (f *foldWorker) foldLimits() correlate.Limits {
	share := int(f.cfg.Memory) / shares / int(max(1, f.foldPartitions.Load()))
	groups := share / 400
	return correlate.Limits{
		Groups: groups, GroupsPerRule: max(1, groups/2), Waiting: share / 1024, Bytes: share, Values: share / 32,
	}
}

// loadRules gives the rules of the current bundle to the fold. Windows of rules that did not change stay.
func (f *foldWorker) loadRules(ctx context.Context) error {
	bundle := f.currentBundle()
	if bundle == f.bundle {
		return nil
	}
	f.bundle, f.correlation = bundle, newCorrelation(bundle)
	f.memory = 0
	if f.correlation == nil {
		f.fold.SetRules(nil)
		f.seenRules = nil
		return nil
	}
	f.fold.SetRules(f.correlation.rules)
	for _, rule := range f.correlation.rules {
		if rule.Kind != correlate.FirstSeen { // what these remember is stored
			f.memory = max(f.memory, rule.Memory())
		}
	}
	return f.restoreSeen(ctx)
}

// foldUntil folds records up to the offset end. areCommitted is set if they are before the committed offset.
func (f *foldWorker) foldUntil(ctx context.Context, end int64, areCommitted bool) error {
	for {
		for len(f.records) > 0 && f.records[0].Offset < end {
			if err := f.foldRecord(ctx, f.records[0]); err != nil {
				return err
			}
			f.popRecord()
			if areCommitted {
				clear(f.letters) // they were written before the offset was committed
				f.letters = f.letters[:0]
			}
			if areCommitted && f.fold.ChangedSeen() >= maxChangedSeen {
				if err := f.storeSeen(ctx); err != nil {
					return err
				}
			}
		}
		if len(f.records) > 0 || f.fetched >= end {
			f.state.offset = max(f.state.offset, end)
			return nil
		}
		if err := f.receive(ctx, nil); err != nil {
			return err
		}
	}
}

// receive waits for the next records, or for the end of a time.
func (f *foldWorker) receive(ctx context.Context, timeout <-chan time.Time) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timeout:
		return nil
	case chunk, ok := <-f.fetcher.C:
		if !ok {
			if err := f.fetcher.Err(); err != nil {
				return err
			}
			return context.Cause(ctx)
		}
		f.fetcher.Consumed(chunk.Bytes)
		f.logEnd, f.fetched = chunk.End, chunk.Next
		if chunk.Lost > 0 {
			f.log.Error("signals were deleted before they were read", "messages", chunk.Lost)
			f.metrics.fold.lost.Add(float64(chunk.Lost))
		}
		f.records, f.askedPartitions = append(f.records, chunk.Records...), false
		return nil
	}
}

// foldRecord folds the signals of a record, and collects the matches. It fails only if ctx has ended.
func (f *foldWorker) foldRecord(ctx context.Context, record consumer.Record) error {
	block, err := &pipeline.SignalBlock{}, record.Err
	if err == nil {
		err = block.UnmarshalVT(record.Value)
	}
	if err == nil && block.Schema != signalSchema {
		err = fmt.Errorf("signals have the schema %d; this engine reads %d", block.Schema, signalSchema)
	}
	if err == nil && (block.Partition < 0 || block.Partition >= maxSources) {
		err = fmt.Errorf("signals are of the partition %d", block.Partition)
	}
	if err == nil && slices.ContainsFunc(block.Matches, func(m *pipeline.Matches) bool { return m.Verdict == nil || m.Count == 0 }) {
		err = errors.New("matches without a verdict or a count")
	}
	if err == nil {
		isInvented, findErr := f.isInvented(ctx, block.Partition)
		if findErr != nil {
			return findErr
		}
		if isInvented {
			err = fmt.Errorf("signals are of the partition %d, which the events topic does not have", block.Partition)
		}
	}
	if err != nil {
		f.letters = append(f.letters, f.newDeadLetter(record, "decode", err))
		return nil
	}
	if f.state.read(record.Offset, record.Time, block) {
		for _, signal := range block.Signals {
			decoded := decodeSignal(signal, block.Partition, record.Time)
			f.state.latestEnd = max(f.state.latestEnd, decoded.End)
			f.fold.Add(decoded)
		}
		if record.Offset >= f.silentUntil {
			for _, matches := range block.Matches {
				f.single = append(f.single, singleMatches{matches, record.Offset})
				f.size += matches.SizeVT()
			}
		}
	}
	for _, match := range f.fold.Advance(f.state.watermark) {
		if record.Offset >= f.silentUntil {
			f.matches = append(f.matches, foldedMatch{match, record.Offset})
		}
	}
	f.keepCheckpoint()
	return nil
}

// isInvented reports whether the events topic has no such partition. A source that is not there would hold the watermark,
// with whatever it says. Partitions that the state has are not asked for, so that what a record does stays the same in
// every life; others are asked for once after each answer of the broker: the writer has read the partition before.
func (f *foldWorker) isInvented(ctx context.Context, partition int32) (bool, error) {
	if _, isKnown := f.state.sources[partition]; isKnown || int(partition) < f.eventPartitions {
		return false, nil
	}
	if !f.askedPartitions {
		if err := f.withRetry(ctx, "find the events topic", func() (err error) {
			f.eventPartitions, err = f.deps.Kafka.Partitions(ctx, f.deps.Kafka.Topic(pipeline.TopicEvents))
			return err
		}); err != nil {
			return false, err
		}
		f.askedPartitions = true
	}
	return int(partition) >= f.eventPartitions, nil
}

// decodeSignal returns a signal of a record. An event did not end after its record was written.
func decodeSignal(signal *pipeline.Signal, partition int32, recordTime int64) correlate.Signal {
	out := correlate.Signal{
		Rule: signal.Rule, Version: signal.Version, Step: int(signal.Step), Group: signal.Group, Start: signal.Start,
		End: min(signal.End, recordTime), Value: signal.Value, ValueHigh: signal.ValueHigh, Partition: partition, Offset: signal.Offset, Index: signal.Index,
		Origin: correlate.Origin{Text: signal.Text, AlertEvent: signal.Event}, First: signal.First, Last: signal.Last,
		Count: int64(min(signal.Count, math.MaxInt32)), // a block has fewer events
	}
	copy(out.Event[:], signal.GetEvent().GetId())
	return out
}

// keepCheckpoint notes the state now and then, and drops the states that are older than the rules need.
func (f *foldWorker) keepCheckpoint() {
	last := f.checkpoints[len(f.checkpoints)-1]
	if f.state.watermark-last.watermark >= int64(max(f.memory/8, 10*time.Second)) {
		f.checkpoints = append(f.checkpoints, f.state.clone())
	}
	needed := min(f.state.watermark-int64(f.memory), f.seenWatermark)
	for len(f.checkpoints) > 1 && f.checkpoints[1].latestEnd < needed {
		f.checkpoints = f.checkpoints[1:]
	}
}

// replay folds exactly the block of an intent and raises its alerts.
func (f *foldWorker) replay(ctx context.Context, open intent) error {
	if open.shard != f.cfg.Shard {
		return fmt.Errorf("signals [%d,%d) were started on shard %s, this engine writes to %s: start an engine with engine.shard: %s to finish them",
			f.nextOffset, open.end, open.shard, f.cfg.Shard, open.shard)
	}
	block := f.beginBlock()
	block.time, block.replayed = open.time, true
	block.intent = f.checkpoints[0].String() + " " + open.String()
	if version := bundleVersion(f.bundle); version != open.bundle {
		f.metrics.reevaluated.Add(1)
		f.log.Warn("signals are folded again by newer rules", "before", open.bundle, "now", version)
	}
	if err := f.foldUntil(ctx, open.end, false); err != nil {
		return err
	}
	block.end = open.end
	return f.finishBlock(ctx, block)
}

// beginBlock returns an empty block from nextOffset on.
func (f *foldWorker) beginBlock() *block {
	f.block.reset(f.nextOffset)
	clear(f.single)
	f.matches, f.letters, f.single, f.size = f.matches[:0], f.letters[:0], f.single[:0], 0
	return &f.block
}

// processNext folds the records that are there, in one block, or waits for some.
func (f *foldWorker) processNext(ctx context.Context) error {
	if len(f.records) == 0 {
		timer := time.NewTimer(commitInterval)
		defer timer.Stop()
		if err := f.receive(ctx, timer.C); err != nil {
			return err
		}
	}
	if err := f.loadRules(ctx); err != nil {
		return err
	}
	block := f.beginBlock()
	place := f.checkpoints[0].String()
	for count := 0; len(f.records) > 0 && count < maxFoldRecords && f.size < maxSingleBytes && f.fold.ChangedSeen() < 2*maxChangedSeen; count++ {
		if err := f.foldRecord(ctx, f.records[0]); err != nil {
			return err
		}
		block.end = f.records[0].Offset + 1
		f.popRecord()
	}
	if len(f.records) == 0 {
		block.end = max(block.end, f.fetched) // offsets without a record
	}
	hasMatches := len(f.matches)+len(f.single) > 0
	if !hasMatches && len(f.letters) == 0 {
		f.nextOffset = block.end
		return f.commitPosition(ctx)
	}
	f.lastTime = nextBlockTime(f.lastTime, f.deps.Now().UnixNano())
	block.time = f.lastTime
	if hasMatches {
		open := intent{end: block.end, time: block.time, shard: f.cfg.Shard, bundle: bundleVersion(f.bundle)}
		block.intent = place + " " + open.String()
		block.intentTime = f.deps.Now()
		block.confirmed = block.intentTime
		f.deps.Failpoint(BeforeIntent)
		if err := f.partition.Commit(ctx, block.from, block.intent); err != nil {
			return err
		}
		f.deps.Failpoint(AfterIntent)
	}
	return f.finishBlock(ctx, block)
}

// finishBlock raises the alerts of the matches, writes dead letters and commits the end of the block. It may continue for
// stopGrace after ctx has ended.
func (f *foldWorker) finishBlock(ctx context.Context, block *block) error {
	ctx, cancel := withGrace(ctx)
	defer cancel()
	if len(f.matches)+len(f.single) > 0 {
		if err := f.correctGrouper(ctx, block); err != nil {
			return err
		}
		f.groupMatches(block)
		if err := f.storeAlerts(ctx, block); err != nil {
			return err
		}
	}
	for _, letter := range f.letters {
		if err := f.writeDeadLetter(ctx, letter); err != nil {
			return err
		}
	}
	f.nextOffset = block.end
	f.committed = time.Time{}
	return f.commitPosition(ctx)
}

// groupMatches adds the matches of the block to the alerts of their groups.
func (f *foldWorker) groupMatches(block *block) {
	f.grouper.SetPolicies(f.bundle.Policies)
	for i := range f.matches {
		f.addMatch(&f.matches[i], block)
	}
	for _, m := range f.single {
		f.grouper.AddMatch(alerts.Match{
			Event: m.Event, Verdict: m.Verdict, At: m.At, First: m.First, Last: m.Last, Count: int64(min(m.Count, math.MaxInt32)),
			Offset: m.offset, Ingested: block.time,
		})
	}
}

// addMatch adds a match to the alert of its group.
func (f *foldWorker) addMatch(match *foldedMatch, block *block) {
	verdict := f.correlation.MatchVerdict(&match.Match)
	if match.Late {
		verdict.Evidence += " (evaluated late)"
	}
	events := make([]string, len(match.Events))
	for i, event := range match.Events {
		events[i] = strings.TrimPrefix(match.Rule.Steps[event.Step].Name+" "+pipeline.IDText(event.ID), " ")
	}
	f.grouper.AddMatch(alerts.Match{
		Events: events,
		Event:  match.AlertEvent, Verdict: verdict, At: match.At, First: match.First, Last: match.Last, Count: match.Count,
		Offset: match.offset, Ingested: block.time,
	})
}

// commitPosition commits nextOffset, if it was not a moment ago.
func (f *foldWorker) commitPosition(ctx context.Context) error {
	if time.Since(f.committed) < commitInterval {
		return nil
	}
	if f.correlation == nil { // there are no windows
		f.checkpoints = []*foldState{f.state.clone()}
	}
	// The space before an intent that is not there.
	place, left := f.checkpoints[0].encode()
	if left > 0 && !f.hasTooMany {
		f.hasTooMany = true
		f.log.Warn("the topic of events has more partitions than the metadata of an offset has room for: after a restart of this engine, blocks "+
			"of the others that are written again at that moment count twice", "sources", len(f.checkpoints[0].sources), "left_out", left)
	}
	metadata := place + " "
	if position := fmt.Sprint(f.nextOffset, metadata); position != f.position {
		if err := f.partition.Commit(ctx, f.nextOffset, metadata); err != nil {
			return err
		}
		f.position = position
	}
	f.committed = time.Now()
	f.exportMetrics()
	return f.storeSeen(ctx)
}
