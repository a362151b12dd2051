package ship

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"tidegate/pipeline"
)

const identityFile = "collector-id"

// LoadIdentity gives the collector's id, which is drawn once and kept in the state folder: cloned machines share a machine-id, a
// copied state folder is the only way to share this. Two that start at once agree on one.
func LoadIdentity(stateDir string) (pipeline.ID, error) {
	var id pipeline.ID
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return id, fmt.Errorf("make state folder: %w", err)
	}
	name := filepath.Join(stateDir, identityFile)
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := drawIdentity(stateDir, name); err != nil {
			return id, fmt.Errorf("write %s: %w", name, err)
		}
		text, err = os.ReadFile(name)
	}
	if err != nil {
		return id, fmt.Errorf("read identity: %w", err)
	}
	text = bytes.TrimSpace(text)
	if n, err := hex.Decode(id[:], text[:min(len(text), 2*len(id))]); err != nil || n != len(id) || len(text) != 2*len(id) {
		return id, fmt.Errorf("read identity: %s does not hold 32 hexadecimal digits; delete it to draw a new one", name)
	}
	return id, nil
}

// drawIdentity makes the file appear whole or not at all, and leaves one that is already there.
func drawIdentity(dir, name string) error {
	var id pipeline.ID
	rand.Read(id[:])
	f, err := os.CreateTemp(dir, identityFile+".")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(hex.EncodeToString(id[:]) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Link(f.Name(), name); errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// lock refuses a second collector on the same state folder: both would write one journal and use the same stamps. The lock goes
// with the process, however that ends.
func lock(stateDir string) (*os.File, error) {
	name := filepath.Join(stateDir, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		b := make([]byte, 32)
		n, _ := f.ReadAt(b, 0)
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("state folder %s is in use by another collector (process %s)", stateDir, strings.TrimSpace(string(b[:n])))
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	if err := f.Truncate(0); err == nil { // who holds it is a help for people, the lock is what counts
		fmt.Fprintln(f, os.Getpid())
	}
	return f, nil
}

func randomEpoch() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}
