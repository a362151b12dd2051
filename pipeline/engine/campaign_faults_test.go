package engine

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/pipeline"
	"tidegate/pipeline/embedded/embeddedtest"
	"tidegate/pipeline/kafka"
)

// A faultKind is something that a machine or a person does to a running system. It ends with no engine
// running.
type faultKind struct {
	name   string
	inject func(c *campaign)
}

var faultKinds = []faultKind{
	{"killed at a step of a block", (*campaign).killAtRandom},
	{"killed at any moment", (*campaign).killAnyTime},
	{"stopped by a signal at any moment", (*campaign).terminateAnyTime},
	{"offset set back", (*campaign).setOffsetBack},
	{"offsets lost", (*campaign).loseOffsets},
	{"topic deleted and created anew", (*campaign).recreateTopicWhenClosed},
	{"topic deleted and created anew within a block", (*campaign).recreateTopicWithinBlock},
	{"log truncated behind the offset, which was set back", (*campaign).truncateProcessed},
	{"log truncated before the offset: unread messages deleted", (*campaign).truncateUnread},
	{"log truncated within a block", (*campaign).truncateWithinBlock},
	{"view on events rejects rows", failingView("toUInt32(message) AS n FROM events")},
	{"view on events throws", failingView("throwIf(1) AS n FROM events")},
	{"view on alerts throws", failingView("throwIf(1) AS n FROM alert_revisions")},
	{"dead-letter topic deleted", (*campaign).deleteDeadLetterTopic},
	{"dead-letter topic too small", (*campaign).shrinkDeadLetterTopic},
	{"paused at a step of a block", (*campaign).pauseAtRandom},
	{"taken over while paused", (*campaign).takeOverWhilePaused},
	{"machine suspended", (*campaign).suspendMachine},
	{"machine suspended, wall clock jumps", (*campaign).suspendWithClockJump},
	{"window of tokens turned over", (*campaign).dropTokens},
	{"event a year ahead", (*campaign).sendEventOfTheFuture},
	{"store killed while an engine works", (*campaign).killStore},
	{"end of the log lost", (*campaign).loseLogEnd},
	{"clock of the engine set back or ahead", (*campaign).setClock},
	{"batches sent again", (*campaign).sendBatchesAgain},
}

// killAtRandom runs an engine until it kills itself at one of the failpoints.
func (c *campaign) killAtRandom() {
	steps := Failpoints[:len(Failpoints)-1] // without BeforeClose, which not every engine comes to
	failpoint, passage := steps[c.random.IntN(len(steps))], 1+int32(c.random.IntN(2))
	c.logLine("    killed at %s, passage %d", failpoint, passage)
	c.runUntilKilled(c.t, failpoint, passage)
}

// maxMoment bounds the time for which an engine runs until something happens to it at any moment.
const maxMoment = 900 * time.Millisecond

// startForAMoment starts an engine and waits for a random time.
func (c *campaign) startForAMoment(child childConfig) (*exec.Cmd, *childOutput) {
	cmd, out := startChild(c.t, child)
	time.Sleep(time.Duration(c.random.Int64N(int64(maxMoment))))
	return cmd, out
}

func (c *campaign) killAnyTime() {
	cmd, _ := c.startForAMoment(c.childConfig)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func (c *campaign) terminateAnyTime() {
	cmd, out := startChild(c.t, c.childConfig)
	waitUntil(c.t, "an engine that works", func() bool { return strings.Contains(out.String(), "partition assigned") })
	time.Sleep(time.Duration(c.random.Int64N(int64(maxMoment))))
	c.terminate(cmd, out)
}

// killOrTerminate ends a child by SIGKILL, or by SIGTERM once it works.
func (c *campaign) killOrTerminate(cmd *exec.Cmd, out *childOutput) {
	c.t.Helper()
	if c.random.IntN(2) == 0 {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return
	}
	waitUntil(c.t, "an engine that works", func() bool { return strings.Contains(out.String(), "partition assigned") })
	c.terminate(cmd, out)
}

// terminate ends a child by SIGTERM.
func (c *campaign) terminate(cmd *exec.Cmd, out *childOutput) {
	c.t.Helper()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		c.t.Fatalf("engine ended with %v: %s", err, out)
	}
}

