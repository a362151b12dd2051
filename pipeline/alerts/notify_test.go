package alerts

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
)

// A scriptedDestination answers each call with the next error, and records the alerts of each.
type scriptedDestination struct {
	resendDestination
	answers []error
	calls   []string
}

func (d *scriptedDestination) deliver(_ context.Context, list []notification) (err error) {
	var ids []string
	for _, n := range list {
		ids = append(ids, n.newest.ID)
	}
	d.calls = append(d.calls, strings.Join(ids, "+"))
	if len(d.answers) > 0 {
		err, d.answers = d.answers[0], d.answers[1:]
	}
	return err
}

// scripted returns a deliverer of a broker to a scripted destination. The alerts that are named in capitals have failed before.
func scripted(t *testing.T, destination *scriptedDestination, names ...string) *deliverer {
	t.Helper()
	d := attemptsDeliverer(destination.resends)
	d.client, d.log, d.partition = newClient(t), discardLog, &consumer.Partition{}
	d.destination.destination = destination
	for i, name := range names {
		open := &openAlert{newest: &pipeline.Alert{ID: name, Revision: 1}, updated: time.Now(), undelivered: int64(i)}
		if name == strings.ToUpper(name) {
			open.failing.record(time.Now().Add(-time.Hour), errors.New("failed"))
			open.failing.retryAt = time.Now().Add(time.Duration(i-10) * time.Minute)
		}
		d.open[name] = open
		d.pending++
	}
	return d
}

// TestRoundEndsAtWhatFailsAgain: new alerts are sent in batches, then those that have failed, each alone, until one fails again.
func TestRoundEndsAtWhatFailsAgain(t *testing.T) {
	failed, rejected := errors.New("failed"), &rejectedError{"no"}
	check := func(what, want string, pending int, answers []error, names ...string) {
		t.Helper()
		destination := &scriptedDestination{answers: answers}
		d := scripted(t, destination, names...)
		if err := d.sendDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(destination.calls, " "); got != want || d.pending != pending {
			t.Errorf("%s: %s, %d pending; want %s, %d", what, got, d.pending, want, pending)
		}
	}
	check("accepted", "a+b c D E", 0, nil, "a", "b", "c", "D", "E")
	check("fails again", "a D", 2, []error{nil, failed}, "a", "D", "E")
	check("fails later", "D E", 2, []error{nil, failed}, "D", "E", "F")
	check("rejected", "D E F", 0, []error{rejected}, "D", "E", "F")
	check("two failures in succession", "a+b c+d", 5, []error{failed, failed}, "a", "b", "c", "d", "E")
	check("a rejected batch is sent apart later", "a+b c", 2, []error{rejected}, "a", "b", "c")
}

// TestOutcomeOfANotificationIsRecorded: alerts of a batch that failed are alone from then on. What is rejected becomes a dead
// letter, and a later revision of it waits.
func TestOutcomeOfANotificationIsRecorded(t *testing.T) {
	failed, rejected := errors.New("failed"), fmt.Errorf("wrapped: %w", &rejectedError{"no"})
	check := func(what string, err error, keys []string, answered, alone bool, failures, refused int) *deliverer {
		t.Helper()
		d := scripted(t, &scriptedDestination{answers: []error{err}}, "a", "b", "c")
		d.health.failures = 1
		got, gotErr := d.notify(t.Context(), keys)
		open := d.open["a"]
		if gotErr != nil || got != answered || open.alone != alone || d.open["c"].alone || d.health.failures != failures || open.failing.backoff.Attempts() != refused {
			t.Errorf("%s: answered %t, %v, alone %t, %d failures, %d attempts", what, got, gotErr, open.alone, d.health.failures, open.failing.backoff.Attempts())
		}
		if wantPending := err != nil && (len(keys) > 1 || !answered); open.pending() != wantPending || open.accepted != (err == nil) {
			t.Errorf("%s: pending %t, accepted %t", what, open.pending(), open.accepted)
		}
		return d
	}
	both := []string{"a", "b"}
	check("accepted", nil, both, true, false, 0, 0)
	check("a batch failed", failed, both, false, true, 2, 0)
	check("a batch was rejected", rejected, both, true, true, 0, 0)
	check("failed", failed, both[:1], false, false, 2, 1)
	d := check("rejected", rejected, both[:1], true, false, 0, 1)
	open := d.open["a"]
	if !open.failing.rejected || open.failing.refusals != 0 || !open.failing.retryAt.After(time.Now()) || open.lastSent.IsZero() ||
		testutil.ToFloat64(d.metrics.rejected.WithLabelValues("hook")) != 1 {
		t.Errorf("rejected: %+v", open)
	}

	// An alert that has ended is closed by its rejection, and without a notification where its end is of no use.
	ended := func(resends, accepted bool, err error, calls int, wantOpen bool) {
		t.Helper()
		destination := &scriptedDestination{answers: []error{err}}
		destination.resends = resends
		d := scripted(t, destination, "a")
		open := d.open["a"]
		open.updated, open.undelivered, open.accepted, open.lastSent = time.Now().Add(-2*time.Hour), noOffset, accepted, time.Now()
		if answered, err := d.notify(t.Context(), []string{"a"}); err != nil || len(destination.calls) != calls || (d.open["a"] != nil) != wantOpen {
			t.Errorf("resends %t, accepted %t: answered %t, %v, %d calls, open %t", resends, accepted, answered, err, len(destination.calls), d.open["a"] != nil)
		}
	}
	ended(false, true, nil, 0, false)
	ended(true, false, nil, 0, false)
	ended(true, true, nil, 1, false)
	ended(true, true, rejected, 1, false)
	ended(true, true, failed, 1, true)

	// What is interrupted is neither accepted nor failed.
	d = scripted(t, &scriptedDestination{answers: []error{failed}}, "a")
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	if answered, err := d.notify(ctx, []string{"a"}); answered || !errors.Is(err, stopped) || d.health.failures != 0 || !d.open["a"].pending() {
		t.Errorf("interrupted: %t, %v, %d failures", answered, err, d.health.failures)
	}

	// A failed alert is given up after max_attempts refusals.
	d = scripted(t, &scriptedDestination{answers: []error{failed, failed, failed}}, "A")
	for attempt := 1; attempt <= 3; attempt++ {
		d.health.lastAccepted = time.Now()
		d.open["A"].failing.lastTried = time.Time{}
		if _, err := d.notify(t.Context(), []string{"A"}); err != nil {
			t.Fatal(err)
		}
		if d.open["A"].pending() != (attempt < 3) || (testutil.ToFloat64(d.metrics.rejected.WithLabelValues("hook")) == 1) != (attempt == 3) {
			t.Errorf("attempt %d: pending %t", attempt, d.open["A"].pending())
		}
	}
	if got := testutil.ToFloat64(d.metrics.failures.WithLabelValues("hook")); got != 3 {
		t.Errorf("%v failures", got)
	}
}
