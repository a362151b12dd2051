package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded"
)

func queryCommand(common *commonFlags) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "query SQL",
		Short: "ask the running store",
		Long: `query asks the store in SQL, as the read-only user where the store is the embedded one, and prints a table.

  tidegate query 'SELECT severity, title, count, container_name FROM alerts_now ORDER BY last DESC LIMIT 20'
  tidegate query "SELECT source.ip, url.original FROM events WHERE event.dataset = 'http' LIMIT 20" -o json

The columns of events are in docs/FIELDS.md. Their names need no quotes but "@timestamp" does: SELECT source.ip FROM events.`,
		Args: oneArgument("the SQL between quotes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := common.load()
			if err != nil {
				return err
			}
			store := cfg.ClickHouse
			if cfg.embeddedStore() {
				store, err = embedded.StoreClient(cfg.Embedded.Store.Dir)
				if errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("no store has run in %s: give the --data-dir or --config that `tidegate run` was given", cfg.DataDir)
				}
				if err != nil {
					return err
				}
			}
			names := map[string]string{"table": "PrettyCompactMonoBlock", "json": "JSONEachRow", "csv": "CSVWithNames", "tsv": "TSVWithNames", "vertical": "Vertical"}
			f, ok := names[format]
			if !ok {
				return fmt.Errorf("-o %s: not one of table, json, csv, tsv, vertical", format)
			}
			err = clickhouse.Query(cmd.Context(), store, args[0], f, os.Stdout)
			if errors.Is(err, syscall.ECONNREFUSED) && cfg.embeddedStore() {
				return fmt.Errorf("%w: the store of %s does not run, `tidegate run` starts it", err, cfg.DataDir)
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table, json (one object a line), csv, tsv or vertical")
	return cmd
}
