package containers

import (
	"path"
	"strings"
)

// isExcluded reports whether the log of a container is not to be read.
func (r *Registry) isExcluded(id, name string, labels map[string]string) bool {
	if r.isSelf(id, name) {
		return true
	}
	if len(r.cfg.Include) > 0 && !matchesAny(r.cfg.Include, name) {
		return true
	}
	if matchesAny(r.cfg.Exclude, name) {
		return true
	}
	for _, excluded := range r.cfg.ExcludeLabels {
		key, want, valued := strings.Cut(excluded, "=")
		if value, ok := labels[key]; ok && (!valued || value == want) {
			return true
		}
	}
	return false
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
