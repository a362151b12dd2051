package capture

import (
	"fmt"
	"net/netip"

	"golang.org/x/net/bpf"
)

// exclude compiles a classic BPF program that passes everything but TCP from or to the given addresses over IPv4 and IPv6: our own
// way to Kafka and ClickHouse, which would otherwise be captured, shipped, captured, …
//
// Only frames that begin with an Ethernet header and IP are looked at; what is tagged or tunnelled passes. A frame that is cut is
// passed too.
func exclude(own []netip.AddrPort) ([]bpf.RawInstruction, error) {
	if len(own) == 0 {
		return nil, nil
	}
	// Each address is a block of its own that falls through to the next when it does not match, so that no jump is long.
	var prog []bpf.Instruction
	for _, a := range own {
		prog = append(prog, excludeOne(a)...)
	}
	prog = append(prog, bpf.RetConstant{Val: 1 << 18})
	raw, err := bpf.Assemble(prog)
	if err != nil {
		return nil, fmt.Errorf("compile the filter for %d addresses: %w", len(own), err)
	}
	return raw, nil
}

// excludeOne ends in a return of 0 for what matches; everything else reaches its end.
func excludeOne(a netip.AddrPort) []bpf.Instruction {
	ip := a.Addr().Unmap()
	var words []uint32
	b := ip.AsSlice()
	for i := 0; i < len(b); i += 4 {
		words = append(words, uint32(b[i])<<24|uint32(b[i+1])<<16|uint32(b[i+2])<<8|uint32(b[i+3]))
	}
	etherType, proto, srcAt, dstAt := uint32(0x0800), uint32(23), uint32(26), uint32(30)
	if ip.Is6() {
		etherType, proto, srcAt, dstAt = 0x86dd, 20, 22, 38
	}
	var out []bpf.Instruction
	for _, side := range [...]struct{ addr, port uint32 }{{srcAt, 0}, {dstAt, 2}} {
		var checks [][]bpf.Instruction // each loads one thing and compares it with one value
		load := func(size int, off, want uint32) {
			checks = append(checks, []bpf.Instruction{bpf.LoadAbsolute{Off: off, Size: size}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: want}})
		}
		load(2, 12, etherType)
		load(1, proto, 6)
		for i, w := range words {
			load(4, side.addr+uint32(i)*4, w)
		}
		var block []bpf.Instruction
		for _, c := range checks {
			block = append(block, c...)
		}
		if ip.Is4() { // the header's length varies
			block = append(block, bpf.LoadMemShift{Off: 14}, bpf.LoadIndirect{Off: 14 + side.port, Size: 2})
		} else {
			block = append(block, bpf.LoadAbsolute{Off: 54 + side.port, Size: 2})
		}
		block = append(block, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(a.Port())}, bpf.RetConstant{Val: 0})
		for i, ins := range block {
			if j, ok := ins.(bpf.JumpIf); ok {
				j.SkipFalse = uint8(len(block) - i - 1)
				block[i] = j
			}
		}
		out = append(out, block...)
	}
	return out
}
