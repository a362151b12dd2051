// Package watch reloads files when they change, for detectors/rules and detectors/feeds.
//
// It polls files instead of using inotify: polling treats an edit, a rename over a file, a change of a
// ConfigMap's symlink and a network file system alike. Once a second a Poller computes a text that describes
// the files (State). It loads them when the text has changed and is the same at two polls in a row, so that a
// change of several files causes one load. The Poller discards the result if the files changed while they
// were read, because it may hold half of a change.
package watch

import (
	"context"
	"time"

	"tidegate/pipeline/retry"
)

// Interval is the time between two polls.
const Interval = time.Second

// A Poller reloads files when they change. T is the type that Load returns. All functions are called from the
// goroutine of Run.
type Poller[T any] struct {
	State  func() (string, error) // describes the files by a text, for example with FileState
	Load   func() (T, error)      // reads the files
	Use    func(T)                // is called with each result of Load
	Failed func(error)            // is called when State or Load fails; the same error is not repeated

	// Recovered, if it is not nil, is called after Failed once the files load again, or are those that are loaded.
	Recovered func()

	// Loaded is the state of the files that were loaded last. "" means unknown: the first two polls load
	// them.
	Loaded string

	previous  string // state at the last poll
	lastError string // text of the error that Failed has received; "" after a load

	failedState string // state whose load failed; it is loaded again at retryAt
	retryAt     time.Time
	backoff     retry.Backoff
}

// A load that fails is repeated after a pause that grows between these bounds, since its cause may lie outside
// of the files. A change of the files is loaded at once.
const (
	minRetryPause = 10 * time.Second
	maxRetryPause = 5 * time.Minute
)

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

// poll loads the files if they have changed and are stable.
func (p *Poller[T]) poll() {
	// The files are stable when two polls in a row find the same state.
	state, err := p.State()
	if err != nil {
		p.reportError(err)
		return
	}
	stable := state == p.previous
	p.previous = state
	if stable && state == p.Loaded {
		p.reportRecovery()
	}
	if !stable || state == p.Loaded || state == p.failedState && time.Now().Before(p.retryAt) {
		return
	}

	// A state that differs after the load makes the result useless, its error included.
	loaded, err := p.Load()
	if after, stateErr := p.State(); stateErr != nil || after != state {
		return // The next polls find the change.
	}

	if err != nil {
		if state != p.failedState {
			p.backoff = retry.Backoff{Min: minRetryPause, Max: maxRetryPause}
		}
		p.failedState, p.retryAt = state, time.Now().Add(p.backoff.Next())
		p.reportError(err)
		return
	}
	p.Loaded, p.failedState = state, ""
	p.Use(loaded)
	p.reportRecovery()
}

// reportRecovery calls Recovered if an error was reported since the last call.
func (p *Poller[T]) reportRecovery() {
	if p.lastError != "" && p.Recovered != nil {
		p.Recovered()
	}
	p.lastError = ""
}

// reportError passes err to Failed unless it was the last error too.
func (p *Poller[T]) reportError(err error) {
	if err.Error() != p.lastError {
		p.lastError = err.Error()
		p.Failed(err)
	}
}
