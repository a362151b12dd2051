package logs

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	bytes, records, lines, parts *prometheus.CounterVec
	resumed                      prometheus.Counter
	redacted                     prometheus.Counter
	dropped                      *prometheus.CounterVec
	malformed                    *prometheus.CounterVec
	errors                       *prometheus.CounterVec
	unread                       *prometheus.CounterVec
	lag, open, tailers           prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_logs_" + name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "tidegate_logs_" + name, Help: help})
	}
	m := metrics{
		bytes:     counter("bytes_total", "Bytes of log files that were read, once for each life of the collector that read them."),
		records:   counter("records_total", "Records of log files that were read."),
		lines:     counter("lines_total", "Lines that were shipped."),
		parts:     counter("parts_total", "Records that were joined with others into a line."),
		resumed:   prometheus.NewCounter(prometheus.CounterOpts{Name: "tidegate_logs_resumed_total", Help: "Lines that were read again after a restart and were shipped before it."}),
		redacted:  prometheus.NewCounter(prometheus.CounterOpts{Name: "tidegate_logs_redacted_total", Help: "Lines out of which a secret was taken."}),
		dropped:   counter("dropped_total", "What was not shipped, by reason: over_cap and nul and cut in bytes, the others in lines.", "reason"),
		malformed: counter("malformed_total", "Records that are not what dockerd writes, by what is wrong; their text is shipped.", "reason"),
		errors:    counter("errors_total", "Calls that did not succeed, by what was tried.", "call"),
		unread:    counter("unread_containers_total", "Containers whose logging driver keeps no json-file.", "driver"),
		lag:       gauge("lag_bytes", "Bytes in log files that were not read yet."),
		open:      gauge("open_files", "Log files that are held open."),
		tailers:   gauge("containers", "Containers whose logs are followed."),
	}
	if reg != nil {
		reg.MustRegister(m.bytes, m.records, m.lines, m.parts, m.resumed, m.redacted, m.dropped, m.malformed, m.errors, m.unread, m.lag, m.open, m.tailers)
	}
	return m
}

// A tally gathers what a chain counts in one pass, so that the hot path touches no shared memory.
type tally struct {
	bytes, records, lines, parts, resumed, redacted      uint64
	overCap, nul, cut, blank, old                        uint64
	notJSON, tooLong, torn, noTime, truncated, duplicate uint64
}

// addTally adds t to the metrics and clears it.
func (m *metrics) addTally(t *tally) {
	add := func(c prometheus.Counter, n uint64) {
		if n > 0 {
			c.Add(float64(n))
		}
	}
	vec := func(v *prometheus.CounterVec, n uint64, labels ...string) {
		if n > 0 {
			v.WithLabelValues(labels...).Add(float64(n))
		}
	}
	vec(m.bytes, t.bytes)
	vec(m.records, t.records)
	vec(m.lines, t.lines)
	vec(m.parts, t.parts)
	add(m.resumed, t.resumed)
	add(m.redacted, t.redacted)
	vec(m.dropped, t.overCap, "over_cap")
	vec(m.dropped, t.nul, "nul")
	vec(m.dropped, t.cut, "cut")
	vec(m.dropped, t.blank, "blank")
	vec(m.dropped, t.old, "before_start")
	vec(m.dropped, t.duplicate, "copy_of_a_file")
	vec(m.malformed, t.notJSON, "not_json")
	vec(m.malformed, t.tooLong, "too_long")
	vec(m.malformed, t.torn, "torn")
	vec(m.malformed, t.noTime, "no_time")
	vec(m.malformed, t.truncated, "file_truncated")
	*t = tally{}
}

// A budget bounds what all chains hold together.
type budget struct {
	maxFiles      int64 // descriptors
	maxMemory     int64 // bytes of buffers, and as many again of lines that are not complete
	openFiles     atomic.Int64
	activeBuffers atomic.Int64 // buffers in use
	pendingBytes  atomic.Int64 // bytes of lines that are not complete
	pools         [len(bufferSizes)]sync.Pool
}

// bufferSizes are what a chain may read at once: less when many read, so that thousands that all wait for room stay in budget.
var bufferSizes = [...]int{256 << 10, 64 << 10, 16 << 10}

func (b *budget) getBuffer() []byte {
	n, class := b.activeBuffers.Add(1), 0
	for class < len(bufferSizes)-1 && n*int64(bufferSizes[class]) > b.maxMemory {
		class++
	}
	if p, ok := b.pools[class].Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, bufferSizes[class])
}

// putBuffer takes back what buffer gave; a buffer that was replaced by a larger one is not taken.
func (b *budget) putBuffer(buf []byte) {
	b.activeBuffers.Add(-1)
	for class, size := range bufferSizes {
		if len(buf) == size {
			b.pools[class].Put(&buf)
		}
	}
}

// acquireDescriptor asks for one more descriptor.
func (b *budget) acquireDescriptor() bool {
	if b.openFiles.Add(1) > b.maxFiles {
		b.openFiles.Add(-1)
		return false
	}
	return true
}
