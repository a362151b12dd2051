package tail

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// A watcher is one inotify instance. Folders are always watched for files that come and go. They are watched
// for writes only while their reader sleeps: a container that writes 300,000 lines a second would make as
// many events otherwise.
type watcher struct {
	fd   int
	file *os.File // of fd, for reads that can be interrupted

	mu      sync.Mutex
	folders map[string]*watchedFolder // by path
	byWatch map[int32]*watchedFolder
	byFile  map[int32]*Tailer // whose current file is watched for the next write
}

// A watchedFolder is a folder with a watch. Its fields are guarded by watcher.mu; only the goroutine of the
// Group changes them.
type watchedFolder struct {
	watcher *watcher
	path    string
	wd      int32
	gone    bool      // the kernel has removed the watch: the folder does not exist any more
	root    bool      // new logs appear in it
	tailers []*Tailer // of the logs whose files are in it

	// The same tailers: those of logs with a BaseOf by their base names, and the others. Only the goroutine of
	// the Group uses them.
	byBase map[string][]*Tailer
	ranked []*Tailer
	baseOf func(name string) string
}

// addTailer adds a tailer to the folder.
func (folder *watchedFolder) addTailer(tailer *Tailer) {
	folder.tailers = append(folder.tailers, tailer)
	if tailer.log.BaseOf == nil {
		folder.ranked = append(folder.ranked, tailer)
		return
	}
	if folder.byBase == nil {
		folder.byBase, folder.baseOf = map[string][]*Tailer{}, tailer.log.BaseOf
	}
	folder.byBase[tailer.log.Base] = append(folder.byBase[tailer.log.Base], tailer)
}

// removeTailer removes a tailer from the folder.
func (folder *watchedFolder) removeTailer(tailer *Tailer) {
	isTailer := func(other *Tailer) bool { return other == tailer }
	folder.tailers = slices.DeleteFunc(folder.tailers, isTailer)
	folder.ranked = slices.DeleteFunc(folder.ranked, isTailer)
	if base := tailer.log.Base; folder.byBase[base] != nil {
		if folder.byBase[base] = slices.DeleteFunc(folder.byBase[base], isTailer); len(folder.byBase[base]) == 0 {
			delete(folder.byBase, base)
		}
	}
}

// owners returns the tailers to which an event belongs: all of them if the folder is gone, otherwise those
// whose log has the name.
func (folder *watchedFolder) owners(event inotifyEvent) []*Tailer {
	if event.mask&unix.IN_IGNORED != 0 {
		return folder.tailers
	}
	var list []*Tailer
	if folder.baseOf != nil {
		list = slices.Clone(folder.byBase[folder.baseOf(event.name)])
	}
	for _, tailer := range folder.ranked {
		if tailer.ownsName(event.name) {
			list = append(list, tailer)
		}
	}
	return list
}

// An inotifyEvent is one event of inotify(7).
type inotifyEvent struct {
	wd   int32
	mask uint32
	name string
}

const folderMask = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_DELETE_SELF |
	unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// newWatcher returns a watcher without folders.
func newWatcher() (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	return &watcher{
		fd: fd, file: os.NewFile(uintptr(fd), "inotify"),
		folders: map[string]*watchedFolder{}, byWatch: map[int32]*watchedFolder{}, byFile: map[int32]*Tailer{},
	}, nil
}

// closeWatcher ends the watches and readEvents. A nil watcher has none.
func (w *watcher) closeWatcher() {
	if w != nil {
		_ = w.file.Close()
	}
}

// watchRoot watches a folder in which new logs appear, unless it is watched already. A nil watcher watches
// nothing.
func (w *watcher) watchRoot(path string) error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	folder, err := w.watchFolder(path)
	if err == nil {
		folder.root = true
	}
	return err
}

// addTailer watches the folder of a tailer's files. Several tailers may share a folder.
func (w *watcher) addTailer(path string, tailer *Tailer) (*watchedFolder, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	folder, err := w.watchFolder(path)
	if err == nil {
		folder.addTailer(tailer)
	}
	return folder, err
}

