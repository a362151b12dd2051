package sessions

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what all Tables of a registry count together. What is counted for each packet is summed up in the Table and added
// here now and then (Table.flush).
type metrics struct {
	packets         [results]prometheus.Counter
	open            prometheus.Gauge
	buffered        prometheus.Gauge
	opened          [2]prometheus.Counter // TCP, UDP
	closed          map[string]prometheus.Counter
	gaps            [gapReasons]prometheus.Counter
	gapBytes        [gapReasons]prometheus.Counter
	segments        map[string]prometheus.Counter // dropped, by reason
	fragments       map[string]prometheus.Counter // dropped, by reason
	conflicts       prometheus.Counter
	duplicates      prometheus.Counter // sessions
	duplicateEvents prometheus.Counter // their events
	pendingSessions map[string]prometheus.Counter
	panics          prometheus.Counter
}

// A gapReason is why bytes were given up.
type gapReason uint8

const (
	gapAcked gapReason = iota
	gapTimeout
	gapBudget
	gapCut
	gapClose
	gapResync
	gapReasons
)

var gapNames = [gapReasons]string{"acknowledged", "timeout", "budget", "cut", "close", "resync"}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return registered(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: "tidegate_sessions_" + name, Help: help}))
	}
	gauge := func(name, help string) prometheus.Gauge {
		return registered(reg, prometheus.NewGauge(prometheus.GaugeOpts{Name: "tidegate_sessions_" + name, Help: help}))
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return registered(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_sessions_" + name, Help: help}, []string{label}))
	}
	words := func(v *prometheus.CounterVec, of ...string) map[string]prometheus.Counter {
		m := map[string]prometheus.Counter{}
		for _, w := range of {
			m[w] = v.WithLabelValues(w)
		}
		return m
	}
	m := &metrics{
		open:            gauge("open", "Connections that are remembered."),
		buffered:        gauge("buffered_bytes", "Memory that segments out of order take."),
		conflicts:       counter("overlap_conflicts_total", "Retransmissions and fragments whose bytes differ from those that came before."),
		duplicates:      counter("nat_duplicates_total", "Sessions that another interface reports: further copies of one connection."),
		duplicateEvents: counter("nat_duplicate_events_total", "Events of duplicate sessions, which were dropped."),
		panics:          counter("panics_total", "Errors of ours, after each of which a worker began with an empty table."),
		closed: words(vec("closed_total", "Sessions that ended, by how.", "state"),
			stateFIN, stateResetClient, stateResetServer, stateTimeout, stateEvicted, stateRefused, stateNoAnswer, stateShutdown),
		segments: words(vec("dropped_segments_total", "Segments whose bytes no parser was given, by reason.", "reason"),
			"outside_window", "old", "late"),
		fragments: words(vec("dropped_fragments_total", "Fragments that were kept and then dropped, by reason.", "reason"), "timeout", "limit"),
		pendingSessions: words(vec("nat_pending_sessions_total", "Sessions whose events waited until it was known whether they are duplicates, by what decided it.", "decided"),
			"mapping", "bridge", "timeout", "full", "end"),
	}
	packets := vec("packets_total", "Packets by what became of them.", "result")
	for r, name := range resultNames {
		m.packets[r] = packets.WithLabelValues(name)
	}
	gaps, gapBytes := vec("gaps_total", "Gaps in streams, by why they were given up.", "reason"), vec("gap_bytes_total", "Bytes of streams that were never seen.", "reason")
	for r, name := range gapNames {
		m.gaps[r], m.gapBytes[r] = gaps.WithLabelValues(name), gapBytes.WithLabelValues(name)
	}
	opened := vec("opened_total", "Sessions that began.", "transport")
	m.opened = [2]prometheus.Counter{opened.WithLabelValues("tcp"), opened.WithLabelValues("udp")}
	return m
}

// registered registers c, or gives what was registered under its name before: the Tables of a process count together.
func registered[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	var already prometheus.AlreadyRegisteredError
	if err := reg.Register(c); errors.As(err, &already) {
		if old, ok := already.ExistingCollector.(C); ok {
			return old
		}
	}
	return c
}

// tally is what a Table counts between two flushes.
type tally struct {
	packets        [results]uint64
	open, buffered int // as last told
}

// flushCounters adds up what was counted.
func (t *Table) flushCounters() {
	for r, n := range t.tally.packets {
		if n > 0 {
			t.m.packets[r].Add(float64(n))
			t.tally.packets[r] = 0
		}
	}
	if n := len(t.heap); n != t.tally.open {
		t.m.open.Add(float64(n - t.tally.open))
		t.tally.open = n
	}
	if n := t.bufferedBytes; n != t.tally.buffered {
		t.m.buffered.Add(float64(n - t.tally.buffered))
		t.tally.buffered = n
	}
}
