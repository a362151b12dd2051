//go:build linux

package capture

import (
	"fmt"
	"unsafe"

	"github.com/google/gopacket/layers"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A fanoutGroup is the PACKET_FANOUT group of the rings of one interface. The kernel chooses the number of
// the group when the first ring joins (FLAG_UNIQUEID, since Linux 4.12). A number of our own choice is not
// safe: a group of that number on another interface makes the join fail, and a group of that number of
// another process takes half of the packets.
//
// A program chooses the ring of each packet, such that all packets of a connection come to one ring. The
// hash of the kernel (PACKET_FANOUT_HASH) does not: it differs for the two directions of a tunnel, whose outer
// ports are chosen by each sender, and for fragments, which have no ports.
type fanoutGroup struct {
	id     int
	joined bool
}

// addRing adds the ring r to the group. A nil group does nothing.
func (g *fanoutGroup) addRing(r *ring) error {
	if g == nil {
		return nil
	}

	// FLAG_DEFRAG makes the kernel reassemble IPv4 datagrams before it chooses a ring. It does not cover
	// IPv6.
	flags := unix.PACKET_FANOUT_CBPF | unix.PACKET_FANOUT_FLAG_DEFRAG
	if !g.joined {
		flags |= unix.PACKET_FANOUT_FLAG_UNIQUEID
	}
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_FANOUT, g.id|flags<<16); err != nil {
		return fmt.Errorf("join fanout group %d: %w", g.id, err)
	}
	if g.joined {
		return nil
	}

	// The first ring sets the program, and reads the number that the kernel has chosen, for the other rings.
	program, err := bpf.Assemble(ringChoice(r.link == layers.LinkTypeEthernet))
	if err != nil {
		return fmt.Errorf("assemble the program of the fanout group: %w", err)
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: (*unix.SockFilter)(unsafe.Pointer(&program[0]))}
	if err := unix.SetsockoptSockFprog(r.fd, unix.SOL_PACKET, unix.PACKET_FANOUT_DATA, &prog); err != nil {
		return fmt.Errorf("set the program of the fanout group: %w", err)
	}
	number, err := unix.GetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
	if err != nil {
		return fmt.Errorf("read the number of the fanout group: %w", err)
	}
	g.id, g.joined = number&0xffff, true
	return nil
}

// Places of the scratch memory of ringChoice.
const (
	scratchBase = iota // where the IP header begins
	scratchHash        // of the addresses
	scratchWord
)

// maxTags is the number of VLAN tags behind the outermost that ringChoice reads. Receivers take any number of tags that
// have a priority only, and a frame of 1,500 bytes has space for no more. A program has at most 4,096 instructions.
const maxTags = 380

