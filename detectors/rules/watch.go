package rules

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// pollEvery is how often the folder is looked at. It is polled, not watched by inotify: an edit, a mv, a change of a ConfigMap's
// symlink and a network file system all look the same then.
const pollEvery = time.Second

// Watch loads the rules again when the files of cfg.Dir change, and calls onChange with the new set, from its own goroutine. A
// change of several files is one: it waits until nothing has changed between two looks. It is all or nothing: where anything does
// not compile, every error is logged, the set that runs goes on, and the next change is another chance. Watch returns when ctx ends.
func Watch(ctx context.Context, cfg Config, current *Set, onChange func(*Set), log *slog.Logger, metrics *Metrics) {
	metrics.setRunning(current)
	if cfg.Dir == "" {
		<-ctx.Done()
		return
	}
	w := &watcher{cfg: cfg, current: current, onChange: onChange, log: log, metrics: metrics}
	// What was there when current was loaded is not known for sure, so the first look always loads; the same version is no change.
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.poll()
		}
	}
}

type watcher struct {
	cfg      Config
	current  *Set
	onChange func(*Set)
	log      *slog.Logger
	metrics  *Metrics

	loaded    string // the folder as it was when it was last tried
	before    string // as it was at the last look
	lastError string // the last error, so that it is not repeated each second
}

// poll compares the folder with what was tried last.
func (w *watcher) poll() {
	now, err := folderState(w.cfg.Dir)
	if err != nil {
		w.logRefusal(fmt.Errorf("look at %s: %w", w.cfg.Dir, err))
		return
	}
	settled := now == w.before
	w.before = now
	if !settled || now == w.loaded {
		return
	}
	set, err := Load(w.cfg, w.log, w.metrics)
	if after, e := folderState(w.cfg.Dir); e != nil || after != now {
		return // it changed while it was read: what was read may be half of a change
	}
	w.loaded = now
	if err != nil {
		w.logRefusal(err)
		return
	}
	w.lastError = ""
	if set.Version() == w.current.Version() {
		return
	}
	w.log.Info("rules loaded", "rules", len(set.rules), "bundle", set.version, "was", w.current.version, "took", set.took)
	w.current = set
	w.metrics.setRunning(set)
	w.onChange(set)
}

func (w *watcher) logRefusal(err error) {
	if err.Error() == w.lastError {
		return
	}
	w.lastError = err.Error()
	w.metrics.countRefusedLoad()
	for line := range strings.SplitSeq(w.lastError, "\n") {
		w.log.Error("rules not loaded", "error", line)
	}
	w.log.Error("rules not loaded: the old ones go on", "bundle", w.current.version, "rules", len(w.current.rules))
}

// folderState is the state of the rule files of a folder: their names, sizes, times and inodes, links followed.
func folderState(dir string) (string, error) {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := entry.Name(); path != dir && strings.HasPrefix(name, ".") {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if entry.IsDir() || !isRuleFile(entry.Name()) {
			return nil
		}
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		inode := uint64(0)
		if s, ok := st.Sys().(*syscall.Stat_t); ok {
			inode = s.Ino
		}
		fmt.Fprintf(&b, "%s %d %d %d\n", path, st.Size(), st.ModTime().UnixNano(), inode)
		return nil
	})
	return b.String(), err
}
