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
	s := &t.ifaces
	if int(s.last) < len(s.list) && s.list[s.last].name == name {
		return s.last
	}
	i, ok := s.byName[name]
	if !ok {
		if len(s.list) >= maxInterfaces {
			return 0
		}
		i = uint16(len(s.list))
		isBridge := t.deps.Bridge != nil && t.deps.Bridge(name)
		s.list = append(s.list, iface{name: name, isBridge: isBridge, dedupID: t.dedup.ifaceID(name)})
		s.byName[name] = i
	}
	s.last = i
	return i
}
