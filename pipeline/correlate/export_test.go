package correlate

// Deadlines returns the number of groups that wait for a deadline.
func (f *Fold) Deadlines() int { return len(f.deadlines) }

// Values returns the number of values that rules of FirstSeen remember.
func (f *Fold) Values() (count int) {
	for _, seen := range f.seen {
		count += len(seen.last)
	}
	return count
}
