package correlate

// Deadlines returns the number of groups that wait for a deadline.
func (f *Fold) Deadlines() int { return len(f.deadlines) }

// Fresh returns the number of events of sequences that belong to no match yet.
func (f *Fold) Fresh() (count int) {
	for _, g := range f.groups {
		if q, ok := g.state.(*sequence); ok {
			count += len(q.fresh)
		}
	}
	return count
}

// GroupBytes returns roughly what the groups take.
func (f *Fold) GroupBytes() int { return f.bytes }
