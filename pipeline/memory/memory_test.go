package memory_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

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

	rings.Add(4 * mebibyte)
	excess(0, 2*mebibyte)

	// What is missing lies with the fixed account: the others give up all that they have, and no more.
	rings.Add(32 * mebibyte)
	excess(2*mebibyte, 3*mebibyte)
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

// TestTheNextLargestStandsInForAnOwnerThatDoesNotAsk: a part whose owner is idle or waits for something else does not
// keep the others from giving memory up.
func TestTheNextLargestStandsInForAnOwnerThatDoesNotAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := memory.New(16*mebibyte, nil)
		idle, busy := budget.Open("sessions"), budget.Open("parsers")
		idle.Add(15 * mebibyte)
		busy.Add(mebibyte)
		idle.Add(mebibyte / 2)
		check := func(want int64) {
			t.Helper()
			if got := busy.Excess(); got != want {
				t.Errorf("the second largest account is asked for %d bytes, want %d", got, want)
			}
		}
		check(0)
		time.Sleep(time.Second)
		check(0)
		time.Sleep(time.Second)
		check(mebibyte)
		if got := idle.Excess(); got != mebibyte*3/2 {
			t.Errorf("the largest account is asked for %d bytes", got)
		}
		check(0)

		// What was asked for long ago does not count when the budget was kept meanwhile.
		idle.Add(-mebibyte)
		idle.Excess()
		time.Sleep(time.Minute)
		busy.Add(mebibyte)
		check(0)
	})
}

// TestNobodyWaitsFarAboveTheBudget: the largest account may be slow, but what comes meanwhile stays within a sixteenth,
// at the cost of those that hold much themselves.
func TestNobodyWaitsFarAboveTheBudget(t *testing.T) {
	budget := memory.New(16*mebibyte, nil)
	slow, fast, small := budget.Open("conntrack"), budget.Open("sessions"), budget.Open("parsers")
	slow.Add(12 * mebibyte)
	fast.Add(4 * mebibyte)
	small.Add(mebibyte)
	if got := fast.Excess(); got != 0 {
		t.Errorf("the second largest account is asked for %d bytes at once", got)
	}
	fast.Add(mebibyte)
	if got := fast.Excess(); got != 3*mebibyte {
		t.Errorf("the second largest account is asked for %d bytes far above the budget", got)
	}
	if got := small.Excess(); got != 0 {
		t.Errorf("an account that holds little is asked for %d bytes", got)
	}
}

// TestTheLargestHoldersGiveUp: of many owners the larger ones give up until the limit and the budget are kept; the small
// ones are never asked.
func TestTheLargestHoldersGiveUp(t *testing.T) {
	type owner struct {
		held  memory.Holding[*owner]
		given bool
	}
	for name, holders := range map[string]*memory.Holders[*owner]{
		"limit":  {Limit: mebibyte, Least: 100},
		"budget": {Account: memory.New(mebibyte, nil).Open("parsers"), Least: 100},
	} {
		list := make([]*owner, 1000)
		for i := range list {
			list[i] = &owner{}
			switch size := 10_000; {
			case i%10 == 0:
				holders.Charge(&list[i].held, list[i], size)
			case i%2 == 0:
				holders.Charge(&list[i].held, list[i], 1000)
			default:
				holders.Charge(&list[i].held, list[i], 100)
			}
		}
		if !holders.IsExceeded() || holders.Len() != 500 {
			t.Errorf("%s: exceeded %v, %d large holdings", name, holders.IsExceeded(), holders.Len())
		}
		holders.Enforce(1000, func(o *owner) {
			o.given = true
			holders.Charge(&o.held, o, 50)
		})
		sum, given, large := 0, 0, 0
		for _, o := range list {
			sum += o.held.Bytes()
			if o.given && o.held.Bytes() != 50 || !o.given && o.held.Bytes() < 100 {
				t.Fatalf("%s: %+v", name, o)
			}
			if o.given {
				given++
			}
		}
		for i := 0; i < len(list); i += 10 {
			if list[i].given {
				large++
			}
		}
		if holders.IsExceeded() || holders.Used() != sum || large < given*3/4 || sum < mebibyte/4*3 {
			t.Errorf("%s: %d bytes are held, %d by count; %d of %d that gave up were large", name, holders.Used(), sum, large, given)
		}
		for _, o := range list {
			holders.Charge(&o.held, o, 0)
		}
		if holders.Used() != 0 || holders.Len() != 0 {
			t.Errorf("%s: %d bytes of %d owners are left", name, holders.Used(), holders.Len())
		}
	}
}
