// Package watch reloads files when they change, for detectors/rules and detectors/feeds.
//
// Files are polled, not watched by inotify: an edit, a rename over a file, a change of a ConfigMap's symlink
// and a network file system all look the same then. A Poller describes the files once a second by a text
// (State) and loads them when the text has changed and is the same at two polls, so that a change of several
// files is one. What was loaded is used only if the files are still the same after reading: otherwise it may
// be half of a change.
package watch

import (
	"context"
	"time"
)

// Interval is the time between two polls.
const Interval = time.Second

// A Poller loads files again when they change. T is what they are loaded into.
type Poller[T any] struct {
	State  func() (string, error) // describes the files, such as by FileState
	Load   func() (T, error)      // reads them
	Use    func(T)                // is called with what was loaded, from the goroutine of Run
	Refuse func(error)            // is called when State or Load fails, not again for the same error
	Loaded string                 // State when they were loaded before Run; "": not known, the first polls load them

	previous  string // State at the last poll
	lastError string
}

// Run polls until ctx ends.
func (p *Poller[T]) Run(ctx context.Context) {
	p.previous = p.Loaded
	ticker := time.NewTicker(Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			p.poll()
		}
	}
}

func (p *Poller[T]) poll() {
	state, err := p.State()
	if err != nil {
		p.refuse(err)
		return
	}
	settled := state == p.previous
	p.previous = state
	if !settled || state == p.Loaded {
		return
	}

	loaded, err := p.Load()
	if after, stateErr := p.State(); stateErr != nil || after != state {
		return // The files changed while they were read; the next polls see that.
	}
	p.Loaded = state
	if err != nil {
		p.refuse(err)
		return
	}
	p.lastError = ""
	p.Use(loaded)
}

func (p *Poller[T]) refuse(err error) {
	if err.Error() != p.lastError {
		p.lastError = err.Error()
		p.Refuse(err)
	}
}
