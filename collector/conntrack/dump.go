//go:build linux

package conntrack

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	ct "github.com/ti-mo/conntrack"
	"github.com/ti-mo/netfilter"
	"golang.org/x/sys/unix"
)

const (
	// dumpTimeout bounds the wait for one part of the kernel's table.
	dumpTimeout = 10 * time.Second
	// dumpPart is more than the kernel sends at once.
	dumpPart = 64 << 10
)

// dumpTable calls handle with each entry of the kernel's table. It holds one part of the table at a time: as a whole the
// table has some hundred bytes for each of up to hundreds of thousands of entries, as many as a container opens.
func dumpTable(handle func(*ct.Flow)) error {
	const getEntries = 1 // IPCTNL_MSG_CT_GET
	request, err := netfilter.MarshalNetlink(netfilter.Header{
		SubsystemID: netfilter.NFSubsysCTNetlink, MessageType: getEntries, Flags: netlink.Request | netlink.Dump,
	}, nil)
	if err != nil {
		return err
	}
	request.Header.Length = uint32(unix.NLMSG_HDRLEN + len(request.Data))
	data, err := request.MarshalBinary()
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	timeout := unix.NsecToTimeval(int64(dumpTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Sendto(fd, data, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}

	for buf := make([]byte, dumpPart); ; {
		size, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR { //nolint:errorlint // a system call returns the number itself
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		if done, err := handlePart(buf[:size], handle); done || err != nil {
			return err
		}
	}
}

// handlePart calls handle with each entry in one part of the table. done is true if it is the last one.
func handlePart(part []byte, handle func(*ct.Flow)) (done bool, err error) {
	messages, err := syscall.ParseNetlinkMessage(part)
	if err != nil {
		return false, fmt.Errorf("parse netlink: %w", err)
	}
	for i := range messages {
		message := &messages[i]
		switch message.Header.Type {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			if len(message.Data) >= 4 {
				if code := int32(binary.NativeEndian.Uint32(message.Data)); code != 0 {
					return true, unix.Errno(-code)
				}
			}
			return true, nil
		}
		var event ct.Event
		if err := event.Unmarshal(netlink.Message{
			Header: netlink.Header{
				Type: netlink.HeaderType(message.Header.Type), Flags: netlink.HeaderFlags(message.Header.Flags),
			},
			Data: message.Data,
		}); err != nil {
			return false, err
		}
		if event.Flow != nil {
			handle(event.Flow)
		}
	}
	return false, nil
}
