package sessions

// An iface is an interface that packets came from.
type iface struct {
	name     string
	isBridge bool
	dedupID  uint16 // its number in the DedupTable, which is the same for all Tables
}

// ifaceTable numbers the interfaces of a Table.
type ifaceTable struct {
	list      []iface
	byName    map[string]uint16
	lastIndex uint16 // of the last packet; most packets come from the same interface
}

// maxInterfaces bounds the names of interfaces. No host has so many, but a hostile capture file may.
const maxInterfaces = 1 << 15

// ifaceIndex returns the number of an interface, and numbers a new one. Beyond maxInterfaces it returns 0.
func (t *Table) ifaceIndex(name string) uint16 {
	ifaces := &t.ifaces
	if int(ifaces.lastIndex) < len(ifaces.list) && ifaces.list[ifaces.lastIndex].name == name {
		return ifaces.lastIndex
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
	ifaces.lastIndex = index
	return index
}
