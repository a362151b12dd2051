package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// printLine prints a line above the status line of a terminal. It prints nothing where the output is a log.
func (p *process) printLine(format string, args ...any) {
	if p.terminal != nil {
		p.terminal.printLine(format, args...)
	}
}

// welcomeQuery lists the alerts, the latest first.
const welcomeQuery = "SELECT severity, title, count, container_name FROM alerts ORDER BY last DESC"

// printWelcome prints what is missing, where results are found and which inputs are read.
func (p *process) printWelcome(roles role) {
	if p.terminal == nil {
		p.log.Info("started", "parts", roles.String(), "version", version, "host", p.cfg.Host, "data_dir", p.cfg.DataDir)
		return
	}
	p.printLine("tidegate %s on %s, data in %s", version, p.cfg.Host, p.cfg.DataDir)
	p.printLine("  runs     %s", roles)
	for _, what := range p.missing {
		p.printLine("  missing  %s", what)
	}
	if server := p.storeServer; server != nil {
		analyst := server.Analyst()
		password := "in " + analyst.PasswordFile
		if analyst.New {
			password = analyst.Password + " (shown this once; later it is in " + analyst.PasswordFile + ")"
		}
		p.printLine("  look     SQL page   %s   user %s, password %s", server.PlayURL(), analyst.User, password)
		p.printLine("           shell      %s '%s'", p.queryCommand(), welcomeQuery)
	}
	if p.cfg.Metrics.Listen != "" {
		p.printLine("           metrics    http://%s/metrics", p.cfg.Metrics.Listen)
	}
	if reads := p.inputs(); roles&roleCollector != 0 && len(reads) > 0 {
		p.printLine("  reads    %s", strings.Join(reads, " and "))
	}
}

// inputs returns what the collector reads: the interfaces that are there, those that it waits for, and the logs.
func (p *process) inputs() []string {
	var reads []string
	if p.captures {
		wanted := strings.Join(p.cfg.Capture.Interfaces, ", ")
		if found, err := matchingInterfaces(p.cfg); err != nil || len(found) == 0 {
			reads = append(reads, "no interface yet (capture.interfaces: "+wanted+")")
		} else {
			reads = append(reads, strings.Join(found, ", ")+" (of "+wanted+")")
		}
	}
	if p.cfg.Logs.Enabled {
		reads = append(reads, "the logs under "+p.cfg.Logs.DockerDataRoot)
	}
	return reads
}

// queryCommand returns the command `tidegate query` with the flags for this store.
func (p *process) queryCommand() string {
	self := os.Args[0]
	if p.cfg.DataDir == defaultConfig().DataDir {
		return self + " query"
	}
	dir := p.cfg.DataDir
	if wd, err := os.Getwd(); err == nil {
		dir = strings.TrimPrefix(dir, wd+"/")
	}
	return self + " query --data-dir " + dir
}

// A statusSample is a count of stored events and its time. statusLine computes the rate from two of them.
type statusSample struct {
	at   time.Time
	rows uint64
}

// statusLine returns the line of counts that `run` redraws every second, and replaces the previous sample.
func (p *process) statusLine(ctx context.Context, previous *statusSample) string {
	ledger := p.engine.Ledger()
	now := time.Now()
	rate := 0.0
	if !previous.at.IsZero() {
		rate = float64(ledger.Rows-previous.rows) / now.Sub(previous.at).Seconds()
	}
	previous.at, previous.rows = now, ledger.Rows

	// If the broker does not answer within a second, the lag is unknown.
	lag := "?"
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if messages, err := p.consumerLag(ctx); err == nil {
		lag = formatCount(messages)
	}
	line := fmt.Sprintf("events/s %s · %s %s · lag %s · new alerts %s",
		formatCount(int64(rate)), p.evaluatedWord(), formatCount(ledger.Rows), lag, formatCount(ledger.Alerts))
	if held := p.detectors.Held(); len(held) > 0 {
		line += " · held back: " + strings.Join(held, ", ")
	}
	return line
}

// printTotals prints the ledgers of the collector and of the engine, a line for each. docs/OPERATING.md
// describes the words.
func (p *process) printTotals() {
	var out io.Writer = os.Stderr
	if p.terminal != nil {
		out = os.Stdout
	}
	writer := tabwriter.NewWriter(out, 2, 8, 2, ' ', 0)
	if p.shipper != nil {
		ledger := p.shipper.Ledger()
		totals := []total{
			{"read", ledger.Read + ledger.Recovered},
			{"delivered", ledger.Delivered},
			{"buffered", ledger.Buffered},
			{"dropped", ledger.Dropped},
			{"lost", ledger.Lost},
		}
		if ledger.Unconfirmed > 0 {
			totals = append(totals, total{"unconfirmed", ledger.Unconfirmed})
		}
		printTotalsLine(writer, "collector", totals...)
		if !ledger.IsBalanced() {
			_, _ = fmt.Fprintf(writer, "\tthe sums do not add up: %+v\n", ledger)
		}
	}
	if p.engine != nil {
		ledger := p.engine.Ledger()
		totals := []total{
			{"read", ledger.Events},
			{p.evaluatedWord(), ledger.Rows + ledger.AlreadyStored},
			{"duplicates", ledger.DuplicateEvents},
			{"rejected", ledger.Rejected},
			{"unfinished", ledger.Unfinished},
			{"alerts", ledger.Alerts},
		}
		// These are messages. One that cannot be decoded has no events.
		if ledger.DeadLettered > 0 {
			totals = append(totals, total{"dead letters", ledger.DeadLettered})
		}
		if ledger.Lost > 0 {
			totals = append(totals, total{"lost messages", ledger.Lost})
		}
		printTotalsLine(writer, "engine", totals...)
	}
	_ = writer.Flush()
}

// A total is one count of a totals line and the word in front of it.
type total struct {
	word  string
	count uint64
}

// printTotalsLine prints the totals of one component as cells of a tabwriter.
func printTotalsLine(out io.Writer, component string, totals ...total) {
	_, _ = fmt.Fprint(out, component)
	for _, each := range totals {
		_, _ = fmt.Fprint(out, "\t", each.word, " ", formatCount(each.count))
	}
	_, _ = fmt.Fprintln(out)
}

// evaluatedWord returns the word for events that have passed the engine: without a store they are only
// evaluated.
func (p *process) evaluatedWord() string {
	if p.storeless {
		return "evaluated"
	}
	return "stored"
}
