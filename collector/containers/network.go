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
		n := network{bridge: described.Options["com.docker.network.bridge.name"]}
		if n.bridge == "" && len(described.ID) >= 12 {
			n.bridge = "br-" + described.ID[:12]
		}
		for _, pool := range described.IPAM.Config {
			if pool.Subnet.IsValid() {
				subnet := pool.Subnet.Masked()
				n.subnets = append(n.subnets, subnet)
				// Docker uses the first address if no gateway is configured.
				n.routers = append(n.routers, subnet.Addr().Next())
			}
			if pool.Gateway.IsValid() {
				n.routers = append(n.routers, pool.Gateway)
			}
		}
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b network) int { return cmp.Compare(a.bridge, b.bridge) })

	r.mu.Lock()
	defer r.mu.Unlock()
	r.networks = list
	return nil
}
