package logs

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"tidegate/collector/containers"
	"tidegate/collector/logs/discover"
	"tidegate/collector/logs/tail"
)

// A discoverer lists one kind of logs.
type discoverer interface {
	Folders() []string
	List() ([]discover.Log, error)
}

// A discovery lists the logs of all discoverers. It returns no handler for logs of excluded containers. It
// implements tail.Discovery.
type discovery struct {
	source      *Source
	discoverers []discoverer
	logged      map[string]bool     // containers whose unsupported logging driver was logged
	failed      map[discoverer]bool // discoverers whose last List returned an error
}

var _ tail.Discovery = (*discovery)(nil)

// newDiscovery returns the discovery of Docker's logs and, if there are any, of the configured files.
func newDiscovery(source *Source) *discovery {
	created := &discovery{source: source, logged: map[string]bool{}, failed: map[discoverer]bool{}}
	docker := &discover.Docker{Root: source.cfg.DockerDataRoot, Elsewhere: created.filesOfContainers}
	created.discoverers = append(created.discoverers, docker)
	if len(source.cfg.Files) > 0 {
		created.discoverers = append(created.discoverers, &discover.Glob{Patterns: source.cfg.Files})
	}
	return created
}

// Folders implements tail.Discovery.
func (d *discovery) Folders() []string {
	var list []string
	for _, part := range d.discoverers {
		list = append(list, part.Folders()...)
	}
	return list
}

// List implements tail.Discovery.
func (d *discovery) List() (logs []discover.Log, complete bool) {
	complete = true
	for _, part := range d.discoverers {
		list, err := part.List()
		d.logFailure(part, err)
		complete = complete && err == nil
		logs = append(logs, list...)
	}
	logs = d.withoutContainers(logs)

	// Before its first listing the registry has no log files, so that logs outside of Docker's folder may be
	// missing.
	if registry := d.source.registry; registry != nil && registry.Enabled() && len(registry.Logs()) == 0 {
		complete = false
	}
	return logs, complete
}

// withoutContainers leaves out the text logs that are those of containers: a pattern or a symbolic link
// may lead into Docker's folder, and each line would be read twice, those of excluded containers once.
func (d *discovery) withoutContainers(logs []discover.Log) []discover.Log {
	if len(d.source.cfg.Files) == 0 {
		return logs
	}

	// Collect the names and paths of the logs of containers.
	ofContainers := map[string]bool{}
	for i := range logs {
		if logs[i].Container != "" {
			ofContainers[logs[i].Container+"-json.log"] = true
			ofContainers[filepath.Join(logs[i].Dir, logs[i].Base)] = true
		}
	}

	// Docker's folder is excluded as a whole, also while it cannot be listed.
	folder := discover.Docker{Root: d.source.cfg.DockerDataRoot}.Folder() + "/"
	return slices.DeleteFunc(logs, func(log discover.Log) bool {
		return log.Container == "" &&
			(ofContainers[log.Base] || ofContainers[log.ID] || strings.HasPrefix(log.ID, folder))
	})
}

// Handler implements tail.Discovery.
func (d *discovery) Handler(log discover.Log) tail.Handler {
	if d.source.status(log.Container).Excluded {
		return nil
	}
	return newLineHandler(d.source, log)
}

// logFailure logs when a discoverer begins to fail, and when it succeeds again.
func (d *discovery) logFailure(part discoverer, err error) {
	if (err != nil) == d.failed[part] {
		return
	}
	d.failed[part] = err != nil
	if err != nil {
		level := slog.LevelWarn
		if d.source.QuietIfAbsent && errors.Is(err, fs.ErrNotExist) {
			level = slog.LevelInfo
		}
		d.source.log.Log(context.Background(), level, "logs cannot be listed, retrying every second", "err", err)
	} else {
		d.source.log.Info("logs are listed again", "folders", part.Folders())
	}
}

// filesOfContainers returns the paths of the registry's json-file logs by container id. It logs and counts,
// once for each container, logging drivers whose logs cannot be read.
func (d *discovery) filesOfContainers() map[string]string {
	if d.source.registry == nil {
		return nil
	}
	paths := map[string]string{}
	for _, file := range d.source.registry.Logs() {
		switch {
		case file.Driver == "json-file":
			if file.Path != "" {
				paths[file.ContainerID] = filepath.Clean(file.Path)
			}
		case file.Driver != "" && !d.logged[file.ContainerID]:
			d.logged[file.ContainerID] = true
			d.source.metrics.unread.WithLabelValues(driverLabel(file.Driver)).Inc()
			d.source.log.Warn("log of a container is not read, its driver keeps no json-file",
				"container", file.ContainerID, "driver", file.Driver)
		}
	}
	return paths
}

// status returns the status of a container. The status of the host (containerID "") is zero.
func (s *Source) status(containerID string) containers.Status {
	if s.registry == nil || containerID == "" {
		return containers.Status{}
	}
	return s.registry.Status(containerID)
}

// drivers are the logging drivers of Docker that keep no json-file. Every other one counts as otherDriver.
var drivers = []string{
	"local", "journald", "syslog", "none", "fluentd", "gelf", "awslogs", "splunk", "gcplogs", "etwlogs",
}

const otherDriver = "other"

// driverLabel returns driver as the value of a metric's label: one of Docker's documented drivers, or
// "other".
func driverLabel(driver string) string {
	if slices.Contains(drivers, driver) {
		return driver
	}
	return otherDriver
}
