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
	// ID or name of the collector's own container, whose log is not read. auto: detected at the start; empty:
	// none.
	Self string `yaml:"self"`
	// Glob patterns of container names. If there are any, only the logs of matching containers are read. This and
	// the next two keys are about logs; traffic is captured nevertheless.
	Include []string `yaml:"include"`
	// Glob patterns of the names of containers whose logs are not read.
	Exclude []string `yaml:"exclude"`
	// Labels, as key or key=value, of containers whose logs are not read. Labels of an image are labels of its
	// containers: whoever builds an image that runs on this host can then switch its logs off.
	ExcludeLabels []string `yaml:"exclude_labels"`

	Collector pipeline.ID `yaml:"-"` // the collector's id, part of every event.id
}

// Default returns the configuration for Docker as distributions install it.
func Default() Config {
	return Config{
		DockerHost:    "unix:///var/run/docker.sock",
		KeepAfterExit: 10 * time.Minute,
		Self:          "auto",
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
