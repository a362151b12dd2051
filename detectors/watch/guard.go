package watch

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A Content counts what a file or folder holds.
type Content struct {
	Entries int // rules or indicators
	Invalid int // lines or files that are not valid
}

// minHalved is the number of entries from which on the loss of half of them is a loss. Of fewer entries a person
// may well have removed half.
const minHalved = 10

// LossFrom returns how c is worse than what was loaded before, in the form of a failed update: a file that is
// being written, was emptied, or holds an error page. It returns "" if it is not.
func (c Content) LossFrom(before Content) string {
	switch {
	case c.Entries == 0 && before.Entries > 0:
		return fmt.Sprintf("it is empty, and had %d", before.Entries)
	case c.Invalid > c.Entries && before.Invalid <= before.Entries:
		return fmt.Sprintf("most of it is invalid: %d, and %d valid", c.Invalid, c.Entries)
	case before.Entries >= minHalved && c.Entries <= before.Entries/2:
		return fmt.Sprintf("it has %d, and had %d", c.Entries, before.Entries)
	}
	return ""
}

// A Guard holds back new contents that look like failed updates. A content is held back until it was like this
// for some time, its grace, or until Accept is called. The zero value is ready for use. It is safe for concurrent
// use.
type Guard struct {
	mu    sync.Mutex           // guards the fields below
	held  map[string]time.Time // when the content of a name is accepted; zero: now
	ended int                  // number of graces that have ended
}

// Holds reports whether the content of name is held back, for grace at most. loss is the result of LossFrom.
// isNew reports whether it was not held back before.
func (g *Guard) Holds(name, loss string, grace time.Duration) (holds, isNew bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if loss == "" {
		delete(g.held, name)
		return false, false
	}
	until, known := g.held[name]
	if !known {
		until = time.Now().Add(grace)
		if g.held == nil {
			g.held = map[string]time.Time{}
		}
		g.held[name] = until
	}
	if until.IsZero() || !time.Now().Before(until) {
		delete(g.held, name)
		return false, false
	}
	return true, !known
}

// Accept ends the grace of all contents that are held back and returns their names.
func (g *Guard) Accept() (names []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name := range g.held {
		g.endGrace(name)
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// endGrace ends the grace of a name. g.mu must be held.
func (g *Guard) endGrace(name string) {
	if !g.held[name].IsZero() {
		g.held[name] = time.Time{}
		g.ended++
	}
}

// Keep ends the holds of all contents but those for which isKept returns true.
func (g *Guard) Keep(isKept func(name string) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.held, func(name string, _ time.Time) bool { return !isKept(name) })
}

// Reset ends the holds of all contents, which were loaded anew.
func (g *Guard) Reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.held)
}

// Held returns the names of the contents that are held back.
func (g *Guard) Held() (names []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Sorted(maps.Keys(g.held))
}

// State returns a text that changes when a grace has ended. As part of a Poller's State it makes the Poller load
// the files again.
func (g *Guard) State() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, until := range g.held {
		if !time.Now().Before(until) {
			g.endGrace(name)
		}
	}
	return strconv.Itoa(g.ended)
}
