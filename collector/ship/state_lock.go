package ship

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"

	"tidegate/pipeline/statedir"
)

// lockState locks the state folder and returns an error if another collector has locked it: two collectors
// would write one journal and use the same batch ids. The kernel releases the lock when the process ends.
func lockState(dir string) (*statedir.Lock, error) {
	lock, err := statedir.NewLock(filepath.Join(dir, "lock"))
	if locked := (*statedir.LockedError)(nil); errors.As(err, &locked) {
		return nil, fmt.Errorf("state folder %s is in use by another collector (process %s)", dir, locked.PID)
	}
	return lock, err
}

// newEpoch returns a random epoch. Batch ids of different processes differ by it.
func newEpoch() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	return binary.LittleEndian.Uint64(b[:])
}
