// Command tidegate is a log and traffic stream analytics engine for container hosts.
//
// One binary is every role: `run` is all of it in one process tree, `collect`, `analyze` and `alerts` are the same code as three
// processes, `replay` and `query` are for looking, `rules` for authors, `doctor` for operators. This package wires the parts; what
// they do is told in docs/ARCHITECTURE.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"tidegate/pipeline"
)

// version is set by the Makefile.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	if err := rootCommand().ExecuteContext(ctx); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if line != "" {
				fmt.Fprintln(os.Stderr, "tidegate: "+stripControl(line)) // it may quote what came from elsewhere
			}
		}
		os.Exit(exitCode(err))
	}
}

// errFindings ends a command that worked and found something wrong. What that is was said, so it has no text.
var errFindings = findings{}

type findings struct{}

func (findings) Error() string { return "" }

func exitCode(err error) int {
	if errors.Is(err, errFindings) {
		return 1
	}
	return 2
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "tidegate",
		Short: "log and traffic stream analytics for container hosts",
		Long: `tidegate sees the logs and the traffic of every container on a host, ships them through Kafka, judges them by
rules, feeds and classifiers, stores them in ClickHouse exactly once and raises alerts.

Begin with ` + "`tidegate run --demo`" + `; ` + "`tidegate doctor`" + ` tells what this host lacks.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	var common commonFlags
	root.PersistentFlags().StringVar(&common.config, "config", "", "configuration file (default "+defaultConfigPath+", if it is there)")
	root.PersistentFlags().StringVar(&common.dataDir, "data-dir", "", "folder for everything that outlives the process (default /var/lib/tidegate)")
	root.PersistentFlags().StringVar(&common.metricsListen, "metrics-listen", "", "address of /metrics, /healthz and /readyz, in place of the configured one; none: no such address")
	root.PersistentFlags().StringVar(&common.logLevel, "log-level", "", "debug, info, warn or error")
	root.AddCommand(
		runCommand(&common), roleCommand(&common, "collect", roleCollector, "watch this host and ship to Kafka"),
		roleCommand(&common, "analyze", roleEngine, "read Kafka, judge, write to ClickHouse, raise alerts"),
		roleCommand(&common, "alerts", roleAlerts, "deliver alerts to Alertmanager and webhooks"),
		replayCommand(), queryCommand(&common), rulesCommand(), doctorCommand(&common), versionCommand(),
	)
	return root
}

// commonFlags are those of every command that reads the configuration.
type commonFlags struct{ config, dataDir, metricsListen, logLevel string }

// load reads the configuration; what a flag says wins.
func (f *commonFlags) load() (Config, error) {
	return loadConfig(f.config, func(c *Config) {
		if f.dataDir != "" {
			c.DataDir = f.dataDir
		}
		switch f.metricsListen {
		case "":
		case "none":
			c.Metrics.Listen = ""
		default:
			c.Metrics.Listen = f.metricsListen
		}
	})
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "tidegate %s, event schema %d, %s %s/%s\n", version, pipeline.Schema, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}
