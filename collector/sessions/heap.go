package sessions

// The heap holds every flow of a Table by the time at which something is to be done for it. A flow's time is only moved when it
// becomes earlier; when it has become later, which every packet of it does, that is found out when the old time comes. So a packet
// costs nothing here.

func (t *Table) push(f *flow) {
	f.heapIndex = len(t.heap)
	t.heap = append(t.heap, f)
	t.up(f.heapIndex)
}

func (t *Table) remove(f *flow) {
	i, n := f.heapIndex, len(t.heap)-1
	if i != n {
		t.heap[i] = t.heap[n]
		t.heap[i].heapIndex = i
	}
	t.heap[n] = nil
	t.heap = t.heap[:n]
	if i < n {
		t.fix(t.heap[i])
	}
}

// fix moves f to where its time belongs.
func (t *Table) fix(f *flow) {
	if i := f.heapIndex; !t.down(i) {
		t.up(i)
	}
}

func (t *Table) up(i int) {
	h := t.heap
	f := h[i]
	for i > 0 {
		parent := (i - 1) / 2
		if h[parent].due <= f.due {
			break
		}
		h[i] = h[parent]
		h[i].heapIndex = i
		i = parent
	}
	h[i] = f
	f.heapIndex = i
}

func (t *Table) down(i int) bool {
	h := t.heap
	f, from := h[i], i
	for {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if r := child + 1; r < len(h) && h[r].due < h[child].due {
			child = r
		}
		if h[child].due >= f.due {
			break
		}
		h[i] = h[child]
		h[i].heapIndex = i
		i = child
	}
	h[i] = f
	f.heapIndex = i
	return i != from
}
