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
	"maps"
	"os"
	"slices"
	"text/tabwriter"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"tidegate/collector/capture"
	"tidegate/collector/logs"
	"tidegate/collector/logs/decode"
	"tidegate/collector/sessions"
	"tidegate/detectors/rules"
	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/all"
)

func replayCommand() *cobra.Command {
	var r replay
	var output, dir string
	cmd := &cobra.Command{
		Use:   "replay FILE…",
		Short: "read capture and log files",
		Long: `replay reads capture files (pcap, pcapng), json-file logs of Docker and plain text logs, gzipped or not,
through the same code as live traffic. It prints a table of counts, or every event as one nested ECS object a line.

Needs:    no configuration, no broker and no store.
Ends:     with 1 if a capture is truncated or malformed. It prints the events before the damage, and where that is.
          A line that is not of the format of its log is an event with event.partial.`,
		Example: `  tidegate replay shop.pcap                          counts by dataset
  tidegate replay -o jsonl shop.pcap.gz | jq .       every event
  tidegate replay -o jsonl --rules rules shop.pcap   with the verdicts of a folder of rules`,
		Args: oneOrMore("the names of captures and log files"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch output {
			case "jsonl":
				r.lines = true
			case "table":
			default:
				return fmt.Errorf("-o %s: not one of table, jsonl", output)
			}
			if dir != "" {
				set, err := loadRules(dir)
				if err != nil {
					return err
				}
				r.rules = set
			}
			return r.run(cmd.Context(), args, os.Stdout, os.Stderr)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table, or jsonl: one event a line on standard output")
	cmd.Flags().StringVar(&dir, "rules", "", "evaluate the rules of this folder")
	return cmd
}

// A replay reads files and writes their events, or counts them. It is used by one goroutine.
type replay struct {
	lines bool
	rules *rules.Set

	out     *bufio.Writer
	buf     []byte
	block   []*pipeline.Event
	failed  error // of writing; nothing is read after it
	events  map[string]int
	matches map[string]int
	packets int
}

// replayBlock is how many events are evaluated at a time.
const replayBlock = 256

func (r *replay) run(ctx context.Context, files []string, stdout, stderr io.Writer) error {
	r.out = bufio.NewWriterSize(stdout, 1<<16)
	r.events, r.matches = map[string]int{}, map[string]int{}
	var errs []error
	for _, name := range files {
		if err := r.file(ctx, name); err != nil {
			errs = append(errs, err)
		}
		r.flush()
		if ctx.Err() != nil || r.failed != nil {
			break
		}
	}
	if !r.lines && (len(errs) < len(files) || len(r.events) > 0 || r.packets > 0) {
		r.table()
	}
	if err := errors.Join(r.failed, r.out.Flush()); err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	if len(errs) > 0 {
		return errors.Join(append(errs, errFindings)...)
	}
	return ctx.Err()
}

// file reads one file. Its first bytes decide whether it is a log, and of which format; every other file is
// read as a capture.
func (r *replay) file(ctx context.Context, name string) error {
	id, head, err := identify(name)
	if err != nil {
		return err
	}
	if format, ok := decode.Detect(head); ok {
		return logs.ReadFile(ctx, logs.Default(), name, format, id, r.emit)
	}
	return r.capture(ctx, name, id)
}

// identify returns the hash of a file, which takes the place of the collector's id, and its first bytes,
// unzipped.
func identify(name string) (id pipeline.ID, head []byte, err error) {
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
	br := bufio.NewReader(file)
	if magic, _ := br.Peek(2); string(magic) == "\x1f\x8b" {
		if z, err := gzip.NewReader(br); err == nil {
			br = bufio.NewReader(z)
		}
	}
	head, _ = br.Peek(4096) // an error is left to the reader of the file
	return id, bytes.Clone(head), nil
}

func (r *replay) capture(ctx context.Context, name string, id pipeline.ID) (err error) {
	file, err := capture.OpenFile(name)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	reg := prometheus.NewRegistry()
	set := protocols.NewSet(all.Protocols, protocols.Default(), reg)
	var ours error
	set.Panicked = func(protocol string, value any, _ []byte) {
		ours = errors.Join(ours, fmt.Errorf(
			"read %s: a bug in the parser of %s, please report it: %v", name, protocol, value))
	}
	defer func() { err = errors.Join(err, ours) }()
	table := sessions.New(sessions.Default(), sessions.Deps{Collector: id, Protocols: set, Emit: r.emit}, reg)
	defer table.Close()
	for n := 0; ; n++ {
		if n&1023 == 0 && (ctx.Err() != nil || r.failed != nil) {
			return nil
		}
		packet, err := file.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		r.packets++
		table.Packet(packet.Iface, packet.Link, packet.At, packet.Data, packet.Length)
	}
}

func (r *replay) emit(e *pipeline.Event) {
	r.block = append(r.block, e)
	if len(r.block) == replayBlock {
		r.flush()
	}
}

// flush evaluates the events of the block and writes or counts them.
func (r *replay) flush() {
	if r.rules != nil {
		r.rules.Evaluate(r.block)
	}
	for _, event := range r.block {
		r.events[event.Dataset.Name()]++
		for _, v := range event.Verdicts {
			r.matches[v.Severity.Name()+"\t"+oneLineText(v.Rule, 80)+"\t"+oneLineText(v.Title, 256)]++
		}
		if r.lines && r.failed == nil {
			r.buf = append(pipeline.AppendJSON(r.buf[:0], event), '\n')
			_, r.failed = r.out.Write(r.buf)
		}
		pipeline.ReleaseEvent(event)
	}
	clear(r.block)
	r.block = r.block[:0]
}

func (r *replay) table() {
	writer := tabwriter.NewWriter(r.out, 2, 8, 2, ' ', 0)
	_, _ = fmt.Fprintf(writer, "DATASET\tEVENTS\n")
	for _, d := range slices.Sorted(maps.Keys(r.events)) {
		_, _ = fmt.Fprintf(writer, "%s\t%s\n", d, formatCount(r.events[d]))
	}
	if r.packets > 0 {
		_, _ = fmt.Fprintf(writer, "(packets)\t%s\n", formatCount(r.packets))
	}
	if r.rules != nil {
		_, _ = fmt.Fprintf(writer, "\nSEVERITY\tRULE\tTITLE\tEVENTS\n")
		for _, m := range slices.Sorted(maps.Keys(r.matches)) {
			_, _ = fmt.Fprintf(writer, "%s\t%s\n", m, formatCount(r.matches[m]))
		}
		if len(r.matches) == 0 {
			_, _ = fmt.Fprintf(writer, "none of %s matched\n", countOf(len(r.rules.Rules()), "rule"))
		}
	}
	_ = writer.Flush()
}
