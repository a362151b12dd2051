package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tidegate/pipeline/redact"
)

// redactCommand returns the command `tidegate redact`.
func redactCommand() *cobra.Command {
	var options redactOptions
	cmd := &cobra.Command{
		Use:   "redact [FILE]",
		Short: "show which parts of log lines are hidden as secrets, and why",
		Long: `redact reads log lines from a file, or from standard input, and prints those in which the collector would hide
something: the number of the line, each rule that applies with the column at which it hides (in bytes, from 1),
and the redacted text. With -o json the hidden bytes of a line are those from "from" up to "to", from 0. Nothing leaves this host, and no configuration, broker or store is needed.

Input:    plain text; records of Docker's json-file driver and of CRI (containerd, CRI-O), of which the messages
          are read and the columns count; each of them compressed with gzip, too

Rules:    name         the value behind the name of a secret: password=…, {"token":"…"}
          header       Authorization, Cookie and the like
          flag         an option of a command: --password …, mysql -p…
          pattern      a token known by its form: eyJ…, ghp_…, AKIA…, $2y$…
          private-key  the lines of a PEM private key
          userinfo     user:password@ in a URL
          parameter    a parameter of a URL: ?code=…, &sig=…
          path         a token in the path of a URL: /reset-password/…
          sql          a literal of a statement: SET PASSWORD … = '…', INSERT … (…, password) VALUES ('…')

Ends:     with 1 if something was hidden, with 2 if the input cannot be read.`,
		Example: `  tidegate redact app.log
  docker logs web 2>&1 | tidegate redact --all
  tidegate redact /var/log/pods/shop_web_0/web/0.log.20261124-230800.gz
  tidegate redact -o json app.log | jq .findings`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("%s takes one file, or none for standard input; got %d", shortPath(cmd), len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(options.output, "text", "json"); err != nil {
				return err
			}
			input, name := cmd.InOrStdin(), "standard input"
			if len(args) == 1 && args[0] != "-" {
				name = args[0]
				file, err := os.Open(name)
				if err != nil {
					return err
				}
				defer file.Close()
				input = file
			}
			options.colour = isTerminal(os.Stdout) && os.Getenv("NO_COLOR") == ""
			err := redactLines(input, cmd.OutOrStdout(), cmd.ErrOrStderr(), options)
			if err != nil && !errors.Is(err, errFindings) {
				return fmt.Errorf("redact %s: %w", name, err)
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&options.all, "all", "a", false, "print the other lines, too")
	cmd.Flags().BoolVar(&options.show, "show", false, "print the secrets, marked, instead of hiding them")
	cmd.Flags().StringVarP(&options.output, "output", "o", "text", "text or json (one line each)")
	return cmd
}

type redactOptions struct {
	all, show, colour bool
	output            string
}

// maxRedactLine is the maximum length of a line that redactLines reads.
const maxRedactLine = 16 << 20

// redactedLine is a line of the output in JSON.
type redactedLine struct {
	Line     int               `json:"line"`
	Text     string            `json:"text"`
	Findings []redactedFinding `json:"findings"`
}

// redactedFinding is a hidden part of a line: its bytes from From up to To.
type redactedFinding struct {
	From int    `json:"from"`
	To   int    `json:"to"`
	Rule string `json:"rule"`
}

// redactLines reads lines from in and prints those with secrets to out, and a summary to summary. It returns
// errFindings if there were any.
func redactLines(in io.Reader, out, summary io.Writer, options redactOptions) error {
	in, err := decompressed(in)
	if err != nil {
		return err
	}
	scanner := bufio.NewScanner(in)
	scanner.Buffer(make([]byte, 64<<10), maxRedactLine)
	writer := bufio.NewWriter(out)
	defer writer.Flush()

	var messages messageReader
	report := redactReport{out: writer, options: options, byRule: map[string]int{}}
	lines := 0
	for scanner.Scan() {
		lines++
		message, state, ends := messages.readLine(bytes.TrimSuffix(scanner.Bytes(), []byte("\r")))
		if !ends {
			continue
		}
		if err := report.printMessage(lines, message, state); err != nil {
			return err
		}
	}
	if errors.Is(scanner.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("line %d is longer than %d MiB", lines+1, maxRedactLine>>20)
	}
	if scanner.Err() != nil {
		return fmt.Errorf("read line %d: %w", lines+1, scanner.Err())
	}

	// Messages whose last part is in the next file of the log.
	for stream, message := range messages.parts {
		if len(message) > 0 {
			if err := report.printMessage(lines, message, &messages.states[stream]); err != nil {
				return err
			}
		}
	}
	if err := writer.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(summary, "%d of %d lines have secrets%s\n", report.hidden, lines, rulesText(report.byRule))
	if report.hidden > 0 {
		return errFindings
	}
	return nil
}

// A redactReport prints messages with secrets and counts them.
type redactReport struct {
	redactor redact.Redactor
	out      io.Writer
	options  redactOptions
	hidden   int // messages with secrets
	byRule   map[string]int
}

// printMessage prints the message that ends with line number, if it has secrets or all are printed. state is that
// of its stream.
func (r *redactReport) printMessage(number int, message []byte, state *redact.LogState) error {
	redacted, hidden := r.redactor.NextLine(message, state)
	if !hidden && !r.options.all {
		return nil
	}
	var findings []redact.Finding
	if hidden {
		r.hidden++
		findings = r.redactor.Findings()
		for _, finding := range findings {
			r.byRule[finding.Rule.String()]++
		}
	}
	return printRedacted(r.out, number, message, redacted, findings, r.options)
}

// rulesText returns the number of secrets of each rule: ": name 2, sql 1".
func rulesText(byRule map[string]int) string {
	var parts []string
	for rule, count := range byRule {
		parts = append(parts, fmt.Sprintf("%s %d", rule, count))
	}
	if len(parts) == 0 {
		return ""
	}
	slices.Sort(parts)
	return ": " + strings.Join(parts, ", ")
}

const (
	hiddenColour = "\x1b[31m"
	ruleColour   = "\x1b[36m"
	noColour     = "\x1b[0m"
)

// printRedacted prints one line. Rules after the first have lines of their own, so that the texts stand in one
// column.
func printRedacted(
	out io.Writer, number int, line, redacted []byte, findings []redact.Finding, options redactOptions,
) error {
	if options.output == "json" {
		record := redactedLine{Line: number, Text: string(redacted), Findings: []redactedFinding{}}
		for _, finding := range findings {
			record.Findings = append(record.Findings, redactedFinding{finding.From, finding.To, finding.Rule.String()})
		}
		return json.NewEncoder(out).Encode(record)
	}

	// The text is composed of the line's parts, so that the hidden ones can be marked.
	var text []string
	rules, done := make([]string, 0, 4), 0
	for _, finding := range findings {
		rules = append(rules, fmt.Sprintf("%-*s", ruleWidth, fmt.Sprintf("%s:%d", finding.Rule, finding.From+1)))
		hidden := finding.Replacement()
		if options.show {
			hidden = "«" + string(line[finding.From:finding.To]) + "»"
		}
		text = append(text, stripControl(string(line[done:finding.From])), options.coloured(hiddenColour, stripControl(hidden)))
		done = finding.To
	}
	text = append(text, stripControl(string(line[done:])))
	if len(rules) == 0 {
		rules = append(rules, strings.Repeat(" ", ruleWidth))
	}
	_, err := fmt.Fprintf(out, "%6d  %s  %s\n", number, options.coloured(ruleColour, rules[0]), strings.Join(text, ""))
	for _, rule := range rules[1:] {
		if err == nil {
			_, err = fmt.Fprintf(out, "%6s  %s\n", "", options.coloured(ruleColour, strings.TrimRight(rule, " ")))
		}
	}
	return err
}

// ruleWidth is the width of a rule with its column, as in "private-key:1234".
const ruleWidth = 16

// coloured returns text in a colour, on a terminal.
func (o redactOptions) coloured(colour, text string) string {
	if !o.colour {
		return text
	}
	return colour + text + noColour
}
