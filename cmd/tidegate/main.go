// Command tidegate is the one binary: the collector, the engine, the publisher of alerts, all of them at
// once, and the tools for operators and authors of rules.
//
// This package wires the packages that do the work and holds nothing else. run.go starts the components of a
// process in order (connect.go, collect.go, analyze.go, publish.go), and lifecycle.go stops them in the
// reverse order; reload.go handles SIGHUP, readiness.go and metrics_server.go answer probes. status.go and terminal.go print
// for a person, config.go and roles.go read the configuration. alerts.go, doctor.go, event.go, query.go, redact.go, replay.go
// and rules.go are the tools. demo.go plays the scenario of the folder demo.
// docs/ARCHITECTURE.md describes the path of an event through the packages.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	_ "golang.org/x/crypto/x509roots/fallback" // the image holds only the binary, and no certificates of authorities

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
		_, _ = io.WriteString(os.Stderr, errorText(err))
		os.Exit(exitCode(err))
	}
}

// errorText returns the text of err for a terminal: a line for each error, behind the name of the program. An
// error may quote bytes of foreign origin.
func errorText(err error) string {
	const program = "tidegate: "
	var text strings.Builder
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		if text.Len() == 0 {
			text.WriteString(program)
		} else {
			text.WriteString(strings.Repeat(" ", len(program)))
		}
		text.WriteString(stripControl(line) + "\n")
	}
	return text.String()
}

// errFindings is the error of a command that did its work and found something wrong. The command has printed
// its findings, so the error has no text.
var errFindings = findings{}

type findings struct{}

func (findings) Error() string { return "" }

// exitCode returns 1 for findings and 2 for every other error.
func exitCode(err error) int {
	if errors.Is(err, errFindings) {
		return 1
	}
	return 2
}

// rootCommand returns the command `tidegate` with all its subcommands.
func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "tidegate",
		Short: "log and traffic analytics for container hosts",
		Long: `tidegate captures the logs and the traffic of every container on a host, sends them through Kafka, evaluates them
with rules, feeds and a classifier, stores them in ClickHouse exactly once and raises alerts.

Start with ` + "`tidegate run --demo`" + `; ` + "`tidegate doctor`" + ` reports what is missing on this host.`,
		SilenceUsage: true, SilenceErrors: true, Version: version,
		Args:              noArguments,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: checkFlags,
	}
	root.SetVersionTemplate(versionText() + "\n")
	root.AddCommand(
		runCommand(), collectCommand(), analyzeCommand(), publishCommand(),
		alertsCommand(), eventCommand(), replayCommand(), queryCommand(), rulesCommand(), feedsCommand(), redactCommand(), doctorCommand(), versionCommand(),
	)
	root.SetHelpCommand(helpCommand(root))
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			cmd.Short = "print a script for a shell that completes commands and flags"
			cmd.Args, cmd.RunE = noArguments, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
	return root
}

// helpCommand returns the command `tidegate help`. That of cobra ends with 0 where there is no such command.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "print the help of a command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err == nil {
				err = noArguments(cmd, rest)
			}
			if err != nil {
				return err
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// configFlags are the flags of every command that reads the configuration.
type configFlags struct{ config, dataDir string }

// addTo defines the flags on a command.
func (f *configFlags) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.config, "config", "", "configuration file (default "+defaultConfigPath+", if it exists)")
	cmd.Flags().StringVar(&f.dataDir, "data-dir", "",
		"replaces data_dir of the configuration (default /var/lib/tidegate)")
}

// loadConfig reads the configuration and checks what the roles use. The flags take precedence over the file.
func (f *configFlags) loadConfig(roles roleSet) (Config, error) {
	return loadConfig(f.config, roles, f.applyTo)
}

// applyTo replaces what the flags name in a configuration.
func (f *configFlags) applyTo(cfg *Config) {
	if f.dataDir != "" {
		cfg.DataDir = f.dataDir
	}
}

// serviceFlags are the flags of the commands that run until they are stopped.
type serviceFlags struct {
	configFlags
	metricsListen, logLevel string
}

// addTo defines the flags on a command, those of configFlags included.
func (f *serviceFlags) addTo(cmd *cobra.Command) {
	f.addConfigTo(cmd)
	cmd.Flags().StringVar(&f.logLevel, "log-level", "", "debug, info, warn or error")
}

// addConfigTo defines the flags that change the configuration.
func (f *serviceFlags) addConfigTo(cmd *cobra.Command) {
	f.configFlags.addTo(cmd)
	cmd.Flags().StringVar(&f.metricsListen, "metrics-listen", "",
		"replaces metrics.listen of the configuration (default 127.0.0.1:9464); none: no metrics")
}

// loadConfig reads the configuration and checks what the roles use. Flags take precedence over the file.
func (f *serviceFlags) loadConfig(roles roleSet) (Config, error) {
	return loadConfig(f.config, roles, func(cfg *Config) {
		f.applyTo(cfg)
		switch f.metricsListen {
		case "":
		case "none":
			cfg.Metrics.Listen = ""
		default:
			cfg.Metrics.Listen = f.metricsListen
		}
	})
}

// versionText returns the line of `tidegate version` and of --version.
func versionText() string {
	return fmt.Sprintf("tidegate %s, event schema %d, %s %s/%s",
		version, pipeline.Schema, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// versionCommand returns the command `tidegate version`.
func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "print the version", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), versionText())
			return err
		},
	}
}
