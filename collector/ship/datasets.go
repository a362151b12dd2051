package ship

import (
	"sync/atomic"

	"tidegate/pipeline"
)

// datasetCounts are numbers of events by dataset.
type datasetCounts [pipeline.NumDatasets]uint32

// dataset returns the index of the dataset of e in datasetCounts.
func dataset(e *pipeline.Event) int { return e.Dataset.Index() }

// countsOf returns counts that were written to the spool, maybe by a version with other datasets. Events of
// datasets that this version does not have count as events of none.
func countsOf(counts []uint32) (c datasetCounts) {
	for i, count := range counts {
		c[pipeline.Dataset(i).Index()] += count
	}
	return c
}

func (c *datasetCounts) total() (n uint64) {
	for _, v := range c {
		n += uint64(v)
	}
	return n
}

// A datasetCounter counts events by dataset.
type datasetCounter [pipeline.NumDatasets]atomic.Uint64

func (c *datasetCounter) addCounts(n *datasetCounts) {
	for i, v := range n {
		if v > 0 {
			c[i].Add(uint64(v))
		}
	}
}

func (c *datasetCounter) total() (n uint64) {
	for i := range c {
		n += c[i].Load()
	}
	return n
}
