package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"tidegate/collector/capture"
	"tidegate/collector/logs"
	"tidegate/collector/logs/decode"
	"tidegate/collector/sessions"
	"tidegate/detectors/rules"
	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
	"tidegate/protocols"
	"tidegate/protocols/all"
)

// replayCommand returns the command `tidegate replay`.
func replayCommand() *cobra.Command {
	var job replay
	var output, rulesDir, sigmaDir string
	var openTunnels, withShipped bool
	cmd := &cobra.Command{
		Use:   "replay FILE…",
		Short: "read captures, logs and stored events",
		Long: `replay reads capture files (pcap, pcapng), json-file logs of Docker and plain text logs, gzipped or not,
through the same code as live traffic, and events as replay and query print them (JSON, one object a line). It
prints a table of counts, or every event as one nested ECS object a line. Correlation rules take the events of all files
in the order in which they ended; their groups are in the table, or on standard error.

A file does not say which tunnels ended on the host that captured it. So every tunnel is opened, and the events inside
have the fields tunnel.*: whoever sent the outer packet chose all that is in them. --tunnels=false opens none, as the
collector does on the bridges of containers.

Needs:    no configuration, no broker and no store.
Ends:     with 1 if a capture is truncated or malformed, or has a link type that is not read. It prints the events before
          the damage, and where that is. Packets that were not decoded are counted by the header at which decoding ended:
          in the table, or on standard error.
          A line that is not of the format of its log is an event with event.partial. With 2 if a file cannot be opened.`,
		Example: `  tidegate replay shop.pcap                          counts by dataset
  tidegate replay -o jsonl shop.pcap.gz | jq .       every event
  tidegate replay -o jsonl --rules rules shop.pcap   with the verdicts of a folder of rules
  tidegate query -o json 'SELECT * FROM events WHERE "@timestamp" > now() - INTERVAL 7 DAY' > week.jsonl
  tidegate replay --rules my-rules week.jsonl        what new rules match in a week of stored events`,
		Args: oneOrMore("the names of captures and log files"),
		RunE: func(cmd *cobra.Command, args []string) error {
			job.skipTunnels = !openTunnels
			switch output {
			case "jsonl":
				job.printEvents = true
			case "matches":
				job.printMatches = true
			case "table":
			default:
				return fmt.Errorf("-o %s: not one of table, jsonl, matches", output)
			}
			if rulesDir != "" || sigmaDir != "" || withShipped {
				set, err := loadRules(rulesDir, sigmaDir, withShipped)
				if err != nil {
					return err
				}
				warnOfRefused(os.Stderr, set)
				if names := set.FeedNames(); len(names) > 0 {
					warnOfFeeds(names, "replay reads none")
				}
				job.rules = set
			}
			// Events on the same terminal show by themselves how far it is.
			if isTerminal(os.Stderr) && !(job.printEvents && isTerminal(os.Stdout)) {
				job.progress = newTerminal(os.Stderr)
			}
			return job.readFiles(cmd.Context(), args, os.Stdout, os.Stderr)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table; jsonl: one event a line; matches: one match of a correlation rule a line, as JSON")
	cmd.Flags().StringVar(&rulesDir, "rules", "", "evaluate the rules of this folder")
	cmd.Flags().StringVar(&sigmaDir, "sigma", "", "evaluate the Sigma rules of this folder, beside those of --rules")
	cmd.Flags().BoolVar(&withShipped, "with-shipped", false, "evaluate the shipped rules, beside those of --rules")
	cmd.Flags().BoolVar(&openTunnels, "tunnels", true,
		"read the packets inside tunnels (VXLAN, GRE, …); their events have the fields tunnel.*")
	return cmd
}

// A replay reads files and prints their events, or a table of their counts. It is used by one goroutine.
type replay struct {
	printEvents  bool            // print each event instead of the table
	printMatches bool            // print each match of a correlation rule instead of the table
	skipTunnels  bool            // do not read the packets inside tunnels
	rules        *rules.Set      // nil: none
	fold         *correlate.Fold // of correlation rules; nil: there are none
	lastEnd      int64           // latest end of an event, ns since 1970

	out       *bufio.Writer
	line      []byte            // buffer of one printed event
	block     []*pipeline.Event // events that are not evaluated yet
	writeErr  error             // nothing is read after it
	events    map[string]int    // by dataset
	matches   map[string]int    // verdicts by severity, rule and title, as cells of the table
	groups    []matchedGroup    // what correlation rules matched
	packets   int
	undecoded undecodedPackets

	progress   *terminal // shows how far the replay is; nil: nothing does
	progressAt time.Time // of the last status line
	file       string    // the one that is read
	evaluated  int       // events
}

// replayBlock is the number of events that are evaluated at a time.
const replayBlock = 256

// readFiles reads files and prints their events or the table. After an error in one file it reads the next;
// the errors of all files are returned.
func (r *replay) readFiles(ctx context.Context, files []string, stdout, stderr io.Writer) error {
	r.out = bufio.NewWriterSize(stdout, 1<<16)
	r.events, r.matches, r.undecoded = map[string]int{}, map[string]int{}, undecodedPackets{}
	if r.rules != nil && len(r.rules.Correlations()) > 0 {
		r.fold = correlate.New(r.rules.Correlations(), correlate.DefaultLimits)
	}

	var errs []error
	for _, name := range files {
		r.file = name
		if err := r.readFile(ctx, name); err != nil {
			errs = append(errs, err)
		}
		r.flushBlock()
		if ctx.Err() != nil || r.writeErr != nil {
			break
		}
	}

	if r.fold != nil {
		// Windows that are open now may still get events: they are not evaluated.
		if err := r.addMatches(r.fold.Advance(min(r.lastEnd, math.MaxInt64-1) + 1)); err != nil {
			errs = append(errs, err)
		}
		warnOfBounds(stderr, r.fold.Counts(), "read fewer files at a time")
	}

	if r.progress != nil {
		r.progress.removeStatus()
	}
	if r.fold != nil {
		warnOfUngrouped(stderr, r.rules)
	}

	// The table is left out if no file could be read.
	if !r.printEvents && !r.printMatches && (len(errs) < len(files) || len(r.events) > 0 || r.packets > 0) {
		r.printTable()
	}
	if err := errors.Join(r.writeErr, r.out.Flush()); err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	if r.printEvents || r.printMatches {
		r.undecoded.printSummary(stderr)
	}
	if r.printEvents {
		r.printGroups(stderr)
	}
	if len(errs) > 0 && !slices.ContainsFunc(errs, isNotOpened) {
		errs = append(errs, errFindings)
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return ctx.Err()
}

// isNotOpened reports whether err says that a file could not be opened.
func isNotOpened(err error) bool {
	pathErr, ok := errors.AsType[*fs.PathError](err)
	return ok && pathErr.Op == "open"
}

// readFile reads one file. Its first bytes decide whether it is a log, and of which format; every other file
// is read as a capture.
func (r *replay) readFile(ctx context.Context, name string) error {
	id, head, err := identifyFile(name)
	if err != nil {
		return err
	}
	if pipeline.IsEventLine(head) {
		return r.readEvents(ctx, name)
	}
	if format, ok := decode.Detect(head); ok {
		return logs.ReadFile(ctx, logs.Default(), name, format, id, r.addEvent)
	}
	return r.readCapture(ctx, name, id)
}

// maxEventLine bounds a line of a file of events.
const maxEventLine = 16 << 20

// errLongLine is the error of a line that is longer than maxEventLine.
var errLongLine = fmt.Errorf("the line is longer than %d MiB, the limit for an event", maxEventLine>>20)

// readEventLine reads the next line into buf, with its end. Of a line that is too long it reads all and keeps nothing.
func readEventLine(in *bufio.Reader, buf []byte) (line []byte, err error) {
	line, tooLong := buf[:0], false
	for {
		part, err := in.ReadSlice('\n')
		if tooLong = tooLong || len(line)+len(part) > maxEventLine; !tooLong {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == nil && tooLong, errors.Is(err, io.EOF) && tooLong:
			return line[:0], errLongLine
		case errors.Is(err, io.EOF) && len(line) > 0:
			return line, nil
		}
		return line, err
	}
}

// readEvents reads a file of events, one JSON object a line. A line that is no event is an error; the others are
// read all the same.
func (r *replay) readEvents(ctx context.Context, name string) (err error) {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	reader := bufio.NewReader(file)
	if magic, _ := reader.Peek(2); string(magic) == "\x1f\x8b" {
		unzipped, err := gzip.NewReader(reader)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		reader = bufio.NewReader(unzipped)
	}

	const maxErrors = 10
	var errs []error
	bad, number := 0, 0
	var line []byte
	var readErr error
	for ctx.Err() == nil && r.writeErr == nil {
		line, err = readEventLine(reader, line)
		if err != nil && !errors.Is(err, errLongLine) {
			if !errors.Is(err, io.EOF) {
				readErr = fmt.Errorf("read %s: line %d: %w", name, number+1, err)
			}
			break
		}
		number++
		if err == nil {
			text := bytes.TrimRight(line, "\r\n")
			if len(bytes.TrimSpace(text)) == 0 {
				continue
			}
			var event *pipeline.Event
			if event, err = pipeline.FromEventLine(text); err == nil {
				r.addEvent(event)
				continue
			}
		}
		if bad++; bad <= maxErrors {
			errs = append(errs, fmt.Errorf("%s:%d: %s", name, number, oneLine(err)))
		}
	}
	if bad > maxErrors {
		errs = append(errs, fmt.Errorf("%s: %d more lines are no events", name, bad-maxErrors))
	}
	return errors.Join(append(errs, readErr)...)
}

// identifyFile returns the first bytes of the hash of a file, as the collector's id of its events, and the
// first bytes of its content, unzipped.
func identifyFile(name string) (id pipeline.ID, head []byte, err error) {
	file, err := os.Open(name)
	if err != nil {
		return id, nil, err
	}
	defer func() { _ = file.Close() }()
	if info, err := file.Stat(); err != nil {
		return id, nil, err
	} else if info.IsDir() {
		return id, nil, fmt.Errorf("%s is a folder, not a file", name)
	}

	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return id, nil, fmt.Errorf("read %s: %w", name, err)
	}
	copy(id[:], hash.Sum(nil))
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return id, nil, fmt.Errorf("read %s: %w", name, err)
	}

	// Errors while reading head are ignored: the reader of the whole file returns them again.
	reader := bufio.NewReader(file)
	if magic, _ := reader.Peek(2); string(magic) == "\x1f\x8b" {
		if unzipped, err := gzip.NewReader(reader); err == nil {
			reader = bufio.NewReader(unzipped)
		}
	}
	head, _ = reader.Peek(4096)
	return id, bytes.Clone(head), nil
}

// readCapture reads a capture. The panic of a parser is an error, and the parser's connection is ignored from
// there on.
func (r *replay) readCapture(ctx context.Context, name string, id pipeline.ID) (err error) {
	file, err := capture.OpenFile(name)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()

	reg := prometheus.NewRegistry()
	set := protocols.NewSet(all.Protocols, protocols.Default(), reg)
	var parserBugs error
	set.Panicked = func(protocol string, value any, _ []byte) {
		parserBugs = errors.Join(parserBugs, fmt.Errorf(
			"read %s: a bug in the parser of %s, please report it: %v", name, protocol, value))
	}
	defer func() { err = errors.Join(err, parserBugs) }()
	undecoded := captureUndecoded{total: r.undecoded, links: map[uint32]int{}}
	defer func() { err = errors.Join(err, undecoded.finish(name, reg)) }()
	deps := sessions.Deps{Collector: id, Protocols: set, Emit: r.addEvent, Undecoded: undecoded.add}
	if !r.skipTunnels {
		deps.Tunnels = sessions.EveryTunnel
	}
	table := sessions.New(sessions.Default(), deps, reg)
	defer table.Close()

	for count := 0; ; count++ {
		if count&1023 == 0 {
			if ctx.Err() != nil || r.writeErr != nil {
				return nil
			}
			r.showProgress()
		}
		packet, err := file.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		r.packets++
		undecoded.link = packet.LinkID
		table.Packet(packet.Iface, packet.Link, packet.At, packet.Data, packet.Length)
	}
}

// addEvent adds an event to the block.
func (r *replay) addEvent(event *pipeline.Event) {
	r.block = append(r.block, event)
	if len(r.block) == replayBlock {
		r.flushBlock()
	}
}

// flushBlock evaluates the events of the block, counts them, prints them if they are to be printed, and
// empties the block.
func (r *replay) flushBlock() {
	switch {
	case r.fold != nil:
		for _, signal := range r.rules.Signals(r.block) {
			signal.Offset = int64(r.evaluated) // Index counts within the block
			r.fold.Add(signal)
		}
	case r.rules != nil:
		r.rules.Evaluate(r.block)
	}
	for _, event := range r.block {
		r.lastEnd = max(r.lastEnd, event.End())
		r.events[event.Dataset.Name()]++
		for _, verdict := range event.Verdicts {
			r.matches[verdict.Severity.Name()+"\t"+oneLineText(verdict.Rule, 80)+"\t"+oneLineText(verdict.Title, 256)]++
		}
		if r.printEvents && r.writeErr == nil {
			r.line = append(pipeline.AppendJSON(r.line[:0], event), '\n')
			_, r.writeErr = r.out.Write(r.line)
		}
		pipeline.ReleaseEvent(event)
	}
	r.evaluated += len(r.block)
	clear(r.block)
	r.block = r.block[:0]
	r.showProgress()
}

// showProgress shows on the terminal, at most once a second, which file is read and what was read so far.
func (r *replay) showProgress() {
	if r.progress == nil || time.Since(r.progressAt) < time.Second {
		return
	}
	r.progressAt = time.Now()
	r.progress.showStatus(stripControl(fmt.Sprintf("%s · %s · %s",
		r.file, countOf(r.packets, "packet"), countOf(r.evaluated, "event"))))
}

// printTable prints the number of events by dataset and, with rules, the number of verdicts by rule.
func (r *replay) printTable() {
	writer := tabwriter.NewWriter(r.out, 2, 8, 2, ' ', 0)
	_, _ = fmt.Fprintf(writer, "DATASET\tEVENTS\n")
	for _, dataset := range slices.Sorted(maps.Keys(r.events)) {
		_, _ = fmt.Fprintf(writer, "%s\t%s\n", dataset, formatCount(r.events[dataset]))
	}
	if r.packets > 0 {
		_, _ = fmt.Fprintf(writer, "(packets)\t%s\n", formatCount(r.packets))
	}
	r.undecoded.printRows(writer)
	if r.rules != nil {
		if len(r.matches) > 0 {
			_, _ = fmt.Fprintf(writer, "\nSEVERITY\tRULE\tTITLE\tEVENTS\n")
		}
		for _, match := range slices.Sorted(maps.Keys(r.matches)) {
			_, _ = fmt.Fprintf(writer, "%s\t%s\n", match, formatCount(r.matches[match]))
		}
		if len(r.matches) == 0 {
			_, _ = fmt.Fprintf(writer, "\nnone of %s matched\n", countOf(len(r.rules.Rules()), "rule"))
		}
	}
	_ = writer.Flush()
	r.printGroups(r.out)
}

// warnOfUngrouped names the correlation rules that have selected events without a field of their group: such a rule is silent.
func warnOfUngrouped(stderr io.Writer, set *rules.Set) {
	for _, rule := range set.Ungrouped() {
		_, _ = fmt.Fprintf(&stripControlWriter{out: stderr}, "warning: %s selects %s that belong to no group: they have no %s\n",
			rule.Rule, countOf(int(rule.Events), "event"), rule.Lacked)
	}
}
