package containers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"tidegate/collector"
	"tidegate/pipeline/retry"
)

const (
	retryMin    = time.Second
	retryMax    = 30 * time.Second
	expireEvery = 15 * time.Second
	// enforceEvery is the time between two looks at the memory budget while nothing changes: other parts may have grown.
	enforceEvery = 100 * time.Millisecond
)

// An eventStream is the state of the event stream that Run keeps across reconnects.
type eventStream struct {
	producer collector.PacketProducer
	since    int64 // TimeNano of the newest event that was received
	seen     seenEvents
}

// Run follows the Docker API until ctx ends. While the API is unavailable it reconnects with back-off.
func (r *Registry) Run(ctx context.Context, ship collector.Shipper) error {
	r.account = r.Memory.Open("containers")
	defer r.account.Close()
	stream := &eventStream{producer: ship.Packets("containers"), seen: newSeenEvents()}
	defer stream.producer.Close()
	if r.cfg.DockerHost == "" {
		r.log.Info("docker api is not used, containers have ids only")
		<-ctx.Done()
		return nil
	}
	api, err := client.New(client.WithHost(r.cfg.DockerHost))
	if err != nil {
		return fmt.Errorf("containers.docker_host %s: %w", r.cfg.DockerHost, err)
	}
	defer api.Close()

	// Each turn follows the API until the stream of events breaks. A turn that has read the list resets the
	// back-off, and only the first failure in a row is logged.
	backoff := retry.Backoff{Min: retryMin, Max: retryMax}
	for {
		listed, err := r.follow(ctx, api, stream)
		r.metrics.connected.Set(0)
		if ctx.Err() != nil || errors.Is(err, context.Canceled) {
			return nil
		}
		if listed {
			backoff.Reset()
		}
		if backoff.Attempts() == 0 {
			r.log.Log(ctx, r.absenceLevel(), "docker api unavailable: containers that start now have no name until it is available again",
				"host", r.cfg.DockerHost, "err", err)
		}
		if backoff.Wait(ctx) != nil {
			return nil
		}

		// Entries also expire while the API is unavailable.
		r.expireEntries(r.now())
	}
}

// absenceLevel returns the level at which an unavailable API is logged.
func (r *Registry) absenceLevel() slog.Level {
	if path, ok := strings.CutPrefix(r.cfg.DockerHost, "unix://"); ok && r.QuietIfAbsent {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return slog.LevelInfo
		}
	}
	return slog.LevelWarn
}

// follow receives events until the stream breaks. It opens the stream before it reads the list, so that no
// change between the two is missed. listed is true if the list was read.
func (r *Registry) follow(
	ctx context.Context, api *client.Client, stream *eventStream,
) (listed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	// Open the stream. After a reconnect it begins with the events since the last one, which may be repeated.
	options := client.EventsListOptions{Filters: client.Filters{}.Add("type", "container", "network")}
	if stream.since > 0 {
		options.Since = fmt.Sprintf("%d.%09d", stream.since/1e9, stream.since%1e9)
	}
	events := api.Events(ctx, options)

	// Read the list. From here on the registry is complete.
	if err := r.listContainers(ctx, api); err != nil {
		return false, fmt.Errorf("list containers: %w", err)
	}
	r.setReady()
	r.metrics.connected.Set(1)
	r.log.Info("docker api connected",
		"host", r.cfg.DockerHost, "api", api.ClientVersion(),
		"containers", len(r.Containers()), "bridges", r.Bridges())

	// Handle events until the stream breaks.
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	enforce := time.NewTicker(enforceEvery)
	defer enforce.Stop()
	for {
		select {
		case message := <-events.Messages:
			r.handleMessage(ctx, api, stream, &message)
		case err := <-events.Err:
			r.metrics.errors.WithLabelValues("events").Inc()
			if err == nil || errors.Is(err, io.EOF) {
				err = errors.New("stream of events ended")
			}
			return true, err
		case <-tick.C:
			r.expireEntries(r.now())
		case <-enforce.C:
			r.enforceBudget()
		}
	}
}
