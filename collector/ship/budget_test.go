package ship

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/pipeline/kafka"
)

// TestWaitForABudgetEnds when bytes are refunded, or the waiter, its file or the shipper is gone.
func TestWaitForABudgetEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := newByteBudget(100)
		if budget.limit() != 100 || budget.isFull() {
			t.Error("a new budget is full")
		}
		budget.charge(60)
		if err := budget.waitBelow(t.Context(), nil, nil, 61); err != nil {
			t.Errorf("60 of 61 bytes are used: %v", err)
		}
		wait := func(ctx context.Context, stop, gone chan struct{}, limit int64) (result chan error) {
			result = make(chan error, 1)
			go func() { result <- budget.waitBelow(ctx, stop, gone, limit) }()
			synctest.Wait()
			if len(result) > 0 {
				t.Fatalf("no wait for less than %d bytes: %v", limit, <-result)
			}
			return result
		}
		stop, gone := make(chan struct{}), make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		budget.charge(40)
		if !budget.isFull() {
			t.Error("100 of 100 bytes are used, and the budget is not full")
		}
		half, all := wait(t.Context(), nil, nil, 50), wait(t.Context(), nil, nil, 100)
		cancelled, stopped, left := wait(ctx, nil, nil, 1), wait(t.Context(), stop, nil, 1), wait(t.Context(), nil, gone, 1)

		budget.refund(1)
		if err := <-all; err != nil || budget.isFull() {
			t.Errorf("99 of 100 bytes are used: %v", err)
		}
		synctest.Wait()
		if len(half) > 0 {
			t.Error("99 bytes are less than 50")
		}
		budget.refund(50)
		if err := <-half; err != nil {
			t.Error(err)
		}
		cancel()
		close(stop)
		close(gone)
		if err := <-cancelled; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		if err := <-stopped; !errors.Is(err, ErrClosed) {
			t.Errorf("stopped: %v", err)
		}
		if err := <-left; !errors.Is(err, errSourceGone) {
			t.Errorf("gone: %v", err)
		}
		if budget.waiters.Load() != 0 || budget.used.Load() != 49 {
			t.Errorf("%d waiters, %d bytes", budget.waiters.Load(), budget.used.Load())
		}
		budget.refund(49) // nobody waits

		budget.charge(100)
		moved := wait(t.Context(), nil, nil, 100)
		budget.abandon()
		if err := <-moved; !errors.Is(err, errAbandoned) {
			t.Errorf("abandoned: %v", err)
		}
	})
}

// TestOutageOfKafkaIsReported until a request succeeds; an error that ends the process is none.
func TestOutageOfKafkaIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Shipper{health: newBrokerHealth(), log: slog.New(slog.DiscardHandler)}
		if s.Unavailable() != nil {
			t.Error("unavailable before a request")
		}
		s.recordProduceResult(nil)
		s.recordProduceResult(context.Canceled)
		if s.Unavailable() != nil {
			t.Error("unavailable without a failure")
		}
		begin := time.Now()
		first, second := errors.New("refused"), errors.New("refused again")
		s.recordProduceResult(first)
		time.Sleep(time.Millisecond)
		s.recordProduceResult(second)
		if !errors.Is(s.Unavailable(), second) || !s.health.unavailableSince.Equal(begin) {
			t.Errorf("unavailable: %v, since %v, want %v", s.Unavailable(), s.health.unavailableSince, begin)
		}
		if got := s.counters.produceErrors[kafka.Classify(first)].Load(); got != 2 {
			t.Errorf("%d failures", got)
		}
		s.recordProduceResult(nil)
		if s.Unavailable() != nil {
			t.Errorf("unavailable after a success: %v", s.Unavailable())
		}
	})
}

// TestReasonsAreLossesOrDrops: what Kafka or the disk made of an event is a loss, what a limit did is a drop.
func TestReasonsAreLossesOrDrops(t *testing.T) {
	for reason, name := range reasonNames {
		want := name == "rejected" || name == "spool_damaged"
		if isLoss(reason) != want {
			t.Errorf("%s is a loss: %t", name, !want)
		}
	}
}
