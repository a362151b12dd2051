package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	ct "github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"tidegate/pipeline/config"
)

// A diagnosis is the result of one check, a line of the doctor's report.
type diagnosis struct {
	What   string `json:"what"`   // the subject of the check
	Status string `json:"status"` // ok, warn or fail
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"` // what an operator can do
}

// maxDetail bounds a text of the printed table, in characters: the error of another program may be of any
// length.
const maxDetail = 2000

// doctorCommand returns the command `tidegate doctor`.
func doctorCommand() *cobra.Command {
	var flags serviceFlags
	var only []string
	var output string
	cmd := &cobra.Command{
		Use: "doctor", Short: "report what is missing on this host", Args: noArguments,
		Long: `doctor checks what tidegate needs on this host: the configuration, capabilities, mounts, free ports, the servers
that it names, what tidegate may do there, and the destinations of alerts. For each it prints ok, warn (tidegate
runs without it, and the line names what is lost) or fail (something that is configured cannot work), with a
remedy. It changes nothing, writes to no topic and sends no alert. --only checks what some of the parts need.

Needs:    the configuration, and the same user, mounts and capabilities as the process that it is run for.
Ends:     with 1 if a line is fail, with 2 if it could not check.`,
		Example: `  tidegate doctor --config /etc/tidegate/tidegate.yaml
  tidegate doctor --only collector
  tidegate doctor -o json | jq 'select(.status != "ok")'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			roles, err := parseRoles(only)
			if err != nil {
				return err
			}
			report := diagnose(cmd.Context(), &flags, roles)
			if err := printReport(cmd.OutOrStdout(), report, output); err != nil {
				return err
			}
			if slices.ContainsFunc(report, func(d diagnosis) bool { return d.Status == "fail" }) {
				return errFindings
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json (one object a line)")
	cmd.Flags().StringSliceVar(&only, "only", nil, "check what these parts need: broker, store, engine, publisher, collector")
	flags.addConfigTo(cmd)
	return cmd
}

// printReport prints a report as a table, or as one JSON object a line.
func printReport(out io.Writer, report []diagnosis, output string) error {
	if output == "json" {
		enc := json.NewEncoder(out)
		for _, line := range report {
			if err := enc.Encode(line); err != nil {
				return err
			}
		}
		return nil
	}
	writer := tabwriter.NewWriter(out, 2, 8, 2, ' ', 0)
	for _, line := range report {
		_, _ = fmt.Fprintf(writer, "%s\t%s\t%s\n", line.Status, line.What, oneLineText(line.Detail, maxDetail))
		if line.Remedy != "" {
			_, _ = fmt.Fprintf(writer, "\t\t→ %s\n", oneLineText(line.Remedy, maxDetail))
		}
	}
	return writer.Flush()
}

// pass returns the diagnosis ok.
func pass(what, detail string) diagnosis { return diagnosis{what, "ok", detail, ""} }

// warning returns the diagnosis warn: tidegate runs, and detail names what is lost.
func warning(what, detail, remedy string) diagnosis { return diagnosis{what, "warn", detail, remedy} }

// failure returns the diagnosis fail: something that is configured cannot work.
func failure(what string, err error, remedy string) diagnosis {
	return diagnosis{what, "fail", oneLine(err), remedy}
}

// failures returns the diagnosis fail for each line of an error.
func failures(what string, err error) []diagnosis {
	var list []diagnosis
	for line := range strings.SplitSeq(err.Error(), "\n") {
		list = append(list, diagnosis{what, "fail", line, ""})
	}
	return list
}

// oneLine returns the text of an error on one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// notYAML is in the error of a configuration that cannot be parsed.
const notYAML = "not YAML: "

// diagnose runs the checks of the roles. A configuration that does not load ends it, with a line for each error.
func diagnose(ctx context.Context, flags *serviceFlags, roles roleSet) []diagnosis {
	cfg, err := flags.loadConfig(roles)
	if err != nil {
		list := failures("configuration", err)
		last := &list[len(list)-1]
		var position *config.Error
		switch {
		case errors.Is(err, fs.ErrNotExist) && !errors.As(err, &position): // the configuration itself
			last.Remedy = "create it (an empty file is a valid one), or name another one"
		case !errors.As(err, &position):
			last.Remedy = "name a file that this user may read"
		case !strings.Contains(err.Error(), notYAML):
			last.Remedy = "docs/CONFIG.md describes every key"
		}
		return list
	}
	parts := cfg.rolesToRun(roles.all)
	list := []diagnosis{pass("configuration", configName(&flags.configFlags)), checkDataDir(&cfg)}
	if parts&roleCollector != 0 {
		list = append(list, checkPackets(), checkInterfaces(&cfg), checkConntrack(), checkDocker(ctx, &cfg), checkLogs(&cfg))
	}
	list = append(list, checkServers(ctx, &cfg, parts)...)
	if parts&roleEngine != 0 {
		list = append(list, checkDetectors(&cfg)...)
	}
	if parts&rolePublisher != 0 {
		list = append(list, checkDestinations(ctx, &cfg)...)
	}
	return list
}

// configName returns the file that load reads, or "defaults".
func configName(flags *configFlags) string {
	if flags.config != "" {
		return flags.config
	}
	if _, err := os.Stat(defaultConfigPath); err == nil {
		return defaultConfigPath
	}
	return "defaults"
}

// checkDataDir writes a file into the data folder. If there is no such folder, it checks that one can be created,
// and does not create it.
func checkDataDir(cfg *Config) diagnosis {
	const what, remedy = "data folder", "set data_dir (--data-dir) to a folder that this user may write"
	if _, err := os.Stat(cfg.DataDir); errors.Is(err, fs.ErrNotExist) {
		parent := filepath.Dir(cfg.DataDir)
		for _, err := os.Stat(parent); errors.Is(err, fs.ErrNotExist); _, err = os.Stat(parent) {
			parent = filepath.Dir(parent)
		}
		if err := unix.Access(parent, unix.W_OK|unix.X_OK); err != nil {
			return failure(what, &os.PathError{Op: "create a folder in", Path: parent, Err: err}, remedy)
		}
		return pass(what, cfg.DataDir+", created at the first start")
	}
	probe := filepath.Join(cfg.DataDir, ".doctor")
	if err := os.WriteFile(probe, []byte("x"), 0o600); err != nil {
		return failure(what, err, remedy+"; it holds identity, journal and spool")
	}
	_ = os.Remove(probe)
	return pass(what, cfg.DataDir)
}

// checkPackets checks that this user may open packet sockets.
func checkPackets() diagnosis {
	if err := checkPacketSocket(); err != nil {
		return warning("packets", oneLine(err)+": logs only",
			"run as root, or with CAP_NET_RAW and CAP_NET_ADMIN (docker: --cap-add NET_RAW --cap-add NET_ADMIN)")
	}
	return pass("packets", "packet sockets may be opened")
}

// checkInterfaces lists the interfaces of this host that match capture.interfaces.
func checkInterfaces(cfg *Config) diagnosis {
	const what = "interfaces"
	found, err := matchingInterfaces(cfg)
	if err != nil {
		return failure(what, err, "")
	}
	wanted := strings.Join(cfg.Capture.Interfaces, ", ")
	if len(found) == 0 {
		return warning(what, "no interface matches "+wanted+" yet",
			"in a container: --network host; otherwise set capture.interfaces")
	}
	return pass(what, strings.Join(found, ", ")+" (capture.interfaces: "+wanted+")")
}

// matchingInterfaces returns the names of the interfaces of this host that match capture.interfaces.
func matchingInterfaces(cfg *Config) ([]string, error) {
	interfaces, err := net.Interfaces()
	var found []string
	for _, candidate := range interfaces {
		matches := func(pattern string) bool {
			ok, _ := path.Match(pattern, candidate.Name)
			return ok
		}
		if slices.ContainsFunc(cfg.Capture.Interfaces, matches) {
			found = append(found, candidate.Name)
		}
	}
	return found, err
}

// checkConntrack reads the statistics of the kernel's connection tracker.
func checkConntrack() diagnosis {
	const what = "conntrack"
	conn, err := ct.Dial(nil)
	if err == nil {
		_, err = conn.Stats()
		_ = conn.Close()
	}
	if err != nil {
		return warning(what, oneLine(err)+": a session through NAT is reported by each interface that captures it",
			"run with CAP_NET_ADMIN in the host's network namespace; modprobe nf_conntrack_netlink")
	}
	return pass(what, "the connection tracker answers")
}

// checkDocker pings the Docker API, if it is a socket of this host.
func checkDocker(ctx context.Context, cfg *Config) diagnosis {
	const what = "docker"
	host := cfg.Containers.DockerHost
	if host == "" {
		return pass(what, "not used (containers.docker_host is empty)")
	}
	socket, isSocket := strings.CutPrefix(host, "unix://")
	if !isSocket {
		return pass(what, host)
	}
	if err := pingDocker(ctx, socket); err != nil {
		return warning(what, oneLine(err)+": containers have no names",
			"mount it (docker: -v /var/run/docker.sock:/var/run/docker.sock:ro), or set containers.docker_host")
	}
	return pass(what, "the API answers at "+host)
}

// pingDocker sends a ping to the Docker API at a socket.
func pingDocker(ctx context.Context, socket string) error {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DialContext: dial}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("unix://%s answers %s", socket, resp.Status)
	}
	return nil
}

// checkLogs counts the folders of containers below Docker's data-root.
func checkLogs(cfg *Config) diagnosis {
	const what = "logs"
	if !cfg.Logs.Enabled {
		return pass(what, "not read (logs.enabled is false)")
	}
	dir := filepath.Join(cfg.Logs.DockerDataRoot, "containers")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return warning(what, oneLine(err)+": no container logs",
			"mount it (docker: -v /var/lib/docker/containers:/var/lib/docker/containers:ro), "+
				"or set logs.docker_data_root")
	}
	return pass(what, fmt.Sprintf("%s under %s", countOf(len(entries), "container"), dir))
}
