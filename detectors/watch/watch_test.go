package watch

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// polledState is the state that a Poller polls, and what the Poller did. A test sets the upper fields.
type polledState struct {
	state    string
	stateErr error
	loadErr  error
	onLoad   func() // is called within a load, after the state was read

	loads        int
	used, errors []string // the arguments of Use and Failed
	recovered    int      // calls of Recovered
}

// poll calls a test function while a Poller polls the state "one", on the clock of a synctest bubble. loaded
// is the state that the Poller takes for loaded.
func poll(t *testing.T, loaded string, test func(polled *polledState)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		polled := &polledState{state: "one", onLoad: func() {}}
		poller := Poller[string]{
			State: func() (string, error) { return polled.state, polled.stateErr },
			Load: func() (string, error) {
				polled.loads++
				content := polled.state
				polled.onLoad()
				return content, polled.loadErr
			},
			Use:       func(s string) { polled.used = append(polled.used, s) },
			Failed:    func(err error) { polled.errors = append(polled.errors, err.Error()) },
			Recovered: func() { polled.recovered++ },
			Loaded:    loaded,
		}
		ctx, cancel := context.WithCancel(t.Context())
		go poller.Run(ctx)
		test(polled)
		cancel()
		synctest.Wait()
	})
}

// check checks, five polls later, which states were used and which errors were reported so far.
func (p *polledState) check(t *testing.T, used, errs string) {
	t.Helper()
	time.Sleep(5*Interval + Interval/2)
	synctest.Wait()
	if got := strings.Join(p.used, " "); got != used {
		t.Errorf("used %q, want %q", got, used)
	}
	if got := strings.Join(p.errors, " "); got != errs {
		t.Errorf("errors %q, want %q", got, errs)
	}
}

func TestChangedFilesAreLoadedOnce(t *testing.T) {
	poll(t, "one", func(polled *polledState) {
		polled.check(t, "", "")
		polled.state = "two"
		polled.check(t, "two", "")
		polled.check(t, "two", "")
		polled.state = "one"
		polled.check(t, "two one", "")
	})
}

func TestUnknownStateIsLoadedFirst(t *testing.T) {
	poll(t, "", func(polled *polledState) { polled.check(t, "one", "") })
}

// TestFilesAreLoadedWhenTheyStopChanging: a change of many files is loaded once.
func TestFilesAreLoadedWhenTheyStopChanging(t *testing.T) {
	poll(t, "one", func(polled *polledState) {
		for i := range 10 {
			polled.state = strings.Repeat("x", i+1)
			time.Sleep(Interval * 7 / 10) // every poll finds another state
		}
		if polled.loads != 0 {
			t.Errorf("loaded %d times", polled.loads)
		}
		polled.check(t, "xxxxxxxxxx", "")
	})
}

// TestHalfOfAChangeIsNotUsed: files that change while they are read are read again.
func TestHalfOfAChangeIsNotUsed(t *testing.T) {
	poll(t, "one", func(polled *polledState) {
		polled.onLoad = func() { polled.state, polled.onLoad = "whole", func() {} }
		polled.state = "half"
		polled.check(t, "whole", "")
	})
}

func TestErrorIsReportedOnceAndTheNextChangeIsLoaded(t *testing.T) {
	poll(t, "one", func(polled *polledState) {
		polled.loadErr, polled.state = errors.New("broken"), "two"
		polled.check(t, "", "broken")
		polled.state = "three"
		polled.check(t, "", "broken")
		polled.stateErr = errors.New("gone")
		polled.check(t, "", "broken gone")
		polled.stateErr, polled.loadErr, polled.state = nil, nil, "four"
		polled.check(t, "four", "broken gone")
	})
}

// TestRecoveryIsReportedOnce: when other files load, when the files are again those that are loaded, and when they can be read.
func TestRecoveryIsReportedOnce(t *testing.T) {
	poll(t, "one", func(polled *polledState) {
		expect := func(what string, recovered int, used, errs string) {
			t.Helper()
			polled.check(t, used, errs)
			polled.check(t, used, errs)
			if polled.recovered != recovered {
				t.Errorf("%s: recovered %d times, want %d", what, polled.recovered, recovered)
			}
		}
		expect("no error", 0, "", "")
		polled.loadErr, polled.state = errors.New("broken"), "two"
		expect("broken", 0, "", "broken")
		polled.loadErr, polled.state = nil, "one"
		expect("as before", 1, "", "broken")
		polled.loadErr, polled.state = errors.New("broken"), "two"
		expect("broken again", 1, "", "broken broken")
		polled.loadErr, polled.state = nil, "three"
		expect("mended", 2, "three", "broken broken")
		polled.stateErr = errors.New("gone")
		expect("gone", 2, "three", "broken broken gone")
		polled.stateErr = nil
		expect("there again", 3, "three", "broken broken gone")
	})
}

func TestFolderStateFollowsTheIncludedFiles(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	state := func() string {
		t.Helper()
		state, err := FolderState(folder, func(name string) bool { return strings.HasSuffix(name, ".yaml") })
		if err != nil {
			t.Fatal(err)
		}
		return state
	}
	write("a.yaml", "1")
	before := state()
	write("notes.txt", "1")
	write(".hidden.yaml", "1")
	if state() != before {
		t.Error("a file that is left out changes the state")
	}
	write("a.yaml", "12")
	if state() == before {
		t.Error("a changed file does not change the state")
	}
	if _, err := FolderState(filepath.Join(folder, "none"), nil); err == nil {
		t.Error("a missing folder has a state")
	}
}

// TestFailedLoadIsRepeated: a load fails for a cause outside of the files. It is repeated although they do not
// change, after pauses that grow.
func TestFailedLoadIsRepeated(t *testing.T) {
	poll(t, "one", func(polled *polledState) {
		polled.loadErr, polled.state = errors.New("busy"), "two"
		polled.check(t, "", "busy")
		time.Sleep(time.Hour)
		if polled.loads < 10 || polled.loads > 40 {
			t.Errorf("%d loads in an hour", polled.loads)
		}
		polled.loadErr = nil
		time.Sleep(5 * time.Minute)
		polled.check(t, "two", "busy")
	})
}

// TestStateFollowsWhatChangesTheContent: a file that becomes readable, a file that is replaced by one of the same
// size and time, and a folder whose link is pointed elsewhere have other states.
func TestStateFollowsWhatChangesTheContent(t *testing.T) {
	base := t.TempDir()
	file, link := filepath.Join(base, "v1", "a.yaml"), filepath.Join(base, "link")
	old := time.Unix(1_700_000_000, 0)
	write := func(path string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("1"), 0), os.Chtimes(path, old, old)); err != nil {
			t.Fatal(err)
		}
	}
	state := func() string {
		t.Helper()
		state, err := FolderState(link, func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		return state
	}
	write(file)
	if err := os.Symlink("v1", link); err != nil {
		t.Fatal(err)
	}
	before := state()
	changed := func(what string, err error) {
		t.Helper()
		after := state()
		if err != nil || after == before {
			t.Errorf("%s does not change the state (%v)", what, err)
		}
		before = after
	}
	time.Sleep(20 * time.Millisecond) // the clock of the file system is coarse
	changed("chmod", os.Chmod(file, 0o600))
	write(file + ".new")
	changed("a rename", os.Rename(file+".new", file))
	write(filepath.Join(base, "v2", "a.yaml"))
	changed("another target", errors.Join(os.Remove(link), os.Symlink("v2", link)))
	if err := os.Symlink("nowhere", filepath.Join(base, "v2", "b.yaml")); err != nil {
		t.Fatal(err)
	}
	changed("a broken link", nil)
}
