// Package retry holds the two ways in which the program waits: a pause that ends with its context, and the
// growing pause between two attempts of something that failed.
//
// The clients of Kafka, ClickHouse, Docker, the kernel and the destinations of alerts retry with a Backoff. A
// Backoff belongs to one goroutine; it starts no timer and no goroutine of its own.
package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff computes the pauses between the attempts of one operation. The first pause is Min, each further
// pause is twice the one before, up to Max. Each pause is shortened at random by up to half, so that many
// clients of a server that comes back do not return at the same moment.
//
// The fields are set once, before the first call. The zero value pauses from 50 ms to 5 s.
type Backoff struct {
	Min time.Duration // first pause; 0: 50 ms
	Max time.Duration // longest pause; 0: 5 s

	attempts int // pauses since the last Reset
}

// Next returns the pause before the next attempt.
func (b *Backoff) Next() time.Duration {
	shortest, longest := b.Min, b.Max
	if shortest <= 0 {
		shortest = 50 * time.Millisecond
	}
	if longest <= 0 {
		longest = 5 * time.Second
	}

	// Doubling stops before it can overflow: 2^40 × 1 ns is 18 minutes, and a larger Min reaches any Max
	// earlier.
	pause := shortest
	for range min(b.attempts, 40) {
		if pause >= longest/2 {
			pause = longest
			break
		}
		pause *= 2
	}
	b.attempts++
	pause = min(pause, longest)
	return pause/2 + rand.N(pause/2+1)
}

// Reset makes the next pause the first one again. It is called after an attempt that succeeded.
func (b *Backoff) Reset() { b.attempts = 0 }

// Attempts returns how many pauses were taken since the last Reset.
func (b *Backoff) Attempts() int { return b.attempts }

// Wait sleeps for the pause before the next attempt. It returns the cause of ctx when ctx ends first.
func (b *Backoff) Wait(ctx context.Context) error { return Sleep(ctx, b.Next()) }

// Sleep returns nil after pause, or the cause of ctx when ctx ends first.
func Sleep(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
