package containers

import (
	"context"
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
	"github.com/zeebo/xxh3"

	"tidegate/pipeline"
)

// handleMessage handles one message of the API. The registry is updated first, so that the event carries the
// new metadata.
func (r *Registry) handleMessage(
	ctx context.Context, api *client.Client, stream *eventStream, message *events.Message,
) {
	stream.since = max(stream.since, message.TimeNano)
	switch message.Type {
	case events.NetworkEventType:
		r.networkEvent(ctx, api, message)
	case events.ContainerEventType:
		// The actions exec_create and health_status have details behind a colon.
		action, _, _ := strings.Cut(string(message.Action), ":")
		r.containerEvent(ctx, api, action, message.Actor.ID, message.TimeNano)
		if !stream.seen.markSeen(r.eventID(message)) {
			r.metrics.dropped.WithLabelValues("repeated").Inc()
			return
		}
		r.metrics.events.WithLabelValues(actionLabel(action)).Inc()
		if !stream.producer.TryShip(r.newEvent(action, message)) {
			r.metrics.dropped.WithLabelValues("memory").Inc()
		}
	}
}

// networkEvent updates the registry after a change of networks.
func (r *Registry) networkEvent(ctx context.Context, api *client.Client, message *events.Message) {
	switch message.Action {
	case events.ActionConnect, events.ActionDisconnect:
		if id := message.Actor.Attributes["container"]; id != "" {
			if message.Action == events.ActionConnect {
				r.mu.Lock()
				r.noteConnected(id, message.TimeNano)
				r.mu.Unlock()
			}
			r.refresh(ctx, api, id, message.TimeNano)
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

// containerEvent updates the registry after a change of a container at a time, ns.
func (r *Registry) containerEvent(ctx context.Context, api *client.Client, action, id string, at int64) {
	switch action {
	case "create", "start", "restart", "rename", "update":
		r.refresh(ctx, api, id, at)
	case "die", "destroy":
		r.mu.Lock()
		defer r.mu.Unlock()
		if e := r.entries[id]; e != nil {
			r.markStopped(e, at, action == "destroy")
			r.publish()
		}
	}
}

// maxSeenEvents is the number of event ids that seenEvents keeps. dockerd itself repeats at most 256 events.
const maxSeenEvents = 1024

// seenEvents holds the ids of the last events: after a reconnect the API reports some of them again.
type seenEvents struct {
	ids   map[pipeline.ID]struct{}
	order []pipeline.ID // ring of the ids, in the order in which they came
	next  int           // index in order of the oldest id, which is overwritten next
}

func newSeenEvents() seenEvents { return seenEvents{ids: map[pipeline.ID]struct{}{}} }

// markSeen adds the id of an event and reports whether it is new.
func (s *seenEvents) markSeen(id pipeline.ID) bool {
	if _, ok := s.ids[id]; ok {
		return false
	}
	if len(s.order) < maxSeenEvents {
		s.order = append(s.order, id)
	} else {
		delete(s.ids, s.order[s.next])
		s.order[s.next] = id
		s.next = (s.next + 1) % maxSeenEvents
	}
	s.ids[id] = struct{}{}
	return true
}

// eventID returns the event id of a message. A message that is reported twice has the same id.
func (r *Registry) eventID(message *events.Message) pipeline.ID {
	data := make([]byte, 0, 160)
	data = append(data, 'C')
	data = append(data, r.cfg.Collector[:]...)
	data = append(append(data, message.Actor.ID...), 0)
	data = append(append(data, message.Action...), 0)
	data = binary.BigEndian.AppendUint64(data, uint64(message.TimeNano))
	return xxh3.Hash128(data).Bytes()
}

// newEvent returns the event of a message. It leaves out the command behind the colon of exec_create and
// exec_start, which may contain secrets.
func (r *Registry) newEvent(action string, message *events.Message) *pipeline.Event {
	event := pipeline.EventFromVTPool()
	id := r.eventID(message)
	event.Id = append(event.Id[:0], id[:]...)
	event.Dataset = pipeline.Dataset_CONTAINER
	event.Timestamp = message.TimeNano
	if event.Timestamp == 0 {
		event.Timestamp = message.Time * int64(time.Second)
	}
	event.Change = pipeline.ContainerChangeFromVTPool()
	event.Change.Action = strings.ToValidUTF8(action, "\ufffd")
	setOutcome(event, action, message)
	if event.Container = r.ByID(message.Actor.ID); event.Container == nil {
		attributes := message.Actor.Attributes
		event.Container = &pipeline.Container{Id: message.Actor.ID, Name: attributes["name"], Image: attributes["image"]}
	}
	if r.Status(message.Actor.ID).Excluded {
		event.AddTag(pipeline.TagLogExcluded)
	}
	return event
}

// setOutcome sets the outcome of event, and the exit code if the message has one.
func setOutcome(event *pipeline.Event, action string, message *events.Message) {
	switch action {
	case "die", "exec_die":
		code, err := strconv.ParseInt(message.Actor.Attributes["exitCode"], 10, 32)
		event.Change.ExitCode = int32(code)
		if err == nil && code == 0 {
			event.Outcome = pipeline.Outcome_SUCCESS
		} else if err == nil {
			event.Outcome = pipeline.Outcome_FAILURE
		}
	case "health_status":
		switch {
		case strings.HasSuffix(string(message.Action), ": healthy"):
			event.Outcome = pipeline.Outcome_SUCCESS
		case strings.HasSuffix(string(message.Action), ": unhealthy"):
			event.Outcome = pipeline.Outcome_FAILURE
		}
	case "oom":
		event.Outcome = pipeline.Outcome_FAILURE
	}
}

// actionLabel returns action as the value of a metric's label: one of Docker's documented actions, or
// "other".
func actionLabel(action string) string {
	switch action {
	case "attach", "commit", "copy", "create", "destroy", "detach", "die", "exec_create", "exec_detach",
		"exec_die", "exec_start", "export", "health_status", "kill", "oom", "pause", "rename", "resize", "restart",
		"start", "stop", "top", "unpause", "update":
		return action
	}
	return "other"
}
