package alerts

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A commit is one commit of a deliverer: the offset of the oldest pending message, and the progress beyond it.
type commit struct {
	offset   int64
	progress string
}

// The progress is committed as metadata of the offset: "v1", the offset behind the last message that was read,
// and the offsets of the pending messages below it. A destination that fails on one alert holds back the
// committed offset; the next run then delivers that alert again, and not those behind it. Kafka bounds the
// metadata (4 KiB by default), so more than maxListed pending messages are not listed: then all from the
// committed offset on are delivered again.
type progress struct {
	next    int64 // 0: everything from the committed offset on is undelivered
	pending map[int64]bool
}

const (
	progressVersion = "v1"
	maxListed       = 150
)

// formatProgress returns the metadata of a commit of oldest.
func formatProgress(oldest, next int64, pending []int64) string {
	if oldest == next || len(pending) > maxListed {
		return ""
	}
	slices.Sort(pending)
	var text strings.Builder
	text.WriteString(fmt.Sprintf("%s %d", progressVersion, next))
	for _, offset := range pending {
		text.WriteString(" " + strconv.FormatInt(offset, 10))
	}
	return text.String()
}

// parseProgress returns the progress that metadata holds. Metadata of another form is no progress.
func parseProgress(metadata string) progress {
	words := strings.Split(metadata, " ")
	if len(words) < 2 || len(words) > 2+maxListed || words[0] != progressVersion {
		return progress{}
	}
	next, err := strconv.ParseInt(words[1], 10, 64)
	if err != nil || next < 0 {
		return progress{}
	}
	pending := map[int64]bool{}
	for _, number := range words[2:] {
		offset, err := strconv.ParseInt(number, 10, 64)
		if err != nil || offset < 0 || offset >= next {
			return progress{}
		}
		pending[offset] = true
	}
	return progress{next: next, pending: pending}
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

	// All messages of a topic that was created anew are new. Alerts of the earlier one may still be pending; the commit
	// does not pass the beginning until they are delivered.
	d.nextOffset, d.resumed = offset, parseProgress(metadata)
	if d.isReplaced || d.nextOffset > end || d.resumed.next > end {
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
	now := commit{oldest, formatProgress(oldest, next, pending)}
	if now == d.committed {
		return nil
	}
	if err := d.partition.Commit(ctx, now.offset, now.progress); err != nil {
		return err
	}
	d.committed = now
	return nil
}
