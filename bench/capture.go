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

	"tidegate/collector"
	"tidegate/collector/capture"
	"tidegate/collector/sessions"
	"tidegate/collector/ship"
	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/all"
)

// A sink receives and owns the events of a stage.
type sink interface {
	add(event *pipeline.Event)
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
	_, err = writeCapture(path, o.trafficConfig())
	return path, func() { _ = os.RemoveAll(dir) }, err
}

// captureStage measures one stage once and prints the line of the measurement. The sink is closed after the
// measurement.
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
	usage := meter.since()
	if err = errors.Join(err, sink.close()); err == nil {
		report(o.out, "Capture/stage="+stage, "packets", packets, usage, more(packets)...)
	}
	return err
}

// readPackets reads a capture file and passes its packets through the session table and the parsers as far as
// stage includes them. The events go to out. It returns the number of packets.
func readPackets(path, stage string, out sink) (packets int, err error) {
	file, err := capture.OpenFile(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }()

	// The stage "read" has no session table, the stage "sessions" has no parsers.
	var table *sessions.Table
	if stage != "read" {
		reg := prometheus.NewRegistry()
		deps := sessions.Deps{Collector: pipeline.ID{1}, Containers: trafficContainers{}, Emit: out.add}
		if stage != "sessions" {
			deps.Protocols = protocols.NewSet(all.Protocols, protocols.Default(), reg)
		}
		table = sessions.New(sessions.Default(), deps, reg)
	}

	for ; ; packets++ {
		packet, err := file.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return packets, err
		}
		if table != nil {
			table.Packet("docker0", packet.Link, packet.At, packet.Data, packet.Length)
		}
	}
	if table != nil {
		table.Close() // emits the events of the connections that are still open
	}
	return packets, nil
}

// containers are the servers of the generated traffic. Container i has the address 172.17.0.i.
var containers = func() (list []*pipeline.Container) {
	for i := range 256 {
		list = append(list, &pipeline.Container{
			Id:      strings.Repeat(fmt.Sprintf("%02x", i), 32),
			Name:    fmt.Sprintf("shop-%d", i),
			Image:   "shop:1.4",
			ImageId: "sha256:" + strings.Repeat("ab", 32),
			Labels: []*pipeline.Label{
				{Key: "com.docker.compose.project", Value: "shop"},
				{Key: "com.docker.compose.service", Value: fmt.Sprintf("s%d", i%5)},
			},
		})
	}
	return list
}()

// trafficContainers implements sessions.Containers for the generated traffic.
type trafficContainers struct{}

// Resolve returns the container that has addr, or nil for a client.
func (trafficContainers) Resolve(addr netip.Addr, _ int64) (container *pipeline.Container, final bool) {
	if ip := addr.As4(); ip[0] == 172 && ip[1] == 17 {
		return containers[ip[3]], true
	}
	return nil, true
}

// newSink returns the sink of a stage. After the sink is closed, more returns the figures of the sink for a
// number of packets or lines.
func newSink(ctx context.Context, stage string) (s sink, more func(things int) []figure, err error) {
	switch stage {
	case "encode":
		encoder := &encodingSink{}
		return encoder, func(things int) []figure {
			bytesPerEvent := float64(encoder.bytes) / float64(max(encoder.events, 1))
			return []figure{eventsPerOp(encoder.events, things), {bytesPerEvent, "B/event"}}
		}, nil
	case "kafka":
		shipping, err := newShipping(ctx)
		return shipping, func(things int) []figure { return []figure{eventsPerOp(shipping.events, things)} }, err
	}
	counter := &countingSink{}
	return counter, func(things int) []figure { return []figure{eventsPerOp(counter.events, things)} }, nil
}

func eventsPerOp(events, things int) figure {
	return figure{float64(events) / float64(things), "events/op"}
}

// A countingSink counts events and releases them.
type countingSink struct{ events int }

func (s *countingSink) add(event *pipeline.Event) { s.events++; pipeline.ReleaseEvent(event) }
func (s *countingSink) finish() error             { return nil }
func (s *countingSink) close() error              { return nil }

// An encodingSink encodes events into a buffer of the size of a batch.
type encodingSink struct {
	buffer        [512 << 10]byte
	offset        int // where the next event is written
	events, bytes int
}

// add encodes an event as a part of a batch and releases it.
func (s *encodingSink) add(event *pipeline.Event) {
	// The shipper moves the containers from the events to the batch.
	event.Container = nil
	for _, endpoint := range [...]*pipeline.Endpoint{event.Source, event.Destination} {
		if endpoint != nil {
			endpoint.Container = nil
		}
	}

	size := event.SizeVT()
	if s.offset+size > len(s.buffer) {
		s.offset = 0
	}
	if _, err := event.MarshalToSizedBufferVT(s.buffer[s.offset : s.offset+size]); err != nil {
		panic(err) // the buffer has the size that SizeVT returned
	}
	s.offset += size
	s.events++
	s.bytes += size
	pipeline.ReleaseEvent(event)
}

func (s *encodingSink) finish() error { return nil }
func (s *encodingSink) close() error  { return nil }

// A shippingSink ships events with the production shipper to a broker in another process.
type shippingSink struct {
	broker   *broker
	shipper  *ship.Shipper
	file     collector.FileProducer
	packets  collector.PacketProducer
	events   int
	fromFile bool  // the events are lines, which the journal keeps
	position int64 // of the last line; the lines count as one byte each
}

// newShipping starts a broker and a shipper. The shipper starts after the topics exist.
func newShipping(ctx context.Context) (*shippingSink, error) {
	broker, err := startBroker()
	if err != nil {
		return nil, err
	}
	client, err := broker.client(ctx)
	if err != nil {
		return nil, errors.Join(err, broker.close())
	}
	client.Close() // the topics exist now

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
	return &shippingSink{
		broker: broker, shipper: shipper,
		file: shipper.File("bench"), packets: shipper.Packets("bench"),
	}, nil
}

// maxBuffered is the number of packet events that may wait for the broker. Beyond it the shipper might shed
// events.
const maxBuffered = 20_000

// add ships an event. Packets from a capture file arrive faster than a broker stores them, so add waits where
// a live capture would shed.
func (s *shippingSink) add(event *pipeline.Event) {
	s.events++
	if s.fromFile {
		s.position++
		_ = s.file.Ship(context.Background(), event, collector.Checkpoint{End: s.position, ReadFrom: s.position})
		return
	}
	if s.events%1000 == 0 {
		for s.shipper.Ledger().Buffered > maxBuffered {
			time.Sleep(time.Millisecond)
		}
	}
	s.packets.TryShip(event)
}

// finish waits until Kafka has acknowledged all events. It returns an error if some are not acknowledged
// within a minute.
func (s *shippingSink) finish() error {
	s.file.Close(false)
	s.packets.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := s.shipper.Close(ctx)
	if delivered := s.shipper.Ledger().Delivered; delivered != uint64(s.events) {
		err = errors.Join(err, fmt.Errorf("%d events, of which %d were shipped", s.events, delivered))
	}
	return err
}

func (s *shippingSink) close() error { return s.broker.close() }
