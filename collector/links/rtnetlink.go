//go:build linux

package links

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A device is an interface as rtnetlink describes it.
type device struct {
	index  int
	name   string
	up     bool
	lower  int // index of the interface that it is on top of (IFLA_LINK); 0: none
	master int // index of the bridge or bond that it belongs to; 0: none
	kind   string
	data   []byte // IFLA_INFO_DATA
	mac    uint64 // 0: none
	addrs  []netip.Addr
	nets   []netip.Prefix // of addrs

	madeElsewhere bool  // in another namespace, to which the indexes lower and that in data belong
	madeIn        int32 // the number of that namespace
}

// readView reads all interfaces, their addresses and those that were moved to other namespaces.
func readView(conn *netlink.Conn) (*view, error) {
	devices, err := readDevices(conn)
	if err != nil {
		return nil, err
	}
	next := &view{macs: map[uint64]bool{}, bridgeMACs: map[bridgeMAC]bool{}, bridgeNets: map[string][]netip.Prefix{}}
	bridges := map[int]string{}
	for _, device := range devices {
		next.macs[device.mac] = true
		next.locals = append(next.locals, device.addrs...)
		if device.kind == "bridge" {
			bridges[device.index] = device.name
			next.bridgeMACs[bridgeMAC{device.name, device.mac}] = true
			next.bridgeNets[device.name] = device.nets
		}
	}
	for _, device := range devices {
		if bridge, ok := bridges[device.master]; ok {
			next.bridgeMACs[bridgeMAC{bridge, device.mac}] = true
		}
	}
	for _, device := range devices {
		if device.up && !device.madeElsewhere {
			next.tunnels = append(next.tunnels, device.tunnels(devices, next.locals)...)
		}
	}

	// A moved device may not be up yet, and no notification comes when it is.
	foreign, err := readForeignDevices()
	if err != nil {
		next.hidden = err.Error()
	}
	for i := range foreign {
		next.tunnels = append(next.tunnels, foreign[i].tunnels(devices, next.locals)...)
	}
	return next, nil
}

// readDevices returns the interfaces with their addresses, in the order of their index.
func readDevices(conn *netlink.Conn) ([]*device, error) {
	list, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, unix.SizeofIfInfomsg),
	})
	if err != nil {
		return nil, err
	}
	byIndex := map[int]*device{}
	var devices []*device
	for i := range list {
		if found := parseLink(list[i].Data); found != nil {
			devices = append(devices, found)
			byIndex[found.index] = found
		}
	}
	list, err = conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETADDR, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, unix.SizeofIfAddrmsg),
	})
	if err != nil {
		return nil, err
	}
	for i := range list {
		index, ip, network := parseAddress(list[i].Data)
		if found := byIndex[index]; found != nil && ip.IsValid() {
			found.addrs = append(found.addrs, ip)
			if network.IsValid() {
				found.nets = append(found.nets, network)
			}
		}
	}
	slices.SortFunc(devices, func(a, b *device) int { return a.index - b.index })
	return devices, nil
}

// parseLink reads a message RTM_NEWLINK: struct ifinfomsg and attributes. It returns nil if it is malformed.
func parseLink(data []byte) *device {
	if len(data) < unix.SizeofIfInfomsg {
		return nil
	}
	found := &device{
		index: int(int32(binary.NativeEndian.Uint32(data[4:]))),
		up:    binary.NativeEndian.Uint32(data[8:])&unix.IFF_UP != 0,
	}
	attributes, err := netlink.NewAttributeDecoder(data[unix.SizeofIfInfomsg:])
	if err != nil {
		return nil
	}
	for attributes.Next() {
		switch attributes.Type() {
		case unix.IFLA_IFNAME:
			found.name = attributes.String()
		case unix.IFLA_ADDRESS:
			if address := attributes.Bytes(); len(address) == 6 {
				found.mac = binary.BigEndian.Uint64(append([]byte{0, 0}, address...))
			}
		case unix.IFLA_LINK:
			found.lower = int(attributes.Uint32())
		case unix.IFLA_LINK_NETNSID:
			found.madeElsewhere, found.madeIn = true, attributes.Int32()
		case unix.IFLA_MASTER:
			found.master = int(attributes.Uint32())
		case unix.IFLA_LINKINFO:
			attributes.Nested(func(info *netlink.AttributeDecoder) error {
				for info.Next() {
					switch info.Type() {
					case unix.IFLA_INFO_KIND:
						found.kind = info.String()
					case unix.IFLA_INFO_DATA:
						found.data = info.Bytes()
					}
				}
				return info.Err()
			})
		}
	}
	if attributes.Err() != nil {
		return nil
	}
	if found.madeElsewhere {
		found.lower = 0
	}
	return found
}

// parseAddress reads a message RTM_NEWADDR: struct ifaddrmsg and attributes. ip is the interface's own address, and
// network that of the addresses behind the interface; both differ at a point-to-point link.
func parseAddress(data []byte) (index int, ip netip.Addr, network netip.Prefix) {
	if len(data) < unix.SizeofIfAddrmsg {
		return 0, ip, network
	}
	bits := int(data[1])
	index = int(binary.NativeEndian.Uint32(data[4:]))
	attributes, err := netlink.NewAttributeDecoder(data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return 0, ip, network
	}
	for attributes.Next() {
		switch attributes.Type() {
		case unix.IFA_LOCAL:
			ip, _ = netip.AddrFromSlice(attributes.Bytes())
		case unix.IFA_ADDRESS:
			address, _ := netip.AddrFromSlice(attributes.Bytes())
			network, _ = address.Prefix(bits)
			if !ip.IsValid() {
				ip = address
			}
		}
	}
	return index, ip, network
}

