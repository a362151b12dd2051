package rules

import (
	"context"
	"fmt"
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
	if w.Config.Dir == "" && w.Config.Sigma == "" && w.Config.GeoDatabase == "" && w.Config.ASNDatabase == "" {
		<-ctx.Done()
		return
	}
	poller := watch.Poller[*Set]{
		State: func() (string, error) {
			var states strings.Builder
			for _, folder := range []string{w.Config.Dir, w.Config.Sigma} {
				if folder == "" {
					continue
				}
				state, err := watch.FolderState(folder, isSourceFile)
				if err != nil {
					return "", err
				}
				states.WriteString(state)
			}
			for _, path := range []string{w.Config.GeoDatabase, w.Config.ASNDatabase} {
				if path == "" {
					continue
				}
				state, err := watch.FileState(path)
				if err != nil {
					state = err.Error() // loading the rules reports it, if one of them asks the database
				}
				states.WriteString(state)
			}
			return states.String() + w.Guard.State(), nil
		},
		Load:   w.loadRules,
		Use:    w.activate,
		Failed: w.reportError,
		Recovered: func() {
			w.Log.Info("rules: the errors are gone", "version", w.Current.version, "rules", len(w.Current.rules))
		},
		// The state of the folder when Current was loaded is unknown, so the first polls load it again. activate
		// ignores a set of the same version.
		Loaded: "",
	}
	poller.Run(ctx)
}

// The names of the folders for the Guard.
const (
	guardName      = "rules.dir"
	sigmaGuardName = "rules.sigma"
)

// Watches reports whether the folder with this name for a watch.Guard is watched.
func (c Config) Watches(name string) bool {
	return name == guardName && c.Dir != "" || name == sigmaGuardName && c.Sigma != ""
}

// loadRules loads the rules. It returns the current ones if the folder is held back.
func (w *Watcher) loadRules() (*Set, error) {
	set, err := Load(w.Config, w.Log, w.Metrics)
	if err != nil {
		return nil, err
	}
	own := w.holdsBack(guardName, w.Config.Dir, set.own, w.Current.own)
	fromSigma := w.holdsBack(sigmaGuardName, w.Config.Sigma, set.fromSigma, w.Current.fromSigma)
	w.Metrics.setHeld(own || fromSigma)
	if own || fromSigma {
		return w.Current, nil
	}
	return set, nil
}

// minQuartered is the number of rules from which on the loss of three quarters of them is held back, although they are too few for the loss of
// half to be one: a person may well have removed some of a few.
const minQuartered = 4

// lossOfRules returns how a folder has lost most of its rules, "" if it has not.
func lossOfRules(rules, before int) string {
	loss := watch.Content{Entries: rules}.LossFrom(watch.Content{Entries: before})
	if loss == "" && before >= minQuartered && rules <= before/4 {
		return fmt.Sprintf("it has %d, and had %d", rules, before)
	}
	return loss
}

// holdsBack reports whether a folder is held back because it has lost most of its rules.
func (w *Watcher) holdsBack(name, dir string, rules, before int) bool {
	loss := lossOfRules(rules, before)
	holds, isNew := w.Guard.Holds(name, loss, w.Config.LossGrace)
	if isNew {
		w.Log.Warn("rules held back, their folder has lost most of them; those that were loaded before stay: "+
			"if the folder is right, send SIGHUP or restart", "dir", dir, "reason", loss,
			"loaded_anyway_after", w.Config.LossGrace)
	}
	return holds
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
	w.Current.warnings, w.Current.refused = set.warnings, set.refused
	w.Metrics.setRefused(set)
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
