package main

import (
	"errors"

	"golang.org/x/sys/unix"
)

// checkPacketSocket tries what the collector needs for packets.
func checkPacketSocket() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return errors.New("this user may not open packet sockets (CAP_NET_RAW)")
	}
	return unix.Close(fd)
}
