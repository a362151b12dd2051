package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	ct "github.com/ti-mo/conntrack"

	"tidegate/detectors"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded"
	"tidegate/pipeline/kafka"
)

// A diagnosis is one line of the doctor's report.
type diagnosis struct {
	What   string `json:"what"`
	Status string `json:"status"` // ok, warn or fail
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// maxDetail bounds the text of a diagnosis in characters: the error of another program may be of any length.
const maxDetail = 2000

func doctorCommand() *cobra.Command {
	var flags configFlags
	var output string
	cmd := &cobra.Command{
		Use: "doctor", Short: "report what is missing on this host", Args: cobra.NoArgs,
		Long: `doctor checks what tidegate needs on this host: the configuration, capabilities, mounts, sockets and addresses.
For each it prints ok, warn (tidegate runs without it, and the line says what is lost) or fail (something that is
configured cannot work), with a remedy. It creates the data folder and changes nothing else.

Needs:    the configuration, and the same user, mounts and capabilities as the process that it is run for.
Ends:     with 1 if a line says fail, with 2 if it could not check.`,
		Example: `  tidegate doctor --config /etc/tidegate/tidegate.yaml
  tidegate doctor -o json | jq 'select(.status != "ok")'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			list := diagnose(cmd.Context(), &flags)
			failed := 0
			for _, f := range list {
				if f.Status == "fail" {
					failed++
				}
			}
			if output == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				for _, f := range list {
					if err := enc.Encode(f); err != nil {
						return err
					}
				}
			} else {
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 2, 8, 2, ' ', 0)
				for _, f := range list {
					_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", f.Status, f.What, oneLineText(f.Detail, maxDetail))
					if f.Remedy != "" {
						_, _ = fmt.Fprintf(w, "\t\t→ %s\n", oneLineText(f.Remedy, maxDetail))
					}
				}
				_ = w.Flush()
			}
			if failed > 0 {
				return errFindings
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json (one object a line)")
	flags.add(cmd)
	return cmd
}

// diagnose runs all checks. A configuration that does not load ends it, with a line for each error.
func diagnose(ctx context.Context, flags *configFlags) []diagnosis {
	cfg, err := flags.load()
	if err != nil {
		list := diagnoseEach("configuration", err)
		list[len(list)-1].Remedy = "docs/CONFIG.md lists every key"
		return list
	}
	list := []diagnosis{
		{"configuration", "ok", configName(flags), ""},
		checkDataDir(&cfg), checkPackets(), checkInterfaces(&cfg), checkConntrack(),
		checkDocker(ctx, &cfg), checkLogs(&cfg), checkKafka(ctx, &cfg), checkClickHouse(ctx, &cfg),
	}
	return append(list, checkDetectors(&cfg)...)
}

// diagnoseEach returns a diagnosis for each line of an error.
func diagnoseEach(what string, err error) []diagnosis {
	var list []diagnosis
	for line := range strings.SplitSeq(err.Error(), "\n") {
		list = append(list, diagnosis{what, "fail", line, ""})
	}
	return list
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func configName(flags *configFlags) string {
	if flags.config != "" {
		return flags.config
	}
	if _, err := os.Stat(defaultConfigPath); err == nil {
		return defaultConfigPath
	}
	return "defaults"
}

func checkDataDir(cfg *Config) diagnosis {
	f := diagnosis{What: "data folder", Status: "ok", Detail: cfg.DataDir}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return diagnosis{f.What, "fail", oneLine(err), "set data_dir (--data-dir) to a folder that this user may write"}
	}
	probe := filepath.Join(cfg.DataDir, ".doctor")
	if err := os.WriteFile(probe, []byte("x"), 0o600); err != nil {
		return diagnosis{f.What, "fail", oneLine(err), "identity, journal and spool are kept there; set data_dir (--data-dir) to a folder that can be written"}
	}
	_ = os.Remove(probe)
	return f
}

func checkPackets() diagnosis {
	if err := checkPacketSocket(); err != nil {
		return diagnosis{"packets", "warn", oneLine(err) + ": logs only", "run as root, or with CAP_NET_RAW and CAP_NET_ADMIN (docker: --cap-add NET_RAW --cap-add NET_ADMIN)"}
	}
	return diagnosis{"packets", "ok", "packet sockets may be opened", ""}
}

func checkInterfaces(cfg *Config) diagnosis {
	all, err := net.Interfaces()
	if err != nil {
		return diagnosis{"interfaces", "fail", oneLine(err), ""}
	}
	var found []string
	for _, ifi := range all {
		for _, p := range cfg.Capture.Interfaces {
			if ok, _ := path.Match(p, ifi.Name); ok {
				found = append(found, ifi.Name)
				break
			}
		}
	}
	wanted := strings.Join(cfg.Capture.Interfaces, ", ")
	if len(found) == 0 {
		return diagnosis{"interfaces", "warn", "none of " + wanted + " is here yet", "in a container: --network host; else name yours in capture.interfaces"}
	}
	return diagnosis{"interfaces", "ok", strings.Join(found, ", ") + " of " + wanted, ""}
}

func checkConntrack() diagnosis {
	conn, err := ct.Dial(nil)
	if err == nil {
		_, err = conn.Stats()
		_ = conn.Close()
	}
	if err != nil {
		return diagnosis{"conntrack", "warn", oneLine(err) + ": a session through NAT is reported by each interface that sees it", "run with CAP_NET_ADMIN in the host's network namespace; modprobe nf_conntrack_netlink"}
	}
	return diagnosis{"conntrack", "ok", "connection tracking answers", ""}
}

func checkDocker(ctx context.Context, cfg *Config) diagnosis {
	host := cfg.Containers.DockerHost
	if host == "" {
		return diagnosis{"docker", "ok", "not used (containers.docker_host is empty)", ""}
	}
	path, isSocket := strings.CutPrefix(host, "unix://")
	if !isSocket {
		return diagnosis{"docker", "ok", host, ""}
	}
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", nil)
	if err == nil {
		var resp *http.Response
		if resp, err = client.Do(req); err == nil {
			_ = resp.Body.Close()
			client.CloseIdleConnections()
			if resp.StatusCode == http.StatusOK {
				return diagnosis{"docker", "ok", "the API answers at " + host, ""}
			}
			err = fmt.Errorf("%s answers %s", host, resp.Status)
		}
	}
	return diagnosis{"docker", "warn", oneLine(err) + ": containers have no names", "mount it (docker: -v /var/run/docker.sock:/var/run/docker.sock:ro), or set containers.docker_host"}
}

func checkLogs(cfg *Config) diagnosis {
	if !cfg.Logs.Enabled {
		return diagnosis{"logs", "ok", "not read (logs.enabled is false)", ""}
	}
	dir := filepath.Join(cfg.Logs.DockerDataRoot, "containers")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return diagnosis{"logs", "warn", oneLine(err) + ": no logs", "mount it (docker: -v /var/lib/docker/containers:/var/lib/docker/containers:ro), or set logs.docker_data_root"}
	}
	return diagnosis{"logs", "ok", fmt.Sprintf("%d containers under %s", len(entries), dir), ""}
}

func checkKafka(ctx context.Context, cfg *Config) diagnosis {
	if cfg.embeddedBroker() {
		return diagnosis{"kafka", "ok", "embedded, at " + cfg.Embedded.Broker.Addr, ""}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	k, err := kafka.New(cfg.Kafka)
	if err == nil {
		defer k.Close()
		_, err = k.Partitions(ctx, k.Topic("events"))
	}
	if err != nil {
		return diagnosis{"kafka", "fail", oneLine(err), "check kafka.brokers, kafka.tls and kafka.sasl"}
	}
	return diagnosis{"kafka", "ok", strings.Join(cfg.Kafka.Brokers, ", "), ""}
}

func checkClickHouse(ctx context.Context, cfg *Config) diagnosis {
	if cfg.embeddedStore() {
		lib := cmp.Or(cfg.Embedded.Store.Library, embedded.LibraryPath())
		program := cmp.Or(cfg.Embedded.Store.Program, embedded.ProgramPath())
		for path, remedy := range map[string]string{lib: "deploy/fetch-libchdb.sh fetches it", program: "`make build` builds it"} {
			if _, err := os.Stat(path); err != nil {
				return diagnosis{"clickhouse", "warn", "embedded, and " + path + " does not exist: events are evaluated and alerts raised, but nothing is stored", remedy + "; or set clickhouse.addr"}
			}
		}
		return diagnosis{"clickhouse", "ok", "embedded, " + lib, ""}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := clickhouse.Open(ctx, cfg.ClickHouse, discardLog(), newRegistry())
	if err != nil {
		return diagnosis{"clickhouse", "fail", oneLine(err), "check clickhouse.addr, clickhouse.username and clickhouse.password"}
	}
	_ = s.Close()
	return diagnosis{"clickhouse", "ok", strings.Join(cfg.ClickHouse.Addr, ", "), ""}
}

// checkDetectors loads rules, feeds and the classifier as the engine does.
func checkDetectors(cfg *Config) []diagnosis {
	loader, err := detectors.NewLoader(detectorConfig(cfg), discardLog(), newRegistry())
	if err != nil {
		return diagnoseEach("detectors", err)
	}
	return []diagnosis{{"detectors", "ok", loader.Summary(), ""}}
}
