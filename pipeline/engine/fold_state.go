package engine

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"tidegate/pipeline"
)

// A foldState is how far the signals of one partition of the signals topic have come before a record of it. Together with
// the records from there on it determines all that follows.
type foldState struct {
	offset    int64 // of the record
	watermark int64 // ns since 1970: the signals that ended before it are in their groups, or come late
	latestEnd int64 // latest end of a signal before the record
	newest    int64 // latest time of a record
	sources   map[int32]foldSource
}

// A foldSource is a partition of the events topic, as the signals topic shows it.
type foldSource struct {
	blockTime int64 // of the last block with signals or matches
	part      uint32
	watermark int64 // told last, rounded down to ms
	heard     int64 // time of the last record with a watermark, rounded down to ms
}

// stalledAfter is the time after which nobody waits any more for a partition of the events topic that tells nothing, because
// no engine reads it.
const stalledAfter = time.Minute

// outage is the time without any record from which on no engine has run: each tells something every watermarkInterval.
const outage = 10 * time.Second

// maxSources bounds the partitions of the events topic that a state has: messages of whoever writes to the signals topic must
// not fill the memory.
const maxSources = 10_000

// isRepeat reports whether the signals of a block were read before. The block times of a partition ascend, but for a clock
// that was ahead.
func (s foldSource) isRepeat(block *pipeline.SignalBlock) bool {
	switch {
	case block.Time == s.blockTime:
		return block.Part <= s.part
	case block.Time < s.blockTime:
		return s.blockTime-block.Time < int64(maxClockStep)
	}
	return false
}

// read moves the state behind a record. It reports whether the signals of the record are new.
func (s *foldState) read(offset, recordTime int64, block *pipeline.SignalBlock) (isNew bool) {
	source := s.sources[block.Partition]
	if block.Time != 0 && len(block.Signals)+len(block.Matches) > 0 && !source.isRepeat(block) {
		isNew = true
		source.blockTime, source.part = block.Time, block.Part
	}
	if gap := toMillisecond(recordTime - s.newest); s.newest > 0 && gap > int64(outage) {
		// No engine ran, and none has told anything: the sources are waited for as if it had not been. Otherwise those that tell something first would
		// make what the others have to catch up late.
		for id, other := range s.sources {
			other.heard += gap
			s.sources[id] = other
		}
		source.heard += gap
	}
	s.newest = max(s.newest, recordTime)
	if block.Watermark > 0 { // an engine without rules over several events tells none, and must not be waited for
		source.heard = max(source.heard, toMillisecond(recordTime))
	}
	// By the clock of the broker, since that of an engine may be ahead.
	source.watermark = max(source.watermark, toMillisecond(min(block.Watermark, recordTime-int64(lateness))))
	s.sources[block.Partition] = source
	s.offset = offset + 1

	// The slowest source that is not stalled and has told something.
	slowest := int64(math.MaxInt64)
	for _, source := range s.sources {
		if source.watermark > 0 && s.newest-source.heard < int64(stalledAfter) {
			slowest = min(slowest, source.watermark)
		}
	}
	if slowest != math.MaxInt64 {
		s.watermark = max(s.watermark, slowest)
	}
	return isNew
}

// clone returns a copy.
func (s *foldState) clone() *foldState {
	out := *s
	out.sources = maps.Clone(s.sources)
	return &out
}

// maxStateText bounds the text of a state: Kafka takes 4096 bytes with an offset.
const maxStateText = 3800

// The first byte of the text of a state is its form. maxStateHead bounds what is in front of its sources.
const (
	stateInNanoseconds = 1 // of earlier versions, which are read
	stateForm          = 2
	maxStateHead       = 1 + 5*binary.MaxVarintLen64
)

// toMillisecond rounds a time down: the text of a state has milliseconds, and what follows from a state must
// not depend on whether it was read again.
func toMillisecond(at int64) int64 { return at - at%int64(time.Millisecond) }

// String returns the text that parseFoldState reads; equal states have equal texts.
func (s *foldState) String() string {
	text, _ := s.encode()
	return text
}

// encode returns the text of a state, and the number of sources that are left out because it would be too long:
// those whose last block is the oldest, since it is the least likely to be written again. Some 190 fit.
func (s *foldState) encode() (text string, left int) {
	ids := slices.Collect(maps.Keys(s.sources))
	slices.SortFunc(ids, func(a, b int32) int {
		return cmp.Or(cmp.Compare(s.sources[b].blockTime, s.sources[a].blockTime), cmp.Compare(a, b))
	})
	var entries []byte
	count := 0
	for _, id := range ids {
		source, before := s.sources[id], len(entries)
		// Times are near to the newest one.
		entries = binary.AppendVarint(entries, int64(id))
		entries = binary.AppendVarint(entries, s.newest-source.blockTime)
		entries = binary.AppendVarint(entries, int64(source.part))
		for _, at := range []int64{source.watermark, source.heard} {
			entries = binary.AppendVarint(entries, (toMillisecond(s.newest)-at)/int64(time.Millisecond))
		}
		if base64.RawStdEncoding.EncodedLen(maxStateHead+len(entries)) > maxStateText {
			entries = entries[:before]
			break
		}
		count++
	}
	buf := []byte{stateForm}
	for _, value := range []int64{s.offset, s.watermark, s.latestEnd, s.newest, int64(count)} {
		buf = binary.AppendVarint(buf, value)
	}
	return base64.RawStdEncoding.EncodeToString(append(buf, entries...)), len(ids) - count
}

var errFoldState = errors.New("the state of the signals is not one that this engine reads")

// parseFoldState reads the text of a state.
func parseFoldState(text string) (*foldState, error) {
	buf, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || len(buf) == 0 || buf[0] != stateForm && buf[0] != stateInNanoseconds {
		return nil, errFoldState
	}
	unit := int64(time.Millisecond)
	if buf[0] == stateInNanoseconds {
		unit = 1
	}
	buf = buf[1:]
	next := func() (value int64) {
		value, size := binary.Varint(buf)
		if size <= 0 {
			err = errFoldState
			return 0
		}
		buf = buf[size:]
		return value
	}
	s := &foldState{offset: next(), watermark: next(), latestEnd: next(), newest: next(), sources: map[int32]foldSource{}}
	for count := next(); count > 0 && err == nil; count-- {
		id := int32(next())
		source := foldSource{blockTime: s.newest - next(), part: uint32(next())}
		newest := s.newest - s.newest%unit
		source.watermark, source.heard = toMillisecond(newest-next()*unit), toMillisecond(newest-next()*unit)
		s.sources[id] = source
	}
	if err != nil || len(buf) > 0 || s.offset < 0 {
		return nil, errFoldState
	}
	return s, nil
}