// ringChoice returns the program that chooses a ring. The kernel takes its result modulo the number of rings.
//
// The result is a hash of both addresses, the same for both directions. The ports of TCP over IPv4 are added:
// only there the kernel has put all fragments together. All else goes by the addresses alone: UDP, which may
// be a tunnel; fragments and tunnels; and IPv6. What is not IP goes to the first ring.
func ringChoice(isEthernet bool) []bpf.Instruction {
	p := program{labels: map[string]int{}, jumps: map[int]string{}}

	// The packet begins with its Ethernet header if this host sends it, else with its IP header, since the
	// kernel runs the program before it gives the packet to the ring.
	const outgoing = 4 // PACKET_OUTGOING
	base := uint32(0)
	if isEthernet {
		base = 14
	}
	p.add(bpf.LoadConstant{Dst: bpf.RegX, Val: 0}, bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: outgoing, SkipTrue: 1}, bpf.LoadConstant{Dst: bpf.RegX, Val: base})
	p.add(bpf.LoadExtension{Num: bpf.ExtProto})

	// The kernel has removed the outermost tag; others may still be in the packet. There are no loops.
	const tag8021Q, tag8021AD = 0x8100, 0x88a8
	for range maxTags {
		p.add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: tag8021Q, SkipTrue: 2},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: tag8021AD, SkipTrue: 1})
		p.jump("untagged")
		p.add(bpf.LoadIndirect{Off: 2, Size: 2}, bpf.StoreScratch{Src: bpf.RegA, N: scratchWord},
			bpf.TXA{}, bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: 4}, bpf.TAX{},
			bpf.LoadScratch{Dst: bpf.RegA, N: scratchWord})
	}
	p.label("untagged")
	p.add(bpf.StoreScratch{Src: bpf.RegX, N: scratchBase})

	p.jumpTo("IPv4", bpf.JumpEqual, 0x0800)
	p.jumpTo("IPv6", bpf.JumpEqual, 0x86dd)
	p.add(bpf.RetConstant{Val: 0})

	p.label("IPv6")
	p.xorWords(8, 12, 16, 20, 24, 28, 32, 36)
	p.jump("end")

	p.label("IPv4")
	p.xorWords(12, 16)
	p.add(bpf.LoadIndirect{Off: 9, Size: 1})
	p.jumpTo("end", bpf.JumpNotEqual, unix.IPPROTO_TCP)
	p.add(bpf.LoadIndirect{Off: 6, Size: 2})
	p.jumpTo("end", bpf.JumpBitsSet, 0x3fff) // a fragment

	// The ports follow the IP header, whose length varies.
	p.add(bpf.LoadIndirect{Off: 0, Size: 1}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 15},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2}, bpf.ALUOpX{Op: bpf.ALUOpAdd}, bpf.TAX{},
		bpf.LoadIndirect{Off: 0, Size: 2}, bpf.StoreScratch{Src: bpf.RegA, N: scratchWord},
		bpf.LoadIndirect{Off: 2, Size: 2}, bpf.LoadScratch{Dst: bpf.RegX, N: scratchWord}, bpf.ALUOpX{Op: bpf.ALUOpXor},
		bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: 0x85ebca6b},
		bpf.LoadScratch{Dst: bpf.RegX, N: scratchHash}, bpf.ALUOpX{Op: bpf.ALUOpXor},
		bpf.StoreScratch{Src: bpf.RegA, N: scratchHash})

	p.label("end")
	p.add(bpf.LoadScratch{Dst: bpf.RegA, N: scratchHash}, bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: 0x9e3779b1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 16}, bpf.RetA{})
	return p.instructions()
}

// A program is a list of BPF instructions with jumps to labels, all forward.
type program struct {
	list   []bpf.Instruction
	labels map[string]int
	jumps  map[int]string // by the index of the instruction
}

func (p *program) add(list ...bpf.Instruction) { p.list = append(p.list, list...) }

// label gives the next instruction a name.
func (p *program) label(name string) {
	p.labels[name] = len(p.list)
}

// jumpTo adds a jump to a label if the accumulator fulfils the condition.
func (p *program) jumpTo(label string, cond bpf.JumpTest, val uint32) {
	p.jumps[len(p.list)] = label
	p.add(bpf.JumpIf{Cond: cond, Val: val})
}

// jump adds a jump to a label.
func (p *program) jump(label string) {
	p.jumps[len(p.list)] = label
	p.add(bpf.Jump{})
}

// xorWords stores the exclusive or of the 32-bit words at the given offsets of the IP header. The index register
// holds the beginning of the header, before and after.
func (p *program) xorWords(offsets ...uint32) {
	p.add(bpf.LoadIndirect{Off: offsets[0], Size: 4}, bpf.StoreScratch{Src: bpf.RegA, N: scratchHash})
	for _, offset := range offsets[1:] {
		p.add(bpf.LoadIndirect{Off: offset, Size: 4}, bpf.LoadScratch{Dst: bpf.RegX, N: scratchHash},
			bpf.ALUOpX{Op: bpf.ALUOpXor}, bpf.StoreScratch{Src: bpf.RegA, N: scratchHash},
			bpf.LoadScratch{Dst: bpf.RegX, N: scratchBase})
	}
}

// instructions returns the list with the distances of the jumps.
func (p *program) instructions() []bpf.Instruction {
	for at, label := range p.jumps {
		distance := p.labels[label] - at - 1
		switch jump := p.list[at].(type) {
		case bpf.JumpIf:
			jump.SkipTrue = uint8(distance)
			p.list[at] = jump
		case bpf.Jump:
			jump.Skip = uint32(distance)
			p.list[at] = jump
		}
	}
	return p.list
}
