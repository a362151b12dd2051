package sessions

// A timerHeap holds every flow of a Table by the time at which something is to be done for it (flow.due); the
// first is due next.
//
// A flow's time is only moved when it becomes earlier. When it has become later, which every packet of the
// flow does, that is found out when the old time comes. So a packet costs nothing here.
type timerHeap []*flow

func (h *timerHeap) insertFlow(f *flow) {
	f.heapIndex = len(*h)
	*h = append(*h, f)
	h.siftUp(f.heapIndex)
}

func (h *timerHeap) removeFlow(f *flow) {
	i, last := f.heapIndex, len(*h)-1
	if i != last {
		(*h)[i] = (*h)[last]
		(*h)[i].heapIndex = i
	}
	(*h)[last] = nil
	*h = (*h)[:last]
	if i < last {
		h.updateFlow((*h)[i])
	}
}

// updateFlow moves f to where its time belongs.
func (h timerHeap) updateFlow(f *flow) {
	if i := f.heapIndex; !h.siftDown(i) {
		h.siftUp(i)
	}
}

func (h timerHeap) siftUp(i int) {
	flow := h[i]
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

// siftDown reports whether the flow at i moved.
func (h timerHeap) siftDown(i int) bool {
	flow, from := h[i], i
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
