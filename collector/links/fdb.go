//go:build linux

package links

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"tidegate/collector/netdump"
	"tidegate/pipeline/metrics"
)

// A bridge learns at which of its ports an Ethernet address is, from the source addresses of frames. An address that
// moves from one port to another, while both exist, is one that two containers send with: nothing in a frame that was
// captured on the bridge shows which of them has sent it. When a container ends, the bridge removes what it has learned
// at its port. It does so after some minutes without frames, too; the port of a container's address is kept then.

const (
	// movedFor is the time for which an address counts as moved after it has moved last.
	movedFor = time.Minute
	// movedBefore is the time before its first move for which it does: the notification comes after the frame.
	movedBefore = time.Second

	// maxLearned bounds the addresses that are followed, besides those of known containers: a container can send with
	// any number of addresses.
	maxLearned = 16 << 10
	// maxAged bounds the addresses of containers whose ports are kept although their bridge has removed them.
	maxAged = 4 << 10
	// maxMoved bounds the addresses that count as moved, besides those of known containers.
	maxMoved = 256

	// neighbourBuffer is the size of the kernel's queue of notifications: some thousands.
	neighbourBuffer = 4 << 20
	// relearnPause is the shortest pause after a loss of notifications before the bridges are asked for the addresses of
	// containers, and before the forwarding databases are read again. Either pause is relearnShare times as long as the
	// same took before: a container can fill the databases, so that reading them takes seconds, and cause losses.
	relearnPause = 100 * time.Millisecond
	relearnShare = 20
	// emptyAfter is the time without a notification after which the queue counts as empty.
	emptyAfter = 10 * time.Millisecond
)

// A learnedKey is an address in the forwarding database of a bridge.
type learnedKey struct {
	mac    uint64
	bridge int32
	vlan   uint16
}

// A movedSpan is the time in which an address counts as moved, in ns since 1970.
type movedSpan struct{ from, to int64 }

// A forwarding follows the forwarding databases of the bridges. Its maps belong to the goroutine of run.
type forwarding struct {
	ports   map[learnedKey]int32  // by address: the index of the port in the forwarding database
	aged    map[learnedKey]int32  // by address of a container: the port before the bridge has removed the address
	known   func(mac uint64) bool // nil: no container is known
	hasPort func(index int32) bool

	moved atomic.Pointer[map[uint64]movedSpan] // nil: no address has moved

	moves, unfollowed, losses prometheus.Counter
}

func newForwarding(factory metrics.Factory) *forwarding {
	return &forwarding{
		ports: map[learnedKey]int32{}, aged: map[learnedKey]int32{},
		moves: factory.Counter("tidegate_links_mac_moves_total",
			"Moves of an Ethernet address from one port of a bridge to another: two containers send with it."),
		unfollowed: factory.Counter("tidegate_links_unfollowed_macs_total",
			"Ethernet addresses on bridges that are not followed: too many, and not those of containers."),
		losses: factory.Counter("tidegate_links_neighbour_losses_total",
			"Times that the kernel has dropped notifications of bridges; their forwarding databases are read again."),
	}
}

// hasMoved reports whether mac counts as moved at a time, in ns since 1970.
func (f *forwarding) hasMoved(mac uint64, at int64) bool {
	moved := f.moved.Load()
	if moved == nil {
		return false
	}
	span, ok := (*moved)[mac]
	return ok && at >= span.from && at <= span.to
}

// A neighbourSocket receives the notifications of bridges and reads their forwarding databases.
type neighbourSocket struct {
	changes  *netlink.Conn
	table    *netdump.Conn
	requests *netlink.Conn
}

// close closes the sockets.
func (s *neighbourSocket) close() {
	_ = s.changes.Close()
	s.table.Close()
	_ = s.requests.Close()
}

