package engine

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// A Ledger is what this process has done since it started: Messages = Repeats + Dead + the messages of blocks (or still being
// gathered), Events = RepeatedEvents + Rows + Held + Refused + what is under way.
type Ledger struct {
	Messages        uint64 // records taken from the events topic
	Events          uint64 // events in those that could be decoded
	Duplicates      uint64 // messages whose stamp had come before
	DuplicateEvents uint64
	DeadLettered    uint64 // messages put on the dead-letter topic
	Lost            uint64 // offsets that were gone before they were read
	Rows            uint64 // rows inserted
	AlreadyStored   uint64 // rows that a former life had inserted
	Rejected        uint64 // events of messages that the store refused
	Verdicts        uint64
	Alerts          uint64 // alerts that were opened
	Revisions       uint64 // revisions of alerts that were written
}

type metrics struct {
	messages, events, duplicates, duplicateEvents, deadLettered, lost atomic.Uint64
	rows, alreadyStored, rejected, verdicts, alerts, revisions        atomic.Uint64
	detectorPanics, reevaluated, alertsRejected, newerSchema          atomic.Uint64
	blocks                                                            atomic.Uint64

	deadLetters  *prometheus.CounterVec
	retries      *prometheus.CounterVec
	lag          *prometheus.GaugeVec
	lagSeconds   *prometheus.GaugeVec
	openWindows  *prometheus.GaugeVec
	blockRows    prometheus.Histogram
	stageSeconds *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		deadLetters:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_engine_dead_letters_total", Help: "Messages put on the dead-letter topic, by reason."}, []string{"reason"}),
		retries:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_engine_retries_total", Help: "Errors that pass, by what is tried again."}, []string{"what"}),
		lag:          prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tidegate_engine_lag_messages", Help: "Messages between the last finished block and Kafka's end."}, []string{"partition"}),
		lagSeconds:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tidegate_engine_lag_seconds", Help: "From the shipping of the last finished message until now; 0 at Kafka's end."}, []string{"partition"}),
		openWindows:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tidegate_engine_open_windows", Help: "Windows of alerts that the fold keeps."}, []string{"partition"}),
		blockRows:    prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tidegate_engine_block_rows", Help: "Rows of a block.", Buckets: prometheus.ExponentialBuckets(1, 4, 10)}),
		stageSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tidegate_engine_block_seconds", Help: "Time of a block, by stage: gather, judge, insert, alerts.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)}, []string{"stage"}),
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.deadLetters, m.retries, m.lag, m.lagSeconds, m.openWindows, m.blockRows, m.stageSeconds)
	count := func(name, help string, v *atomic.Uint64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(v.Load()) }))
	}
	count("tidegate_engine_messages_total", "Messages taken from the events topic.", &m.messages)
	count("tidegate_engine_events_total", "Events in them.", &m.events)
	count("tidegate_engine_repeated_messages_total", "Messages dropped because their stamp had come before.", &m.duplicates)
	count("tidegate_engine_repeated_events_total", "Events in them.", &m.duplicateEvents)
	count("tidegate_engine_lost_messages_total", "Offsets that retention or a cut log took before they were read.", &m.lost)
	count("tidegate_engine_rows_total", "Rows inserted.", &m.rows)
	count("tidegate_engine_held_rows_total", "Rows of repeated blocks that the store held already.", &m.alreadyStored)
	count("tidegate_engine_refused_events_total", "Events of messages that the store refused for good.", &m.rejected)
	count("tidegate_engine_verdicts_total", "Verdicts on inserted events.", &m.verdicts)
	count("tidegate_engine_alerts_total", "Alerts opened.", &m.alerts)
	count("tidegate_engine_alert_revisions_total", "Revisions of alerts written.", &m.revisions)
	count("tidegate_engine_alerts_refused_total", "Revisions of alerts that the store refused for good; they were published all the same.", &m.alertsRejected)
	count("tidegate_engine_detector_panics_total", "Panics of detectors; the event went on without that detector's verdict.", &m.detectorPanics)
	count("tidegate_engine_rejudged_blocks_total", "Repeated blocks whose first bundle is no longer held: their verdicts may differ.", &m.reevaluated)
	count("tidegate_engine_newer_schema_messages_total", "Messages of a newer schema than this binary speaks; fields that it does not know are not stored.", &m.newerSchema)
	count("tidegate_engine_blocks_total", "Blocks finished.", &m.blocks)
	return m
}

// Ledger is a snapshot of the sums.
func (e *Engine) Ledger() Ledger {
	m := e.metrics
	return Ledger{
		Messages: m.messages.Load(), Events: m.events.Load(), Duplicates: m.duplicates.Load(), DuplicateEvents: m.duplicateEvents.Load(),
		DeadLettered: m.deadLettered.Load(), Lost: m.lost.Load(), Rows: m.rows.Load(), AlreadyStored: m.alreadyStored.Load(), Rejected: m.rejected.Load(),
		Verdicts: m.verdicts.Load(), Alerts: m.alerts.Load(), Revisions: m.revisions.Load(),
	}
}
