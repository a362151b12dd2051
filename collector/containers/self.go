package containers

import (
	"os"
	"strings"
)

// ownContainer returns the id of the container in which this process runs; "": none. dockerd bind-mounts
// files of the container's folder on /etc/hostname and /etc/resolv.conf, also with an empty image and with
// the host's network. The other sources are less reliable: /proc/self/cgroup contains the id under cgroup v1
// only, and the host name is the id only if none was configured.
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

// selfFromMounts returns the id of the container whose files are mounted on /etc/hostname, /etc/resolv.conf
// or /etc/hosts; "": none. In mountinfo (proc(5)) the 4th field is the root of the mount within its file
// system, the 5th the mount point. Other mounts contain ids of other containers, such as the shm of each
// container on the host, and are ignored.
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

// selfFromCgroup returns the id of the container in a line like 4:memory:/docker/<id> or
// 0::/system.slice/docker-<id>.scope; "": none.
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

// cutLast cuts text at its last slash.
func cutLast(text string) (before, after string, ok bool) {
	i := strings.LastIndexByte(text, '/')
	if i < 0 {
		return "", text, false
	}
	return text[:i], text[i+1:], true
}

// isContainerID reports whether s is the full id of a container.
func isContainerID(s string) bool { return len(s) == 64 && isHex(s) }

// isHex reports whether text consists of lower-case hexadecimal digits and is not empty.
func isHex(text string) bool {
	for i := range len(text) {
		if c := text[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return text != ""
}
