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
	"github.com/moby/moby/client"

	"tidegate/pipeline"
	"tidegate/pipeline/redact"
)

// What one container may weigh: labels are written by whoever built the image.
const (
	maxLabels     = 128
	maxLabelBytes = 4096
)

// callTimeout bounds one call of the API; the stream of events has none.
const callTimeout = 30 * time.Second

// listContainers reads all containers and networks; those that are gone meanwhile become tombstones.
func (r *Registry) listContainers(ctx context.Context, api *client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 4*callTimeout)
	defer cancel()
	if err := r.listNetworks(ctx, api); err != nil {
		return err
	}
	res, err := api.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		r.metrics.errors.WithLabelValues("list").Inc()
		return err
	}
	seen := make(map[string]bool, len(res.Items))
	fresh := make([]*entry, 0, len(res.Items))
	for i := range res.Items {
		id := res.Items[i].ID
		seen[id] = true
		e, err := r.inspect(ctx, api, id)
		switch {
		case errdefs.IsNotFound(err):
			seen[id] = false
		case err != nil:
			return err
		default:
			fresh = append(fresh, e)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range fresh {
		r.putEntry(e)
	}
	for id, e := range r.entries {
		if !seen[id] {
			r.markStopped(e, true)
		}
	}
	r.publish()
	return nil
}

func (r *Registry) listNetworks(ctx context.Context, api *client.Client) error {
	res, err := api.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		r.metrics.errors.WithLabelValues("networks").Inc()
		return err
	}
	var list []network
	for i := range res.Items {
		n := &res.Items[i].Network
		if n.Driver != "bridge" {
			continue
		}
		nw := network{bridge: n.Options["com.docker.network.bridge.name"]}
		if nw.bridge == "" && len(n.ID) >= 12 {
			nw.bridge = "br-" + n.ID[:12]
		}
		for _, c := range n.IPAM.Config {
			if c.Subnet.IsValid() {
				nw.subnets = append(nw.subnets, c.Subnet.Masked())
				nw.routers = append(nw.routers, c.Subnet.Masked().Addr().Next()) // where Docker does not say, it takes the first
			}
			if c.Gateway.IsValid() {
				nw.routers = append(nw.routers, c.Gateway)
			}
		}
		list = append(list, nw)
	}
	slices.SortFunc(list, func(a, b network) int { return cmp.Compare(a.bridge, b.bridge) })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.networks = list
	return nil
}

// refresh reads one container again and publishes it. One that is not found is left to its destroy event.
func (r *Registry) refresh(ctx context.Context, api *client.Client, id string) {
	e, err := r.inspect(ctx, api, id)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.putEntry(e)
	r.publish()
}

func (r *Registry) inspect(ctx context.Context, api *client.Client, id string) (*entry, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		if !errdefs.IsNotFound(err) {
			r.metrics.errors.WithLabelValues("inspect").Inc()
		}
		return nil, err
	}
	return r.entryOf(&res.Container), nil
}

// entryOf turns what the API says into what we keep.
func (r *Registry) entryOf(in *container.InspectResponse) *entry {
	e := &entry{container: &pipeline.Container{Id: in.ID, Name: strings.TrimPrefix(in.Name, "/"), ImageId: in.Image}}
	e.log = LogFile{ContainerID: in.ID, Path: in.LogPath}
	if in.HostConfig != nil {
		e.log.Driver = in.HostConfig.LogConfig.Type
	}
	var labels map[string]string
	if in.Config != nil {
		e.container.Image = in.Config.Image
		labels = in.Config.Labels
	}
	e.container.Labels = r.labels(labels)
	e.exclude = r.isExcluded(in.ID, e.container.Name, labels)
	if in.State != nil {
		e.running = in.State.Running
		if t, err := time.Parse(time.RFC3339Nano, in.State.FinishedAt); err == nil && !e.running && t.Year() > 1 {
			e.ended = t
		}
	}
	if in.NetworkSettings != nil {
		for _, n := range in.NetworkSettings.Networks {
			if n != nil {
				e.ips = appendIP(appendIP(e.ips, n.IPAddress), n.GlobalIPv6Address)
			}
		}
	}
	slices.SortFunc(e.ips, netip.Addr.Compare)
	e.ips = slices.Compact(e.ips)
	for _, ip := range e.ips {
		e.container.Ip = append(e.container.Ip, ip.String())
	}
	return e
}

// labels returns the labels of a container in the order of their keys, without secrets.
func (r *Registry) labels(labels map[string]string) []*pipeline.Label {
	var redactor redact.Redactor
	list := make([]*pipeline.Label, 0, len(labels))
	for k, v := range labels {
		if len(k) > maxLabelBytes || len(v) > maxLabelBytes {
			r.metrics.dropped.WithLabelValues("label_too_long").Inc()
			continue
		}
		list = append(list, &pipeline.Label{Key: strings.ToValidUTF8(k, "\ufffd"), Value: redactor.Label(k, strings.ToValidUTF8(v, "\ufffd"))})
	}
	slices.SortFunc(list, func(a, b *pipeline.Label) int { return cmp.Compare(a.Key, b.Key) })
	if len(list) > maxLabels {
		r.metrics.dropped.WithLabelValues("too_many_labels").Add(float64(len(list) - maxLabels))
		list = list[:maxLabels:maxLabels]
	}
	return list
}

func appendIP(ips []netip.Addr, ip netip.Addr) []netip.Addr {
	if ip.IsValid() && !ip.IsUnspecified() {
		ips = append(ips, ip.Unmap())
	}
	return ips
}

// putEntry takes e over. The addresses of a container that runs no more are no longer told by the API: they are kept from before, with
// the pointer that carries them. r.mu is held.
func (r *Registry) putEntry(e *entry) {
	old := r.entries[e.container.Id]
	r.entries[e.container.Id] = e
	if old == nil {
		if !e.running && e.ended.IsZero() {
			e.ended = r.now() // created, never started: it has no address to give away, only its own time to be forgotten
		}
		return
	}
	if !e.running && len(e.ips) == 0 {
		e.ips, e.container.Ip = old.ips, old.container.Ip
		if !old.ended.IsZero() {
			e.ended = old.ended
		} else {
			e.ended = r.now()
		}
	}
	if sameContainer(old.container, e.container) {
		e.container = old.container // ship interns containers by pointer: an unchanged one stays the same
	}
}

// markStopped marks e as stopped; removed, as gone. r.mu is held.
func (r *Registry) markStopped(e *entry, removed bool) {
	if e.running || e.ended.IsZero() {
		e.ended = r.now()
	}
	e.running = false
	if removed && !e.removed {
		e.removed = true
		e.ended = r.now()
	}
}

func sameContainer(a, b *pipeline.Container) bool {
	return a.Id == b.Id && a.Name == b.Name && a.Image == b.Image && a.ImageId == b.ImageId && slices.Equal(a.Ip, b.Ip) &&
		slices.EqualFunc(a.Labels, b.Labels, func(x, y *pipeline.Label) bool { return x.Key == y.Key && x.Value == y.Value })
}
