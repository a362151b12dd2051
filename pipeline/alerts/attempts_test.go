package alerts

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/pipeline"
	"tidegate/pipeline/logging"
)

// resendDestination is a deafDestination that needs resends or not, and takes batches of two.
type resendDestination struct {
	deafDestination
	resends bool
}

func (d resendDestination) needsResend() bool { return d.resends }
func (d resendDestination) maxBatch() int     { return 2 }

func attemptsDeliverer(resends bool) *deliverer {
	return &deliverer{
		Publisher: &Publisher{
			cfg: Config{
				MaxOpen: 100, MaxAttempts: 3, ResolveAfter: time.Hour, ResendInterval: 2 * time.Minute, Throttle: 30 * time.Second,
			},
			metrics: newPublisherMetrics(prometheus.NewRegistry()),
		},
		destination: namedDestination{"hook", resendDestination{resends: resends}}, open: map[string]*openAlert{},
		closed: closedAlerts{limit: 100}, failureLog: logging.NewThrottle(time.Minute),
	}
}

// TestNotificationIsDue: at once for a new alert, behind the throttle for a revision, at the resend for a destination that
// needs one and has accepted the alert, else at the end. A failed attempt postpones it, and never brings it forward.
func TestNotificationIsDue(t *testing.T) {
	begin := time.Unix(1e9, 0)
	at := func(d time.Duration) time.Time { return begin.Add(d) }
	check := func(what string, resends bool, open openAlert, want time.Time) {
		t.Helper()
		if got := attemptsDeliverer(resends).dueAt(&open); !got.Equal(want) {
			t.Errorf("%s: due at %v, want %v", what, got, want)
		}
	}
	updated := at(0)
	check("a new alert", true, openAlert{updated: updated, undelivered: 0}, time.Time{})
	check("a revision", true, openAlert{updated: updated, undelivered: 5, lastSent: at(time.Second), accepted: true}, at(31*time.Second))
	check("delivered", false, openAlert{updated: updated, undelivered: noOffset, lastSent: at(1), accepted: true}, at(time.Hour))
	check("a resend", true, openAlert{updated: updated, undelivered: noOffset, lastSent: at(time.Second), accepted: true},
		at(2*time.Minute+time.Second))
	check("rejected", true, openAlert{updated: updated, undelivered: noOffset, lastSent: at(1)}, at(time.Hour))
	check("the end before a resend", true,
		openAlert{updated: updated, undelivered: noOffset, lastSent: at(time.Hour - time.Minute), accepted: true}, at(time.Hour))

	failing := failureState{retryAt: at(time.Minute)}
	_ = failing.backoff.Next()
	check("failed", true, openAlert{updated: updated, undelivered: 0, failing: failing}, at(time.Minute))
	failing.retryAt = at(time.Second)
	check("failed before", true, openAlert{updated: updated, undelivered: 5, lastSent: at(time.Second), failing: failing}, at(31*time.Second))
	check("a time of an attempt that succeeded", true,
		openAlert{updated: updated, undelivered: 0, failing: failureState{retryAt: at(time.Minute)}}, time.Time{})
}

// TestPauseOfAnAlertGrows from half a second to a minute, and is at least what the destination requests.
func TestPauseOfAnAlertGrows(t *testing.T) {
	var state failureState
	now := time.Unix(1e9, 0)
	if state.is() {
		t.Error("failed without an attempt")
	}
	pause := minAlertPause
	for i := range 12 {
		tried := now.Add(time.Duration(i) * time.Hour)
		state.record(tried, errors.New("refused"))
		got := state.retryAt.Sub(tried)
		if got < pause/2 || got > pause || !state.since.Equal(now) || !state.lastTried.Equal(tried) || !state.is() {
			t.Errorf("attempt %d: a pause of %v, since %v, tried %v", i, got, state.since, state.lastTried)
		}
		pause = min(2*pause, maxAlertPause)
	}
	state.record(now, &responseError{retryAfter: 4 * time.Minute})
	if got := state.retryAt.Sub(now); got != 4*time.Minute {
		t.Errorf("a pause of %v, 4 minutes were requested", got)
	}
}

