package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded"
)

// queryFormats holds the formats of ClickHouse by the names of -o.
var queryFormats = map[string]string{
	"table":    "PrettyCompactMonoBlock",
	"json":     "JSONEachRow",
	"jsonl":    "JSONEachRow",
	"csv":      "CSVWithNames",
	"tsv":      "TSVWithNames",
	"vertical": "Vertical",
}

// maxQuery bounds the length of a statement from standard input. ClickHouse parses 256 KiB by default.
const maxQuery = 1 << 20

// queryCommand returns the command `tidegate query`.
func queryCommand() *cobra.Command {
	var flags configFlags
	var format string
	cmd := &cobra.Command{
		Use:   "query SQL | query -",
		Short: "run an SQL query in the store",
		Long: `query runs one SQL statement in ClickHouse and prints the result. In the embedded store it runs as the read-only
user, with limits; in another one as clickhouse.read_user, if there is one. With - it reads the statement from
standard input.

docs/FIELDS.md lists the columns of the table events. Only "@timestamp" needs quotes: SELECT source.ip FROM events.

Needs:    a running store: the one of this data folder, or the one at clickhouse.http_addr.`,
		Example: `  tidegate query 'SELECT severity, title, count, container_name FROM alerts ORDER BY last DESC LIMIT 20'
  tidegate query "SELECT source.ip, url.original FROM events WHERE event.dataset = 'http' LIMIT 20" -o json
  tidegate query - < report.sql`,
		Args: oneArgument("the SQL between quotes, or - for standard input"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := flags.loadConfig(roleSet{all: roleStore})
			if err != nil {
				return err
			}
			sql := args[0]
			if sql == "-" {
				text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxQuery+1))
				if err != nil {
					return fmt.Errorf("read the SQL from standard input: %w", err)
				}
				if len(text) > maxQuery {
					return fmt.Errorf("the SQL on standard input is longer than %d bytes", maxQuery)
				}
				sql = string(text)
			}
			return runQuery(cmd.Context(), &cfg, sql, format)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table, json or jsonl (one object a line), csv, tsv or vertical")
	flags.addTo(cmd)
	return cmd
}

// runQuery runs an SQL statement in the store and prints its result in a format of queryFormats.
func runQuery(ctx context.Context, cfg *Config, sql, format string) error {
	clickhouseFormat, ok := queryFormats[format]
	if !ok {
		return fmt.Errorf("-o %s: not one of table, json, jsonl, csv, tsv, vertical", format)
	}

	// Text from the network or a log line may control a terminal. A file gets the bytes as they are, unless it is
	// a table, which a person reads.
	var out io.WriteCloser = os.Stdout
	switch {
	case format == "table":
		out = &tableWriter{out: os.Stdout}
	case isTerminal(os.Stdout) || format == "vertical":
		out = &stripControlWriter{out: os.Stdout}
	}
	counter := &countingWriter{out: out}
	err := queryStore(ctx, cfg, sql, clickhouseFormat, counter)
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if err == nil && counter.bytes == 0 && (format == "table" || format == "vertical") {
		_, err = io.WriteString(os.Stderr, "no rows\n")
	}
	return err
}

// A countingWriter counts the bytes that are written to out.
type countingWriter struct {
	out   io.Writer
	bytes int
}

func (w *countingWriter) Write(data []byte) (int, error) {
	w.bytes += len(data)
	return w.out.Write(data)
}

// queryStore runs an SQL statement in the store and writes its result to out in a format of ClickHouse. In the
// embedded store it runs as the analyst.
func queryStore(ctx context.Context, cfg *Config, sql, format string, out io.Writer) error {
	store, err := cfg.storeClient()
	if err != nil {
		return err
	}
	return cfg.describeStoreError(clickhouse.Query(ctx, store, sql, format, out))
}

// describeStoreError adds to the error of a query that the embedded store is not running, or that no engine has run yet, if that is the reason.
func (cfg *Config) describeStoreError(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) && cfg.embeddedStore() {
		return fmt.Errorf("%w: the store of %s is not running; `tidegate run` starts it", err, cfg.DataDir)
	}
	if err != nil && strings.Contains(err.Error(), "UNKNOWN_DATABASE") {
		return fmt.Errorf("nothing is stored yet, an engine creates the database when it starts: %w", err)
	}
	return err
}

// storeClient returns the configuration of the store for a query. The embedded store is asked as the analyst.
func (cfg *Config) storeClient() (clickhouse.Config, error) {
	if !cfg.embeddedStore() {
		return cfg.ClickHouse, nil
	}
	store, err := embedded.StoreClient(cfg.Embedded.Store.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return store, fmt.Errorf("no store has run in %s: give the same --data-dir or --config as to `tidegate run`", cfg.DataDir)
	}
	return store, err
}