func (c *campaign) setOffsetBack() {
	c.killAtRandom()
	partition := c.random.IntN(c.partitions)
	first, _ := c.bounds(pipeline.TopicEvents, partition)
	offset, _ := c.committed(partition)
	c.commit(partition, first+c.random.Int64N(max(1, offset-first)), "")
}

func (c *campaign) loseOffsets() {
	c.killAtRandom()
	c.runUntilRowsAreStored() // a group that never started has read nothing
	c.deleteGroup()
}

// runUntilRowsAreStored runs an engine if the store has no row of a partition yet.
func (c *campaign) runUntilRowsAreStored() {
	for partition := range c.partitions {
		from := pipeline.TopicPartition{Topic: c.client.Topic(pipeline.TopicEvents), Partition: int32(partition)}
		hasRows := false
		waitUntil(c.t, "an answer of the store", func() bool {
			var err error
			_, hasRows, err = c.store.NewestRows(c.t.Context(), from, 0)
			return err == nil
		})
		if !hasRows {
			c.runUntilClosed(c.t)
		}
	}
}

func (c *campaign) recreateTopicWhenClosed() {
	c.runUntilClosed(c.t)
	c.recreateTopic(pipeline.TopicEvents)
}

func (c *campaign) recreateTopicWithinBlock() {
	c.killAtRandom()
	for partition := range c.partitions {
		_, end := c.bounds(pipeline.TopicEvents, partition)
		c.keepStored(partition, end)
	}
	kept := map[int][]kafkago.Message{}
	for partition := range c.partitions {
		kept[partition] = c.earlier[partition]
	}
	c.recreateTopic(pipeline.TopicEvents)
	c.earlier = kept
}

// A lostRange bounds the number of messages that are to be counted as lost: from those that are unread for
// sure to those that may be.
type lostRange struct{ from, to int }

// keepStored notes that the messages of a partition before end are deleted: those whose rows are stored are
// expected in the store, and the others are not. It returns how many of them are unread. Of duplicates and
// messages that are no batches the store does not say whether they were read.
func (c *campaign) keepStored(partition int, end int64) (lost lostRange) {
	stored := c.storedBatches(partition)
	committed, _ := c.committed(partition)
	messages := c.read(pipeline.TopicEvents, partition)
	seen := map[pipeline.BatchID]bool{} // batches of which another message counts
	for _, message := range messages {
		if id, isBatch := batchOf(message); isBatch && message.Offset >= end {
			seen[id] = true
		}
	}
	for _, message := range messages {
		if message.Offset >= end {
			break
		}
		id, isBatch := batchOf(message)
		isBehind := asNumber(message.Offset >= committed)
		switch {
		case !isBatch:
			lost.to += isBehind
			if i := slices.Index(c.garbage, string(message.Value)); isBehind > 0 && i >= 0 {
				c.garbage = slices.Delete(c.garbage, i, i+1) // it may be no dead letter yet
			}
		case stored[id]:
			lost.to += isBehind * asNumber(seen[id])
			c.earlier[partition] = append(c.earlier[partition], message)
		default:
			lost.from += isBehind
			lost.to += isBehind
			if !seen[id] {
				c.deleted += eventsOf(message)
			}
		}
		seen[id] = true
	}
	return lost
}

// storedBatches returns the ids of the batches of a partition whose rows are stored, once no insert runs.
func (c *campaign) storedBatches(partition int) (stored map[pipeline.BatchID]bool) {
	from := pipeline.TopicPartition{Topic: c.client.Topic(pipeline.TopicEvents), Partition: int32(partition)}
	waitUntil(c.t, "the end of running inserts", func() bool {
		running, err := c.store.RunningInserts(c.t.Context(), from)
		return err == nil && running == 0
	})
	stored = map[pipeline.BatchID]bool{}
	out := answer(c.t, c.store, fmt.Sprintf(
		"SELECT DISTINCT _epoch, _sequence FROM events WHERE _topic = '%s' AND _partition = %d", from.Topic, partition))
	for {
		var id pipeline.BatchID
		if _, err := fmt.Fscan(out, &id.Epoch, &id.Sequence); err != nil {
			break
		}
		stored[id] = true
	}
	return stored
}

