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

// polled runs a Poller over a state that a test sets, on a clock of its own.
type polled struct {
	state        string
	stateErr     error
	loadErr      error
	loads        int
	onLoad       func()
	used, errors []string
}

func poll(t *testing.T, loaded string, story func(p *polled)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &polled{state: "one", onLoad: func() {}}
		poller := Poller[string]{
			State: func() (string, error) { return p.state, p.stateErr },
			Load: func() (string, error) {
				p.loads++
				content := p.state
				p.onLoad()
				return content, p.loadErr
			},
			Use:    func(s string) { p.used = append(p.used, s) },
			Refuse: func(err error) { p.errors = append(p.errors, err.Error()) },
			Loaded: loaded,
		}
		ctx, cancel := context.WithCancel(t.Context())
		go poller.Run(ctx)
		story(p)
		cancel()
		synctest.Wait()
	})
}

func (p *polled) check(t *testing.T, used, errs string) {
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
	poll(t, "one", func(p *polled) {
		p.check(t, "", "")
		p.state = "two"
		p.check(t, "two", "")
		p.check(t, "two", "")
		p.state = "one"
		p.check(t, "two one", "")
	})
}

func TestUnknownStateIsLoadedFirst(t *testing.T) {
	poll(t, "", func(p *polled) { p.check(t, "one", "") })
}

// TestFilesThatGoOnChangingAreNotLoaded: a change of many files is one.
func TestFilesThatGoOnChangingAreNotLoaded(t *testing.T) {
	poll(t, "one", func(p *polled) {
		for i := range 10 {
			p.state = strings.Repeat("x", i+1)
			time.Sleep(Interval * 7 / 10) // every poll sees another state
		}
		if p.loads != 0 {
			t.Errorf("loaded %d times", p.loads)
		}
		p.check(t, "xxxxxxxxxx", "")
	})
}

// TestHalfOfAChangeIsNotUsed: files that change while they are read are read again.
func TestHalfOfAChangeIsNotUsed(t *testing.T) {
	poll(t, "one", func(p *polled) {
		p.onLoad = func() { p.state, p.onLoad = "whole", func() {} }
		p.state = "half"
		p.check(t, "whole", "")
	})
}

func TestAnErrorIsReportedOnceAndTheNextChangeLoads(t *testing.T) {
	poll(t, "one", func(p *polled) {
		p.loadErr, p.state = errors.New("broken"), "two"
		p.check(t, "", "broken")
		p.state = "three"
		p.check(t, "", "broken")
		p.stateErr = errors.New("gone")
		p.check(t, "", "broken gone")
		p.stateErr, p.loadErr, p.state = nil, nil, "four"
		p.check(t, "four", "broken gone")
	})
}

func TestFolderStateFollowsWhatIsIncluded(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	state := func() string {
		t.Helper()
		s, err := FolderState(folder, func(name string) bool { return strings.HasSuffix(name, ".yaml") })
		if err != nil {
			t.Fatal(err)
		}
		return s
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
