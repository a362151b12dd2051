package engine

import (
	"fmt"
	"strconv"
	"strings"

	"tidegate/pipeline"
)

// An intent is what stands in the metadata of the committed offset S while the block [S,E) is under way.
type intent struct {
	end    int64  // E
	time   int64  // event.ingested of the block, ns
	shard  string // where it is inserted
	bundle string // the version of what judges it
}

// String is the form in which it is committed: "v1 E time shard bundle".
func (i intent) String() string {
	return fmt.Sprintf("v1 %d %d %s %s", i.end, i.time, i.shard, i.bundle)
}

// parseIntent reads it again. Metadata that is not ours, or of a version that we do not speak, is an error: going on would forget
// a block that may be half done.
func parseIntent(start int64, metadata string) (i intent, open bool, err error) {
	if metadata == "" {
		return intent{}, false, nil
	}
	f := strings.Split(metadata, " ")
	if len(f) != 5 || f[0] != "v1" {
		return intent{}, false, fmt.Errorf("intent %q is not of a version that is known here", metadata)
	}
	end, err1 := strconv.ParseInt(f[1], 10, 64)
	at, err2 := strconv.ParseInt(f[2], 10, 64)
	if err1 != nil || err2 != nil || end <= start || at <= 0 || !isVersionWord(f[3]) || !isVersionWord(f[4]) {
		return intent{}, false, fmt.Errorf("intent %q at offset %d makes no sense", metadata, start)
	}
	return intent{end: end, time: at, shard: f[3], bundle: f[4]}, true, nil
}

func isVersionWord(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// bundleVersion is a bundle's version in the form in which it can stand in an intent.
func bundleVersion(b *pipeline.Bundle) string {
	v := strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, b.Version)
	if v == "" {
		return "none"
	}
	return v[:min(len(v), 64)]
}
