package frame

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// SetAside keeps the file at path under a second name and returns that name: path.unreadable, or
// path.unreadable.2 and so on if the name is taken. The file also stays at path: the caller replaces or
// removes it. The program never deletes data that it cannot read; an operator inspects and removes them.
func SetAside(path string) (string, error) {
	for attempt := 1; ; attempt++ {
		name := path + ".unreadable"
		if attempt > 1 {
			name = fmt.Sprintf("%s.%d", name, attempt)
		}
		err := os.Link(path, name)
		if errors.Is(err, fs.ErrExist) && isSameFile(path, name) {
			return name, nil
		}
		if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			err = copyFile(path, name) // a file system without hard links
		}
		if !errors.Is(err, fs.ErrExist) {
			return name, err
		}
	}
}

// isSameFile reports whether both names are those of one file.
func isSameFile(path, other string) bool {
	info, err := os.Lstat(path)
	otherInfo, otherErr := os.Lstat(other)
	return err == nil && otherErr == nil && os.SameFile(info, otherInfo)
}

// copyFile copies the file from to the new file to, and syncs it.
func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	if err = errors.Join(err, target.Sync(), target.Close()); err != nil {
		os.Remove(to) // it is our own copy, and not complete
	}
	return err
}
