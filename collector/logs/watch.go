package logs

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// A watcher is one inotify instance. Folders are always watched for files that come and go; for what is written into them only
// while their chain sleeps: a container that writes 300,000 lines a second would else make as many events.
type watcher struct {
	fd         int
	file       *os.File // of fd, for reads that can be interrupted
	root       int32    // watch of the folder of containers; 0: none
	overflowed bool     // the queue overflowed
}

// An inotifyEvent is one of inotify's.
type inotifyEvent struct {
	wd   int32
	mask uint32
	name string
}

const (
	maskFolder = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	maskRoot   = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_ONLYDIR
)

func newWatcher() (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	return &watcher{fd: fd, file: os.NewFile(uintptr(fd), "inotify")}, nil
}

// watchFolder watches dir, or changes what it is watched for: modified also tells of writes.
func (w *watcher) watchFolder(dir string, modified bool) (int32, error) {
	mask := uint32(maskFolder)
	if modified {
		mask |= unix.IN_MODIFY
	}
	wd, err := unix.InotifyAddWatch(w.fd, dir, mask)
	return int32(wd), err
}

func (w *watcher) unwatch(wd int32) { _, _ = unix.InotifyRmWatch(w.fd, uint32(wd)) }

// watchRoot watches the folder of containers, if it is not watched yet.
func (w *watcher) watchRoot(dir string) error {
	if w.root != 0 {
		return nil
	}
	wd, err := unix.InotifyAddWatch(w.fd, dir, maskRoot)
	if err != nil {
		return err
	}
	w.root = int32(wd)
	return nil
}

func (w *watcher) isRoot(wd int32) bool { return w.root != 0 && wd == w.root }
func (w *watcher) dropRoot()            { w.root = 0 }
func (w *watcher) closeWatcher()        { _ = w.file.Close() }

// readEvents hands on what inotify tells until the watcher is closed or ctx ends.
func (w *watcher) readEvents(ctx context.Context, out chan<- []inotifyEvent) {
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			return
		}
		select {
		case out <- parseEvents(buf[:n]):
		case <-ctx.Done():
			return
		}
	}
}

// parseEvents reads struct inotify_event: wd, mask, cookie, length of the name with its padding, name.
func parseEvents(b []byte) []inotifyEvent {
	var list []inotifyEvent
	for len(b) >= unix.SizeofInotifyEvent {
		n := int(binary.NativeEndian.Uint32(b[12:]))
		if n > len(b)-unix.SizeofInotifyEvent {
			break
		}
		name := b[unix.SizeofInotifyEvent : unix.SizeofInotifyEvent+n]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		list = append(list, inotifyEvent{
			wd: int32(binary.NativeEndian.Uint32(b)), mask: binary.NativeEndian.Uint32(b[4:]), name: string(name),
		})
		b = b[unix.SizeofInotifyEvent+n:]
	}
	return list
}
