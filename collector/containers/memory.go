package containers

import (
	"cmp"
	"slices"
	"unsafe"

	"tidegate/pipeline"
)

// Memory of an entry besides its texts: the entry, its container and its places in the maps and in two views, of which
// one may still be read when the next one is there.
const (
	entryBytes   = int64(unsafe.Sizeof(entry{})+unsafe.Sizeof(pipeline.Container{})) + 512
	holdingBytes = int64(unsafe.Sizeof(holding{})+2*2*unsafe.Sizeof(owner{})) + 256
	labelBytes   = int64(unsafe.Sizeof(pipeline.Label{})) + 8
	textBytes    = int64(unsafe.Sizeof(""))
)

// memory returns the bytes that e takes.
func (e *entry) memory() int64 {
	c := e.container
	sum := entryBytes + int64(len(e.holdings))*holdingBytes + labelsMemory(c) +
		int64(len(c.Id)+len(c.Name)+len(c.Image)+len(c.ImageId)+len(e.log.Path)+len(e.log.Driver)+len(e.excludedBy))
	for _, text := range c.Ip {
		sum += textBytes + int64(len(text)) + int64(unsafe.Sizeof(endpoint{})+unsafe.Sizeof(e.ips[0]))
	}
	return sum
}

// labelsMemory returns the bytes that the labels of a container take.
func labelsMemory(c *pipeline.Container) (sum int64) {
	for _, label := range c.Labels {
		sum += labelBytes + int64(len(label.Key)+len(label.Value))
	}
	return sum
}

// charge charges the memory budget with e as it is now. r.mu is held.
func (r *Registry) charge(e *entry) {
	bytes := e.memory()
	r.account.Add(bytes - e.charged)
	e.charged = bytes
}

// deleteEntry deletes a container. r.mu is held.
func (r *Registry) deleteEntry(e *entry) {
	r.account.Add(-e.charged)
	delete(r.entries, e.container.Id)
}

// trimTombstones deletes the containers that were removed first, while there are too many or the memory budget is
// exceeded and the registry is the largest part. When that is not enough, the containers that exist lose their labels,
// those with the most first. r.mu is held.
func (r *Registry) trimTombstones() {
	excess := r.account.Excess()
	if len(r.entries) <= maxTombstones && excess == 0 {
		return
	}
	var removed, existing []*entry
	for _, entry := range r.entries {
		if entry.removed {
			removed = append(removed, entry)
		} else {
			existing = append(existing, entry)
		}
	}
	slices.SortFunc(removed, func(a, b *entry) int { return a.ended.Compare(b.ended) })

	// With too many of them, an eighth is deleted at once, so that they are not sorted for each new one.
	surplus := 0
	if len(removed) > maxTombstones {
		surplus = len(removed) - maxTombstones*7/8
	}
	freed := int64(0)
	for i, entry := range removed {
		reason := "too_many_removed"
		if i >= surplus {
			if freed >= excess {
				break
			}
			reason = "memory_limit"
		}
		freed += entry.charged
		r.deleteEntry(entry)
		r.metrics.dropped.WithLabelValues(reason).Inc()
	}
	if excess > 0 {
		r.account.GaveUp(freed + r.dropLabels(existing, excess-freed))
	}
}

// dropLabels removes the labels of containers until excess bytes are free, and returns what it has freed. A container is
// immutable, so that it is replaced. r.mu is held.
func (r *Registry) dropLabels(list []*entry, excess int64) (freed int64) {
	slices.SortFunc(list, func(a, b *entry) int { return cmp.Compare(labelsMemory(b.container), labelsMemory(a.container)) })
	for _, entry := range list {
		whole := entry.container
		if freed >= excess || len(whole.Labels) == 0 {
			break
		}
		entry.container = &pipeline.Container{
			Id: whole.Id, Name: whole.Name, Image: whole.Image, ImageId: whole.ImageId, Ip: whole.Ip, Demo: whole.Demo,
		}
		freed += labelsMemory(whole)
		r.charge(entry)
		r.metrics.dropped.WithLabelValues("memory_limit").Add(float64(len(whole.Labels)))
	}
	return freed
}

// enforceBudget gives memory up if other parts have grown, and publishes a view without what was given up.
func (r *Registry) enforceBudget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.account.Excess() > 0 {
		r.publish()
	}
}
