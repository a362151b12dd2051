package rules

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"tidegate/detectors/watch"
)

// A Watcher reloads the rules when a file of Config.Dir changes. If any file has an error, the Watcher logs
// all errors and keeps the current set until the next change.
type Watcher struct {
	Config   Config
	Current  *Set       // the set that was loaded before Run
	OnChange func(*Set) // is called with each set whose version differs, from the goroutine of Run
	Log      *slog.Logger
	Metrics  *Metrics
	Guard    *watch.Guard // holds back a folder that has lost its rules; nil: a Guard of its own
}

// Run watches until ctx ends.
func (w Watcher) Run(ctx context.Context) {
	w.Metrics.setLoaded(w.Current)
	w.Metrics.setHeld(false)
	w.logWarnings(w.Current)
	if w.Guard == nil {
		w.Guard = &watch.Guard{}
	}
	if w.Config.Dir == "" {
		<-ctx.Done()
		return
	}
	poller := watch.Poller[*Set]{
		State: func() (string, error) {
			state, err := watch.FolderState(w.Config.Dir, isRuleFile)
			return state + w.Guard.State(), err
		},
		Load:   w.loadRules,
		Use:    w.activate,
		Failed: w.reportError,
		// The state of the folder when Current was loaded is unknown, so the first polls load it again. activate
		// ignores a set of the same version.
		Loaded: "",
	}
	poller.Run(ctx)
}

// guardName is the name of the folder for the Guard.
const guardName = "rules.dir"

// loadRules loads the rules. It returns the current ones if the folder is held back.
func (w *Watcher) loadRules() (*Set, error) {
	set, err := Load(w.Config, w.Log, w.Metrics)
	if err != nil {
		return nil, err
	}
	loss := watch.Content{Entries: set.own}.LossFrom(watch.Content{Entries: w.Current.own})
	holds, isNew := w.Guard.Holds(guardName, loss, w.Config.LossGrace)
	w.Metrics.setHeld(holds)
	if isNew {
		w.Log.Warn("rules held back, their folder has lost most of them; those that were loaded before stay: "+
			"if the folder is right, send SIGHUP or restart", "dir", w.Config.Dir, "reason", loss,
			"loaded_anyway_after", w.Config.LossGrace)
	}
	if holds {
		return w.Current, nil
	}
	return set, nil
}

func (w *Watcher) logWarnings(set *Set) {
	for _, text := range set.warnings {
		w.Log.Warn("rules", "problem", text)
	}
}

func (w *Watcher) activate(set *Set) {
	if !slices.Equal(set.warnings, w.Current.warnings) {
		w.logWarnings(set)
	}
	w.Current.warnings = set.warnings
	if set.Version() == w.Current.Version() {
		return
	}
	w.Log.Info("rules loaded",
		"rules", len(set.rules), "version", set.version, "previous", w.Current.version, "took", set.took)
	w.Current = set
	w.Metrics.setLoaded(set)
	w.OnChange(set)
}

func (w *Watcher) reportError(err error) {
	w.Metrics.countFailedLoad()
	for line := range strings.SplitSeq(err.Error(), "\n") {
		w.Log.Error("rules not loaded", "err", line)
	}
	w.Log.Error("rules not loaded, keeping those that were loaded before",
		"version", w.Current.version, "rules", len(w.Current.rules))
}
