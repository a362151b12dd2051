package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/bench/traffic"
	"tidegate/collector"
	"tidegate/collector/capture"
	"tidegate/collector/sessions"
	"tidegate/collector/ship"
	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/all"
)

// A sink receives the events of a stage. It owns them.
type sink interface {
	add(e *pipeline.Event)
	finish() error // waits until all events are processed
	close() error  // releases resources; not measured
}

// captureStages are the stages of a packet. Each includes the one before.
var captureStages = []string{"read", "sessions", "protocols", "encode", "kafka"}

// capture measures the path of a packet. The capture file is in the page cache: it was written or read
// before.
func (o *options) capture(ctx context.Context) error {
	path, remove, err := o.captureFile()
	if err != nil {
		return err
	}
	defer remove()
	for _, stage := range captureStages {
		for range o.runs {
			if ctx.Err() != nil || !o.selected("Capture/stage="+stage) {
				break
			}
			if err := o.captureStage(ctx, path, stage); err != nil {
				return fmt.Errorf("stage %s: %w", stage, err)
			}
		}
	}
	return nil
}

// captureFile returns the file of -file, or a generated file that remove deletes.
func (o *options) captureFile() (path string, remove func(), err error) {
	if o.file != "" {
		return o.file, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "tidegate-bench-")
	if err != nil {
		return "", nil, err
	}
	path = filepath.Join(dir, "traffic.pcap")
	_, err = writeCapture(path, traffic.Config{Bytes: o.amountOr(60) << 20, Seed: o.seed, Reorder: o.reorder, Duplicate: o.dup, Lose: o.loss})
	return path, func() { _ = os.RemoveAll(dir) }, err
}

func (o *options) captureStage(ctx context.Context, path, stage string) error {
	sink, more, err := newSink(ctx, stage)
	if err != nil {
		return err
	}
	meter, err := o.startMeter()
	if err != nil {
		return errors.Join(err, sink.close())
	}
	packets, err := readPackets(path, stage, sink)
	err = errors.Join(err, sink.finish())
	u := meter.since()
	if err = errors.Join(err, sink.close()); err == nil {
		report(o.out, "Capture/stage="+stage, "packets", packets, u, more(packets)...)
	}
	return err
}

// readPackets runs the packets of a capture file through the parts that stage names. It returns the number of
// packets.
func readPackets(path, stage string, s sink) (n int, err error) {
	file, err := capture.OpenFile(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }()
	var table *sessions.Table
	if stage != "read" {
		reg := prometheus.NewRegistry()
		deps := sessions.Deps{Collector: pipeline.ID{1}, Containers: trafficContainers{}, Emit: s.add}
		if stage != "sessions" {
			deps.Protocols = protocols.NewSet(all.Protocols, protocols.Default(), reg)
		}
		table = sessions.New(sessions.Default(), deps, reg)
	}
	for ; ; n++ {
		packet, err := file.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return n, err
		}
		if table != nil {
			table.Packet("docker0", packet.Link, packet.At, packet.Data, packet.Length)
		}
	}
	if table != nil {
		table.Close()
	}
	return n, nil
}

// containers are the servers of the generated traffic, 172.17.0.x.
var containers = func() (list []*pipeline.Container) {
	for i := range 256 {
		list = append(list, &pipeline.Container{
			Id: strings.Repeat(fmt.Sprintf("%02x", i), 32), Name: fmt.Sprintf("shop-%d", i), Image: "shop:1.4", ImageId: "sha256:" + strings.Repeat("ab", 32),
			Labels: []*pipeline.Label{{Key: "com.docker.compose.project", Value: "shop"}, {Key: "com.docker.compose.service", Value: fmt.Sprintf("s%d", i%5)}},
		})
	}
	return list
}()

// trafficContainers is sessions.Containers of the traffic.
type trafficContainers struct{}

// Resolve returns the container that has an address.
func (trafficContainers) Resolve(a netip.Addr, _ int64) (c *pipeline.Container, settled bool) {
	if b := a.As4(); b[0] == 172 && b[1] == 17 {
		return containers[b[3]], true
	}
	return nil, true
}

