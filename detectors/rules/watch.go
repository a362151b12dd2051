package rules

import (
	"context"
	"log/slog"
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
}

// Run watches until ctx ends.
func (w Watcher) Run(ctx context.Context) {
	w.Metrics.setLoaded(w.Current)
	if w.Config.Dir == "" {
		<-ctx.Done()
		return
	}
	poller := watch.Poller[*Set]{
		State:  func() (string, error) { return watch.FolderState(w.Config.Dir, isRuleFile) },
		Load:   func() (*Set, error) { return Load(w.Config, w.Log, w.Metrics) },
		Use:    w.use,
		Failed: w.reportError,
		// The state of the folder when Current was loaded is unknown, so the first polls load it again. use
		// ignores a set of the same version.
		Loaded: "",
	}
	poller.Run(ctx)
}

func (w *Watcher) use(set *Set) {
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
