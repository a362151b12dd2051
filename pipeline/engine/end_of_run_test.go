package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"tidegate/pipeline/consumer"
)

// TestRunOfAReplacedLogBeginsAnew, one that was cancelled has no error, and one that is fenced has.
func TestRunOfAReplacedLogBeginsAnew(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	failure := errors.New("failed")
	for _, c := range []struct {
		ctx      context.Context
		err      error
		want     error
		replaced bool
	}{
		{t.Context(), nil, nil, false},
		{t.Context(), failure, failure, false},
		{cancelled, failure, nil, false},
		{cancelled, fmt.Errorf("commit: %w", consumer.ErrFenced), consumer.ErrFenced, false},
		{t.Context(), fmt.Errorf("fetch: %w", consumer.ErrLogReplaced), errRestart, true},
		{cancelled, fmt.Errorf("fetch: %w", consumer.ErrLogReplaced), errRestart, true},
	} {
		w := &worker{}
		if got := w.endOfRun(c.ctx, c.err); !errors.Is(got, c.want) || (got == nil) != (c.want == nil) || w.logReplaced != c.replaced {
			t.Errorf("%v, cancelled %t: %v, replaced %t; want %v, %t", c.err, c.ctx.Err() != nil, got, w.logReplaced, c.want, c.replaced)
		}
	}
}
