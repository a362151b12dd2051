package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/cmd/tidegate/demo"
	"tidegate/collector"
	"tidegate/collector/containers"
	"tidegate/collector/logs"
	"tidegate/collector/sessions"
	"tidegate/detectors/feeds"
	"tidegate/pipeline"
	"tidegate/pipeline/retry"
	"tidegate/protocols"
	"tidegate/protocols/all"
)

// demoContainers is the registry of the containers of the scenario, for the log source and the session table.
type demoContainers struct{ root string } // root is the folder of the log files

// ByIP returns the container that has an address, or nil.
func (s demoContainers) ByIP(ip netip.Addr) *pipeline.Container {
	for _, container := range demo.Containers {
		if container.Ip[0] == ip.Unmap().String() {
			return container
		}
	}
	return nil
}

// Resolve returns the container that has an address at a time. In the scenario no address changes hands, so
// the time has no effect and final is always true.
func (s demoContainers) Resolve(ip netip.Addr, _ int64) (container *pipeline.Container, final bool) {
	return s.ByIP(ip), true
}

// ByID returns the container with an id, or nil.
func (s demoContainers) ByID(id string) *pipeline.Container {
	for _, container := range demo.Containers {
		if container.Id == id {
			return container
		}
	}
	return nil
}

// Logs returns the log files of all containers.
func (s demoContainers) Logs() []containers.LogFile {
	var files []containers.LogFile
	for _, container := range demo.Containers {
		files = append(files, containers.LogFile{
			ContainerID: container.Id, Path: s.logPath(container), Driver: "json-file",
		})
	}
	return files
}

// Subscribe returns nil: the list of containers does not change.
func (s demoContainers) Subscribe() <-chan struct{} { return nil }

// Enabled returns true: every event belongs to a container.
func (s demoContainers) Enabled() bool { return true }

// Status returns that a container runs.
func (s demoContainers) Status(string) containers.Status {
	return containers.Status{Known: true, Running: true}
}

// logPath returns the path of a container's log file.
func (s demoContainers) logPath(container *pipeline.Container) string {
	return filepath.Join(s.root, "containers", container.Id, container.Id+"-json.log")
}

// A demoShipper ships the log lines of the demo. Its Prune does nothing: the log source of the demo does not
// list the host's own logs, and would delete their checkpoints.
type demoShipper struct{ collector.Shipper }

// Prune implements collector.Shipper.
func (demoShipper) Prune(func(string) bool) {}

// addDemoFeed writes the feed with the indicators of the scenario and adds it to the configuration.
func (p *process) addDemoFeed() error {
	feed := demoFeed(p.cfg)
	if err := os.WriteFile(feed.Path, []byte(demo.Feed), 0o600); err != nil {
		return fmt.Errorf("write the demo's feed: %w", err)
	}
	p.cfg.Feeds = append(p.cfg.Feeds, feed)
	return nil
}

// checkDemo returns an error if the events and alerts of the demo would leave this process: a made-up attack is stored
// beside real events, and a critical alert calls somebody.
func (c *Config) checkDemo() error {
	var foreign []string
	for key, set := range map[string]bool{
		"kafka.brokers": !c.embeddedBroker(), "clickhouse.addr": !c.embeddedStore(),
		"alerts.alertmanager": len(c.Alerts.Alertmanager) > 0, "alerts.webhooks": len(c.Alerts.Webhooks) > 0,
	} {
		if set {
			foreign = append(foreign, key)
		}
	}
	if len(foreign) == 0 {
		return nil
	}
	slices.Sort(foreign)
	return fmt.Errorf("--demo would send a made-up attack to what the configuration names (%s): "+
		"give an empty configuration (--config /dev/null), or --demo-anywhere", strings.Join(foreign, ", "))
}

// demoFeed returns the feed of the demo.
func demoFeed(cfg *Config) feeds.Config {
	return feeds.Config{Name: "demo", Path: filepath.Join(cfg.DataDir, "demo-feed.csv")}
}

// startDemo plays the scenario once, as a component of the process.
func (p *process) startDemo() {
	p.printLine("demo: a small shop; its web container is broken into in a few seconds; event.demo marks its events")
	p.lifecycle.startComponent("demo", func(ctx context.Context) error {
		if err := p.playDemo(ctx); err != nil {
			return err
		}
		<-ctx.Done() // a component that returns ends the process
		return nil
	})
}