// newSink returns the sink of a stage. more returns further figures after the sink is closed.
func newSink(ctx context.Context, stage string) (s sink, more func(n int) []figure, err error) {
	switch stage {
	case "encode":
		e := &encodingSink{}
		return e, func(n int) []figure {
			return []figure{{float64(e.events) / float64(n), "events/op"}, {float64(e.bytes) / float64(max(e.events, 1)), "B/event"}}
		}, nil
	case "kafka":
		k, err := newShipping(ctx)
		return k, func(n int) []figure { return []figure{{float64(k.events) / float64(n), "events/op"}} }, err
	}
	c := &countingSink{}
	return c, func(n int) []figure { return []figure{{float64(c.events) / float64(n), "events/op"}} }, nil
}

// A countingSink counts events and releases them.
type countingSink struct{ events int }

func (c *countingSink) add(e *pipeline.Event) { c.events++; pipeline.ReleaseEvent(e) }
func (c *countingSink) finish() error         { return nil }
func (c *countingSink) close() error          { return nil }

// An encodingSink encodes events into a buffer of the size of a batch.
type encodingSink struct {
	buf           [512 << 10]byte
	at            int
	events, bytes int
}

func (c *encodingSink) add(event *pipeline.Event) {
	event.Container = nil
	for _, p := range [...]*pipeline.Endpoint{event.Source, event.Destination} {
		if p != nil {
			p.Container = nil
		}
	}
	n := event.SizeVT()
	if c.at+n > len(c.buf) {
		c.at = 0
	}
	if _, err := event.MarshalToSizedBufferVT(c.buf[c.at : c.at+n]); err != nil {
		panic(err) // the buffer has the size that SizeVT returned
	}
	c.at += n
	c.events++
	c.bytes += n
	pipeline.ReleaseEvent(event)
}

func (c *encodingSink) finish() error { return nil }
func (c *encodingSink) close() error  { return nil }

// A shippingSink ships events with the production shipper to a broker in another process.
type shippingSink struct {
	broker   *broker
	shipper  *ship.Shipper
	file     collector.FileProducer
	packets  collector.PacketProducer
	events   int
	fromFile bool // the events are lines, which the journal keeps
	at       int64
}

func newShipping(ctx context.Context) (*shippingSink, error) {
	broker, err := startBroker()
	if err != nil {
		return nil, err
	}
	client, err := broker.client(ctx)
	if err != nil {
		return nil, errors.Join(err, broker.close())
	}
	client.Close()
	cfg := ship.Default()
	cfg.StateDir, cfg.Host = filepath.Join(broker.dir, "collector"), "bench"
	id, err := collector.LoadID(cfg.StateDir)
	if err != nil {
		return nil, errors.Join(err, broker.close())
	}
	shipper, err := ship.New(cfg, broker.config(), id, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return nil, errors.Join(err, broker.close())
	}
	return &shippingSink{broker: broker, shipper: shipper, file: shipper.File("bench"), packets: shipper.Packets("bench")}, nil
}

// maxBuffered is how many packet events may wait for the broker. The shipper sheds above that.
const maxBuffered = 20_000

// add ships an event. Packets from a capture file come faster than a broker stores them, so add waits where a live
// capture would shed.
func (k *shippingSink) add(event *pipeline.Event) {
	k.events++
	if k.fromFile {
		k.at++
		_ = k.file.Ship(context.Background(), event, collector.Checkpoint{End: k.at, ReadFrom: k.at})
		return
	}
	if k.events%1000 == 0 {
		for k.shipper.Ledger().Buffered > maxBuffered {
			time.Sleep(time.Millisecond)
		}
	}
	k.packets.TryShip(event)
}

// finish waits until Kafka has acknowledged all events, and returns an error if it has not.
func (k *shippingSink) finish() error {
	k.file.Close(false)
	k.packets.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := k.shipper.Close(ctx)
	if l := k.shipper.Ledger(); l.Delivered != uint64(k.events) {
		err = errors.Join(err, fmt.Errorf("%d events, of which %d were shipped", k.events, l.Delivered))
	}
	return err
}

func (k *shippingSink) close() error { return k.broker.close() }
