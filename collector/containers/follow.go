package containers

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
	"github.com/zeebo/xxh3"

	"tidegate/collector"
	"tidegate/pipeline"
)

const (
	retryMin    = time.Second
	retryMax    = 30 * time.Second
	expireEvery = 15 * time.Second
	// replayed is how many events are remembered so that those which the API tells again after a reconnect are not shipped again;
	// dockerd itself remembers 256.
	maxSeenEvents = 1024
)

// A eventStream is what Run keeps over reconnects.
type eventStream struct {
	lane  collector.PacketProducer
	since int64 // TimeNano of the newest event that was seen
	seen  map[pipeline.ID]struct{}
	order []pipeline.ID // of seen, a ring
	next  int
}

// Run follows the Docker API until ctx ends. An API that is away is no reason to return: it is tried again, with patience.
func (r *Registry) Run(ctx context.Context, ship collector.Shipper) error {
	s := &eventStream{lane: ship.Packets("containers"), seen: map[pipeline.ID]struct{}{}}
	defer s.lane.Close()
	if r.cfg.DockerHost == "" {
		r.log.Info("docker api is not used: containers have ids only")
		<-ctx.Done()
		return nil
	}
	api, err := client.New(client.WithHost(r.cfg.DockerHost))
	if err != nil {
		return fmt.Errorf("containers.host %s: %w", r.cfg.DockerHost, err)
	}
	defer api.Close()
	wait, away := retryMin, false
	for {
		listed, err := r.follow(ctx, api, s)
		r.metrics.connected.Set(0)
		if interrupted(ctx, err) {
			return nil
		}
		if listed {
			wait, away = retryMin, false
		}
		if !away {
			r.log.Warn("docker api is away: containers that start now have no name until it is back", "host", r.cfg.DockerHost, "error", err)
			away = true
		}
		if !r.waitRetry(ctx, wait) {
			return nil
		}
		wait = min(2*wait, retryMax)
	}
}

// waitRetry waits for d and goes on burying; false: ctx ended.
func (r *Registry) waitRetry(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		r.expireEntries(r.now())
		return true
	}
}

// follow opens the stream of events, then reads the list, so that nothing falls between the two, then takes the events until the
// stream breaks. It tells whether it came as far as the list.
func (r *Registry) follow(ctx context.Context, api *client.Client, s *eventStream) (listed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	opts := client.EventsListOptions{Filters: client.Filters{}.Add("type", "container", "network")}
	if s.since > 0 {
		opts.Since = fmt.Sprintf("%d.%09d", s.since/1e9, s.since%1e9)
	}
	res := api.Events(ctx, opts)
	if err := r.listContainers(ctx, api); err != nil {
		return false, fmt.Errorf("list containers: %w", err)
	}
	r.setReady()
	r.metrics.connected.Set(1)
	r.log.Info("docker api connected", "host", r.cfg.DockerHost, "api", api.ClientVersion(), "containers", len(r.Containers()), "bridges", r.Bridges())
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		select {
		case m := <-res.Messages:
			r.handleMessage(ctx, api, s, &m)
		case err := <-res.Err:
			r.metrics.errors.WithLabelValues("events").Inc()
			if err == nil || errors.Is(err, io.EOF) {
				err = errors.New("stream of events ended")
			}
			return true, err
		case <-tick.C:
			r.expireEntries(r.now())
		}
	}
}

// handleMessage takes one message of the API: first the registry, so that the event which is shipped carries what it brought.
func (r *Registry) handleMessage(ctx context.Context, api *client.Client, s *eventStream, m *events.Message) {
	s.since = max(s.since, m.TimeNano)
	switch m.Type {
	case events.NetworkEventType:
		r.networkEvent(ctx, api, m)
	case events.ContainerEventType:
		action, _, _ := strings.Cut(string(m.Action), ":")
		r.containerEvent(ctx, api, action, m.Actor.ID)
		if s.markSeen(r.eventID(m)) {
			r.metrics.dropped.WithLabelValues("repeated").Inc()
			return
		}
		r.metrics.events.WithLabelValues(actionLabel(action)).Inc()
		if !s.lane.TryShip(r.toEvent(action, m)) {
			r.metrics.dropped.WithLabelValues("no_room").Inc()
		}
	}
}

