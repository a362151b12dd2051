package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

var errNotRegular = errors.New("is not a regular file")

// OpenRegular opens a regular file for reading. Anything else is an error: os.Open waits for the writer of a FIFO, and a
// device may have no end.
func OpenRegular(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// ReadRegular returns the content of a regular file of at most MaxFileBytes.
func ReadRegular(path string) ([]byte, error) {
	file, err := OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return ReadLimited(file, path)
}

// ReadLimited reads all of in, which may have at most MaxFileBytes. name is for the error.
func ReadLimited(in io.Reader, name string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(in, MaxFileBytes+1))
	if err == nil && len(data) > MaxFileBytes {
		err = fmt.Errorf("%s has more than %d bytes", name, MaxFileBytes)
	}
	return data, err
}

// A RegularFS is a folder on disk as an fs.FS that holds regular files and folders only. Links are followed.
type RegularFS string

// Open opens a regular file or a folder.
func (f RegularFS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	path := filepath.Join(string(f), name)
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return os.Open(path)
	}
	return OpenRegular(path)
}
