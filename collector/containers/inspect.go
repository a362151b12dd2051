package containers

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"tidegate/pipeline"
	"tidegate/pipeline/redact"
)

// Bounds of the labels of one container. Whoever builds an image chooses its labels.
const (
	maxLabels      = 128
	maxLabelBytes  = 4096
	maxLabelsBytes = 12 << 10 // of all labels: a batch has only the name of a container with more than 16 KiB
)

// callTimeout bounds one call of the API. The stream of events has no bound.
const callTimeout = 30 * time.Second

// listContainers reads all containers and networks. Containers that were known and are not listed any more
// are marked as removed.
func (r *Registry) listContainers(ctx context.Context, api *client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 4*callTimeout)
	defer cancel()
	if err := r.listNetworks(ctx, api); err != nil {
		return err
	}
	result, err := api.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		r.metrics.errors.WithLabelValues("list").Inc()
		return err
	}

	// The list has neither addresses nor log files, so each container is inspected.
	listed := make(map[string]bool, len(result.Items))
	inspected := make([]*entry, 0, len(result.Items))
	for i := range result.Items {
		id := result.Items[i].ID
		listed[id] = true
		found, err := r.inspect(ctx, api, id)
		switch {
		case errdefs.IsNotFound(err):
			listed[id] = false
		case err != nil:
			return err
		default:
			inspected = append(inspected, found)
		}
	}

	// Publish one view for the whole list.
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, found := range inspected {
		r.putEntry(found, r.now().UnixNano())
	}
	for id, known := range r.entries {
		if !listed[id] {
			r.markStopped(known, r.now().UnixNano(), true)
		}
	}
	r.publish()
	return nil
}

// refresh reads one container again, after a change at a time, ns, and publishes it. A container that is not found
// keeps its entry until its destroy event.
func (r *Registry) refresh(ctx context.Context, api *client.Client, id string, at int64) {
	entry, err := r.inspect(ctx, api, id)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.putEntry(entry, at)
	r.publish()
}

// inspect reads one container.
func (r *Registry) inspect(ctx context.Context, api *client.Client, id string) (*entry, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	result, err := api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		if !errdefs.IsNotFound(err) {
			r.metrics.errors.WithLabelValues("inspect").Inc()
		}
		return nil, err
	}
	return r.newEntry(&result.Container), nil
}

// newEntry returns the entry of a container from the description in the API.
func (r *Registry) newEntry(in *container.InspectResponse) *entry {
	name := strings.TrimPrefix(in.Name, "/")
	created := &entry{container: &pipeline.Container{Id: in.ID, Name: name, ImageId: in.Image}}
	created.log = LogFile{ContainerID: in.ID, Path: in.LogPath}
	if in.HostConfig != nil {
		created.log.Driver = in.HostConfig.LogConfig.Type
	}

	// The labels decide about exclusion in their original form; the entry has them with secrets redacted.
	var labels map[string]string
	if in.Config != nil {
		created.container.Image = in.Config.Image
		labels = in.Config.Labels
	}
	created.container.Labels = r.labels(labels)
	created.excludedBy = r.excludedBy(in.ID, created.container.Name, labels)
	created.excluded = created.excludedBy != ""

	if in.State != nil {
		created.running = in.State.Running
		if started, err := time.Parse(time.RFC3339Nano, in.State.StartedAt); err == nil && started.Year() > 1 {
			created.started = started.UnixNano()
		}
		// The API reports the year 1 as the end of a container that has never run.
		finished, err := time.Parse(time.RFC3339Nano, in.State.FinishedAt)
		if err == nil && !created.running && finished.Year() > 1 {
			created.ended = finished
		}
	}

	// Collect the addresses of all networks.
	if in.NetworkSettings != nil {
		for _, attached := range in.NetworkSettings.Networks {
			if attached == nil {
				continue
			}
			for _, ip := range appendIP(appendIP(nil, attached.IPAddress), attached.GlobalIPv6Address) {
				created.ips = append(created.ips, ip)
				created.endpoints = append(created.endpoints, endpoint{ip, macOf(attached.MacAddress)})
			}
		}
	}

	// Sort the addresses, so that sameContainer recognises an unchanged container.
	slices.SortFunc(created.ips, netip.Addr.Compare)
	created.ips = slices.Compact(created.ips)
	for _, ip := range created.ips {
		created.container.Ip = append(created.container.Ip, ip.String())
	}
	return created
}

// labels returns the labels of a container, ordered by key, with secrets redacted. Labels beyond the bounds, the longest
// ones, are dropped and counted.
func (r *Registry) labels(labels map[string]string) []*pipeline.Label {
	var redactor redact.Redactor
	list := make([]*pipeline.Label, 0, len(labels))
	for key, text := range labels {
		if len(key) > maxLabelBytes || len(text) > maxLabelBytes {
			r.metrics.dropped.WithLabelValues("label_too_long").Inc()
			continue
		}
		value := redactor.Label(key, strings.ToValidUTF8(text, "\ufffd"))
		list = append(list, &pipeline.Label{Key: strings.ToValidUTF8(key, "\ufffd"), Value: value})
	}
	size := func(label *pipeline.Label) int { return len(label.Key) + len(label.Value) }
	byKey := func(a, b *pipeline.Label) int { return cmp.Compare(a.Key, b.Key) }
	slices.SortFunc(list, func(a, b *pipeline.Label) int { return cmp.Or(cmp.Compare(size(a), size(b)), byKey(a, b)) })
	kept, sum := 0, 0
	for ; kept < min(len(list), maxLabels) && sum+size(list[kept]) <= maxLabelsBytes; kept++ {
		sum += size(list[kept])
	}
	r.metrics.dropped.WithLabelValues("too_many_labels").Add(float64(len(list) - kept))
	list = slices.Clone(list[:kept]) // the others are not kept by the array
	slices.SortFunc(list, byKey)
	return list
}

// macOf returns an Ethernet address as a number, 0 if it is none.
func macOf(address apinetwork.HardwareAddr) (mac MAC) {
	if len(address) != 6 {
		return 0
	}
	for _, octet := range address {
		mac = mac<<8 | uint64(octet)
	}
	return mac
}

// appendIP appends ip, unless it is unset.
func appendIP(ips []netip.Addr, ip netip.Addr) []netip.Addr {
	if ip.IsValid() && !ip.IsUnspecified() {
		ips = append(ips, ip.Unmap())
	}
	return ips
}

// sameContainer reports whether two containers have the same metadata.
func sameContainer(a, b *pipeline.Container) bool {
	sameLabel := func(x, y *pipeline.Label) bool { return x.Key == y.Key && x.Value == y.Value }
	return a.Id == b.Id && a.Name == b.Name && a.Image == b.Image && a.ImageId == b.ImageId &&
		slices.Equal(a.Ip, b.Ip) && slices.EqualFunc(a.Labels, b.Labels, sameLabel)
}
