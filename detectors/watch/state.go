package watch

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// FileState returns a line with path, size, modification time, inode and change time of a file. It follows
// symlinks. The inode changes when another file is renamed over this one, the change time also when the file
// becomes readable.
func FileState(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	var device, inode uint64
	var changed int64
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		device, inode, changed = stat.Dev, stat.Ino, stat.Ctim.Nano()
	}
	return fmt.Sprintf("%s %d %d %d %d %d\n", path, info.Size(), info.ModTime().UnixNano(), device, inode, changed), nil
}

// FolderState returns the FileState of each file below folder for whose name include returns true. It skips
// names that begin with a dot, such as the inner folders of a ConfigMap. folder may be a symlink, also one that
// is changed. A file that cannot be examined has its error as its state.
func FolderState(folder string, include func(name string) bool) (string, error) {
	var out strings.Builder
	target, err := filepath.EvalSymlinks(folder)
	if err != nil {
		return "", err
	}
	out.WriteString(target + "\n")
	folder = target
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path != folder && strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case entry.IsDir() || !include(entry.Name()):
			return nil
		}
		state, err := FileState(path)
		if err != nil {
			state = err.Error() + "\n"
		}
		out.WriteString(state)
		return nil
	})
	return out.String(), err
}