// hasPort reports whether there is an interface with an index.
func (s *neighbourSocket) hasPort(index int32) bool {
	data := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(data[4:], uint32(index))
	_, err := s.requests.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request}, Data: data,
	})
	return !errors.Is(err, unix.ENODEV)
}

// portOf asks a bridge for the port of an address. ok is false if the bridge has not learned it, or does not exist.
func (s *neighbourSocket) portOf(key learnedKey) (port int32, ok bool, err error) {
	attributes := netlink.NewAttributeEncoder()
	attributes.Bytes(unix.NDA_LLADDR, binary.BigEndian.AppendUint64(nil, key.mac)[2:])
	attributes.Int32(unix.NDA_MASTER, key.bridge)
	if key.vlan != 0 {
		attributes.Uint16(unix.NDA_VLAN, key.vlan)
	}
	encoded, err := attributes.Encode()
	if err != nil {
		return 0, false, err
	}
	data := make([]byte, unix.SizeofNdMsg, unix.SizeofNdMsg+len(encoded))
	data[0] = unix.AF_BRIDGE
	replies, err := s.requests.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETNEIGH, Flags: netlink.Request}, Data: append(data, encoded...),
	})
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV):
		return 0, false, nil
	case err != nil:
		return 0, false, err
	}
	for _, reply := range replies {
		if answer, at, isLearned := parseLearned(reply.Data); isLearned && answer == key {
			return at, true, nil
		}
	}
	return 0, false, nil
}

// openNeighbours subscribes to the notifications in the namespace of the calling thread.
func openNeighbours() (*neighbourSocket, error) {
	changes, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: 1 << (unix.RTNLGRP_NEIGH - 1)})
	if err != nil {
		return nil, fmt.Errorf("subscribe to changes of bridges: %w", err)
	}
	if err := changes.SetReadBuffer(neighbourBuffer); err != nil {
		_ = changes.Close()
		return nil, fmt.Errorf("subscribe to changes of bridges: %w", err)
	}
	table, err := netdump.Open(unix.NETLINK_ROUTE)
	if err != nil {
		_ = changes.Close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	requests, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		_ = changes.Close()
		table.Close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &neighbourSocket{changes, table, requests}, nil
}

// run follows the forwarding databases until ctx ends or netlink fails. The subscription, and after a loss the empty
// queue, come first, so that no change between them and the reading is missed.
func (f *forwarding) run(ctx context.Context, socket *neighbourSocket) error {
	f.hasPort = socket.hasPort
	defer socket.close()
	stop := context.AfterFunc(ctx, func() { _ = socket.changes.Close() })
	defer stop()
	for {
		begun := time.Now()
		if err := f.readTable(socket.table); err != nil {
			return fmt.Errorf("read the forwarding databases of bridges: %w", err)
		}
		pause := max(relearnPause, relearnShare*time.Since(begun))
		if err := f.applyUntilLoss(socket, pause); err != nil {
			return fmt.Errorf("receive changes of bridges: %w", err)
		}
		if err := f.applyRest(socket.changes); err != nil {
			return fmt.Errorf("receive changes of bridges: %w", err)
		}
	}
}

// applyRest applies the notifications that wait in the queue. Once the kernel has dropped one, it drops all that follow
// until the queue is empty, and reports only the first: so the queue is emptied while it gets no new ones.
func (f *forwarding) applyRest(changes *netlink.Conn) error {
	if err := changes.LeaveGroup(unix.RTNLGRP_NEIGH); err != nil {
		return err
	}
	for {
		if err := changes.SetReadDeadline(time.Now().Add(emptyAfter)); err != nil {
			return err
		}
		messages, err := changes.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
		case errors.Is(err, os.ErrDeadlineExceeded):
			if err := changes.SetReadDeadline(time.Time{}); err != nil {
				return err
			}
			return changes.JoinGroup(unix.RTNLGRP_NEIGH)
		case err != nil:
			return err
		}
		f.applyAll(messages, time.Now())
	}
}

