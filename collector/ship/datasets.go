package ship

import (
	"sync/atomic"

	"tidegate/pipeline"
)

// datasetCounts holds a number of events for each dataset.
type datasetCounts [pipeline.NumDatasets]uint32

// datasetIndex returns the index of e's dataset in datasetCounts.
func datasetIndex(e *pipeline.Event) int { return e.Dataset.Index() }

// countsOf converts counts that were read from the spool, which another version may have written. Events of
// datasets that this version does not have are counted under the dataset "none".
func countsOf(counts []uint32) (c datasetCounts) {
	for i, count := range counts {
		c[pipeline.Dataset(i).Index()] += count
	}
	return c
}

// total returns the sum over all datasets.
func (c *datasetCounts) total() (sum uint64) {
	for _, count := range c {
		sum += uint64(count)
	}
	return sum
}

// A datasetCounter counts events by dataset.
type datasetCounter [pipeline.NumDatasets]atomic.Uint64

// addCounts adds counts to c.
func (c *datasetCounter) addCounts(counts *datasetCounts) {
	for i, count := range counts {
		if count > 0 {
			c[i].Add(uint64(count))
		}
	}
}

// total returns the sum over all datasets.
func (c *datasetCounter) total() (n uint64) {
	for i := range c {
		n += c[i].Load()
	}
	return n
}
