package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// checkPacketSocket returns an error if this user may not open packet sockets. The capture needs them.
func checkPacketSocket() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a packet socket, which needs CAP_NET_RAW: %w", err)
	}
	return unix.Close(fd)
}
