package discover

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"tidegate/collector/logs/decode"
)

// Docker discovers the logs of containers whose driver is json-file: <root>/containers/<id>/<id>-json.log
// with .1, .2, .2.gz, …
type Docker struct {
	Root string // Docker's data-root

	// Elsewhere returns the paths of log files by container id, as the Docker API reports them. Only files
	// outside of Folder matter. nil: there are none.
	Elsewhere func() map[string]string
}

// Folder returns the folder that holds a folder for each container.
func (d Docker) Folder() string { return filepath.Join(d.Root, "containers") }

// Folders returns the folders in which new logs appear.
func (d Docker) Folders() []string { return []string{d.Folder()} }

// List returns the logs of all containers. A data-root that does not exist is an error.
func (d Docker) List() ([]Log, error) {
	entries, err := os.ReadDir(d.Folder())
	if err != nil {
		return d.listElsewhere(nil, nil), err
	}
	list := make([]Log, 0, len(entries))
	listed := make(map[string]bool, len(entries))
	for _, entry := range entries {
		if id := entry.Name(); entry.IsDir() && isContainerID(id) {
			list = append(list, DockerLog(id, filepath.Join(d.Folder(), id), id+"-json.log"))
			listed[id] = true
		}
	}
	return d.listElsewhere(list, listed), nil
}

// listElsewhere appends the logs of Elsewhere whose containers are not in listed.
func (d Docker) listElsewhere(list []Log, listed map[string]bool) []Log {
	if d.Elsewhere == nil {
		return list
	}
	for id, path := range d.Elsewhere() {
		if dir := filepath.Dir(path); !listed[id] && isDir(dir) {
			list = append(list, DockerLog(id, dir, filepath.Base(path)))
		}
	}
	return list
}

// DockerLog returns the log of one container.
func DockerLog(containerID, dir, base string) Log {
	return Log{
		ID: containerID, Container: containerID, Dir: dir, Base: base, Format: decode.DockerJSON,
		Rank: func(name string) (Rank, bool) { return numberedRank(base, name) },
	}
}

// numberedRank returns the rank of name among base, base.1, base.2, base.2.gz, …: the number counts the
// rotations of the file and is its age.
func numberedRank(base, name string) (rank Rank, ok bool) {
	suffix, ok := strings.CutPrefix(name, base)
	if !ok {
		return Rank{}, false
	}
	if suffix, rank.Compressed = strings.CutSuffix(suffix, ".gz"); rank.Compressed {
		rank.Plain = base + suffix
	}
	if suffix == "" {
		return rank, !rank.Compressed
	}
	number, err := strconv.ParseUint(strings.TrimPrefix(suffix, "."), 10, 16)
	rank.Age = int64(number)
	return rank, err == nil && suffix[0] == '.' && number > 0
}

// isContainerID reports whether text is the id of a container: 64 hex digits.
func isContainerID(text string) bool {
	if len(text) != 64 {
		return false
	}
	for i := range len(text) {
		if c := text[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
