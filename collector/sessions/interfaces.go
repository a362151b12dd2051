package sessions

// An iface is an interface that packets came from.
type iface struct {
	name     string
	isBridge bool
	dedupID  uint16 // its number in the DedupTable
}

// ifaceTable numbers the interfaces of a Table.
type ifaceTable struct {
	list   []iface
	byName map[string]uint16
	last   uint16 // of the last packet: most packets come from the interface of the one before
}

// maxInterfaces is more than a host has; a hostile capture file may have more.
const maxInterfaces = 1 << 15

// ifaceIndex returns the number of an interface.
func (t *Table) ifaceIndex(name string) uint16 {
	ifaces := &t.ifaces
	if int(ifaces.last) < len(ifaces.list) && ifaces.list[ifaces.last].name == name {
		return ifaces.last
	}
	index, ok := ifaces.byName[name]
	if !ok {
		if len(ifaces.list) >= maxInterfaces {
			return 0
		}
		index = uint16(len(ifaces.list))
		isBridge := t.deps.Bridge != nil && t.deps.Bridge(name)
		ifaces.list = append(ifaces.list, iface{name: name, isBridge: isBridge, dedupID: t.dedup.ifaceID(name)})
		ifaces.byName[name] = index
	}
	ifaces.last = index
	return index
}