// applyAll applies notifications that were received at a time.
func (f *forwarding) applyAll(messages []netlink.Message, at time.Time) {
	for i := range messages {
		f.apply(uint16(messages[i].Header.Type), messages[i].Data, at.UnixNano())
	}
}

// applyUntilLoss applies notifications. After the kernel has dropped some it does so for pause, asks the bridges for the
// addresses of containers meanwhile, and returns nil.
func (f *forwarding) applyUntilLoss(socket *neighbourSocket, pause time.Duration) error {
	var end, ask time.Time // zero: no loss yet
	for {
		messages, err := socket.changes.Receive()
		now := time.Now()
		if errors.Is(err, unix.ENOBUFS) {
			err = nil
			f.losses.Inc()
			if end.IsZero() {
				end, ask = now.Add(pause), now.Add(min(pause, relearnPause))
				err = socket.changes.SetReadDeadline(ask)
			}
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		f.applyAll(messages, now)

		// Notifications may come without a pause, so that the deadline alone would not end this.
		switch {
		case end.IsZero() || now.Before(ask):
			continue
		case !now.Before(end):
			return nil
		}
		if err := f.askForContainers(socket.portOf); err != nil {
			return err
		}
		ask = time.Now().Add(max(relearnPause, relearnShare*time.Since(now)))
		if ask.After(end) {
			ask = end
		}
		if err := socket.changes.SetReadDeadline(ask); err != nil {
			return err
		}
	}
}

// askForContainers notes the moves of addresses of containers by asking for the port of each.
func (f *forwarding) askForContainers(portOf func(learnedKey) (port int32, ok bool, err error)) error {
	now := time.Now().UnixNano()
	for _, ports := range []map[learnedKey]int32{f.ports, f.aged} {
		for key, old := range ports {
			if !f.isKnown(key.mac) {
				continue
			}
			port, ok, err := portOf(key)
			if err != nil {
				return err
			}
			if ok {
				f.comparePorts(key, old, port, now)
				f.learn(key, port)
				delete(f.aged, key)
			}
		}
	}
	return nil
}

// readTable reads the forwarding databases of all bridges. Addresses that are not in them any more are removed; the ports
// of those of containers are kept.
func (f *forwarding) readTable(table *netdump.Conn) error {
	before := f.ports
	f.ports = make(map[learnedKey]int32, len(before))
	request := netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETNEIGH}, Data: make([]byte, unix.SizeofNdMsg),
	}
	request.Data[0] = unix.AF_BRIDGE
	now := time.Now().UnixNano()
	err := table.Read(request, func(message netlink.Message) error {
		key, port, ok := parseLearned(message.Data)
		if !ok {
			return nil
		}
		old, isLearned := before[key]
		if !isLearned {
			old = f.takeAged(key)
		}
		f.comparePorts(key, old, port, now)
		f.learn(key, port)
		return nil
	})
	for key, port := range before {
		if _, ok := f.ports[key]; !ok {
			f.keepAged(key, port)
		}
	}
	return err
}

// apply applies a notification.
func (f *forwarding) apply(kind uint16, data []byte, now int64) {
	key, port, ok := parseLearned(data)
	if !ok {
		return
	}
	old, isLearned := f.ports[key]
	switch {
	case kind == unix.RTM_DELNEIGH && isLearned && old == port:
		delete(f.ports, key)
		f.keepAged(key, port)
	case kind == unix.RTM_NEWNEIGH:
		if !isLearned {
			old = f.takeAged(key)
		}
		f.comparePorts(key, old, port, now)
		f.learn(key, port)
	}
}

// comparePorts notes a move if an address was at another port before. That of a container has not moved if one of the
// ports does not exist any more: after a loss, notifications may be older than what was read.
func (f *forwarding) comparePorts(key learnedKey, old, port int32, now int64) {
	if old == 0 || old == port || f.isFresh(key.mac, now) ||
		f.isKnown(key.mac) && !(f.hasPort(old) && f.hasPort(port)) {
		return
	}
	f.noteMove(key.mac, now)
}

