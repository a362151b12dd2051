package clickhouse_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/embedded/embeddedtest"
)

// TestSeenValuesComeBack: of each group and value of the rule and partition the newest row, groups first, and of more than the limit those
// that were there last.
func TestSeenValuesComeBack(t *testing.T) {
	for _, protocol := range protocols {
		store := embeddedtest.Store(t, "seen_"+protocol, protocol)
		at := time.Date(2026, 11, 1, 0, 0, 0, 1, time.UTC).UnixNano()
		row := func(rule, version string, group uint64, value, first, last int64) pipeline.SeenValue {
			return pipeline.SeenValue{Rule: rule, Version: version, Group: group, Value: value, First: first, Last: last}
		}
		const highest = 1<<64 - 1 // odd
		rows := []pipeline.SeenValue{
			row("r", "1", highest, 0, at, at), row("r", "1", highest, 0, at, at+5), row("r", "1", highest, 0, at+3, at+7), // begun anew
			row("r", "1", highest, -8, 0, at+1), row("r", "1", highest, -8, 0, at+9), row("r", "1", highest, 0, 0, at+2), // the value 0
			row("r", "1", 3, 4, 0, at+6),
			{Rule: "r", Version: "1", Group: 3, Value: 4, ValueHigh: 1<<63 + 9, Last: at + 4},
			row("r", "1", 2, 0, at, at), row("r", "1", 2, 4, 0, at), // another partition
			row("r", "2", 3, 4, 0, at), row("q", "1", 3, 4, 0, at),
		}
		for range 2 {
			for part := range slices.Chunk(rows, 3) {
				if err := store.InsertSeenValues(t.Context(), "tidegate.signals", part); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := store.InsertSeenValues(t.Context(), "other.signals", rows[8:10]); err != nil {
			t.Fatal(err)
		}
		read := func(topic, rule, version string, partition int32, limit int) (out []string) {
			filter := pipeline.SeenFilter{
				TopicPartition: pipeline.TopicPartition{Topic: topic, Partition: partition}, Partitions: 2, Rule: rule, Version: version, Limit: limit,
			}
			if err := store.SeenValues(t.Context(), filter, func(seen pipeline.SeenValue) {
				value := fmt.Sprint(seen.Value)
				if seen.ValueHigh > 0 {
					value = fmt.Sprint(seen.ValueHigh, "/", seen.Value)
				}
				out = append(out, fmt.Sprintf("%s %s %d %s first %d last %d", seen.Rule, seen.Version, seen.Group, value, max(-1, seen.First-at), seen.Last-at))
			}); err != nil {
				t.Fatal(err)
			}
			return out
		}
		group, newest := fmt.Sprintf("r 1 %d 0 first 3 last 7", uint64(highest)), fmt.Sprintf("r 1 %d -8 first -1 last 9", uint64(highest))
		for _, c := range []struct{ got, want []string }{
			{
				read("tidegate.signals", "r", "1", 1, 100),
				[]string{group, newest, "r 1 3 4 first -1 last 6", "r 1 3 9223372036854775817/4 first -1 last 4", fmt.Sprintf("r 1 %d 0 first -1 last 2", uint64(highest))},
			},
			{read("tidegate.signals", "r", "1", 1, 1), []string{group, newest}},
			{read("tidegate.signals", "r", "1", 0, 100), []string{"r 1 2 0 first 0 last 0", "r 1 2 4 first -1 last 0"}},
			{read("other.signals", "r", "1", 0, 100), []string{"r 1 2 0 first 0 last 0", "r 1 2 4 first -1 last 0"}},
			{read("tidegate.signals", "r", "2", 1, 100), []string{"r 2 3 4 first -1 last 0"}},
			{read("tidegate.signals", "r", "3", 1, 100), nil},
		} {
			if !slices.Equal(c.got, c.want) {
				t.Errorf("%s: %q, want %q", protocol, c.got, c.want)
			}
		}
	}
}
