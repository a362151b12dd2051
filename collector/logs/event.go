package logs

import (
	"context"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"

	"tidegate/collector"
	"tidegate/collector/logs/decode"
	"tidegate/collector/logs/discover"
	"tidegate/collector/logs/tail"
	"tidegate/pipeline"
	"tidegate/pipeline/redact"
)

// metadataTimeout is the maximum time for which the lines of a new container wait until the registry has its
// metadata. Its files are held open meanwhile.
const metadataTimeout = 2 * time.Second

// arenaSize is the number of message bytes that share one allocation. An event in memory keeps the whole
// arena in memory, so it is small; it is large enough to make allocations rare.
const arenaSize = 16 << 10

// A lineHandler makes events of the lines of one log. It implements tail.Handler. Only the goroutine of the
// log's tailer uses its fields.
type lineHandler struct {
	source    *Source
	log       discover.Log
	path      string              // log.file.path of every line: the base file, also after rotation
	idOnly    *pipeline.Container // used while the registry has no metadata; nil: a log of the host
	container *pipeline.Container // container of the next lines, set by Refresh
	found     time.Time
	states    [decode.NumStreams]redact.LogState // a secret may extend over several lines of a stream
}

// lineBuffers are the buffers for one line. The handlers share them: there are thousands of logs, and as many
// lines at a time as there are cores.
type lineBuffers struct {
	redactor redact.Redactor
	plain    []byte // of plainText
	arena    []byte
}

const (
	// maxKeptBuffers is the size up to which lineBuffers are kept for further lines. Those of a long line with escapes
	// take some ten times its length.
	maxKeptBuffers = 256 << 10
	// longLine is the length of the shortest line that may need more.
	longLine = 8 << 10
)

var _ tail.Handler = (*lineHandler)(nil)

// newLineHandler returns the handler of one log. Without metadata a container's events have its id only.
func newLineHandler(s *Source, log discover.Log) *lineHandler {
	handler := &lineHandler{source: s, log: log, path: filepath.Join(log.Dir, log.Base), found: time.Now()}
	if log.Container != "" {
		handler.idOnly = &pipeline.Container{Id: log.Container}
	}
	return handler
}

// Ready waits until the registry has the metadata of the container, at most metadataTimeout, so that the
// first lines carry its name.
func (h *lineHandler) Ready(ctx context.Context, changed <-chan struct{}) bool {
	timeout := time.NewTimer(metadataTimeout - time.Since(h.found))
	defer timeout.Stop()
	for h.awaitsMetadata() {
		select {
		case <-ctx.Done():
			return false
		case <-timeout.C:
			return true
		case <-changed:
		}
	}
	return ctx.Err() == nil && !h.State().Excluded
}

// awaitsMetadata reports whether the registry has no metadata of the container yet.
func (h *lineHandler) awaitsMetadata() bool {
	registry := h.source.registry
	return h.log.Container != "" && registry != nil && registry.Enabled() &&
		!registry.Status(h.log.Container).Known
}

// Refresh implements tail.Handler.
func (h *lineHandler) Refresh() {
	h.container = h.idOnly
	if h.source.registry != nil && h.log.Container != "" {
		if known := h.source.registry.ByID(h.log.Container); known != nil {
			h.container = known
		}
	}
}

// State implements tail.Handler.
func (h *lineHandler) State() tail.State {
	status := h.source.status(h.log.Container)
	return tail.State{Stopped: status.Known && !status.Running, Excluded: status.Excluded}
}

// Ship implements tail.Handler.
func (h *lineHandler) Ship(
	ctx context.Context, producer collector.FileProducer, line *tail.Line, checkpoint collector.Checkpoint,
) error {
	// A log waits with its line where it is, and not with copies of it.
	if err := producer.Wait(ctx, h.container, checkpoint); err != nil {
		return err
	}
	buffers := h.source.takeBuffers()
	event := h.newEvent(line, buffers)
	h.source.putBuffers(buffers, len(line.Text))
	return producer.Ship(ctx, event, checkpoint)
}

