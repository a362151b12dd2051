package journal

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// errDiskFull is matched by errors of writes for which the disk has no space.
var errDiskFull = errors.New("the disk is full")

// diskFull wraps err so that it matches errDiskFull, if the system reported a full disk or quota.
func diskFull(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", errDiskFull, err)
	}
	return err
}
