package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A target is a line of the table of `bench rules`.
type target struct {
	what     string
	unit     string
	target   float64
	measured float64
	isLeast  bool // the target is the least that is to be measured, not the most
}

// earlierCommit is the last one before matches went through the signals topic. Its benchmark is run in turn with that of the working tree.
const earlierCommit = "28cb6da"

// rules measures what rules cost and prints a table of the targets. -file is the document whose table is replaced.
func (o *options) rules(ctx context.Context) error {
	parts := []struct {
		name    string
		measure func(context.Context) ([]target, error)
	}{
		{"stateless", o.statelessTargets},
		{"stateful", o.statefulTargets},
		{"flood", o.floodTargets},
		{"memory", o.stateTargets},
		{"sigma", o.sigmaTargets},
		{"feeds", o.feedTargets},
	}
	var rows [][]string
	for _, part := range parts {
		if !o.selected(part.name) {
			continue
		}
		lines, err := part.measure(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		for _, line := range lines {
			rows = append(rows, line.cells())
		}
		if err := replaceRows(o.file, rows); err != nil { // what is measured is not lost when the next part is interrupted
			return err
		}
	}
	fmt.Fprint(o.out, "\n", formatRows(rows))
	return nil
}

// cells returns the cells of the line of a target.
func (t target) cells() []string {
	sign, ratio, verdict := "≤", t.target/t.measured, "short"
	if t.isLeast {
		sign, ratio = "≥", t.measured/t.target
	}
	if ratio >= 1 {
		verdict = "ok"
	}
	return []string{t.what, sign + " " + number(t.target) + " " + t.unit, number(t.measured) + " " + t.unit, fmt.Sprintf("%.2f", ratio), verdict}
}

// formatRows returns a table in Markdown, aligned.
func formatRows(rows [][]string) string {
	rows = append([][]string{{"line", "target", "measured", "ratio", ""}, {"-", "-", "-", "-", "-"}}, rows...)
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var out strings.Builder
	for at, row := range rows {
		filler := " "
		if at == 1 {
			filler = "-"
		}
		for i, width := range widths {
			out.WriteString("| " + row[i] + strings.Repeat(filler, width-utf8.RuneCountInString(row[i])) + " ")
		}
		out.WriteString("|\n")
	}
	return out.String()
}

// number returns a number with separators between thousands.
func number(value float64) string {
	if value < 10 {
		return strconv.FormatFloat(value, 'f', 2, 64)
	}
	digits := strconv.FormatInt(int64(value+0.5), 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// Marks around the table in a document.
const tableBegin, tableEnd = "<!-- table: make bench-rules -->\n", "<!-- end -->\n"

// replaceRows replaces the rows of the table in a document that measure the same, and adds the others. Without a document it does nothing.
func replaceRows(path string, rows [][]string) error {
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(text), tableBegin)
	table, after, ended := strings.Cut(rest, tableEnd)
	if !found || !ended {
		return fmt.Errorf("%s: the marks of the table are not there", path)
	}
	var all [][]string
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(line, "| \n"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) == 5 && cells[0] != "line" && !strings.HasPrefix(cells[0], "-") {
			all = append(all, cells)
		}
	}
	for _, row := range rows {
		at := slices.IndexFunc(all, func(known []string) bool { return known[0] == row[0] })
		if at < 0 {
			all = append(all, row)
		} else {
			all[at] = row
		}
	}
	return os.WriteFile(path, []byte(before+tableBegin+"\n"+formatRows(all)+"\n"+tableEnd+after), 0o644) //nolint:gosec // a document
}

// statelessTargets measures rules over one event: those of this version and, where git has it, those of an earlier one, in turn.
func (o *options) statelessTargets(ctx context.Context) (table []target, err error) {
	here, err := os.Executable()
	if err != nil {
		return nil, err
	}
	earlier, err := buildEarlier(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: without an earlier version:", err)
	} else {
		defer os.RemoveAll(filepath.Dir(earlier))
	}
	for _, count := range []int{100, 1000} {
		sides := []struct{ name, program, rules string }{
			{"earlier", earlier, "shipped"}, {"here", here, "stateless"}, {"all", here, "shipped"},
		}
		best := map[string]float64{}
		for range o.runs {
			for _, side := range sides {
				if side.program == "" {
					continue
				}
				rate, err := o.metric(ctx, "events/cpu-s", side.program, "engine", "-runs", "1", "-n", strconv.Itoa(o.amountOr(400)),
					"-only", fmt.Sprintf("store=columns/rules=%s+%d-", side.rules, count))
				if err != nil {
					return nil, err
				}
				best[side.name] = max(best[side.name], rate)
			}
		}
		base, beside := best["earlier"], "those of "+earlierCommit
		if count == 100 {
			o.earlierRate = base
		}
		if earlier == "" {
			base, beside = best["here"], "without those over several events"
		}
		table = append(table,
			target{what: fmt.Sprintf("shipped rules over one event + %d, beside %s", count, beside), unit: "events/s a core", isLeast: true, target: base, measured: best["here"]},
			target{what: fmt.Sprintf("all shipped rules + %d, beside %s", count, beside), unit: "events/s a core", isLeast: true, target: base, measured: best["all"]})
	}
	return table, nil
}

// buildEarlier builds the benchmarks of earlierCommit, in a folder of their own.
func buildEarlier(ctx context.Context) (program string, err error) {
	dir, err := os.MkdirTemp("", "tidegate-earlier-")
	if err != nil {
		return "", err
	}
	program = filepath.Join(dir, "bench")
	script := "git archive " + earlierCommit + " | tar -x -C " + dir + " && cd " + dir + " && CGO_ENABLED=0 go build -o bench.program ./bench && rm -rf bench && mv bench.program bench"
	if out, err := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", script).CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("%w: %s", err, out), os.RemoveAll(dir))
	}
	return program, nil
}

