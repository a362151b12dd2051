package feeds

import (
	"fmt"
	"net/netip"
	"slices"
)

// Of returns a set of feeds whose indicators are given by the names of the feeds, such as those of a test. Addresses of private networks are
// accepted. An indicator that no feed can list is an error.
func Of(indicators map[string][]string, names []string) (*Set, error) {
	var lists []*list
	for _, name := range names {
		out := &list{name: name, config: Config{Name: name, AllowLocal: true}, details: details{room: maxDetails}}
		parser := out.newParser(maxIndicators)
		for _, text := range indicators[name] {
			if len(text) > maxLine {
				return nil, fmt.Errorf("%.40q… is longer than a line of a feed", text)
			}
			if err := parser.addKind(kindAny, []byte(text), detail{}); err != nil {
				return nil, fmt.Errorf("%q: %w", text, err)
			}
		}
		out.finish()
		lists = append(lists, out)
	}
	return newSet(lists), nil
}

// HasAddrAt is HasAt for an address.
func (s *Set) HasAddrAt(feed string, addr netip.Addr, at int64) bool {
	index := slices.IndexFunc(s.lists, func(l *list) bool { return l.name == feed })
	if index < 0 || !addr.IsValid() {
		return false
	}
	var found feedSet
	s.checkAddr(target{at: at}, "", addr, &found)
	return found.feeds[index/64]&(1<<(index%64)) != 0
}
