package bundles

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tidegate/detectors/feeds"
	"tidegate/pipeline/config"
	"tidegate/pipeline/statedir"
)

// A Store is the folder in which an engine keeps the bundle that it runs, so that it runs it after a restart. Several
// engines may have one folder. The files:
//
//	bundle      the message, as it was signed; it is verified again when it is read
//	feeds/NAME  the files of the feeds of the bundle with this name
//	id          a random number that identifies the folder
//	engine-N    the lock of the Nth engine with this folder
//	lock        held while bundle is replaced
type Store struct {
	dir   string
	keys  []ed25519.PublicKey
	topic string // full name
}

const (
	lockPatience = 5 * time.Second
	maxEngines   = 64 // with one folder
)

// OpenStore opens the folder dir, which it creates if need be, for bundles that one of the keys has signed for a topic.
func OpenStore(dir string, keys []ed25519.PublicKey, topic string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the folder of bundles: %w", err)
	}
	return &Store{dir: dir, keys: keys, topic: topic}, nil
}

func (s *Store) path() string { return filepath.Join(s.dir, "bundle") }

// Load returns the stored bundle and when it was stored, or nil if there is none. The file of one that
// is no bundle, or that none of the keys has signed, is kept as bundle.unreadable.
func (s *Store) Load() (bundle *Bundle, since time.Time, err error) {
	message, since, err := s.read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, since, nil
	}
	if err == nil {
		bundle, err = Open(message, s.keys, s.topic)
		if err != nil {
			err = errors.Join(err, os.Rename(s.path(), s.path()+".unreadable"))
		}
	}
	if err != nil {
		return nil, since, fmt.Errorf("read the stored bundle %s: %w", s.path(), err)
	}
	return bundle, since, nil
}

func (s *Store) read() (message []byte, since time.Time, err error) {
	file, err := config.OpenRegular(s.path())
	if err != nil {
		return nil, since, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, since, err
	}
	message, err = io.ReadAll(io.LimitReader(file, MaxMessage+1))
	return message, info.ModTime(), err
}

// Save stores a bundle. One that is newer, which another engine with this folder has stored, stays.
func (s *Store) Save(ctx context.Context, bundle *Bundle) error {
	lock, err := statedir.Wait(ctx, filepath.Join(s.dir, "lock"), lockPatience)
	if err != nil {
		return fmt.Errorf("store the bundle: %w", err)
	}
	defer func() { _ = lock.Unlock() }()
	if message, _, err := s.read(); err == nil {
		if stored, _, err := openManifest(message, s.keys, s.topic); err == nil && stored.Sequence >= bundle.Sequence {
			return nil
		}
	}
	if err := statedir.WriteFile(s.path(), bundle.Message, 0o600); err != nil {
		return fmt.Errorf("store the bundle: %w", err)
	}
	return nil
}

// WriteFeeds writes the files of the feeds of a bundle and returns their settings with the paths of the files.
func (s *Store) WriteFeeds(bundle *Bundle) ([]feeds.Config, error) {
	return bundle.WriteFeeds(filepath.Join(s.dir, "feeds", bundle.Name()))
}

// keptFeeds is the time for which the feeds of other bundles are kept: another engine with this folder may still use them.
const keptFeeds = time.Hour

// RemoveFeeds removes the feeds of bundles other than the one with this name.
func (s *Store) RemoveFeeds(name string) error {
	dir := filepath.Join(s.dir, "feeds")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		info, infoErr := entry.Info()
		if infoErr == nil && entry.Name() != name && time.Since(info.ModTime()) > keptFeeds {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, entry.Name())))
		}
	}
	return err
}

// Engine returns the name under which an engine with this folder reports, which it keeps over restarts, and a function
// that gives the name up.
func (s *Store) Engine(ctx context.Context, host string) (name string, release func(), err error) {
	id, err := s.id(ctx)
	if err != nil {
		return "", nil, fmt.Errorf("name the engine: %w", err)
	}
	for number := 1; number <= maxEngines; number++ {
		lock, err := statedir.NewLock(filepath.Join(s.dir, fmt.Sprintf("engine-%d", number)))
		if errors.Is(err, statedir.ErrLocked) {
			continue
		}
		if err != nil {
			return "", nil, fmt.Errorf("name the engine: %w", err)
		}
		return fmt.Sprintf("%s/%s-%d", host, id, number), func() { _ = lock.Unlock() }, nil
	}
	return "", nil, fmt.Errorf("name the engine: more than %d engines have the folder %s", maxEngines, s.dir)
}

// id returns the random number of the folder.
func (s *Store) id(ctx context.Context) (string, error) {
	lock, err := statedir.Wait(ctx, filepath.Join(s.dir, "lock"), lockPatience)
	if err != nil {
		return "", err
	}
	defer func() { _ = lock.Unlock() }()
	path := filepath.Join(s.dir, "id")
	if text, err := config.ReadRegular(path); err == nil {
		if id := strings.TrimSpace(string(text)); len(id) == 8 && strings.Trim(id, "0123456789abcdef") == "" {
			return id, nil
		}
	}
	var random [4]byte
	_, _ = rand.Read(random[:])
	id := hex.EncodeToString(random[:])
	return id, statedir.WriteFile(path, []byte(id+"\n"), 0o600)
}
