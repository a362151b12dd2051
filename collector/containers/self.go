package containers

import (
	"os"
	"strings"
)

// ownContainer returns the id of the container in which this process runs; "": none. dockerd bind-mounts a
// file of the container's own folder on /etc/hostname and /etc/resolv.conf, also into an empty image and with
// the host's network. The path in /proc/self/cgroup has the id under cgroup v1 only, the host name only while
// nobody has set one.
func ownContainer() string {
	data, _ := os.ReadFile("/proc/self/mountinfo")
	if id := selfFromMounts(string(data)); id != "" {
		return id
	}
	data, _ = os.ReadFile("/proc/self/cgroup")
	if id := selfFromCgroup(string(data)); id != "" {
		return id
	}
	if _, err := os.Stat("/.dockerenv"); err == nil {
		if h, _ := os.Hostname(); len(h) == 12 && isHex(h) {
			return h
		}
	}
	return ""
}

// selfFromMounts returns the container whose files are mounted on /etc/hostname and its like. In mountinfo
// (proc(5)) the 4th field is the root of the mount within its file system, the 5th the mount point. Other
// mounts name containers too: on the host the shm of each container, in the collector's container the folder
// of all logs.
func selfFromMounts(mountinfo string) string {
	for line := range strings.Lines(mountinfo) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		root, mountPoint := fields[3], fields[4]
		if mountPoint != "/etc/hostname" && mountPoint != "/etc/resolv.conf" && mountPoint != "/etc/hosts" {
			continue
		}
		dir, file, ok := cutLast(root)
		_, id, nested := cutLast(dir)
		if ok && nested && "/etc/"+file == mountPoint && isContainerID(id) {
			return id
		}
	}
	return ""
}

// selfFromCgroup returns the container of a line like 4:memory:/docker/<id> or
// 0::/system.slice/docker-<id>.scope.
func selfFromCgroup(cgroup string) string {
	for line := range strings.Lines(cgroup) {
		_, last, ok := cutLast(strings.TrimSpace(line))
		if !ok {
			continue
		}
		last = strings.TrimSuffix(strings.TrimPrefix(last, "docker-"), ".scope")
		if isContainerID(last) {
			return last
		}
	}
	return ""
}

// cutLast cuts p at its last slash.
func cutLast(text string) (before, after string, ok bool) {
	i := strings.LastIndexByte(text, '/')
	if i < 0 {
		return "", text, false
	}
	return text[:i], text[i+1:], true
}

// isContainerID reports whether s is the full id of a container.
func isContainerID(s string) bool { return len(s) == 64 && isHex(s) }

func isHex(text string) bool {
	for i := range len(text) {
		if c := text[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return text != ""
}