// TestDestinationPausesAfterTwoFailures, shortly if it answers, since the next alert may be accepted, until an answer.
func TestDestinationPausesAfterTwoFailures(t *testing.T) {
	now := time.Unix(1e9, 0)
	var health destinationHealth
	health.recordFailure(now, errors.New("refused"))
	if health.failures != 1 || !health.pausedUntil.IsZero() {
		t.Errorf("%+v after one failure", health)
	}
	longest := time.Duration(0)
	for range 20 {
		health.recordFailure(now, errors.New("refused"))
		longest = max(longest, health.pausedUntil.Sub(now))
	}
	if longest < 2500*time.Millisecond || longest > 5*time.Second {
		t.Errorf("a pause of %v, want up to 5 s", longest)
	}
	health.recordFailure(now, &responseError{})
	if got := health.pausedUntil.Sub(now); got != answeredPause {
		t.Errorf("a pause of %v after an answer", got)
	}
	health.recordFailure(now, &responseError{retryAfter: time.Minute})
	if got := health.pausedUntil.Sub(now); got != time.Minute {
		t.Errorf("a pause of %v, a minute was requested", got)
	}
	health.recordAnswer()
	if health.failures != 0 || !health.pausedUntil.IsZero() || health.backoff.Attempts() != 0 {
		t.Errorf("%+v after an answer", health)
	}
}

// TestWorkIsOrderedByWhatWaitsLongest: new revisions by their offset, then resends; what failed is apart, by the time of
// its next attempt; what is not due is left out. An alert that failed in a batch is alone.
func TestWorkIsOrderedByWhatWaitsLongest(t *testing.T) {
	d := attemptsDeliverer(true)
	now := time.Unix(1e9, 0)
	add := func(key string, open openAlert, retryAt time.Duration) {
		open.updated = now
		open.failing.retryAt = now.Add(retryAt)
		if retryAt != 0 {
			_ = open.failing.backoff.Next()
		}
		d.open[key] = &open
		if open.pending() {
			d.pending++
		}
	}
	add("resend", openAlert{undelivered: noOffset, lastSent: now.Add(-time.Hour), accepted: true}, 0)
	add("late", openAlert{undelivered: 9, alone: true}, 0)
	add("early", openAlert{undelivered: 3}, 0)
	add("first", openAlert{undelivered: 0}, 0)
	add("throttled", openAlert{undelivered: 1, lastSent: now}, 0)
	add("failed long ago", openAlert{undelivered: 8}, -time.Minute)
	add("failed", openAlert{undelivered: 2}, -time.Second)
	add("pauses", openAlert{undelivered: 4}, time.Second)
	fresh, failing := d.collectDue(now)
	if !slices.Equal(fresh, []string{"first", "early", "late", "resend"}) || !slices.Equal(failing, []string{"failed long ago", "failed"}) {
		t.Errorf("fresh %q, failing %q", fresh, failing)
	}
	gauge := func(vector *prometheus.GaugeVec) float64 {
		return testutil.ToFloat64(vector.WithLabelValues("hook", ""))
	}
	if open, pending, failing := gauge(d.metrics.open), gauge(d.metrics.pending), gauge(d.metrics.failing); open != 8 ||
		pending != 7 || failing != 3 {
		t.Errorf("%v open, %v pending, %v failing", open, pending, failing)
	}
	batches := d.formBatches(fresh)
	want := [][]string{{"late"}, {"first", "early"}, {"resend"}}
	if !slices.EqualFunc(batches, want, slices.Equal) {
		t.Errorf("batches %q, want %q", batches, want)
	}
}