// playDemo plays the bundled scenario from now on, at its original speed. Its packets go through a session
// table, and its log lines are written to files that a log source follows. It returns when all events were
// emitted, or when ctx ends.
func (p *process) playDemo(ctx context.Context) error {
	// The files of an earlier demo would be read again.
	shop := demoContainers{filepath.Join(p.cfg.DataDir, "demo")}
	if err := os.RemoveAll(shop.root); err != nil {
		return fmt.Errorf("clear the files of the demo: %w", err)
	}
	for _, container := range demo.Containers {
		if err := os.MkdirAll(filepath.Dir(shop.logPath(container)), 0o700); err != nil {
			return fmt.Errorf("make the files of the demo: %w", err)
		}
	}

	// The log source has a registry of its own, so that its metrics are not added to those of the host's
	// logs.
	cfg := p.cfg.Logs
	cfg.Enabled, cfg.DockerDataRoot, cfg.Files, cfg.StartAt = true, shop.root, nil, "beginning"
	source := logs.New(cfg, shop, p.identity, p.log, prometheus.NewRegistry())
	playCtx, stop := context.WithCancel(ctx)
	defer stop()
	var reading sync.WaitGroup
	reading.Go(func() {
		if err := source.Run(playCtx, demoShipper{p.shipper}); err != nil {
			p.log.Error("cannot read the demo's log lines", "err", err)
		}
	})

	// Each file of the scenario has a goroutine that plays it; all of them have the same start.
	start := time.Now().Add(time.Second)
	var players sync.WaitGroup
	errs := make([]error, 1+len(demo.Containers))
	players.Go(func() { errs[0] = p.playDemoPackets(playCtx, shop, start) })
	for i, container := range demo.Containers {
		players.Go(func() { errs[1+i] = shop.playDemoLog(playCtx, container, start) })
	}
	players.Wait()

	// The log source has time to read the last lines.
	_ = retry.Sleep(playCtx, 3*time.Second)
	stop()
	reading.Wait()
	return errors.Join(errs...)
}

// playDemoPackets plays the capture of the scenario into a session table of its own.
func (p *process) playDemoPackets(ctx context.Context, shop demoContainers, start time.Time) error {
	file, err := demo.Files.Open("shop.pcap")
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	reader, err := pcapgo.NewReader(file)
	if err != nil {
		return fmt.Errorf("read the demo: %w", err)
	}

	// The metrics of the demo are not added to those of the host's traffic either.
	producer := p.shipper.Packets("demo")
	defer producer.Close()
	table := sessions.New(p.cfg.Sessions, sessions.Deps{
		Collector: p.identity, Protocols: protocols.NewSet(all.Protocols, p.cfg.Protocols, prometheus.NewRegistry()),
		Containers: shop, Emit: func(event *pipeline.Event) { producer.TryShip(event) },
	}, prometheus.NewRegistry())
	defer table.Close()

	// Packets keep their distance in time; the first one is at start.
	var first time.Time
	for {
		data, info, err := reader.ReadPacketData()
		if err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			return fmt.Errorf("read the demo: %w", err)
		}
		if first.IsZero() {
			first = info.Timestamp
		}
		at := start.Add(info.Timestamp.Sub(first))
		if wait := time.Until(at); wait > 0 && retry.Sleep(ctx, wait) != nil {
			return nil
		}
		table.Packet("demo0", layers.LinkTypeEthernet, at.UnixNano(), data, info.Length)
	}

	// The clock of the table advances for two seconds, so that the timers of the last sessions expire.
	for range 20 {
		if retry.Sleep(ctx, 100*time.Millisecond) != nil {
			return nil
		}
		table.Tick(time.Now().UnixNano())
	}
	return nil
}

// demoEpoch is the time at which the scenario starts in its log files.
var demoEpoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// A demoLogRecord is a line of a log file of Docker's json-file driver.
type demoLogRecord struct {
	Log    string    `json:"log"`
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
}

// playDemoLog appends the log lines of one container to its file, each at its time in the scenario. start is
// the time of demoEpoch.
func (s demoContainers) playDemoLog(ctx context.Context, container *pipeline.Container, start time.Time) error {
	data, err := demo.Files.ReadFile(container.Name + ".log")
	if err != nil {
		return err
	}
	file, err := os.OpenFile(s.logPath(container), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write the demo's log: %w", err)
	}
	defer func() { _ = file.Close() }()

	// All lines are parsed first: a faulty file plays nothing.
	var records []demoLogRecord
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		var record demoLogRecord
		if err := json.Unmarshal(lines.Bytes(), &record); err != nil {
			return fmt.Errorf("read the demo's log: %w", err)
		}
		records = append(records, record)
	}

	for _, record := range records {
		record.Time = start.Add(record.Time.Sub(demoEpoch))
		if wait := time.Until(record.Time); wait > 0 && retry.Sleep(ctx, wait) != nil {
			return nil
		}
		line, err := json.Marshal(record)
		if err != nil {
			return err
		}
		if _, err := file.Write(append(line, '\n')); err != nil {
			return fmt.Errorf("write the demo's log: %w", err)
		}
	}
	return nil
}
