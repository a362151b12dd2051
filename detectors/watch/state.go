package watch

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// FileState returns a line with path, size, modification time and inode of a file. It follows symlinks. The
// inode changes when another file is renamed over this one.
func FileState(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	inode := uint64(0)
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = stat.Ino
	}
	return fmt.Sprintf("%s %d %d %d\n", path, info.Size(), info.ModTime().UnixNano(), inode), nil
}

// FolderState returns the FileState of each file below folder for whose name include returns true. It skips
// names that begin with a dot, such as the inner folders of a ConfigMap.
func FolderState(folder string, include func(name string) bool) (string, error) {
	var out strings.Builder
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
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
		out.WriteString(state)
		return err
	})
	return out.String(), err
}
