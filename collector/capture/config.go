//go:build linux

package capture

import (
	"path"
	"slices"

	"tidegate/pipeline/config"
)

// Config selects the interfaces to capture and sizes the rings. The zero value captures nothing.
type Config struct {
	// Names, or glob patterns of names, of the interfaces to capture. Interfaces that appear later are
	// captured, too.
	Interfaces []string `yaml:"interfaces"`
	// Names, or glob patterns of names, of the bridges that containers are attached to. They are put into
	// promiscuous mode. A session that is seen on a bridge and on another interface is reported once, by the
	// bridge.
	Bridges []string `yaml:"bridges"`
	// Capture the bridges of all Docker networks, whatever their names, as if they were in interfaces and in bridges.
	DockerBridges bool `yaml:"docker_bridges"`
	// Interfaces, by name or glob pattern, on which every tunnel (VXLAN, Geneve, GTP, GRE, IP in IP, MPLS, PPPoE, 802.1ah, …)
	// is opened, such as a mirror port. On other interfaces only tunnels that end on this host are opened, those of its
	// VXLAN, Geneve, GRE and IP-in-IP devices and of Docker's overlay networks, and on bridges none: a sender could
	// otherwise forge connections of others.
	Underlays []string `yaml:"underlays"`
	// Workers per interface, each with a ring and a session table of its own; 0: one per core, at most 4.
	Workers int `yaml:"workers"`
	// Size of the packet ring of each worker.
	RingBytes config.Size `yaml:"ring_bytes"`
	// Size of all packet rings together. The rings of further interfaces are smaller, down to 2MiB.
	MaxRingBytes config.Size `yaml:"max_ring_bytes"`
}

// Default returns a configuration that captures every Docker bridge and eth0.
func Default() Config {
	return Config{
		Interfaces: []string{"docker0", "br-*", "eth0"},
		Bridges:    []string{"docker0", "br-*"}, DockerBridges: true,
		RingBytes: 8 * config.MiB, MaxRingBytes: 48 * config.MiB,
	}
}

// minRingBytes holds a few blocks for a worker that has to wait for a core.
const minRingBytes = 2 * config.MiB

// Check returns every problem of c.
func (c Config) Check() []config.Problem {
	return slices.Concat(
		config.Each("interfaces", c.Interfaces, checkInterface),
		config.Each("bridges", c.Bridges, checkInterface),
		config.Each("underlays", c.Underlays, c.checkUnderlay),
		config.Range("workers", c.Workers, 0, 64),
		config.Range("ring_bytes", c.RingBytes, minRingBytes, config.GiB),
		config.AtLeast("max_ring_bytes", c.MaxRingBytes, 2*minRingBytes),
	)
}

func checkInterface(key, pattern string) []config.Problem {
	if pattern == "any" {
		return config.Invalid(key, `"any" would show each packet several times; name the interfaces`)
	}
	return config.Glob(key, pattern)
}

// checkUnderlay refuses the bridges of containers.
func (c Config) checkUnderlay(key, pattern string) []config.Problem {
	if slices.Contains(c.Bridges, pattern) || c.IsBridge(pattern) {
		return config.Invalid(key, "%q is a bridge of containers, on which no tunnel is opened", pattern)
	}
	return checkInterface(key, pattern)
}

// IsBridge reports whether containers are attached to the interface of that name.
func (c Config) IsBridge(name string) bool { return matchAny(c.Bridges, name) }

// matchAny reports whether name matches one of the glob patterns.
func matchAny(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if ok, _ := path.Match(pattern, name); ok {
			return true
		}
	}
	return false
}
