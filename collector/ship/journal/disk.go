package journal

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// errDiskFull is matched by errors of a disk without room.
var errDiskFull = errors.New("the disk is full")

// diskFull makes err match errDiskFull if that is what it means.
func diskFull(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", errDiskFull, err)
	}
	return err
}
