package logs

import (
	"context"
	"path/filepath"
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
	redactors [decode.NumStreams]redact.Redactor // a private key may extend over several lines of a stream
	plain     []byte                             // buffer of plainText
	arena     []byte
}

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
	// The fields that events of all datasets have.
	event := pipeline.EventFromVTPool()
	id := pipeline.LogID(h.source.collector, h.log.ID, line.File[:], uint64(line.Start))
	event.Id = append(event.Id[:0], id[:]...)
	event.Dataset = pipeline.Dataset_LOG
	event.Timestamp = line.Time
	event.Partial = line.Partial
	event.Container = h.container

	// The level is detected before secrets are redacted.
	body := pipeline.LogLineFromVTPool()
	text := plainText(line.Text, &h.plain)
	body.Level = detectLevel(text)
	if h.source.cfg.Redact {
		var found bool
		if text, found = h.redactors[line.Stream].NextLine(text); found {
			h.source.metrics.redacted.Inc()
		}
	}
	// Redaction and the repair of UTF-8 may lengthen a line, so that it is cut once more.
	var cut bool
	body.Message, cut = tail.Cut(h.internUTF8(text), int(h.source.cfg.MaxLineBytes))
	body.Truncated = line.Truncated || cut
	if body.Truncated {
		event.Tags = append(event.Tags, pipeline.TagTruncated)
		h.source.metrics.truncated.Inc()
	}
	body.Stream = line.Stream.String()
	body.Path = h.path
	body.Offset = uint64(line.Start)
	body.Bytes = line.Bytes
	event.Log = body

	return producer.Ship(ctx, event, checkpoint)
}

// internUTF8 returns data as a string of valid UTF-8, which protobuf requires. Short strings are stored in
// the arena, whose bytes are written once.
func (h *lineHandler) internUTF8(data []byte) string {
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
	if cap(h.arena)-len(h.arena) < len(data) {
		h.arena = make([]byte, 0, arenaSize)
	}
	n := len(h.arena)
	h.arena = append(h.arena, data...)
	return unsafe.String(&h.arena[n], len(data))
}
