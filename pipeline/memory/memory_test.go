package memory_test

import (
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/pipeline/memory"
)

const mebibyte = 1 << 20

func TestOnlyTheLargestAccountGivesMemoryUp(t *testing.T) {
	budget := memory.New(16*mebibyte, nil)
	rings, small, large := budget.OpenFixed("rings"), budget.Open("parsers"), budget.Open("parsers")
	excess := func(want, wantSmall int64) {
		t.Helper()
		if got := rings.Excess(); got != 0 {
			t.Errorf("rings cannot give up, but are asked for %d bytes", got)
		}
		if got := large.Excess(); got != want {
			t.Errorf("the largest account is asked for %d bytes, want %d", got, want)
		}
		if got := small.Excess(); got != wantSmall {
			t.Errorf("the other account is asked for %d bytes, want %d", got, wantSmall)
		}
	}
	rings.Add(8 * mebibyte)
	small.Add(3 * mebibyte)
	large.Add(5 * mebibyte)
	excess(0, 0) // 16 of 16 MiB

	large.Add(mebibyte)
	excess(2*mebibyte, 0) // one too many, and a sixteenth on top

	large.Add(-4 * mebibyte)
	excess(0, 0)

	// What is missing lies with the fixed account: the largest gives up all that it has, and no more.
	rings.Add(32 * mebibyte)
	excess(0, 3*mebibyte)
	small.Close()
	excess(2*mebibyte, 0)
}

func TestClosedAccountHoldsNothing(t *testing.T) {
	reg := prometheus.NewRegistry()
	budget := memory.New(mebibyte, reg)
	account := budget.Open("sessions")
	account.Add(3*mebibyte + 5)
	account.GaveUp(7)
	account.Close()
	if got := budget.Used(); got != 0 {
		t.Errorf("%d bytes are charged, want 0", got)
	}
	if got := testutil.CollectAndCount(reg, "tidegate_memory_held_bytes"); got != 1 {
		t.Errorf("%d series, want 1", got)
	}
}

func TestAccountsOfManyGoroutinesAddUp(t *testing.T) {
	budget := memory.New(mebibyte, nil)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			account := budget.Open("parsers")
			for range 10_000 {
				account.Add(1000)
				account.Add(-900)
				account.Excess()
			}
			account.Close()
		})
	}
	workers.Wait()
	if got := budget.Used(); got != 0 {
		t.Errorf("%d bytes are charged, want 0", got)
	}
}

func TestNoBudgetBoundsNothing(t *testing.T) {
	var budget *memory.Budget
	account := budget.Open("sessions")
	account.Add(1 << 40)
	account.GaveUp(1)
	if got := account.Excess(); got != 0 {
		t.Errorf("asked for %d bytes without a budget", got)
	}
	account.Close()
}

func BenchmarkAdd(b *testing.B) {
	account := memory.New(1<<30, nil).Open("parsers")
	for b.Loop() {
		account.Add(100)
		account.Add(-100)
		if account.Excess() > 0 {
			b.Fatal()
		}
	}
}
