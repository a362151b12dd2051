package containers

import (
	"path"
	"strings"
)

// isExcluded reports whether the log of a container is not to be read.
func (r *Registry) isExcluded(id, name string, labels map[string]string) bool {
	return r.excludedBy(id, name, labels) != ""
}

// excludedBy returns the setting because of which the log of a container is not to be read; "": it is read.
func (r *Registry) excludedBy(id, name string, labels map[string]string) string {
	if r.isSelf(id, name) {
		return "containers.self"
	}
	if len(r.cfg.Include) > 0 && !matchesAny(r.cfg.Include, name) {
		return "containers.include"
	}
	if matchesAny(r.cfg.Exclude, name) {
		return "containers.exclude"
	}
	for _, excluded := range r.cfg.ExcludeLabels {
		key, want, valued := strings.Cut(excluded, "=")
		if value, ok := labels[key]; ok && (!valued || value == want) {
			return "containers.exclude_labels: " + excluded
		}
	}
	return ""
}

// isSelf reports whether a container is the collector's own. Its log is not read, since each shipped line
// could cause another one.
func (r *Registry) isSelf(id, name string) bool {
	if r.self == "" {
		return false
	}
	return r.self == name || len(r.self) >= 12 && strings.HasPrefix(id, r.self)
}

// matchesAny reports whether name matches one of the patterns.
func matchesAny(globs []string, name string) bool {
	for _, glob := range globs {
		if ok, _ := path.Match(glob, name); ok {
			return true
		}
	}
	return false
}