// batchOf returns the id of the batch of a message. isBatch is false if it holds none.
func batchOf(message kafkago.Message) (id pipeline.BatchID, isBatch bool) {
	var batch pipeline.Batch
	isBatch = batch.UnmarshalVT(message.Value) == nil && len(batch.Events) > 0
	return pipeline.BatchID{Epoch: batch.Epoch, Sequence: batch.Sequence}, isBatch
}

// eventsOf returns the number of events in a message that is a batch.
func eventsOf(message kafkago.Message) int {
	var batch pipeline.Batch
	_ = batch.UnmarshalVT(message.Value)
	return len(batch.Events)
}

// asNumber returns 1 for true.
func asNumber(isTrue bool) int {
	if isTrue {
		return 1
	}
	return 0
}

// truncate deletes the messages of a partition before end, and adds the number of those that are unread to
// lost.
func (c *campaign) truncate(partition int, end int64, lost *lostRange) {
	deleted := c.keepStored(partition, end)
	c.logLine("    partition %d: messages before %d deleted, %d of them unread", partition, end, deleted.from)
	c.deleteRecordsBefore(pipeline.TopicEvents, partition, end)
	lost.from += deleted.from
	lost.to += deleted.to
}

func (c *campaign) truncateProcessed() {
	c.killAtRandom()
	partition := c.random.IntN(c.partitions)
	first, _ := c.bounds(pipeline.TopicEvents, partition)
	offset, _ := c.committed(partition)
	if offset <= first {
		return
	}
	c.truncate(partition, first+1+c.random.Int64N(offset-first), &lostRange{})
	c.commit(partition, first, "")
	c.checkLost(lostRange{})
}

func (c *campaign) truncateUnread() {
	c.runUntilClosed(c.t)
	var lost lostRange
	for partition := range c.partitions {
		_, end := c.bounds(pipeline.TopicEvents, partition)
		c.send(partition, 6, 10)
		c.truncate(partition, end+c.random.Int64N(7), &lost)
	}
	if c.random.IntN(3) == 0 {
		c.deleteGroup()
	}
	c.checkLost(lost)
}

func (c *campaign) truncateWithinBlock() {
	c.killAtRandom()
	var lost lostRange
	for partition := range c.partitions {
		first, end := c.bounds(pipeline.TopicEvents, partition)
		offset, _ := c.committed(partition)
		if from := max(first, offset); from < end {
			c.truncate(partition, from+1+c.random.Int64N(end-from), &lost)
		}
	}
	c.checkLost(lost)
}

// checkLost runs an engine until every message is processed, and checks the number of messages that it counts
// as lost.
func (c *campaign) checkLost(want lostRange) {
	c.t.Helper()
	if lost := int(c.runUntilClosed(c.t).Lost); lost < want.from || lost > want.to {
		c.t.Errorf("%d messages are counted as lost, want %d to %d", lost, want.from, want.to)
	}
}

// failingView returns the fault of a materialized view that fails.
func failingView(query string) func(c *campaign) {
	return func(c *campaign) {
		execute(c.t, c.store,
			"CREATE MATERIALIZED VIEW IF NOT EXISTS failing ENGINE = MergeTree ORDER BY n AS SELECT "+query)
		c.runUntilClosed(c.t)
		execute(c.t, c.store, "DROP VIEW IF EXISTS failing")
	}
}

// sendGarbage produces messages that are no batches among batches.
func (c *campaign) sendGarbage(size int) {
	for partition := range c.partitions {
		value := fmt.Sprintf("message %d is no batch %s", len(c.garbage), strings.Repeat("x", size))
		c.produce(partition, []byte(value))
		c.garbage = append(c.garbage, value)
		c.send(partition, 2, 10)
	}
}

