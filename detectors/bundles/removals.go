package bundles

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"tidegate/pipeline/kafka"
)

// A removalDetector finds the bundles that somebody without a key has removed from the topic: by a record under the key of the
// bundle that has no value, or another one, so that compaction removes the bundle. A push removes bundles too, but only
// those with History newer ones on the topic. It is used by one goroutine.
type removalDetector struct {
	current int64   // sequence of the bundle that the engine runs; 0: none
	present []int64 // sequences of the newest signed bundles on the topic, in ascending order, at most History

	// removed has the sequences that were removed since the last call of atEnd; the value is true if the bundle was known.
	removed map[int64]bool
}

// maxRemovals bounds the removed sequences until the end of the log is reached.
const maxRemovals = 10_000

// add adds a record of the topic. bundle is the signed one that it holds; nil: none.
func (d *removalDetector) add(record kafka.Record, bundle *Bundle) {
	if bundle != nil {
		if at, found := slices.BinarySearch(d.present, bundle.Sequence); !found {
			d.present = slices.Insert(d.present, at, bundle.Sequence)
		}
		if len(d.present) > History {
			d.present = d.present[1:]
		}
	}
	sequence, ok := sequenceOf(record.Key)
	if !ok || bundle != nil && bundle.Sequence == sequence {
		return
	}
	at, isKnown := slices.BinarySearch(d.present, sequence)
	if isKnown {
		d.present = slices.Delete(d.present, at, at+1)
	}
	isKnown = isKnown || sequence == d.current
	if (isKnown || len(record.Value) == 0) && len(d.removed) < maxRemovals {
		if d.removed == nil {
			d.removed = map[int64]bool{}
		}
		d.removed[sequence] = d.removed[sequence] || isKnown
	}
}

// atEnd returns the sequences of the bundles that were removed since the last call although fewer than History newer ones
// are on the topic. It is called at the end of the log, since a compacted log lacks some of what a push wrote before it
// removed a bundle. One that the log no longer had counts if all that are left are older.
func (d *removalDetector) atEnd() (sequences []int64) {
	for _, sequence := range slices.Sorted(maps.Keys(d.removed)) {
		at, isPresent := slices.BinarySearch(d.present, sequence)
		newer := len(d.present) - at
		if !isPresent && newer < History && (d.removed[sequence] || newer == 0) {
			sequences = append(sequences, sequence)
		}
	}
	clear(d.removed)
	return sequences
}

// sequenceOf returns the sequence in the key of the record of a bundle.
func sequenceOf(key []byte) (sequence int64, ok bool) {
	digits, ok := strings.CutPrefix(string(key), keyPrefix)
	if !ok {
		return 0, false
	}
	sequence, err := strconv.ParseInt(digits, 10, 64)
	return sequence, err == nil && string(recordKey(sequence)) == string(key)
}
