package engine

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/metrics"
)

// A Ledger holds the counts of an engine since its start. A block is counted when it is finished, or when its worker
// ends. This holds whenever no block is being counted, so at the end of Run:
//
//	Events = DuplicateEvents + Rows + AlreadyStored + Rejected + Unfinished
//
// DeadLettered counts messages: those that cannot be decoded, which are no events, and those whose events are in
// Rejected.
type Ledger struct {
	Messages        uint64 // records read from the events topic
	Events          uint64 // events in the decoded records
	Duplicates      uint64 // messages whose batch was seen before
	DuplicateEvents uint64 // events in duplicate messages
	DeadLettered    uint64 // messages written to the dead-letter topic
	Lost            uint64 // offsets that were deleted before they were read
	Rows            uint64 // rows inserted
	AlreadyStored   uint64 // rows of replayed blocks that were already in the store
	Rejected        uint64 // events of messages that the store rejected
	Unfinished      uint64 // events of blocks that were not finished when their worker ended; they are read again
	Verdicts        uint64 // verdicts on stored events
	Alerts          uint64 // alerts opened
	Revisions       uint64 // revisions of alerts written
}

// engineMetrics holds the counters of the ledger and the metrics of /metrics.
type engineMetrics struct {
	messages, events, duplicates, duplicateEvents, deadLettered, lost atomic.Uint64
	rows, alreadyStored, rejected, verdicts, alerts, revisions        atomic.Uint64
	detectorPanics, reevaluated, alertsRejected, newerSchema, blocks  atomic.Uint64
	signals, signalsRejected                                          atomic.Uint64
	clockCorrections                                                  atomic.Uint64
	storedDespiteError, rejectedBlocks, unfinished                    atomic.Uint64

	fold         foldMetrics
	deadLetters  *prometheus.CounterVec
	retries      *prometheus.CounterVec
	lag          *lagCollector
	openWindows  *prometheus.GaugeVec
	blockRows    prometheus.Histogram
	stageSeconds *prometheus.HistogramVec
}

func newEngineMetrics(reg prometheus.Registerer) *engineMetrics {
	factory := metrics.With(reg)
	created := &engineMetrics{
		fold: newFoldMetrics(factory),
		deadLetters: factory.LabelledCounters("tidegate_engine_dead_letters_total",
			"Messages of the events topic that were written to the dead-letter topic, by reason.", "reason",
			"batch_id", "decode", "event_id", "partition", "rejected", "schema", "too_large", "too_many_events", "unreadable",
			"unwritable"),
		retries: factory.LabelledCounters("tidegate_engine_retries_total",
			"Operations on Kafka or the store that failed and were tried again, by operation.", "operation",
			"write signals", "find the signals topic", "find the events topic", "insert", "insert alerts", "publish alerts", "query existing rows", "query the alerts of a block",
			"query the verdicts of the last block", "query the batches of a producer", "query the last block",
			"query the newest rows", "query the running inserts",
			"restore the alert windows", "restore the state of the partition", "restore what was seen", "store what was seen"),
		lag: newLagCollector(factory),
		openWindows: factory.GaugeVec("tidegate_engine_open_windows",
			"Open alert windows, by partition of the signals topic.", "partition"),
		blockRows: factory.Histogram("tidegate_engine_block_rows",
			"Rows in an inserted block of events.", prometheus.ExponentialBuckets(1, 4, 10)),
		stageSeconds: factory.HistogramVec("tidegate_engine_block_seconds",
			"Seconds that a block of events spent in a stage, by stage: gather, evaluate, insert or signals; and of signals: alerts.",
			prometheus.ExponentialBuckets(0.001, 2, 16), "stage"),
	}
	for _, stage := range []string{"gather", "evaluate", "insert", "alerts", "signals"} {
		created.stageSeconds.WithLabelValues(stage)
	}
	created.exportCounters(factory)
	return created
}

