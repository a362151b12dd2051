package engine

import (
	"fmt"
	"strconv"
	"strings"

	"tidegate/pipeline"
)

// An intent is the write-ahead note of a block, committed before any of its rows are stored. After a crash,
// the next owner of the partition replays exactly this block. The intent is the metadata of the committed
// offset of the block's first message. It is committed under the generation of the consumer group, so an
// owner that was fenced cannot commit one.
type intent struct {
	end    int64  // of the block
	time   int64  // of the block: event.ingested, ns since 1970
	shard  string // of the store into which the block is inserted
	bundle string // version of the bundle that evaluates the block

	// signalPartitions is the number of partitions of the signals topic over which the signals of the block are distributed;
	// 0: it has none, or is a block of signals. A replay distributes them in the same way, though the topic has grown: a fold
	// drops what it has read of the block before.
	signalPartitions int
}

// String returns the form in which the intent is committed: "v1 end time shard bundle", and the partitions of the signals if
// there are some.
func (i intent) String() string {
	text := fmt.Sprintf("v1 %d %d %s %s", i.end, i.time, i.shard, i.bundle)
	if i.signalPartitions > 0 {
		text += " " + strconv.Itoa(i.signalPartitions)
	}
	return text
}

// parseIntent returns the intent in the metadata of the committed offset start. open is false if the metadata
// is empty. Metadata of another form or version is an error, because ignoring it would skip a block of which
// only some rows may be stored.
func parseIntent(start int64, metadata string) (i intent, open bool, err error) {
	if metadata == "" {
		return intent{}, false, nil
	}
	fields := strings.Split(metadata, " ")
	if len(fields) < 5 || len(fields) > 6 || fields[0] != "v1" {
		return intent{}, false, fmt.Errorf("intent %q is not in the form v1 that this engine reads", metadata)
	}
	end, endErr := strconv.ParseInt(fields[1], 10, 64)
	blockTime, timeErr := strconv.ParseInt(fields[2], 10, 64)
	shard, bundle := fields[3], fields[4]
	partitions, partitionsErr := 0, error(nil)
	if len(fields) == 6 {
		partitions, partitionsErr = strconv.Atoi(fields[5])
	}
	valid := partitionsErr == nil && partitions >= 0 && endErr == nil && timeErr == nil && end > start && blockTime > 0 &&
		isIntentWord(shard) && isIntentWord(bundle)
	if !valid {
		return intent{}, false, fmt.Errorf("intent %q at offset %d is invalid", metadata, start)
	}
	return intent{end: end, time: blockTime, shard: shard, bundle: bundle, signalPartitions: partitions}, true, nil
}

// isIntentWord reports whether s can be a field of an intent: 1 to 64 printable ASCII characters without a
// space.
func isIntentWord(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// bundleVersion returns the version of a bundle in a form that fits into an intent.
func bundleVersion(bundle *pipeline.Bundle) string {
	version := strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, bundle.Version)
	if version == "" {
		return "none"
	}
	return version[:min(len(version), 64)]
}
