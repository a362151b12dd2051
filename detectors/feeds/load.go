package feeds

import (
	"context"
	"fmt"
)

// Load reads all feeds, until ctx ends. It returns an error if a file cannot be read. It skips invalid lines and returns them
// as the second result.
func Load(ctx context.Context, cfgs []Config) (*Set, SkippedLines, error) {
	if len(cfgs) > maxFeeds {
		return nil, SkippedLines{}, fmt.Errorf("%d feeds, at most %d are possible", len(cfgs), maxFeeds)
	}
	lists, free := make([]*list, 0, len(cfgs)), wholeRoom
	var skipped SkippedLines
	for _, cfg := range cfgs {
		loaded, err := readList(ctx, cfg, free)
		if err != nil {
			return nil, skipped, err
		}
		lists = append(lists, loaded)
		free = free.without(loaded)
		skipped.add(loaded.skipped)
	}
	return newSet(lists), skipped, nil
}

func (s *SkippedLines) add(more SkippedLines) {
	s.Count += more.Count
	s.Errors = append(s.Errors, more.Errors[:min(len(more.Errors), maxErrors-len(s.Errors))]...)
}
