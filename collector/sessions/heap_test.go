package sessions

import (
	"math/rand/v2"
	"testing"
)

// TestTimersAreOrdered: whatever is inserted, removed or moved, no flow of the heap is due before its parent, and each
// knows its place.
func TestTimersAreOrdered(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 8))
	var heap timerHeap
	for step := range 20_000 {
		switch at := random.IntN(len(heap) + 1); {
		case at == len(heap) || len(heap) < 50:
			heap.insertFlow(&flow{due: random.Int64N(1000)})
		case random.IntN(3) == 0:
			heap.removeFlow(heap[at])
		default:
			heap[at].due = random.Int64N(1000)
			heap.updateFlow(heap[at])
		}
		for i, flow := range heap {
			if flow.heapIndex != i {
				t.Fatalf("step %d: the flow at %d has the index %d", step, i, flow.heapIndex)
			}
			if i > 0 && heap[(i-1)/2].due > flow.due {
				t.Fatalf("step %d: the flow at %d is due before its parent", step, i)
			}
		}
		if len(heap) > 200 {
			for range 150 {
				heap.removeFlow(heap[random.IntN(len(heap))])
			}
		}
	}
}
