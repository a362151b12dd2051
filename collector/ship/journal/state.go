package journal

import (
	"cmp"
	"maps"
	"slices"

	"tidegate/collector"
	"tidegate/collector/ship/frame"
)

// A state is the result of applying the records of a journal. Every record goes through applyRecord, or
// through the same methods, both when a journal is read and when it is written. A snapshot of the state is
// therefore equivalent to the records that it replaces.
type state struct {
	files      map[FileID]*fileState
	names      map[string]FileID // the newest file of each name
	batches    map[BatchID][]Range
	partitions int
	nextFile   FileID // higher than every number in use
}

// A fileState is the state of one file.
type fileState struct {
	name          string
	recorded      bool // the file on disk has its name
	replaced      bool // a newer file has its name
	hasCheckpoint bool // checkpoint is meaningful: something of the file was in a batch
	checkpoint    collector.Checkpoint
	done          []Range // ranges behind the checkpoint that are safe; in order, with gaps between them
}

func newState() *state {
	return &state{
		files: map[FileID]*fileState{}, names: map[string]FileID{}, batches: map[BatchID][]Range{}, nextFile: 1,
	}
}

// applyRecord applies r to s. It ignores records that refer to a file or batch that is not in s, because
// other records were damaged.
func (s *state) applyRecord(r *record) {
	// The number of a file whose own record was damaged must not be given to another file: a range of the old
	// one would move the checkpoint of the new one.
	for i := range r.ranges {
		s.reserveNumber(r.ranges[i].File)
	}
	switch r.kind {
	case recordFile:
		s.addFile(r.file, r.name)
	case recordDrop:
		s.dropFile(r.file)
	case recordCheckpoint:
		if file := s.files[r.ranges[0].File]; file != nil && r.ranges[0].End.End >= file.checkpoint.End {
			file.checkpoint, file.hasCheckpoint = r.ranges[0].End, true
			file.advanceCheckpoint()
		}
	case recordDone:
		s.finishRange(r.ranges[0])
	case recordBatch:
		if s.batches[r.batch] == nil { // a write that seemed to fail was repeated: the first record counts
			s.addBatch(r.batch, slices.Clone(r.ranges))
		}
	case recordAck:
		for _, done := range s.batches[r.batch] {
			s.finishRange(done)
		}
		delete(s.batches, r.batch)
	case recordShrink:
		s.shrinkRange(r.batch, r.ranges[0])
	case recordPartitions:
		s.partitions = r.partitions
	}
}

// addFile adds a file. An older file with the same name is marked as replaced.
func (s *state) addFile(id FileID, name string) {
	if id == 0 || id == maxFileID || s.files[id] != nil {
		return
	}
	s.files[id] = &fileState{name: name, recorded: true}
	s.reserveNumber(id)
	s.claimName(id, name)
}

// reserveNumber keeps the number of a file from being given to another one.
func (s *state) reserveNumber(id FileID) {
	if id < maxFileID {
		s.nextFile = max(s.nextFile, id+1)
	}
}

// maxFileID is the largest number of a file; no file has it, so that nextFile does not overflow.
const maxFileID = 1<<32 - 1

// claimName makes id the file of name. If two files have one name, the newer, which has the higher number,
// gets the name, and the other is marked as replaced. The older one may be recorded later than the newer one.
func (s *state) claimName(id FileID, name string) {
	other, taken := s.names[name]
	switch {
	case !taken || other == id:
		s.names[name] = id
	case other < id:
		s.files[other].replaced = true
		s.names[name] = id
	default:
		s.files[id].replaced = true
	}
}

// dropFile removes a file. Its ranges in batches stay: they are ignored when the batch is acknowledged.
func (s *state) dropFile(id FileID) {
	file := s.files[id]
	if file == nil {
		return
	}
	delete(s.files, id)
	if s.names[file.name] == id {
		delete(s.names, file.name)
	}
}

