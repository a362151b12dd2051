//go:build linux

package links_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"tidegate/collector/links"
	"tidegate/pipeline/netnstest"
)

// A bridgedHost has a bridge in a namespace of its own, to which namespaces of containers are attached.
type bridgedHost struct {
	t       *testing.T
	name    string
	monitor *links.Monitor
}

// newBridgedHost returns a host whose Monitor runs. Containers have MAC addresses below 0x0200000000ff.
func newBridgedHost(t *testing.T) *bridgedHost {
	if os.Geteuid() != 0 {
		t.Skip("a bridge and namespaces need root")
	}
	h := &bridgedHost{t: t, name: fmt.Sprintf("tgfdb-%d", os.Getpid())}
	h.addNamespace(h.name)
	ip(t, h.name, "link add br0 address 02:00:00:00:ff:ff type bridge ageing_time 30000")
	ip(t, h.name, "link set br0 up")
	h.monitor = links.NewMonitor(nil, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	h.monitor.KnownMAC = func(mac uint64) bool { return mac < 0x0200000000ff }
	ctx, cancel := context.WithCancel(context.Background())
	changed := h.monitor.Subscribe()
	done := netnstest.Start(t, h.name, func() { _ = h.monitor.Run(ctx) })
	t.Cleanup(func() { cancel(); <-done })
	<-changed
	return h
}

func (h *bridgedHost) addNamespace(name string) {
	netnstest.Run(h.t, "ip", "netns", "add", name)
	h.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
}

// attach makes a namespace, connects its eth0 with the bridge, and waits until the bridge takes frames from there.
func (h *bridgedHost) attach(container string) {
	h.addNamespace(h.name + container)
	ip(h.t, h.name, "link add port"+container+" type veth peer name eth0 netns "+h.name+container)
	ip(h.t, h.name, "link set port"+container+" master br0 up")
	ip(h.t, h.name+container, "link set eth0 up")
	show := []string{"netns", "exec", h.name, "bridge", "link", "show", "dev", "port" + container}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		state, err := exec.Command("ip", show...).CombinedOutput()
		if err == nil && bytes.Contains(state, []byte("state forwarding")) {
			return
		}
		if time.Now().After(end) {
			h.t.Fatalf("the port of %s does not forward: %s", container, state)
		}
	}
}

// sendFrames runs f in a container, with a function that sends a frame on its eth0.
func (h *bridgedHost) sendFrames(container string, f func(send func(frame []byte) error)) {
	h.t.Helper()
	<-netnstest.Start(h.t, h.name+container, func() {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			h.t.Error(err)
			return
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			h.t.Error(err)
			return
		}
		defer func() { _ = unix.Close(fd) }()
		f(func(frame []byte) error {
			return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: eth0.Index})
		})
	})
}

// send sends a frame with a source address from a container.
func (h *bridgedHost) send(container string, mac uint64) {
	h.t.Helper()
	h.sendFrames(container, func(send func([]byte) error) {
		frame := make([]byte, 60)
		for i := range 6 {
			frame[i], frame[6+i] = 0xff, byte(mac>>(40-8*i))
		}
		frame[12], frame[13] = 0x88, 0xb5 // for experiments
		if err := send(frame); err != nil {
			h.t.Error(err)
		}
	})
}

// waitForMove waits until an address counts as moved.
func (h *bridgedHost) waitForMove(what string, mac uint64) {
	h.t.Helper()
	for start := time.Now(); !h.monitor.HasMovedMAC(mac, time.Now().UnixNano()); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			h.t.Fatalf("%s is not noticed", what)
		}
	}
}

// checkNotMoved checks that an address does not count as moved, when the kernel has reported all that was
// before.
func (h *bridgedHost) checkNotMoved(what string, mac, unused uint64) {
	h.t.Helper()
	h.send("a", unused)
	h.send("b", unused)
	h.waitForMove("a move after it", unused)
	if h.monitor.HasMovedMAC(mac, time.Now().UnixNano()) {
		h.t.Errorf("%s counts as a move", what)
	}
}

// TestMACOfAnotherPortCountsAsMoved: two containers that send with one MAC address are noticed on a real
// bridge, also if the bridge has removed the address meanwhile; a container that takes the place of another
// one is not.
func TestMACOfAnotherPortCountsAsMoved(t *testing.T) {
	const macA, macB, macC, macD = 0x02000000000a, 0x02000000000b, 0x02000000000c, 0x02000000000d
	h := newBridgedHost(t)
	h.attach("a")
	h.attach("b")
	h.send("a", macA)
	h.send("b", macB)
	h.checkNotMoved("a frame of each", macA, 0x020000001001)
	before := time.Now()
	h.send("b", macA)
	h.waitForMove("a frame with the address of another", macA)
	if at := before.UnixNano(); !h.monitor.HasMovedMAC(macA, at) || h.monitor.HasMovedMAC(macB, at) {
		t.Error("the frame before the notification does not count, or the sender's own address does")
	}
	if h.monitor.HasMovedMAC(macA, before.Add(-time.Minute).UnixNano()) {
		t.Error("the address counts as moved a minute before")
	}

	// A container ends, and another one gets its address.
	h.attach("c")
	h.send("c", macC)
	ip(t, h.name, "link del portc")
	h.attach("c2")
	h.send("c2", macC)
	h.checkNotMoved("a container in the place of another", macC, 0x020000001002)

	// The same, when the bridge has removed the address before, as it does after a while without frames.
	h.attach("d")
	// The bridge may learn an address a moment after its frame was sent.
	forget := func(mac, port string) {
		remove := []string{"netns", "exec", h.name, "bridge", "fdb", "del", mac, "dev", port, "master"}
		for end := time.Now().Add(10 * time.Second); exec.Command("ip", remove...).Run() != nil; {
			if time.Now().After(end) {
				t.Fatalf("%s is not learned at %s", mac, port)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	h.send("d", macD)
	forget("02:00:00:00:00:0d", "portd")
	ip(t, h.name, "link del portd")
	h.attach("d2")
	h.send("d2", macD)
	h.checkNotMoved("a container in the place of one that was idle", macD, 0x020000001003)

	// The owner is idle, and its address is forged.
	forget("02:00:00:00:00:0d", "portd2")
	h.send("b", macD)
	h.waitForMove("a frame with the address of an idle container", macD)
}

// TestForwardingDatabaseFullOfAddressesIsFollowed: a container that sends with more addresses than are
// followed hides no move of a container's address.
func TestForwardingDatabaseFullOfAddressesIsFollowed(t *testing.T) {
	const macA = 0x02000000000a
	h := newBridgedHost(t)
	h.attach("a")
	h.attach("b")
	h.send("a", macA)
	h.checkNotMoved("a frame", macA, 0x020000001001)
	h.flood("b", 40_000)
	h.send("b", macA)
	h.waitForMove("a frame with the address of another", macA)
}

// flood sends a frame from each of many addresses. Some may be dropped.
func (h *bridgedHost) flood(container string, count int) {
	h.t.Helper()
	h.sendFrames(container, func(send func([]byte) error) {
		frame := make([]byte, 60)
		for i := range count {
			copy(frame, []byte{2, 0, 0, 0, 0xff, 0xff, 2, 1, 0, byte(i >> 16), byte(i >> 8), byte(i), 0x88, 0xb5})
			_ = send(frame)
		}
	})
}