func (c *campaign) deleteDeadLetterTopic() {
	c.letters = append(c.letters, c.read(pipeline.TopicDeadLetter, 0)...)
	c.recreateTopic(pipeline.TopicDeadLetter)
	c.deleteTopic(pipeline.TopicDeadLetter)
	c.sendGarbage(0)
	c.runUntilClosed(c.t)
}

// shrinkDeadLetterTopic lowers the limit of the dead-letter topic below the size of the messages that are no
// batches. A part of each is kept, or it is counted.
func (c *campaign) shrinkDeadLetterTopic() {
	limit := []string{"200", "2000"}[c.random.IntN(2)]
	c.setTopicConfig(pipeline.TopicDeadLetter, "max.message.bytes", &limit)
	before := len(c.garbage)
	c.sendGarbage(5000)
	c.garbage = c.garbage[:before]
	ledger := c.runUntilClosed(c.t)
	if ledger.DeadLettered < uint64(c.partitions) {
		c.t.Errorf("ledger %+v, want %d dead letters", ledger, c.partitions)
	}
	c.setTopicConfig(pipeline.TopicDeadLetter, "max.message.bytes", nil)
}

// pausedEngine starts an engine that stops itself at one of the failpoints, and waits until it has stopped.
func (c *campaign) pausedEngine(child childConfig) (*exec.Cmd, *childOutput) {
	steps := Failpoints[:len(Failpoints)-1]
	child.Failpoint, child.Passage, child.Stop = steps[c.random.IntN(len(steps))], 1+int32(c.random.IntN(2)), true
	c.logLine("    paused at %s, passage %d", child.Failpoint, child.Passage)
	cmd, out := startChild(c.t, child)
	waitUntil(c.t, "a stopped process", func() bool { return isStopped(cmd.Process.Pid) })
	return cmd, out
}

func (c *campaign) pauseAtRandom() {
	cmd, out := c.pausedEngine(c.childConfig)
	time.Sleep(maxUnconfirmed + 200*time.Millisecond)
	_ = cmd.Process.Signal(syscall.SIGCONT)
	c.terminate(cmd, out)
}

// takeOverWhilePaused lets another member of the group process all messages while an engine is paused.
func (c *campaign) takeOverWhilePaused() {
	child := c.childConfig
	child.Assign = kafka.AssignGroup
	paused, pausedOut := c.pausedEngine(child)
	time.Sleep(maxUnconfirmed)
	c.removeMembers()
	next, nextOut := startChild(c.t, child)
	for partition := range c.partitions {
		_, end := c.bounds(pipeline.TopicEvents, partition)
		waitUntil(c.t, "closed intents", func() bool { return c.isClosed(partition, end) })
	}
	waitUntil(c.t, "folded signals", c.areFolded)
	_ = paused.Process.Signal(syscall.SIGCONT)
	waitUntil(c.t, "an engine that has lost its partition", func() bool {
		return strings.Contains(pausedOut.String(), "partition lost")
	})
	c.terminate(paused, pausedOut)
	c.terminate(next, nextOut)
	c.waitGroupEmpty()
}

