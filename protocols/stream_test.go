package protocols

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestTailKnowsWhenItsBytesArrived: a model holds the time of each byte. Beyond maxArrivals the times of a tail are shared.
func TestTailKnowsWhenItsBytesArrived(t *testing.T) {
	set, _ := toys(new([]string), nil)
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 5))
		stream := &halfStream{offset: uint64(rng.IntN(1000)), lastAt: -7}
		var model []byte // the tail
		var times []int64
		distinct := 0
		now := int64(0)
		for range 600 {
			switch {
			case rng.IntN(3) > 0:
				data := bytes.Repeat([]byte{byte(now)}, 1+rng.IntN(4))
				now++
				stream.appendTail(set, data, now)
				model = append(model, data...)
				arrival := now
				if distinct = len(slices.Compact(slices.Clone(times))); distinct >= maxArrivals {
					arrival = times[len(times)-1]
				}
				times = append(times, slices.Repeat([]int64{arrival}, len(data))...)
			case len(model) > 0:
				size := rng.IntN(len(model) + 1)
				if rng.IntN(4) > 0 {
					size = min(size, 3)
				}
				stream.advance(size)
				stream.dropFront(set, size)
				model, times = model[size:], times[size:]
			}
			want := stream.lastAt
			if len(times) > 0 {
				want = times[0]
			}
			if stream.firstAt() != want || !bytes.Equal(stream.tail, model) {
				t.Fatalf("seed %d: a tail of %d bytes from %d, want %d from %d", seed, len(stream.tail), stream.firstAt(), len(model), want)
			}
			if len(stream.arrivals) > 2*maxArrivals {
				t.Fatalf("seed %d: %d times are kept", seed, len(stream.arrivals))
			}
		}
	}
}

// TestBytesAreSkippedAsTheyCome, up to the number that is to be skipped.
func TestBytesAreSkippedAsTheyCome(t *testing.T) {
	stream := &halfStream{offset: 10, skip: 5}
	for _, step := range []struct{ limit, skipped int }{{0, 0}, {2, 2}, {9, 3}, {9, 0}} {
		if got := stream.consumeSkip(step.limit); got != step.skipped {
			t.Errorf("%d of %d bytes are skipped, want %d", got, step.limit, step.skipped)
		}
	}
	if stream.offset != 15 || stream.skip != 0 {
		t.Errorf("offset %d, %d are left", stream.offset, stream.skip)
	}
}

// TestReleasedTailLeavesNothing behind but the space of its times.
func TestReleasedTailLeavesNothing(t *testing.T) {
	set, _ := toys(new([]string), nil)
	stream := &halfStream{lastAt: 3}
	stream.appendTail(set, nil, 1)
	if stream.tail != nil {
		t.Error("no bytes take a buffer")
	}
	stream.appendTail(set, []byte("abc"), 1)
	stream.appendTail(set, []byte("d"), 2)
	stream.advance(3)
	stream.dropFront(set, 0)
	stream.dropFront(set, 3)
	stream.need = 9
	if string(stream.tail) != "d" || stream.firstAt() != 2 || len(set.freeTails) != 0 {
		t.Errorf("tail %q from %d", stream.tail, stream.firstAt())
	}
	stream.releaseTail(set)
	if stream.tail != nil || stream.need != 0 || stream.firstAt() != 3 || len(set.freeTails) != 1 {
		t.Errorf("%+v", stream)
	}
	stream.releaseTail(set)
	if len(set.freeTails) != 1 {
		t.Error("a buffer is released twice")
	}
}

// TestLineEndsAtItsLineFeed, within a bound.
func TestLineEndsAtItsLineFeed(t *testing.T) {
	check := func(data string, most int, line string, length int) {
		t.Helper()
		if got, size := CutLine([]byte(data), most); string(got) != line || size != length {
			t.Errorf("%q within %d: %q of %d, want %q of %d", data, most, got, size, line, length)
		}
	}
	check("ab\r\ncd", 10, "ab", 4)
	check("ab\ncd", 10, "ab", 3)
	check("ab\r\r\n", 10, "ab\r", 5)
	check("\n", 10, "", 1)
	check("\r\n", 10, "", 2)
	check("ab\r", 10, "", 0)
	check("", 10, "", 0)
	check("ab\n", 3, "ab", 3)
	check("ab\n", 2, "", 0)
}

// TestDroppedFrontLeavesTheBufferWhole: the rest of a tail is not moved for each drop, and the buffer goes back with all
// of its space.
func TestDroppedFrontLeavesTheBufferWhole(t *testing.T) {
	set, _ := toys(new([]string), nil)
	stream := &halfStream{}
	check := func(dropped, length int) {
		t.Helper()
		if buffer := stream.tailBuffer(); cap(buffer)-cap(stream.tail) != dropped || len(stream.tail) != length || cap(buffer) != newTail {
			t.Errorf("%d bytes behind %d in a buffer of %d, want %d behind %d", len(stream.tail), cap(buffer)-cap(stream.tail), cap(buffer), length, dropped)
		}
	}
	stream.appendTail(set, make([]byte, 3000), 1)
	stream.dropFront(set, 1000)
	check(1000, 2000)
	stream.appendTail(set, make([]byte, 1096), 1) // as much as there is behind the tail
	check(1000, 3096)
	stream.appendTail(set, make([]byte, 1000), 1) // as much as there is in the buffer
	check(0, newTail)
	stream.dropFront(set, newTail/2-1)
	check(newTail/2-1, newTail/2+1)
	stream.dropFront(set, 1)
	check(0, newTail/2)

	stream.dropFront(set, 1)
	stream.releaseTail(set)
	if len(set.freeTails) != 1 || cap(set.freeTails[0]) != newTail || stream.buffer != nil {
		t.Errorf("%d buffers are released", len(set.freeTails))
	}
}
