package containers

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"github.com/moby/moby/client"
)

// A network is a bridge network of Docker.
type network struct {
	bridge  string // name of its interface
	subnets []netip.Prefix
	routers []netip.Addr // addresses of the host in subnets
}

// listNetworks reads all bridge networks. The caller publishes a view afterwards.
func (r *Registry) listNetworks(ctx context.Context, api *client.Client) error {
	result, err := api.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		r.metrics.errors.WithLabelValues("networks").Inc()
		return err
	}

	var list []network
	for i := range result.Items {
		described := &result.Items[i].Network
		if described.Driver != "bridge" {
			continue
		}
		found := network{bridge: described.Options["com.docker.network.bridge.name"]}
		if found.bridge == "" && len(described.ID) >= 12 {
			found.bridge = "br-" + described.ID[:12]
		}
		for _, pool := range described.IPAM.Config {
			if pool.Subnet.IsValid() {
				subnet := pool.Subnet.Masked()
				found.subnets = append(found.subnets, subnet)
				// Docker uses the first address if no gateway is configured.
				found.routers = append(found.routers, subnet.Addr().Next())
			}
			if pool.Gateway.IsValid() {
				found.routers = append(found.routers, pool.Gateway)
			}
		}
		list = append(list, found)
	}
	slices.SortFunc(list, func(a, b network) int { return cmp.Compare(a.bridge, b.bridge) })

	r.mu.Lock()
	defer r.mu.Unlock()
	r.networks = list
	return nil
}