func (c *campaign) suspendMachine() {
	cmd, out := c.startForAMoment(c.childConfig)
	suspended := append([]int{cmd.Process.Pid, embeddedtest.Server(c.t).PID()}, c.brokerPIDs...)
	for _, pid := range suspended {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
	time.Sleep(maxUnconfirmed + time.Duration(c.random.Int64N(int64(time.Second))))
	for _, i := range c.random.Perm(len(suspended)) {
		_ = syscall.Kill(suspended[i], syscall.SIGCONT)
	}
	time.Sleep(time.Duration(c.random.Int64N(int64(maxMoment))))
	c.killOrTerminate(cmd, out)
}

// suspendWithClockJump pauses an engine whose wall clock jumps by minutes meanwhile.
func (c *campaign) suspendWithClockJump() {
	child := c.childConfig
	child.ClockOffset = -time.Duration(c.random.Int64N(int64(9 * time.Minute)))
	cmd, out := c.pausedEngine(child)
	_ = cmd.Process.Signal(syscall.SIGCONT) // from here on the child's clock is right
	c.terminate(cmd, out)
}

// dropTokens kills an engine, and the next one runs at a store that knows no token.
func (c *campaign) dropTokens() {
	c.killAtRandom()
	c.setTokens(0)
	c.runUntilClosed(c.t)
	c.setTokens(10_000)
}

func (c *campaign) setTokens(window int) {
	for _, table := range []string{"events", "alert_revisions"} {
		execute(c.t, c.store,
			fmt.Sprintf("ALTER TABLE %s MODIFY SETTING non_replicated_deduplication_window = %d", table, window))
	}
}

// sendEventOfTheFuture sends an event whose clock was a year ahead, among others, and kills an engine.
func (c *campaign) sendEventOfTheFuture() {
	for partition := range c.partitions {
		batch := c.batch(partition, 20)
		event := batch.Events[c.random.IntN(20)]
		event.Timestamp += int64(365 * 24 * time.Hour)
		event.Log.Message = "bad future"
		c.produce(partition, encode(c.t, batch))
		c.send(partition, 3, 20)
	}
	c.killAtRandom()
}

// killStore kills the server of the store while an engine works. What the store has acknowledged is in its files.
func (c *campaign) killStore() {
	cmd, out := c.startForAMoment(c.childConfig)
	server := embeddedtest.Server(c.t)
	killed := server.PID()
	_ = syscall.Kill(killed, syscall.SIGKILL)
	waitUntil(c.t, "another server of the store", func() bool { return server.PID() != killed && server.PID() != 0 })
	c.killOrTerminate(cmd, out)
}

// loseLogEnd takes the last messages of the log away, as an unclean election of a leader does. The rows of those that
// are stored stay.
func (c *campaign) loseLogEnd() {
	c.killAtRandom()
	kept, order := map[int][]kafkago.Message{}, map[int][]kafkago.Message{}
	for partition := range c.partitions {
		messages := c.read(pipeline.TopicEvents, partition)
		cut := len(messages) - c.random.IntN(min(8, len(messages)+1))
		kept[partition] = messages[:cut]

		// Those that are kept are processed in their order; behind them only those count whose rows are stored.
		before := slices.Clip(c.earlier[partition])
		stored := c.storedBatches(partition)
		order[partition] = append(before, messages[:cut]...)
		for i := range order[partition][len(before):] {
			message := &order[partition][len(before)+i]
			if id, isBatch := batchOf(*message); isBatch && !stored[id] {
				message.Offset = int64(i) // it is processed where it stands in the new log
			}
		}
		inLog := map[pipeline.BatchID]bool{}
		for _, message := range order[partition] {
			if id, isBatch := batchOf(message); isBatch {
				inLog[id] = true
			}
		}
		for _, message := range messages[cut:] {
			id, isBatch := batchOf(message)
			switch {
			case !isBatch:
				if i := slices.Index(c.garbage, string(message.Value)); i >= 0 {
					c.garbage = slices.Delete(c.garbage, i, i+1) // it may be no dead letter yet
				}
			case stored[id]:
				order[partition] = append(order[partition], message)
			case !inLog[id]:
				c.deleted += eventsOf(message)
			}
			inLog[id] = true
		}
	}
	c.recreateTopic(pipeline.TopicEvents)
	c.earlier = order
	for partition, messages := range kept {
		for _, message := range messages {
			c.produce(partition, message.Value)
		}
	}
	c.runUntilClosed(c.t)
}

// setClock runs an engine whose clock is wrong by some minutes until it is killed.
func (c *campaign) setClock() {
	child := c.childConfig
	child.ClockOffset = time.Duration(c.random.Int64N(int64(18*time.Minute))) - 9*time.Minute
	child.Failpoint, child.Passage = AfterInsert, 1+int32(c.random.IntN(3))
	cmd, out := startChild(c.t, child)
	waitKilled(c.t, cmd, out)
}

// sendBatchesAgain produces some messages of the log again, as a producer does that got no answer.
func (c *campaign) sendBatchesAgain() {
	for partition := range c.partitions {
		messages := c.read(pipeline.TopicEvents, partition)
		for _, message := range messages[max(0, len(messages)-1-c.random.IntN(30)):] {
			c.produce(partition, message.Value)
		}
	}
	c.killAtRandom()
}
