//go:build linux

// Package netdump reads tables of the kernel over netlink, a part at a time.
//
// Netlink libraries return a table as a whole. What a container can fill, such as the table of connections or the
// forwarding database of a bridge, has hundreds of thousands of entries of some hundred bytes then.
package netdump

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// timeout bounds the wait for one part of a table.
	timeout = 10 * time.Second
	// maxPart is more than the kernel sends at once.
	maxPart = 64 << 10
)

// A Conn is a netlink socket, in the network namespace of the thread that has opened it. It is used by one goroutine.
type Conn struct {
	fd       int
	sequence uint32 // of the last request
	buf      []byte
}

// Open returns a Conn to a part of the kernel, such as unix.NETLINK_ROUTE.
func Open(family int) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	conn := &Conn{fd: fd, buf: make([]byte, maxPart)}
	limit := unix.NsecToTimeval(int64(timeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		conn.Close()
		return nil, os.NewSyscallError("setsockopt", err)
	}
	return conn, nil
}

// Close closes the socket. No Read may be running.
func (c *Conn) Close() { _ = unix.Close(c.fd) }

// Read sends a request for a table and calls handle with each entry. The data of a message is valid until handle
// returns. An error of handle ends Read.
func (c *Conn) Read(request netlink.Message, handle func(netlink.Message) error) error {
	c.sequence++
	request.Header.Flags |= netlink.Request | netlink.Dump
	request.Header.Sequence = c.sequence
	request.Header.Length = uint32(unix.NLMSG_HDRLEN + len(request.Data))
	data, err := request.MarshalBinary()
	if err != nil {
		return err
	}
	if err := unix.Sendto(c.fd, data, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	for {
		size, _, err := unix.Recvfrom(c.fd, c.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		if done, err := c.handlePart(c.buf[:size], handle); done || err != nil {
			return err
		}
	}
}

// handlePart calls handle with each entry in one part of the table. done is true if it is the last one. Parts of an
// earlier request, whose Read has ended early, are skipped.
func (c *Conn) handlePart(part []byte, handle func(netlink.Message) error) (done bool, err error) {
	messages, err := syscall.ParseNetlinkMessage(part)
	if err != nil {
		return false, fmt.Errorf("parse netlink: %w", err)
	}
	for i := range messages {
		message := &messages[i]
		if message.Header.Seq != c.sequence {
			continue
		}
		switch message.Header.Type {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			if len(message.Data) >= 4 {
				if code := int32(binary.NativeEndian.Uint32(message.Data)); code != 0 {
					return true, unix.Errno(-code)
				}
			}
			return true, nil
		}
		if err := handle(netlink.Message{
			Header: netlink.Header{
				Type: netlink.HeaderType(message.Header.Type), Flags: netlink.HeaderFlags(message.Header.Flags),
			},
			Data: message.Data,
		}); err != nil {
			return false, err
		}
	}
	return false, nil
}
