package sessions

// A timerHeap is a binary heap of all flows of a Table, ordered by flow.due. The first flow is due next.
//
// A flow moves in the heap only when its time becomes earlier. Every packet of a flow makes its time later;
// flow.schedule computes the later time when the old one comes. A packet therefore costs no heap operation.
type timerHeap []*flow

func (h *timerHeap) insertFlow(f *flow) {
	f.heapIndex = len(*h)
	*h = append(*h, f)
	h.siftUp(f.heapIndex)
}

// removeFlow removes f from the heap.
func (h *timerHeap) removeFlow(f *flow) {
	i, last := f.heapIndex, len(*h)-1
	if i != last {
		(*h)[i] = (*h)[last]
		(*h)[i].heapIndex = i
	}

	// The last flow now stands at i, perhaps out of order.
	(*h)[last] = nil
	*h = (*h)[:last]
	if i < last {
		h.updateFlow((*h)[i])
	}
}

// updateFlow restores the order of the heap after f.due has changed.
func (h timerHeap) updateFlow(f *flow) {
	if i := f.heapIndex; !h.siftDown(i) {
		h.siftUp(i)
	}
}

// siftUp moves the flow at i up to its position.
func (h timerHeap) siftUp(i int) {
	flow := h[i]

	// i is a hole: its parent moves down into it until the parent is not later than flow.
	for i > 0 {
		parent := (i - 1) / 2
		if h[parent].due <= flow.due {
			break
		}
		h[i] = h[parent]
		h[i].heapIndex = i
		i = parent
	}
	h[i] = flow
	flow.heapIndex = i
}

// siftDown moves the flow at i down to its position and reports whether it moved.
func (h timerHeap) siftDown(i int) bool {
	flow, from := h[i], i

	// i is a hole: the earlier of its children moves up into it until flow is earlier than both.
	for {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if right := child + 1; right < len(h) && h[right].due < h[child].due {
			child = right
		}
		if h[child].due >= flow.due {
			break
		}
		h[i] = h[child]
		h[i].heapIndex = i
		i = child
	}
	h[i] = flow
	flow.heapIndex = i
	return i != from
}