// newEvent returns the event of a line.
func (h *lineHandler) newEvent(line *tail.Line, buffers *lineBuffers) *pipeline.Event {
	// The fields that events of all datasets have.
	event := pipeline.EventFromVTPool()
	id := pipeline.LogID(h.source.collector, h.log.ID, line.File[:], uint64(line.Start))
	event.Id = append(event.Id[:0], id[:]...)
	event.Dataset = pipeline.Dataset_LOG
	event.Timestamp = line.Time
	event.Partial = line.Partial
	event.Container = h.container

	body := pipeline.LogLineFromVTPool()
	if !h.setText(body, line, buffers) {
		body.Level, body.Message = "", unreadableText
		event.Tags, event.Partial = append(event.Tags, pipeline.TagParserPanic), true
		h.source.metrics.panics.Inc()
	}
	if body.Truncated {
		event.Tags = append(event.Tags, pipeline.TagTruncated)
		h.source.metrics.truncated.Inc()
	}
	body.Stream = line.Stream.String()
	body.Path = h.path
	body.Offset = uint64(line.Start)
	body.Bytes = line.Bytes
	event.Log = body
	return event
}

// unreadableText is the message of a line for which setText failed: nobody knows what secrets it holds.
const unreadableText = "[the text of this line is left out: it could not be searched for secrets]"

// setText sets the level and the message of body. It returns false after a panic, which is a bug of this program:
// no line may end the collector.
func (h *lineHandler) setText(body *pipeline.LogLine, line *tail.Line, buffers *lineBuffers) (ok bool) {
	defer func() {
		if reason := recover(); reason != nil {
			*buffers = lineBuffers{} // their state is unknown
			if suppressed, ok := h.source.panicThrottle.Allow(); ok {
				h.source.log.Error("the text of a line could not be handled", "log", h.path, "offset", line.Start,
					"panic", reason, "stack", string(debug.Stack()), "suppressed", suppressed)
			}
		}
	}()

	// The level is detected before secrets are redacted.
	text := plainText(line.Text, &buffers.plain)
	body.Level = detectLevel(text)
	if h.source.cfg.Redact {
		var found bool
		if text, found = buffers.redactor.NextLine(text, &h.states[line.Stream]); found {
			h.source.metrics.redacted.Inc()
		}
	}

	// Redaction and the repair of UTF-8 may lengthen a line, so that it is cut once more.
	var cut bool
	body.Message, cut = tail.Cut(buffers.internUTF8(text), int(h.source.cfg.MaxLineBytes))
	body.Truncated = line.Truncated || cut
	return true
}

// takeBuffers returns buffers for one line: those of the line before, unless they are in use.
func (s *Source) takeBuffers() *lineBuffers {
	if buffers := s.lastBuffers.Swap(nil); buffers != nil {
		return buffers
	}
	if buffers, ok := s.buffers.Get().(*lineBuffers); ok {
		return buffers
	}
	return &lineBuffers{}
}

// putBuffers releases the buffers of a line of size bytes.
func (s *Source) putBuffers(buffers *lineBuffers, size int) {
	if size > longLine && buffers.redactor.BufferBytes()+cap(buffers.plain) > maxKeptBuffers {
		return
	}
	if !s.lastBuffers.CompareAndSwap(nil, buffers) {
		s.buffers.Put(buffers)
	}
}

// internUTF8 returns data as a string of valid UTF-8, which protobuf requires. Short strings are stored in
// the arena, whose bytes are written once.
func (b *lineBuffers) internUTF8(data []byte) string {
	if !utf8.Valid(data) {
		return strings.ToValidUTF8(string(data), "\ufffd")
	}
	if len(data) > arenaSize/8 {
		return string(data)
	}
	if len(data) == 0 {
		return ""
	}

	// A full arena is replaced, never reallocated or overwritten: strings that point into it stay valid.
	if cap(b.arena)-len(b.arena) < len(data) {
		b.arena = make([]byte, 0, arenaSize)
	}
	n := len(b.arena)
	b.arena = append(b.arena, data...)
	return unsafe.String(&b.arena[n], len(data))
}
