package engine

import (
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
	blockTime int64 // of the last block with signals
	part      uint32
	watermark int64 // told last
	heard     int64 // time of the last record
}

// stalledAfter is the time after which nobody waits any more for a partition of the events topic that tells nothing, because
// no engine reads it.
const stalledAfter = time.Minute

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
	s.newest = max(s.newest, recordTime)
	source.heard = max(source.heard, recordTime)
	// By the clock of the broker, since that of an engine may be ahead.
	source.watermark = max(source.watermark, min(block.Watermark, recordTime-int64(lateness)))
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

// String returns the text that parseFoldState reads; equal states have equal texts. A state with so many sources that it would be too long has none of them:
// they are known again once they have told something.
func (s *foldState) String() string {
	text := s.encode(s.sources)
	if len(text) > maxStateText {
		text = s.encode(nil)
	}
	return text
}

func (s *foldState) encode(sources map[int32]foldSource) string {
	buf := []byte{1}
	for _, value := range []int64{s.offset, s.watermark, s.latestEnd, s.newest, int64(len(sources))} {
		buf = binary.AppendVarint(buf, value)
	}
	for _, id := range slices.Sorted(maps.Keys(sources)) {
		source := sources[id]
		// Times are near to the newest one.
		for _, value := range []int64{
			int64(id), s.newest - source.blockTime, int64(source.part), s.newest - source.watermark, s.newest - source.heard,
		} {
			buf = binary.AppendVarint(buf, value)
		}
	}
	return base64.RawStdEncoding.EncodeToString(buf)
}

var errFoldState = errors.New("the state of the signals is not one that this engine reads")

// parseFoldState reads the text of a state.
func parseFoldState(text string) (*foldState, error) {
	buf, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || len(buf) == 0 || buf[0] != 1 {
		return nil, errFoldState
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
		source.watermark, source.heard = s.newest-next(), s.newest-next()
		s.sources[id] = source
	}
	if err != nil || len(buf) > 0 || s.offset < 0 {
		return nil, errFoldState
	}
	return s, nil
}
