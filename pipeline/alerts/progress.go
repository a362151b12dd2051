package alerts

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zeebo/xxh3"

	"tidegate/pipeline/consumer"
)

// A commit is one commit of a deliverer: the offset of the oldest pending message, and the progress beyond
// it.
type commit struct {
	offset   int64
	progress string
}

// The progress is committed as metadata of the offset: "v1", the offset behind the last message that was
// read, the mark of that message, and the offsets of the pending messages below it. A destination that fails
// on one alert holds back the committed offset; the next run then delivers that alert again, and not those
// behind it. Kafka bounds the metadata (4 KiB by default), so more than maxListed pending messages are not
// listed: then all from the committed offset on are delivered again. Metadata of earlier versions has no
// mark.
type progress struct {
	next    int64 // 0: everything from the committed offset on is undelivered
	pending map[int64]bool
	mark    recordMark
}

// A recordMark identifies a message that was read. A topic that was created anew has another message at its
// offset.
type recordMark struct {
	isSet  bool
	offset int64
	sum    uint64 // of value and time
}

// markOf returns the mark of a message.
func markOf(record consumer.Record) recordMark {
	sum := xxh3.HashSeed(record.Value, uint64(record.Time))
	return recordMark{isSet: true, offset: record.Offset, sum: sum}
}

// String returns the word for the progress: "@", the offset, ":" and the sum.
func (m recordMark) String() string { return fmt.Sprintf("@%d:%016x", m.offset, m.sum) }

// parseMark returns the mark in a word. It is not set if the word is none.
func parseMark(word string) (mark recordMark) {
	offset, sum, _ := strings.Cut(strings.TrimPrefix(word, "@"), ":")
	var offsetErr, sumErr error
	mark.offset, offsetErr = strconv.ParseInt(offset, 10, 64)
	mark.sum, sumErr = strconv.ParseUint(sum, 16, 64)
	if !strings.HasPrefix(word, "@") || offsetErr != nil || sumErr != nil || mark.offset < 0 {
		return recordMark{}
	}
	mark.isSet = true
	return mark
}

const (
	progressVersion = "v1"
	maxListed       = 150
)

// formatProgress returns the metadata of a commit of oldest.
func formatProgress(oldest, next int64, pending []int64, mark recordMark) string {
	if len(pending) > maxListed {
		next, pending = 0, nil
	}
	if !mark.isSet && (oldest == next || next == 0) {
		return ""
	}
	slices.Sort(pending)
	var text strings.Builder
	text.WriteString(fmt.Sprintf("%s %d", progressVersion, next))
	if mark.isSet {
		text.WriteString(" " + mark.String())
	}
	for _, offset := range pending {
		text.WriteString(" " + strconv.FormatInt(offset, 10))
	}
	return text.String()
}

// parseProgress returns the progress that metadata holds. Metadata of another form is no progress.
func parseProgress(metadata string) progress {
	words := strings.Split(metadata, " ")
	if len(words) < 2 || len(words) > 3+maxListed || words[0] != progressVersion {
		return progress{}
	}
	next, err := strconv.ParseInt(words[1], 10, 64)
	if err != nil || next < 0 {
		return progress{}
	}
	words = words[2:]
	var mark recordMark
	if len(words) > 0 {
		if mark = parseMark(words[0]); mark.isSet {
			words = words[1:]
		}
	}
	pending := map[int64]bool{}
	for _, number := range words {
		offset, err := strconv.ParseInt(number, 10, 64)
		if err != nil || offset < 0 || offset >= next {
			return progress{}
		}
		pending[offset] = true
	}
	return progress{next: next, pending: pending, mark: mark}
}

// findOffsets sets nextOffset, from which on messages are delivered, and returns the offset to read from.
// Messages between the two are younger than ResolveAfter and restore the open alerts. A destination without a
// committed offset is new: it gets no older alerts.
func (d *deliverer) findOffsets(ctx context.Context) (from int64, err error) {
	offset, metadata, err := d.partition.Committed(ctx)
	if err != nil {
		return 0, err
	}
	d.committed = commit{offset, metadata}
	first, end, err := d.partition.Bounds(ctx)
	if err != nil {
		return 0, err
	}
	recent, err := d.partition.OffsetAt(ctx, time.Now().Add(-d.cfg.ResolveAfter))
	if err != nil {
		return 0, err
	}
	recent = min(max(recent, first), end) // what was written since Bounds is new

	// All messages of a topic that was created anew are new. Alerts of the earlier one may still be pending;
	// the commit does not pass the beginning until they are delivered.
	d.nextOffset, d.resumed = offset, parseProgress(metadata)
	isReplaced, err := d.isOtherLog(ctx, first, end)
	if err != nil {
		return 0, err
	}
	d.mark = d.resumed.mark
	if isReplaced {
		d.mark = recordMark{}
		for _, open := range d.open {
			if open.pending() {
				open.undelivered = first
			}
		}
		d.nextOffset, d.resumed, d.isReplaced = first, progress{}, false
		return first, d.commitDelivered(ctx)
	}

	// Without a committed offset delivery begins with the recent messages.
	if d.nextOffset < 0 {
		d.nextOffset, d.resumed = recent, progress{}
	}
	d.nextOffset = max(d.nextOffset, first)
	return min(recent, d.nextOffset), nil
}

// isOtherLog reports whether the topic was created anew since the offset was committed: the log ends before
// it, or has another message at the offset of the mark. A mark that retention has removed does not show it.
func (d *deliverer) isOtherLog(ctx context.Context, first, end int64) (bool, error) {
	if d.isReplaced { // the fetcher has logged it
		return true, nil
	}
	if mark := d.resumed.mark; d.nextOffset <= end && d.resumed.next <= end {
		if !mark.isSet || mark.offset < first {
			return false, nil
		}
		record, found, err := d.partition.ReadRecord(ctx, mark.offset)
		if err != nil || !found || markOf(record) == mark {
			return false, err
		}
	}
	d.log.Error("alerts topic is not the one that was read before, delivering it from its beginning",
		"partition", d.partition.ID, "committed", d.nextOffset, "first", first, "end", end)
	return true, nil
}

// isUndelivered reports whether no earlier run has delivered the message at offset, and this run has not read
// it.
func (d *deliverer) isUndelivered(offset int64) bool {
	return offset >= d.nextOffset && (offset >= d.resumed.next || d.resumed.pending[offset])
}

// commitDelivered commits the offset of the oldest message that waits for delivery, or nextOffset if none
// does, and the progress beyond it.
func (d *deliverer) commitDelivered(ctx context.Context) error {
	d.committedAt = time.Now()
	oldest, next := d.nextOffset, max(d.nextOffset, d.resumed.next)
	var pending []int64
	for _, open := range d.open {
		if open.pending() {
			oldest = min(oldest, open.undelivered)
			pending = append(pending, open.undelivered)
		}
	}
	for offset := range d.resumed.pending { // those that this run has not read yet
		if offset >= d.nextOffset {
			pending = append(pending, offset)
		}
	}
	now := commit{oldest, formatProgress(oldest, next, pending, d.mark)}
	if now == d.committed {
		return nil
	}
	if err := d.partition.Commit(ctx, now.offset, now.progress); err != nil {
		return err
	}
	d.committed = now
	return nil
}