// TestNextRoundIsWithinASecond, at the time of the first notification that is due, or behind the destination's pause.
func TestNextRoundIsWithinASecond(t *testing.T) {
	d := attemptsDeliverer(true)
	now := time.Unix(1e9, 0)
	check := func(what string, want time.Duration) {
		t.Helper()
		if got := d.untilNextDue(now); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	check("nothing", time.Second)
	d.open["a"] = &openAlert{updated: now, undelivered: 1, lastSent: now.Add(-d.cfg.Throttle + 300*time.Millisecond)}
	check("in 300 ms", 300*time.Millisecond)
	d.health.pausedUntil = now.Add(400 * time.Millisecond)
	check("a pause", 400*time.Millisecond)
	d.health.pausedUntil = now.Add(time.Minute)
	check("a long pause", time.Second)
	d.health.pausedUntil = time.Time{}
	d.open["b"] = &openAlert{updated: now, undelivered: 1}
	check("a new alert", time.Millisecond)
}

// TestAlertsEnd when nothing was delivered or is to be delivered for ResolveAfter. A notification says when.
func TestAlertsEnd(t *testing.T) {
	d := attemptsDeliverer(true)
	now := time.Unix(1e9, 0)
	check := func(what string, open openAlert, ended bool) {
		t.Helper()
		if got := d.hasEnded(&open, now); got != ended {
			t.Errorf("%s: ended %t", what, got)
		}
		endsAt := now
		if !ended {
			endsAt = now.Add(8 * time.Minute) // four resends
		}
		list := d.notifications([]*openAlert{&open}, now)
		if len(list) != 1 || !list[0].endsAt.Equal(endsAt) || list[0].newest != open.newest || list[0].first != open.first {
			t.Errorf("%s: %+v, want an end at %v", what, list, endsAt)
		}
	}
	first, newest := &pipeline.Alert{}, &pipeline.Alert{}
	check("fresh", openAlert{first: first, newest: newest, updated: now.Add(-time.Hour + 1), undelivered: noOffset}, false)
	check("over", openAlert{first: first, newest: newest, updated: now.Add(-time.Hour), undelivered: noOffset}, true)
	check("pending", openAlert{first: first, newest: newest, updated: now.Add(-2 * time.Hour), undelivered: 0}, false)
	d.cfg.ResendInterval = time.Minute
	if got := d.expiry(); got != 5*time.Minute {
		t.Errorf("an alert expires after %v, want 5 minutes", got)
	}
}

// TestAcceptanceEndsTheFailuresOfAll: a destination that failed accepts again, so what failed with it is due at once, and
// what it refused by itself is not.
func TestAcceptanceEndsTheFailuresOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := attemptsDeliverer(false)
		now := time.Now()
		for key, open := range map[string]*openAlert{
			"sent": {undelivered: 1, alone: true}, "ended": {undelivered: noOffset},
			"failed": {undelivered: 2}, "refused": {undelivered: 3}, "rejected": {undelivered: 4},
		} {
			open.newest = &pipeline.Alert{ID: key, Revision: 1}
			open.updated = now.Add(-2 * time.Hour)
			open.failing.record(now, nil)
			open.failing.retryAt = now.Add(time.Hour)
			d.open[key] = open
			if open.pending() {
				d.pending++
			}
		}
		d.open["refused"].failing.refusals = 1
		d.open["rejected"].failing.rejected = true
		retry := func(key string) time.Duration { return d.open[key].failing.retryAt.Sub(now) }

		// Without failures of the destination the pauses stay.
		d.open["again"] = &openAlert{newest: &pipeline.Alert{ID: "again"}, updated: now, undelivered: noOffset}
		d.recordAccepted([]string{"again"}, now)
		if retry("failed") != time.Hour {
			t.Errorf("due in %v, the destination has not failed", retry("failed"))
		}

		d.health.failures = 1
		time.Sleep(time.Second)
		d.recordAccepted([]string{"sent", "ended"}, now)
		sent := d.open["sent"]
		if sent.pending() || sent.alone || sent.failing.is() || !sent.accepted || !sent.lastSent.Equal(now.Add(time.Second)) || d.pending != 3 {
			t.Errorf("%+v after it was accepted; %d pending", sent, d.pending)
		}
		if d.open["ended"] != nil || !d.closed.covers("ended", &pipeline.Alert{ID: "ended", Revision: 1}) {
			t.Error("an alert whose end was accepted is open")
		}
		if retry("failed") != time.Second || retry("refused") != time.Hour || retry("rejected") != time.Hour {
			t.Errorf("due in %v, %v and %v", retry("failed"), retry("refused"), retry("rejected"))
		}
		if d.health.failures != 0 || !d.health.lastAccepted.Equal(now.Add(time.Second)) ||
			testutil.ToFloat64(d.metrics.sent.WithLabelValues("hook")) != 3 || testutil.ToFloat64(d.metrics.resolved.WithLabelValues("hook")) != 1 {
			t.Errorf("%+v, %v sent, %v resolved", d.health, testutil.ToFloat64(d.metrics.sent.WithLabelValues("hook")),
				testutil.ToFloat64(d.metrics.resolved.WithLabelValues("hook")))
		}
	})
}