// watchFolder returns the folder of that path; w.mu is held.
func (w *watcher) watchFolder(path string) (*watchedFolder, error) {
	if folder := w.folders[path]; folder != nil {
		return folder, nil
	}
	wd, err := unix.InotifyAddWatch(w.fd, path, folderMask)
	if err != nil {
		return nil, err
	}
	// Two paths of one folder share the watch of the kernel; the folder is then found by both.
	folder := w.byWatch[int32(wd)]
	if folder == nil {
		folder = &watchedFolder{watcher: w, path: path, wd: int32(wd)}
		w.byWatch[folder.wd] = folder
	}
	w.folders[path] = folder
	return folder, nil
}

// removeTailer ends the watch of a folder when no other tailer needs it.
func (w *watcher) removeTailer(folder *watchedFolder, tailer *Tailer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	folder.removeTailer(tailer)
	if len(folder.tailers) == 0 && !folder.root && !folder.gone {
		_, _ = unix.InotifyRmWatch(w.fd, uint32(folder.wd))
		w.deleteFolder(folder)
	}
}

// dropFolder removes a folder whose watch the kernel has removed.
func (w *watcher) dropFolder(folder *watchedFolder) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deleteFolder(folder)
}

// deleteFolder removes the folder from the maps; w.mu is held.
func (w *watcher) deleteFolder(folder *watchedFolder) {
	folder.gone = true
	delete(w.byWatch, folder.wd)
	for path, other := range w.folders {
		if other == folder {
			delete(w.folders, path)
		}
	}
}

// watchFile makes the next write to a file wake the tailer, and reports whether it could. The writes to files
// of a folder that several tailers share are watched so: a watch of the folder would report the writes to all
// of them. The kernel ends the watch with its first event.
func (w *watcher) watchFile(path string, tailer *Tailer) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	wd, err := unix.InotifyAddWatch(w.fd, path, unix.IN_MODIFY|unix.IN_ONESHOT)
	if err != nil {
		return false
	}
	if other := w.byFile[int32(wd)]; other != nil && other != tailer {
		return false // two names of one file: the other log has the watch
	}
	w.byFile[int32(wd)] = tailer
	return true
}

// fileOf returns the tailer whose file an event of watchFile is about; nil: the event is about a folder.
func (w *watcher) fileOf(event inotifyEvent) *Tailer {
	w.mu.Lock()
	defer w.mu.Unlock()
	tailer := w.byFile[event.wd]
	if tailer != nil && event.mask&unix.IN_IGNORED != 0 {
		delete(w.byFile, event.wd)
	}
	return tailer
}

func (w *watcher) folderOf(wd int32) *watchedFolder {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.byWatch[wd]
}

// watchWrites starts or stops the reporting of writes to files of folder. It returns false if writes cannot
// be watched so: the folder has no watch (nil) or was removed, or several tailers share it (watchFile).
func (folder *watchedFolder) watchWrites(on bool) bool {
	if folder == nil {
		return false
	}
	w := folder.watcher
	w.mu.Lock()
	defer w.mu.Unlock()
	if folder.gone {
		return false
	}
	// Adding a watch that exists replaces its mask.
	mask := uint32(folderMask)
	if shared := len(folder.tailers) > 1; on && shared {
		return false
	} else if on {
		mask |= unix.IN_MODIFY
	}
	_, err := unix.InotifyAddWatch(w.fd, folder.path, mask)
	return err == nil
}

// readEvents sends the events of inotify on out until the watcher is closed or ctx ends.
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

// parseEvents parses struct inotify_event: wd, mask, cookie, length of the name with its padding, name.
func parseEvents(data []byte) []inotifyEvent {
	var list []inotifyEvent
	for len(data) >= unix.SizeofInotifyEvent {
		nameSize := int(binary.NativeEndian.Uint32(data[12:]))
		if nameSize > len(data)-unix.SizeofInotifyEvent {
			break
		}
		name := data[unix.SizeofInotifyEvent : unix.SizeofInotifyEvent+nameSize]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		list = append(list, inotifyEvent{
			wd:   int32(binary.NativeEndian.Uint32(data)),
			mask: binary.NativeEndian.Uint32(data[4:]),
			name: string(name),
		})
		data = data[unix.SizeofInotifyEvent+nameSize:]
	}
	return list
}