// A role is the meaning of an attribute of a tunnel's device.
type role uint8

const (
	roleID      role = iota + 1 // VNI, in the byte order of the host
	roleInKey                   // key that the device takes, in network byte order
	roleOutKey                  // key that it sends
	roleInFlags                 // whether it takes any key
	roleLink                    // index of the interface below
	roleLocal                   // own address
	roleRemote                  // address of the other end, the only one that the kernel takes packets from
	rolePort                    // UDP port, in network byte order
	roleAnyID                   // whether the device takes any id, or as many as it was told otherwise
	roleAny                     // present if the device takes any id and any end
)

// A deviceKind describes the devices of tunnels of one kind.
type deviceKind struct {
	tunnel tunnel // what its attributes do not say
	roles  map[uint16]role
}

// deviceKinds has the attributes of linux/if_link.h and linux/if_tunnel.h. A vxlan device takes packets from every
// end, whatever remote it was given.
var deviceKinds = func() map[string]deviceKind {
	iptun := deviceKind{
		tunnel{kind: IPIP, anyID: true},
		map[uint16]role{1: roleLink, 2: roleLocal, 3: roleRemote, 19: roleAny},
	}
	gre := deviceKind{
		tunnel{kind: GRE, anyID: true},
		map[uint16]role{
			1: roleLink, 2: roleInFlags, 4: roleInKey, 5: roleOutKey, 6: roleLocal, 7: roleRemote, 18: roleAny,
		},
	}
	return map[string]deviceKind{
		"vxlan": {
			tunnel{kind: VXLAN, port: PortVXLANLinux},
			map[uint16]role{
				1: roleID, 3: roleLink, 4: roleLocal, 17: roleLocal, 15: rolePort, 25: roleAnyID, 30: roleAnyID,
			},
		},
		"geneve": {
			tunnel{kind: Geneve, port: PortGeneve},
			map[uint16]role{1: roleID, 2: roleRemote, 7: roleRemote, 5: rolePort, 6: roleAny},
		},
		"gtp":  {tunnel: tunnel{kind: GTP, port: PortGTP, anyID: true}},
		"ipip": iptun, "sit": iptun, "ip6tnl": iptun,
		"gre": gre, "gretap": gre, "ip6gre": gre, "ip6gretap": gre, "erspan": gre, "ip6erspan": gre,
	}
}()

// tunnels returns the tunnels that d opens, none if it is no device of a tunnel. locals are all addresses of the
// host.
func (d *device) tunnels(devices []*device, locals []netip.Addr) []tunnel {
	kind, ok := deviceKinds[d.kind]
	if !ok {
		return nil
	}
	found, link, outKey := kind.tunnel, 0, uint32(0)
	found.device = d.name
	attributes, err := netlink.NewAttributeDecoder(d.data)
	if err != nil {
		return nil
	}
	for attributes.Next() {
		value := attributes.Bytes()
		padded := append(slices.Clone(value), 0, 0, 0, 0)
		switch kind.roles[attributes.Type()] {
		case roleID:
			found.id = binary.NativeEndian.Uint32(padded)
		case roleInKey:
			found.id = binary.BigEndian.Uint32(padded)
		case roleOutKey:
			outKey = binary.BigEndian.Uint32(padded)
		case roleInFlags:
			found.anyID = binary.BigEndian.Uint16(padded)&greHasKey == 0
		case roleLink:
			link = int(binary.NativeEndian.Uint32(padded))
		case roleLocal:
			found.local = specified(value)
		case roleRemote:
			found.remote = specified(value)
		case rolePort:
			found.port = binary.BigEndian.Uint16(padded)
		case roleAnyID:
			found.anyID = found.anyID || padded[0] != 0
		case roleAny:
			found.anyID, found.local, found.remote = true, netip.Addr{}, netip.Addr{}
		}
	}
	if attributes.Err() != nil {
		return nil
	}

	// The two directions of a tunnel of GRE may have different keys.
	found.interfaces, found.locals = underlayOf(link, devices, locals)
	list := []tunnel{found}
	if found.kind == GRE && !found.anyID && outKey != found.id {
		found.id = outKey
		list = append(list, found)
	}
	return list
}

// greHasKey is the flag of a GRE header that has a key.
const greHasKey = 0x2000

// specified returns the address in value, unless it stands for any or for a group.
func specified(value []byte) netip.Addr {
	ip, ok := netip.AddrFromSlice(value)
	if !ok || ip.IsUnspecified() || ip.IsMulticast() {
		return netip.Addr{}
	}
	return ip
}

// underlayOf returns the interfaces on which the packets of a tunnel over the interface link are seen: link itself,
// those that it is on top of (of a VLAN) and those that it consists of (of a bond or a bridge). It also returns the
// addresses that the tunnel can have on this host. Without a link, or if the link has no address, interfaces is nil,
// which stands for all, and the addresses are those of the host.
func underlayOf(link int, devices []*device, locals []netip.Addr) (interfaces []string, addrs []netip.Addr) {
	if link == 0 {
		return nil, locals
	}
	wanted := map[int]bool{link: true}
	for range 4 { // a VLAN on a bridge over a bond has three layers
		for _, device := range devices {
			if wanted[device.index] && device.lower != 0 {
				wanted[device.lower] = true
			}
			if wanted[device.master] && device.kind != "veth" { // a veth leads to a container
				wanted[device.index] = true
			}
		}
	}
	interfaces = []string{} // not nil: a link that is gone is under no interface
	for _, device := range devices {
		if wanted[device.index] {
			interfaces = append(interfaces, device.name)
			addrs = append(addrs, device.addrs...)
		}
	}
	if len(addrs) == 0 {
		addrs = locals
	}
	return interfaces, addrs
}