// exportCounters exports the counters as tidegate_engine_<name>_total.
func (m *engineMetrics) exportCounters(factory metrics.Factory) {
	for _, counter := range []struct {
		name, help string
		value      *atomic.Uint64
	}{
		{"messages", "Messages read from the events topic.", &m.messages},
		{"events", "Events read from the events topic, duplicates included.", &m.events},
		{
			"duplicate_messages",
			"Messages of the events topic that were dropped because their batch was a duplicate.",
			&m.duplicates,
		},
		{
			"duplicate_events", "Events in messages that were dropped because their batch was a duplicate.",
			&m.duplicateEvents,
		},
		{"lost_messages", "Offsets of the events topic that were deleted before the engine read them.", &m.lost},
		{"rows", "Events stored in ClickHouse.", &m.rows},
		{"already_stored_rows", "Events of replayed blocks that were already in ClickHouse.", &m.alreadyStored},
		{"rejected_events", "Events in messages that ClickHouse rejected and that became dead letters.", &m.rejected},
		{
			"unfinished_events",
			"Events of blocks that were not finished when their partition was revoked or the engine stopped; they are read again.",
			&m.unfinished,
		},
		{"signals", "Events that match a step of a correlation rule, written to the signals topic.", &m.signals},
		{"rejected_signals", "Signals and matches that the signals topic rejected: they count in no alert.", &m.signalsRejected},
		{"verdicts", "Verdicts of detectors on stored events.", &m.verdicts},
		{"alerts", "Alerts opened.", &m.alerts},
		{"alert_revisions", "Revisions of alerts written, the first one of each alert included.", &m.revisions},
		{
			"rejected_alert_revisions",
			"Revisions of alerts that ClickHouse rejected and that were published without being stored.",
			&m.alertsRejected,
		},
		{
			"detector_panics", "Panics of detectors; the event was stored without verdicts of that detector.",
			&m.detectorPanics,
		},
		{
			"reevaluated_blocks",
			"Replayed blocks that were evaluated by newer rules, because the rules of the first run are not loaded.",
			&m.reevaluated,
		},
		{
			"newer_schema_messages",
			"Messages with a newer schema than this version supports; their unknown fields are not stored.",
			&m.newerSchema,
		},
		{"blocks", "Blocks of events finished.", &m.blocks},
		{
			"grouping_clock_corrections",
			"Restorations of the alert windows because they lay ahead of the clock, which was ahead for some time.",
			&m.clockCorrections,
		},
		{
			"inserts_stored_despite_error",
			"Inserts that failed although their rows are stored, for example because a materialized view fails.",
			&m.storedDespiteError,
		},
		{
			"rejected_blocks",
			"Attempts to store a block of which ClickHouse rejected every message; each is tried again after a pause.",
			&m.rejectedBlocks,
		},
	} {
		factory.CounterFunc("tidegate_engine_"+counter.name+"_total", counter.help,
			func() float64 { return float64(counter.value.Load()) })
	}
}

// addBlock counts the messages of a finished block.
func (m *engineMetrics) addBlock(counts blockCounts) {
	m.messages.Add(counts.messages)
	m.events.Add(counts.events)
	m.duplicates.Add(counts.duplicates)
	m.duplicateEvents.Add(counts.duplicateEvents)
	m.rows.Add(counts.rows)
	m.alreadyStored.Add(counts.alreadyStored)
	m.rejected.Add(counts.rejected)
}

// addUnfinished counts the events of a block that is not finished when its worker ends.
func (m *engineMetrics) addUnfinished(counts blockCounts) {
	m.events.Add(counts.events)
	m.unfinished.Add(counts.events)
}

// observeStage records the time that a block spent in a stage since began.
func (m *engineMetrics) observeStage(stage string, began time.Time) {
	m.stageSeconds.WithLabelValues(stage).Observe(time.Since(began).Seconds())
}

// Ledger returns the counts as of now.
func (e *Engine) Ledger() Ledger {
	counts := e.metrics
	return Ledger{
		Messages:        counts.messages.Load(),
		Events:          counts.events.Load(),
		Duplicates:      counts.duplicates.Load(),
		DuplicateEvents: counts.duplicateEvents.Load(),
		DeadLettered:    counts.deadLettered.Load(),
		Lost:            counts.lost.Load(),
		Rows:            counts.rows.Load(),
		AlreadyStored:   counts.alreadyStored.Load(),
		Rejected:        counts.rejected.Load(),
		Unfinished:      counts.unfinished.Load(),
		Verdicts:        counts.verdicts.Load(),
		Alerts:          counts.alerts.Load(),
		Revisions:       counts.revisions.Load(),
	}
}
