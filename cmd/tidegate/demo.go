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

// demoContainers implements the registry of containers for the scenario. root is where their log files are.
type demoContainers struct{ root string }

func (s demoContainers) ByIP(ip netip.Addr) *pipeline.Container {
	for _, c := range demo.Containers {
		if c.Ip[0] == ip.Unmap().String() {
			return c
		}
	}
	return nil
}

// Resolve returns the container that has an address; in the scenario no address changes hands.
func (s demoContainers) Resolve(ip netip.Addr, _ int64) (c *pipeline.Container, settled bool) {
	return s.ByIP(ip), true
}

func (s demoContainers) ByID(id string) *pipeline.Container {
	for _, c := range demo.Containers {
		if c.Id == id {
			return c
		}
	}
	return nil
}

func (s demoContainers) Logs() []containers.LogFile {
	var out []containers.LogFile
	for _, c := range demo.Containers {
		out = append(out, containers.LogFile{ContainerID: c.Id, Path: s.logPath(c), Driver: "json-file"})
	}
	return out
}

func (s demoContainers) Subscribe() <-chan struct{} { return nil }

func (s demoContainers) Enabled() bool { return true }

func (s demoContainers) Status(string) containers.Status {
	return containers.Status{Known: true, Running: true}
}

func (s demoContainers) logPath(c *pipeline.Container) string {
	return filepath.Join(s.root, "containers", c.Id, c.Id+"-json.log")
}

// A demoShipper ships the log lines of the demo. It keeps the checkpoints of the host's own logs, which the demo's
// source does not list.
type demoShipper struct{ collector.Shipper }

// Prune implements collector.Shipper.
func (demoShipper) Prune(func(string) bool) {}

// addDemoFeed adds a feed that lists the scenario's intruder.
func (p *process) addDemoFeed() error {
	path := filepath.Join(p.cfg.DataDir, "demo-feed.csv")
	if err := os.WriteFile(path, []byte(demo.Feed), 0o600); err != nil {
		return fmt.Errorf("write the demo's feed: %w", err)
	}
	p.cfg.Feeds = append(p.cfg.Feeds, feeds.Config{Name: "demo", Path: path})
	return nil
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

// playDemo plays the bundled scenario at its original speed, moved to now. Its packets go through a session
// table, and its log lines are written to files that a log source follows. It returns when all events were
// emitted, or when ctx ends.
func (p *process) playDemo(ctx context.Context) error {
	s := demoContainers{filepath.Join(p.cfg.DataDir, "demo")}
	if err := os.RemoveAll(s.root); err != nil {
		return fmt.Errorf("clear the files of the demo: %w", err)
	}
	for _, c := range demo.Containers {
		if err := os.MkdirAll(filepath.Dir(s.logPath(c)), 0o700); err != nil {
			return fmt.Errorf("make the files of the demo: %w", err)
		}
	}

	// The log source has a registry of its own: its metrics would be added to those of the host's logs.
	cfg := p.cfg.Logs
	cfg.Enabled, cfg.DockerDataRoot, cfg.Files, cfg.StartAt = true, s.root, nil, "beginning"
	follow := logs.New(cfg, s, p.identity, p.log, prometheus.NewRegistry())
	inner, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := follow.Run(inner, demoShipper{p.shipper}); err != nil {
			p.log.Error("cannot read the demo's log lines", "err", err)
		}
	})

	start := time.Now().Add(time.Second)
	var players sync.WaitGroup
	errs := make([]error, 1+len(demo.Containers))
	players.Go(func() { errs[0] = p.playDemoPackets(inner, s, start) })
	for i, c := range demo.Containers {
		players.Go(func() { errs[1+i] = s.playDemoLog(inner, c, start) })
	}
	players.Wait()
	_ = retry.Sleep(inner, 3*time.Second) // the log source reads the last lines
	stop()
	wg.Wait()
	return errors.Join(errs...)
}

// playDemoPackets plays the capture of the scenario into a session table of its own.
func (p *process) playDemoPackets(ctx context.Context, s demoContainers, start time.Time) error {
	file, err := demo.Files.Open("shop.pcap")
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	reader, err := pcapgo.NewReader(file)
	if err != nil {
		return fmt.Errorf("read the demo: %w", err)
	}
	producer := p.shipper.Packets("demo")
	defer producer.Close()
	table := sessions.New(p.cfg.Sessions, sessions.Deps{
		Collector: p.identity, Protocols: protocols.NewSet(all.Protocols, p.cfg.Protocols, prometheus.NewRegistry()),
		Containers: s, Emit: func(e *pipeline.Event) { producer.TryShip(e) },
	}, prometheus.NewRegistry())
	defer table.Close()

	var first time.Time
	for {
		data, ci, err := reader.ReadPacketData()
		if err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			return fmt.Errorf("read the demo: %w", err)
		}
		if first.IsZero() {
			first = ci.Timestamp
		}
		at := start.Add(ci.Timestamp.Sub(first))
		if wait := time.Until(at); wait > 0 && retry.Sleep(ctx, wait) != nil {
			return nil
		}
		table.Packet("demo0", layers.LinkTypeEthernet, at.UnixNano(), data, ci.Length)
	}

	// Time goes on for two seconds, so that the timers of the last sessions expire.
	for range 20 {
		if retry.Sleep(ctx, 100*time.Millisecond) != nil {
			return nil
		}
		table.Tick(time.Now().UnixNano())
	}
	return nil
}

// demoEpoch is the start of the scenario in the times of its log lines.
var demoEpoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

type demoLogRecord struct {
	Log    string    `json:"log"`
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
}

// playDemoLog appends the log lines of one container to its file, each at its time in the scenario.
func (s demoContainers) playDemoLog(ctx context.Context, container *pipeline.Container, start time.Time) error {
	data, err := demo.Files.ReadFile(container.Name + ".log")
	if err != nil {
		return err
	}
	out, err := os.OpenFile(s.logPath(container), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write the demo's log: %w", err)
	}
	defer func() { _ = out.Close() }()
	var records []demoLogRecord
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		var r demoLogRecord
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("read the demo's log: %w", err)
		}
		records = append(records, r)
	}
	for _, r := range records {
		r.Time = start.Add(r.Time.Sub(demoEpoch))
		if wait := time.Until(r.Time); wait > 0 && retry.Sleep(ctx, wait) != nil {
			return nil
		}
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if _, err := out.Write(append(line, '\n')); err != nil {
			return fmt.Errorf("write the demo's log: %w", err)
		}
	}
	return nil
}
