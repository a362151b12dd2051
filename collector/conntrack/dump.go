//go:build linux

package conntrack

import (
	"github.com/mdlayher/netlink"
	ct "github.com/ti-mo/conntrack"
	"github.com/ti-mo/netfilter"
	"golang.org/x/sys/unix"

	"tidegate/collector/netdump"
)

// dumpTable calls handle with each entry of the kernel's table. It uses a netlink connection of its own, because a
// connection that listens cannot send requests.
func dumpTable(handle func(*ct.Flow)) error {
	const getEntries = 1 // IPCTNL_MSG_CT_GET
	request, err := netfilter.MarshalNetlink(netfilter.Header{
		SubsystemID: netfilter.NFSubsysCTNetlink, MessageType: getEntries,
	}, nil)
	if err != nil {
		return err
	}
	conn, err := netdump.Open(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Read(request, func(message netlink.Message) error {
		var event ct.Event
		if err := event.Unmarshal(message); err != nil {
			return err
		}
		if event.Flow != nil {
			handle(event.Flow)
		}
		return nil
	})
}