// metric runs a command and returns the value with the given unit in its output, the first one.
func (o *options) metric(ctx context.Context, unit string, args ...string) (float64, error) {
	values, err := o.metrics(ctx, unit, args...)
	if err != nil {
		return 0, err
	}
	return values[0], nil
}

// metrics runs a command, prints its lines, and returns all values with the given unit in them.
func (o *options) metrics(ctx context.Context, unit string, args ...string) (values []float64, err error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	_, _ = o.out.Write(out)
	for _, found := range regexp.MustCompile(`([0-9][0-9.e+]*)\s+`+regexp.QuoteMeta(unit)+`\b`).FindAllSubmatch(out, -1) {
		value, err := strconv.ParseFloat(string(found[1]), 64)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	if len(values) == 0 {
		return nil, fmt.Errorf("%s: no %s in its output", strings.Join(args, " "), unit)
	}
	return values, nil
}

func (o *options) statefulTargets(ctx context.Context) ([]target, error) {
	rate, err := o.statefulEngine(ctx)
	line := target{
		what: "100 rules over several events, signals of 5 % of the events, from Kafka to the alerts", unit: "events/s a core",
		target: 200_000, measured: rate, isLeast: true,
	}
	table := []target{line}
	if o.earlierRate > 0 { // a machine that is busy is slower for both
		line.what, line.target = "the same, beside 200 of 329 of "+earlierCommit+" + 100", o.earlierRate*200/329
		table = append(table, line)
	}
	return table, err
}

// floodTargets measures what a signal costs in a group that has many: no more when there are a hundred times as many.
func (o *options) floodTargets(context.Context) (table []target, err error) {
	for _, kind := range foldKinds {
		best := map[int]float64{}
		for range o.runs {
			for _, count := range []int{10_000, 100_000, 1_000_000} {
				if cost := flood(kind.kind, count); best[count] == 0 || cost < best[count] {
					best[count] = cost
				}
			}
		}
		fmt.Fprintf(o.out, "BenchmarkFlood/%s\t%.0f ns at 10,000\t%.0f ns at 100,000\t%.0f ns at 1,000,000\n", kind.name, best[10_000], best[100_000], best[1_000_000])
		table = append(table, target{
			what: kind.name + ", a group with 1,000,000 signals a minute, beside one with 10,000", unit: "ns a signal",
			target: 1.25 * best[10_000], measured: best[1_000_000], // a quarter for what differs from run to run
		})
	}
	return table, nil
}

// stateTargets measures the memory of processes that hold a state.
func (o *options) stateTargets(ctx context.Context) (table []target, err error) {
	here, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for _, state := range []struct {
		name, what, unit string
		most             float64
	}{
		{"groups", "1,000,000 open groups of five kinds, resident", "resident-MB", 1000},
		{"seen", "10,000,000 values of first_seen, heap", "heap-MB", 300},
	} {
		resident, err := o.metric(ctx, state.unit, here, stateCommand, state.name)
		if err != nil {
			return nil, err
		}
		table = append(table, target{what: state.what, unit: "MB", target: state.most, measured: resident})
	}
	return table, nil
}

func (o *options) sigmaTargets(ctx context.Context) ([]target, error) {
	rate, err := o.metric(ctx, "events/cpu-s", "go", "test", "-run", "^$", "-bench", "SharedRules", "-benchtime", "2s", "./detectors/sigma")
	return []target{{what: "the shared Sigma rules that load, over lines, requests, look-ups and sessions", unit: "events/s a core", target: 150_000, measured: rate, isLeast: true}}, err
}

func (o *options) feedTargets(ctx context.Context) ([]target, error) {
	megabytes, err := o.metric(ctx, "MB", "go", "test", "-run", "TestTenMillion", "-count", "1", "-v", "./detectors/feeds")
	if err != nil {
		return nil, err
	}
	costs, err := o.metrics(ctx, "cpu-ns/op", "go", "test", "-run", "^$", "-bench", "Miss", "./detectors/feeds")
	if err != nil {
		return nil, err
	}
	return []target{
		{what: "10,000,000 indicators, heap", unit: "MB", target: 400, measured: megabytes},
		{what: "an indicator that is not there, by its key", unit: "ns", target: 200, measured: costs[0]},
	}, nil
}
