package containers

import (
	"os"
	"strings"
)

// ownContainer finds the id of the container in which this process runs; "" if it runs in none. dockerd bind-mounts a file of the
// container's own folder on /etc/hostname and /etc/resolv.conf, also into an empty image and with the host's network; the path in
// /proc/self/cgroup tells it only under cgroup v1, the host name only while nobody has set one.
func ownContainer() string {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	if id := selfFromMounts(string(b)); id != "" {
		return id
	}
	b, _ = os.ReadFile("/proc/self/cgroup")
	if id := selfFromCgroup(string(b)); id != "" {
		return id
	}
	if _, err := os.Stat("/.dockerenv"); err == nil {
		if h, _ := os.Hostname(); len(h) == 12 && isHex(h) {
			return h
		}
	}
	return ""
}

// selfFromMounts reads mountinfo (proc(5)): the 4th field is the root of the mount within its file system, the 5th where it is
// mounted. Other mounts name containers too: on the host, the shm of each; in the collector, the folder that it follows.
func selfFromMounts(mountinfo string) string {
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		if len(f) < 5 || f[4] != "/etc/hostname" && f[4] != "/etc/resolv.conf" && f[4] != "/etc/hosts" {
			continue
		}
		dir, file, ok := cutLast(f[3])
		_, id, ok2 := cutLast(dir)
		if ok && ok2 && "/etc/"+file == f[4] && isID(id) {
			return id
		}
	}
	return ""
}

// selfFromCgroup reads lines like 4:memory:/docker/<id> and 0::/system.slice/docker-<id>.scope.
func selfFromCgroup(cgroup string) string {
	for line := range strings.Lines(cgroup) {
		_, last, ok := cutLast(strings.TrimSpace(line))
		if !ok {
			continue
		}
		last = strings.TrimSuffix(strings.TrimPrefix(last, "docker-"), ".scope")
		if isID(last) {
			return last
		}
	}
	return ""
}

func cutLast(p string) (before, after string, ok bool) {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return "", p, false
	}
	return p[:i], p[i+1:], true
}

func isID(s string) bool { return len(s) == 64 && isHex(s) }

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}
