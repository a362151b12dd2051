package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// say writes a line that stays, for a person; elsewhere it is a log line.
func (p *process) say(format string, args ...any) {
	if p.screen != nil {
		p.screen.Printf(format, args...)
	}
}

// welcome says what runs, what was left out, and where to look.
func (p *process) welcome(roles role) {
	if p.screen == nil {
		p.log.Info("tidegate runs", "version", version, "host", p.cfg.Host, "state", p.cfg.State)
		return
	}
	p.say("tidegate %s on %s, state in %s", version, p.cfg.Host, p.cfg.State)
	for _, what := range p.leftOut {
		p.say("  left out: %s", what)
	}
	if s := p.storeServer; s != nil {
		user, password := s.Analyst()
		p.say("  look    SQL page   %s   user %s, password %s", s.PlayURL(), user, password)
		p.say("          shell      %s 'SELECT severity, title, count, container_name FROM alerts_now ORDER BY last DESC'", p.queryCommand())
	}
	if p.cfg.Listen != "" {
		p.say("          metrics    http://%s/metrics", p.cfg.Listen)
	}
	if roles&roleCollector != 0 && p.cfg.Logs.Enabled {
		p.say("  reads   %s and the logs under %s", strings.Join(p.cfg.Capture.Interfaces, ", "), p.cfg.Logs.Root)
	}
}

// queryCommand is what to type so that query finds this store.
func (p *process) queryCommand() string {
	self := os.Args[0]
	if p.cfg.State == defaultConfig().State {
		return self + " query"
	}
	state := p.cfg.State
	if wd, err := os.Getwd(); err == nil {
		state = strings.TrimPrefix(state, wd+"/")
	}
	return self + " query --state " + state
}

// counts remembers the last look, for the rate.
type counts struct {
	at   time.Time
	rows uint64
}

func (p *process) countsLine(ctx context.Context, c *counts) string {
	l := p.engine.Ledger()
	now := time.Now()
	rate := 0.0
	if !c.at.IsZero() {
		rate = float64(l.Rows-c.rows) / now.Sub(c.at).Seconds()
	}
	c.at, c.rows = now, l.Rows
	lag := "?"
	lagCtx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if n, err := p.lag(lagCtx); err == nil {
		lag = grouped(n)
	}
	return fmt.Sprintf("events/s %s · %s %s · lag %s · alerts %s", grouped(int64(rate)), p.kept(), grouped(l.Rows), lag, grouped(l.Alerts))
}

// sums prints the ledger of this life, each hop a line.
func (p *process) sums() {
	if p.screen == nil && p.shipper == nil && p.engine == nil {
		return
	}
	out := os.Stdout
	if p.screen == nil {
		out = os.Stderr
	}
	w := tabwriter.NewWriter(out, 2, 8, 2, ' ', 0)
	if p.shipper != nil {
		l := p.shipper.Ledger()
		_, _ = fmt.Fprintf(w, "collector\tread %s\tshipped %s\twaiting %s\tdropped %s\tlost %s\n", grouped(l.Read+l.Recovered), grouped(l.Shipped), grouped(l.Waiting), grouped(l.Dropped), grouped(l.Lost))
		if !l.Balanced() {
			_, _ = fmt.Fprintf(w, "\tthe sums do not meet: %+v\n", l)
		}
	}
	if p.engine != nil {
		l := p.engine.Ledger()
		_, _ = fmt.Fprintf(w, "engine\tread %s\t%s %s\trepeats %s\trefused %s\talerts %s\n", grouped(l.Events), p.kept(), grouped(l.Rows+l.AlreadyStored), grouped(l.DuplicateEvents), grouped(l.Rejected+l.DeadLettered), grouped(l.Alerts))
	}
	_ = w.Flush()
}

// kept is the word for what became of judged events.
func (p *process) kept() string {
	if p.storeless {
		return "judged"
	}
	return "stored"
}