// addBatch adds a batch that is not acknowledged. It keeps ranges.
func (s *state) addBatch(id BatchID, ranges []Range) {
	s.batches[id] = ranges
	for i := range ranges {
		if file := s.files[ranges[i].File]; file != nil {
			file.hasCheckpoint = true
		}
	}
}

// finishRange records that the lines of r are safe.
func (s *state) finishRange(r Range) {
	file := s.files[r.File]
	if file == nil {
		return // the record with its name was damaged
	}
	file.hasCheckpoint = true
	byAfter := func(done Range, after int64) int { return cmp.Compare(done.After, after) }
	position, _ := slices.BinarySearchFunc(file.done, r.After, byAfter)
	file.done = slices.Insert(file.done, position, r)
	file.advanceCheckpoint()
}

// advanceCheckpoint moves the checkpoint over the finished ranges that begin at or before it, and joins
// finished ranges that touch one another. The gaps between the remaining ones are unfinished.
func (f *fileState) advanceCheckpoint() {
	// Invariant: the ranges in kept are in order, begin behind the checkpoint, and do not touch.
	kept := f.done[:0]
	for _, lines := range f.done {
		last := len(kept) - 1
		switch {
		case len(kept) == 0 && lines.After <= f.checkpoint.End:
			if lines.End.End > f.checkpoint.End {
				f.checkpoint = lines.End
			}
		case len(kept) > 0 && lines.After <= kept[last].End.End:
			if lines.End.End > kept[last].End.End {
				kept[last].End = lines.End
			}
			kept[last].Events += lines.Events
		default:
			kept = append(kept, lines)
		}
	}
	f.done = kept
}

// shrinkRange replaces the range of batch that begins at r.After by r, or removes it if r has no events.
func (s *state) shrinkRange(batch BatchID, r Range) {
	ranges := s.batches[batch]
	sameStart := func(old Range) bool { return old.File == r.File && old.After == r.After }
	position := slices.IndexFunc(ranges, sameStart)
	switch {
	case position < 0:
	case r.Events == 0:
		s.batches[batch] = slices.Delete(ranges, position, position+1)
	default:
		ranges[position] = r
	}
}

// appendSnapshot appends a whole journal to data: the records whose result is s.
func (s *state) appendSnapshot(data []byte) []byte {
	data = frame.AppendFileHeader(data, magic, version)
	if s.partitions > 0 {
		data = appendRecord(data, &record{kind: recordPartitions, partitions: s.partitions})
	}

	// Files in the order of their numbers, so that the newest file of a name is applied last.
	for _, id := range slices.Sorted(maps.Keys(s.files)) {
		file := s.files[id]
		if !file.recorded {
			continue
		}
		data = appendRecord(data, &record{kind: recordFile, file: id, name: file.name})
		if file.hasCheckpoint {
			data = appendRecord(data, &record{kind: recordCheckpoint, ranges: []Range{{File: id, End: file.checkpoint}}})
		}
		for _, lines := range file.done {
			data = appendRecord(data, &record{kind: recordDone, ranges: []Range{lines}})
		}
	}
	for id, ranges := range s.batches {
		data = appendRecord(data, &record{kind: recordBatch, batch: id, ranges: ranges})
	}
	return data
}

// exportState returns s in the form that callers use. Ranges of unknown files are left out.
func (s *state) exportState() State {
	out := State{Partitions: s.partitions}
	for _, id := range slices.Sorted(maps.Keys(s.files)) {
		file := s.files[id]
		out.Files = append(out.Files, File{
			ID: id, Name: file.name, Replaced: file.replaced,
			Checkpoint: file.checkpoint, HasCheckpoint: file.hasCheckpoint, Done: slices.Clone(file.done),
		})
	}
	for id, ranges := range s.batches {
		known := slices.DeleteFunc(slices.Clone(ranges), func(r Range) bool { return s.files[r.File] == nil })
		out.Batches = append(out.Batches, Batch{ID: id, Ranges: known})
	}
	slices.SortFunc(out.Batches, func(a, b Batch) int { return cmp.Compare(a.ID.Sequence, b.ID.Sequence) })
	return out
}
