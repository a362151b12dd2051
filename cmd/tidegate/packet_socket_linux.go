package main

import (
	"errors"

	"golang.org/x/sys/unix"
)

// checkPacketSocket returns an error if this user may not open packet sockets. The capture needs them.
func checkPacketSocket() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return errors.New("this user may not open packet sockets (CAP_NET_RAW)")
	}
	return unix.Close(fd)
}