func (r *Registry) networkEvent(ctx context.Context, api *client.Client, m *events.Message) {
	switch m.Action {
	case events.ActionConnect, events.ActionDisconnect:
		if id := m.Actor.Attributes["container"]; id != "" {
			r.refresh(ctx, api, id)
		}
	case events.ActionCreate, events.ActionDestroy, events.ActionRemove:
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		if r.listNetworks(ctx, api) == nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.publish()
		}
	}
}

func (r *Registry) containerEvent(ctx context.Context, api *client.Client, action, id string) {
	switch action {
	case "create", "start", "restart", "rename", "update":
		r.refresh(ctx, api, id)
	case "die", "destroy":
		r.mu.Lock()
		defer r.mu.Unlock()
		if e := r.entries[id]; e != nil {
			r.markStopped(e, action == "destroy")
			r.publish()
		}
	}
}

// markSeen tells whether an event of this id was seen, and remembers it.
func (s *eventStream) markSeen(id pipeline.ID) bool {
	if _, ok := s.seen[id]; ok {
		return true
	}
	if len(s.order) < maxSeenEvents {
		s.order = append(s.order, id)
	} else {
		delete(s.seen, s.order[s.next])
		s.order[s.next] = id
		s.next = (s.next + 1) % maxSeenEvents
	}
	s.seen[id] = struct{}{}
	return false
}

func (r *Registry) eventID(m *events.Message) pipeline.ID {
	b := make([]byte, 0, 160)
	b = append(b, 'C')
	b = append(b, r.cfg.Collector[:]...)
	b = append(append(b, m.Actor.ID...), 0)
	b = append(append(b, m.Action...), 0)
	b = binary.BigEndian.AppendUint64(b, uint64(m.TimeNano))
	return xxh3.Hash128(b).Bytes()
}

// toEvent fills in what is known. Of exec_create and exec_start the command behind the colon is left out: it may hold secrets.
// The state behind health_status is the outcome.
func (r *Registry) toEvent(action string, m *events.Message) *pipeline.Event {
	e := pipeline.EventFromVTPool()
	id := r.eventID(m)
	e.Id = append(e.Id[:0], id[:]...)
	e.Dataset = pipeline.Dataset_CONTAINER
	e.Timestamp = m.TimeNano
	if e.Timestamp == 0 {
		e.Timestamp = m.Time * int64(time.Second)
	}
	e.Change = pipeline.ContainerChangeFromVTPool()
	e.Change.Action = strings.ToValidUTF8(action, "\ufffd")
	switch action {
	case "die", "exec_die":
		code, err := strconv.ParseInt(m.Actor.Attributes["exitCode"], 10, 32)
		e.Change.ExitCode = int32(code)
		if err == nil && code == 0 {
			e.Outcome = pipeline.Outcome_SUCCESS
		} else if err == nil {
			e.Outcome = pipeline.Outcome_FAILURE
		}
	case "health_status":
		switch {
		case strings.HasSuffix(string(m.Action), ": healthy"):
			e.Outcome = pipeline.Outcome_SUCCESS
		case strings.HasSuffix(string(m.Action), ": unhealthy"):
			e.Outcome = pipeline.Outcome_FAILURE
		}
	case "oom":
		e.Outcome = pipeline.Outcome_FAILURE
	}
	if e.Container = r.ByID(m.Actor.ID); e.Container == nil {
		e.Container = &pipeline.Container{Id: m.Actor.ID, Name: m.Actor.Attributes["name"], Image: m.Actor.Attributes["image"]}
	}
	return e
}

// actionLabel bounds the values of a metric's label by what Docker documents.
func actionLabel(action string) string {
	switch action {
	case "attach", "commit", "copy", "create", "destroy", "detach", "die", "exec_create", "exec_detach", "exec_die", "exec_start",
		"export", "health_status", "kill", "oom", "pause", "rename", "resize", "restart", "start", "stop", "top", "unpause", "update":
		return action
	}
	return "other"
}
