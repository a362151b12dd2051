package containers

import (
	"slices"
	"strings"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// Config configures the Docker API and the containers that are followed.
type Config struct {
	// Address of the Docker API: unix:///var/run/docker.sock or tcp://host:port. Empty: no API, and
	// containers have no names.
	DockerHost string `yaml:"docker_host"`
	// How long the metadata of a container is kept after the container has stopped, for events that arrive
	// late.
	KeepAfterExit time.Duration `yaml:"keep_after_exit"`
	// ID or name of the collector's own container, which is not followed. auto: detected at the start; empty:
	// none.
	Self string `yaml:"self"`
	// Glob patterns of container names. If there are any, only matching containers are followed.
	Include []string `yaml:"include"`
	// Glob patterns of the names of containers that are not followed.
	Exclude []string `yaml:"exclude"`
	// Labels, as key or key=value, of containers that are not followed.
	ExcludeLabels []string `yaml:"exclude_labels"`

	Collector pipeline.ID `yaml:"-"` // the collector's id, part of every event.id
}

// Default returns the configuration for Docker as distributions install it.
func Default() Config {
	return Config{
		DockerHost:    "unix:///var/run/docker.sock",
		KeepAfterExit: 10 * time.Minute,
		Self:          "auto",
		ExcludeLabels: []string{"tidegate.exclude=true"},
	}
}

// Check returns every problem of c.
func (c Config) Check() []config.Problem {
	return slices.Concat(
		config.Require(c.DockerHost == "" || strings.Contains(c.DockerHost, "://"), "docker_host",
			"%q is not an address like unix:///var/run/docker.sock", c.DockerHost),
		config.AtLeast("keep_after_exit", c.KeepAfterExit, 0),
		config.Each("include", c.Include, config.Glob),
		config.Each("exclude", c.Exclude, config.Glob),
		config.Each("exclude_labels", c.ExcludeLabels, func(key, label string) []config.Problem {
			return config.Require(label != "" && label[0] != '=', key, "%q has no key", label)
		}),
	)
}
