package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// printLine writes a line that stays, for a person; elsewhere it is a log line.
func (p *process) printLine(format string, args ...any) {
	if p.terminal != nil {
		p.terminal.Printf(format, args...)
	}
}

// printWelcome says what runs, what was left out, and where to look.
func (p *process) printWelcome(roles role) {
	if p.terminal == nil {
		p.log.Info("tidegate runs", "version", version, "host", p.cfg.Host, "state", p.cfg.DataDir)
		return
	}
	p.printLine("tidegate %s on %s, state in %s", version, p.cfg.Host, p.cfg.DataDir)
	for _, what := range p.missing {
		p.printLine("  left out: %s", what)
	}
	if s := p.storeServer; s != nil {
		user, password := s.Analyst()
		p.printLine("  look    SQL page   %s   user %s, password %s", s.PlayURL(), user, password)
		p.printLine("          shell      %s 'SELECT severity, title, count, container_name FROM alerts_now ORDER BY last DESC'", p.queryCommand())
	}
	if p.cfg.Metrics.Listen != "" {
		p.printLine("          metrics    http://%s/metrics", p.cfg.Metrics.Listen)
	}
	if roles&roleCollector != 0 && p.cfg.Logs.Enabled {
		p.printLine("  reads   %s and the logs under %s", strings.Join(p.cfg.Capture.Interfaces, ", "), p.cfg.Logs.DockerDataRoot)
	}
}

// queryCommand is what to type so that query finds this store.
func (p *process) queryCommand() string {
	self := os.Args[0]
	if p.cfg.DataDir == defaultConfig().DataDir {
		return self + " query"
	}
	state := p.cfg.DataDir
	if wd, err := os.Getwd(); err == nil {
		state = strings.TrimPrefix(state, wd+"/")
	}
	return self + " query --data-dir " + state
}

// statusSample remembers the last look, for the rate.
type statusSample struct {
	at   time.Time
	rows uint64
}

func (p *process) statusLine(ctx context.Context, c *statusSample) string {
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
	if n, err := p.consumerLag(lagCtx); err == nil {
		lag = formatCount(n)
	}
	return fmt.Sprintf("events/s %s · %s %s · lag %s · alerts %s", formatCount(int64(rate)), p.evaluatedWord(), formatCount(l.Rows), lag, formatCount(l.Alerts))
}

// printTotals prints the ledger of this life, each hop a line.
func (p *process) printTotals() {
	if p.terminal == nil && p.shipper == nil && p.engine == nil {
		return
	}
	out := os.Stdout
	if p.terminal == nil {
		out = os.Stderr
	}
	w := tabwriter.NewWriter(out, 2, 8, 2, ' ', 0)
	if p.shipper != nil {
		l := p.shipper.Ledger()
		_, _ = fmt.Fprintf(w, "collector\tread %s\tshipped %s\twaiting %s\tdropped %s\tlost %s\n", formatCount(l.Read+l.Recovered), formatCount(l.Delivered), formatCount(l.Buffered), formatCount(l.Dropped), formatCount(l.Lost))
		if !l.IsBalanced() {
			_, _ = fmt.Fprintf(w, "\tthe sums do not meet: %+v\n", l)
		}
	}
	if p.engine != nil {
		l := p.engine.Ledger()
		_, _ = fmt.Fprintf(w, "engine\tread %s\t%s %s\trepeats %s\trefused %s\talerts %s\n", formatCount(l.Events), p.evaluatedWord(), formatCount(l.Rows+l.AlreadyStored), formatCount(l.DuplicateEvents), formatCount(l.Rejected+l.DeadLettered), formatCount(l.Alerts))
	}
	_ = w.Flush()
}

// evaluatedWord is the word for what became of judged events.
func (p *process) evaluatedWord() string {
	if p.storeless {
		return "judged"
	}
	return "stored"
}
