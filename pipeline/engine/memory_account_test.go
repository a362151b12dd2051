package engine

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
)

func testBudget(limit int64) (*memoryBudget, *prometheus.Registry) {
	reg := prometheus.NewPedanticRegistry()
	budget := newMemoryBudget(16, reg)
	budget.limit = limit
	return budget, reg
}

// TestBudgetOfBlocksIsAShare of the memory of the engine.
func TestBudgetOfBlocksIsAShare(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	if budget := newMemoryBudget(1600, reg); budget.limit != 700 {
		t.Errorf("a limit of %d bytes, want 7/16", budget.limit)
	}
	if got := gatherValues(t, reg)["tidegate_engine_memory_limit_bytes"]; got != 700 {
		t.Errorf("a limit of %v bytes is exported", got)
	}
}

// TestMemoryIsTakenUpToTheLimit, beyond it by whoever alone holds some, and by one replay at a time.
func TestMemoryIsTakenUpToTheLimit(t *testing.T) {
	budget, reg := testBudget(100)
	check := func(what string, got, want bool) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %t, want %t", what, got, want)
		}
	}
	used := func(want float64) {
		t.Helper()
		if got := gatherValues(t, reg)["tidegate_engine_memory_used_bytes"]; got != want {
			t.Errorf("%v bytes are used, want %v", got, want)
		}
	}
	first, second, third := budget.open(), budget.open(), budget.open()
	check("all of it", first.TryTake(100), true)
	check("a byte more", second.TryTake(1), false)
	first.Release(1)
	check("the byte that is free", second.TryTake(1), true)
	used(100)

	// A replay goes beyond, one at a time.
	second.setReplay(true)
	third.setReplay(true)
	check("a replay", second.TryTake(50), true)
	check("the same replay", second.TryTake(50), true)
	check("another replay", third.TryTake(1), false)
	used(200)
	second.Release(20)
	check("another replay, while the first one holds less", third.TryTake(1), false)
	second.setReplay(false)
	check("behind the first replay", third.TryTake(1), true)
	check("what is no replay any more", second.TryTake(1), false)
	third.setReplay(false)

	// What is closed holds nothing, and takes nothing.
	third.close()
	first.close()
	used(81)
	second.Release(1000)
	used(0)
	check("closed", first.TryTake(1), false)
	if err := first.Take(t.Context(), 1); !errors.Is(err, errAccountClosed) {
		t.Errorf("closed: %v", err)
	}
	check("more than the limit, alone", second.TryTake(1000), true)
	check("more again", second.TryTake(1), false)
	second.close()
	used(0)

	// A replay that takes all of it exceeds nothing yet: another one may.
	sixth, seventh := budget.open(), budget.open()
	sixth.setReplay(true)
	seventh.setReplay(true)
	check("a replay up to the limit", sixth.TryTake(100), true)
	check("another replay beyond it", seventh.TryTake(1), true)
	check("the first replay", sixth.TryTake(1), false)
	sixth.close()
	seventh.close()
	used(0)

	// A replay that is closed lets another one exceed the limit.
	fourth, fifth := budget.open(), budget.open()
	fourth.setReplay(true)
	fifth.setReplay(true)
	check("a replay", fourth.TryTake(200), true)
	check("another replay", fifth.TryTake(1), false)
	holder := budget.open()
	budget.used += 100 // of holder
	holder.held += 100
	fourth.close()
	check("another replay behind the first one", fifth.TryTake(1), true)
	used(101)
}

// TestMemoryIsWaitedForInOrder, and a replay is served first. A wait ends with its context, and with its account.
func TestMemoryIsWaitedForInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget, reg := testBudget(100)
		holder := budget.open()
		if !holder.TryTake(100) {
			t.Fatal("nothing is free")
		}
		var order []string
		wait := func(name string, account *memoryAccount, ctx context.Context, bytes int64) chan error {
			result := make(chan error, 1)
			go func() {
				err := account.Take(ctx, bytes)
				order = append(order, name)
				result <- err
			}()
			synctest.Wait()
			return result
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		left := errors.New("left")
		large, small, cancelled, closed, replay := budget.open(), budget.open(), budget.open(), budget.open(), budget.open()
		resultLarge := wait("large", large, t.Context(), 60)
		resultSmall := wait("small", small, t.Context(), 10)
		resultCancelled := wait("cancelled", cancelled, ctx, 1)
		resultClosed := wait("closed", closed, t.Context(), 1)
		if got := gatherValues(t, reg)["tidegate_engine_memory_waiting"]; got != 4 {
			t.Errorf("%v wait, want 4", got)
		}
		if !large.isShort(100/(4*6)) || large.isShort(100/(4*6)-1) || holder.isShort(100) {
			t.Error("a fetcher that waits is short from a quarter of its share on")
		}
		select {
		case <-large.short:
		default:
			t.Error("the worker is not told that its fetcher waits")
		}
		cancel(left)
		if err := <-resultCancelled; !errors.Is(err, left) {
			t.Errorf("cancelled: %v", err)
		}
		closed.close()
		if err := <-resultClosed; !errors.Is(err, errAccountClosed) {
			t.Errorf("closed: %v", err)
		}
		holder.Release(50) // enough for small, which is not first
		synctest.Wait()
		if len(resultSmall)+len(resultLarge) != 0 || small.TryTake(1) {
			t.Error("a later one is served first")
		}
		replay.setReplay(true)
		if err := <-wait("replay", replay, t.Context(), 80); err != nil {
			t.Errorf("a replay: %v", err)
		}
		replay.setReplay(false)
		replay.Release(80)
		synctest.Wait()
		if len(resultLarge) != 0 {
			t.Error("60 bytes are taken, 50 are free")
		}
		holder.Release(10)
		if err := <-resultLarge; err != nil {
			t.Errorf("large: %v", err)
		}
		if large.isShort(1000) {
			t.Error("short without a wait")
		}
		large.Release(60)
		if err := <-resultSmall; err != nil {
			t.Errorf("small: %v", err)
		}
		if want := []string{"cancelled", "closed", "replay", "large", "small"}; len(order) != len(want) || order[3] != "large" {
			t.Errorf("served in the order %q, want %q", order, want)
		}
		if budget.used != 50 || small.held != 10 || large.held != 0 || budget.accounts != 5 {
			t.Errorf("%d bytes are used, %d and %d held, %d accounts", budget.used, small.held, large.held, budget.accounts)
		}
	})
}

// TestPartitionsShareTheMemoryOfResponses, which are between 64 KiB and 1 MiB.
func TestPartitionsShareTheMemoryOfResponses(t *testing.T) {
	for partitions, want := range map[int]int{0: 1 << 20, 1: 1 << 20, 16: 1 << 20, 32: 512 << 10, 64: 256 << 10, 256: 64 << 10, 1000: 64 << 10} {
		if got := fetchBytes(256<<20, partitions); got != want {
			t.Errorf("%d partitions: %d bytes, want %d", partitions, got, want)
		}
	}
}