// isFresh reports whether mac has moved within the last second. Frames of the two may alternate by the thousands.
func (f *forwarding) isFresh(mac uint64, now int64) bool {
	moved := f.moved.Load()
	return moved != nil && now+int64(movedFor)-(*moved)[mac].to < int64(time.Second)
}

// keepAged keeps the port of an address of a container that its bridge has removed from its forwarding database.
func (f *forwarding) keepAged(key learnedKey, port int32) {
	if !f.isKnown(key.mac) || !f.hasPort(port) {
		return
	}
	if len(f.aged) >= maxAged {
		maps.DeleteFunc(f.aged, func(key learnedKey, port int32) bool {
			return !f.isKnown(key.mac) || !f.hasPort(port)
		})
	}
	if len(f.aged) < maxAged {
		f.aged[key] = port
	}
}

// takeAged returns the port that keepAged has kept, or 0.
func (f *forwarding) takeAged(key learnedKey) int32 {
	port := f.aged[key]
	delete(f.aged, key)
	return port
}

// learn stores the port of an address.
func (f *forwarding) learn(key learnedKey, port int32) {
	if len(f.ports) >= maxLearned && !f.isKnown(key.mac) {
		if _, ok := f.ports[key]; !ok {
			f.unfollowed.Inc()
			return
		}
	}
	f.ports[key] = port
}

// isKnown reports whether mac is that of a container.
func (f *forwarding) isKnown(mac uint64) bool { return f.known != nil && f.known(mac) }

// noteMove publishes that mac has moved.
func (f *forwarding) noteMove(mac uint64, now int64) {
	f.moves.Inc()
	var moved map[uint64]movedSpan
	if old := f.moved.Load(); old != nil {
		moved = maps.Clone(*old)
		maps.DeleteFunc(moved, func(_ uint64, span movedSpan) bool { return span.to < now })
	} else {
		moved = map[uint64]movedSpan{}
	}
	span, ok := moved[mac]
	if !ok && len(moved) >= maxMoved && !f.isKnown(mac) {
		return
	}
	if !ok {
		span.from = now - int64(movedBefore)
	}
	span.to = now + int64(movedFor)
	moved[mac] = span
	f.moved.Store(&moved)
}

// parseLearned reads struct ndmsg and its attributes: an address that a bridge has learned at a port. ok is false
// for anything else.
func parseLearned(data []byte) (key learnedKey, port int32, ok bool) {
	const stateAt, flagsAt = 8, 10
	if len(data) < unix.SizeofNdMsg || data[0] != unix.AF_BRIDGE || data[flagsAt]&unix.NTF_SELF != 0 ||
		binary.NativeEndian.Uint16(data[stateAt:])&unix.NUD_PERMANENT != 0 {
		return key, 0, false
	}
	port = int32(binary.NativeEndian.Uint32(data[4:]))
	attributes, err := netlink.NewAttributeDecoder(data[unix.SizeofNdMsg:])
	if err != nil {
		return key, 0, false
	}
	for attributes.Next() {
		switch attributes.Type() {
		case unix.NDA_LLADDR:
			if address := attributes.Bytes(); len(address) == 6 {
				key.mac = macNumber(address)
			}
		case unix.NDA_MASTER:
			key.bridge = attributes.Int32()
		case unix.NDA_VLAN:
			key.vlan = attributes.Uint16()
		}
	}
	return key, port, attributes.Err() == nil && key.mac != 0 && key.bridge != 0
}

// macNumber returns an Ethernet address of six bytes as a number, its first byte in the upper ones.
func macNumber(address []byte) uint64 {
	return uint64(binary.BigEndian.Uint16(address))<<32 | uint64(binary.BigEndian.Uint32(address[2:]))
}
