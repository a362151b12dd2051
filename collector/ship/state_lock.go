package ship

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"

	"tidegate/pipeline/statedir"
)

// lockState refuses a second collector on the same state folder: both would write one journal and use the
// same batch ids. The lock ends with the process, however that ends.
func lockState(dir string) (*statedir.Lock, error) {
	lock, err := statedir.NewLock(filepath.Join(dir, "lock"))
	if locked := (*statedir.LockedError)(nil); errors.As(err, &locked) {
		return nil, fmt.Errorf("state folder %s is in use by another collector (process %s)", dir, locked.PID)
	}
	return lock, err
}

// newEpoch draws the epoch under which this process numbers its batches.
func newEpoch() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	return binary.LittleEndian.Uint64(b[:])
}