// TestRefusalsCountWhereOthersAreAccepted: a failure counts against an alert if the destination accepted another one since
// its last attempt, or, where it answers, since its first failure.
func TestRefusalsCountWhereOthersAreAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		check := func(what string, accepted time.Duration, cause error, want int) {
			t.Helper()
			d := attemptsDeliverer(false)
			open := &openAlert{newest: &pipeline.Alert{ID: "a"}, updated: time.Now(), undelivered: 1}
			d.open["a"] = open
			open.failing.record(start.Add(-time.Minute), errors.New("refused"))
			open.failing.record(start.Add(-time.Second), errors.New("refused"))
			d.health.lastAccepted = start.Add(accepted)
			if err := d.recordFailure(t.Context(), "a", cause); err != nil || open.failing.refusals != want || d.open["a"] == nil {
				t.Errorf("%s: %d refusals, %v", what, open.failing.refusals, err)
			}
		}
		refused, answer := errors.New("refused"), &responseError{}
		check("nothing was accepted", -time.Hour, refused, 0)
		check("nothing was accepted since the first failure", -time.Hour, answer, 0)
		check("accepted before the last attempt", -30*time.Second, refused, 0)
		check("accepted before the last attempt, and answers", -30*time.Second, answer, 1)
		check("accepted since the last attempt", -time.Millisecond, refused, 1)

		// The first failure of an alert says nothing about others.
		d := attemptsDeliverer(false)
		d.open["a"] = &openAlert{newest: &pipeline.Alert{ID: "a"}, updated: time.Now(), undelivered: 1}
		d.health.lastAccepted = start
		if err := d.recordFailure(t.Context(), "a", answer); err != nil || d.open["a"].failing.refusals != 0 {
			t.Errorf("%d refusals after the first failure, %v", d.open["a"].failing.refusals, err)
		}

		// A destination that gets no end of an alert closes it itself, when the last notification of it has expired.
		d.open["a"] = &openAlert{newest: &pipeline.Alert{ID: "a"}, updated: start.Add(-2 * time.Hour), undelivered: noOffset, lastSent: start.Add(-8 * time.Minute)}
		if err := d.recordFailure(t.Context(), "a", refused); err != nil || d.open["a"] == nil {
			t.Errorf("closed before it has expired, %v", err)
		}
		d.open["a"].lastSent = start.Add(-8*time.Minute - 1)
		if err := d.recordFailure(t.Context(), "a", refused); err != nil || d.open["a"] != nil {
			t.Errorf("open behind its expiry, %v", err)
		}
	})
}

// TestClosedAlertCovers its revisions and those of earlier windows.
func TestClosedAlertCovers(t *testing.T) {
	begin := time.Unix(1e9, 0)
	closed := closedAlerts{limit: 2}
	closed.add("a", &pipeline.Alert{ID: "a2", Revision: 3, WindowStart: begin})
	check := func(key, id string, revision uint64, window time.Duration, want bool) {
		t.Helper()
		if got := closed.covers(key, &pipeline.Alert{ID: id, Revision: revision, WindowStart: begin.Add(window)}); got != want {
			t.Errorf("%s %s %d %v: covered %t", key, id, revision, window, got)
		}
	}
	checkAll := func() {
		t.Helper()
		check("a", "a2", 2, 0, true)
		check("a", "a2", 3, 0, true)
		check("a", "a2", 4, 0, false)
		check("a", "a1", 9, -1, true)
		check("a", "a3", 1, 0, false)
		check("a", "a3", 1, 1, false)
		check("b", "a2", 1, 0, false)
	}
	checkAll()
	closed.add("c", &pipeline.Alert{ID: "c"})
	closed.add("d", &pipeline.Alert{ID: "d"})
	checkAll()
	closed.add("e", &pipeline.Alert{ID: "e"})
	closed.add("f", &pipeline.Alert{ID: "f"})
	check("a", "a2", 2, 0, false) // beyond 2 × limit
	check("d", "d", 0, 0, true)
}

// TestSummaryNamesPlacePartiesAndCount.
func TestSummaryNamesPlacePartiesAndCount(t *testing.T) {
	check := func(alert pipeline.Alert, want string) {
		t.Helper()
		if got := alertSummary(&alert); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	check(pipeline.Alert{Title: "Scan", Rule: "scan", ContainerName: "web", Host: "h"}, "Scan on web")
	check(pipeline.Alert{Rule: "scan", Host: "h", Count: 1, Source: "1.1.1.1"}, "scan on h")
	check(pipeline.Alert{Rule: "scan", Host: "h", Count: 2, Destination: "2.2.2.2"}, "scan on h (2 times)")
	check(pipeline.Alert{Rule: "scan", Host: "h", Count: 7, Source: "1.1.1.1", Destination: "2.2.2.2"}, "scan on h: 1.1.1.1 → 2.2.2.2 (7 times)")
	for id, want := range map[string]string{"0123456789abcdef": "0123456789ab", "0123456789ab": "0123456789ab", "0": "0", "": ""} {
		if got := shortID(id); got != want {
			t.Errorf("%q is shown as %q", id, got)
		}
	}
}
