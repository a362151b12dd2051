//go:build linux

package links

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// namespaceFolders hold the network namespaces that have a name. Docker puts the devices of an overlay network into
// one of their own; those of its containers have no dash in their name.
var namespaceFolders = [...]string{"/run/netns/*", "/run/docker/netns/*-*"}

// maxNamespaces bounds the namespaces that are looked at in each folder.
const maxNamespaces = 64

// A foreignDevice is an interface in another namespace, made in this one.
type foreignDevice struct {
	device
	namespace string
}

// readForeignDevices returns the interfaces of other namespaces that were made in that of the calling thread and
// moved. The socket of such a tunnel stays behind, so that the tunnel still ends here. err has the namespaces that
// could not be looked at; it is no reason not to use the others.
func readForeignDevices() (found []foreignDevice, err error) {
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer func() { _ = own.Close() }()
	ownInfo, err := own.Stat()
	if err != nil {
		return nil, err
	}

	var errs []error
	for _, pattern := range namespaceFolders {
		names, _ := filepath.Glob(pattern)
		if len(names) > maxNamespaces {
			errs = append(errs, fmt.Errorf("%s has %d namespaces, %d are looked at", pattern, len(names), maxNamespaces))
			names = names[:maxNamespaces]
		}
		for _, name := range names {
			info, err := os.Stat(name)
			if err != nil || os.SameFile(info, ownInfo) || strings.HasPrefix(filepath.Base(name), "cni-") {
				continue // gone, this one, or that of a pod
			}
			devices, err := readNamespace(name, own)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
			found = append(found, devices...)
		}
	}
	return found, errors.Join(errs...)
}

// readNamespace returns the devices of one namespace that were made in own.
func readNamespace(name string, own *os.File) (found []foreignDevice, err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: int(file.Fd())})
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()

	// The namespace has a number for the one where a device was made, if there is such a device.
	number, err := namespaceNumber(conn, own)
	if err != nil || number < 0 {
		return nil, err
	}
	devices, err := readDevices(conn)
	for _, device := range devices {
		if device.madeElsewhere && device.madeIn == number {
			found = append(found, foreignDevice{*device, name})
		}
	}
	return found, err
}

// Attributes of RTM_GETNSID, from linux/net_namespace.h.
const (
	netnsaNSID = 1
	netnsaFD   = 3
)

// namespaceNumber returns the number that the namespace of conn has for another one, negative if it has none.
func namespaceNumber(conn *netlink.Conn, other *os.File) (int32, error) {
	attribute := make([]byte, 12) // struct rtgenmsg, padded, and one attribute
	binary.NativeEndian.PutUint16(attribute[4:], 8)
	binary.NativeEndian.PutUint16(attribute[6:], netnsaFD)
	binary.NativeEndian.PutUint32(attribute[8:], uint32(other.Fd()))
	replies, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETNSID, Flags: netlink.Request}, Data: attribute,
	})
	if err != nil {
		return -1, err
	}
	for _, reply := range replies {
		if len(reply.Data) < 4 {
			continue
		}
		attributes, err := netlink.NewAttributeDecoder(reply.Data[4:])
		if err != nil {
			return -1, err
		}
		for attributes.Next() {
			if attributes.Type() == netnsaNSID {
				return attributes.Int32(), attributes.Err()
			}
		}
	}
	return -1, nil
}
