package capture

import (
	"fmt"
	"net/netip"

	"golang.org/x/net/bpf"
)

// compileFilter compiles a classic BPF program that drops TCP segments from or to the given addresses and
// passes everything else. The addresses are those of our own Kafka and ClickHouse: capturing our own output
// would produce output without end.
//
// The program reads frames that begin with an Ethernet header followed by IPv4 or IPv6. Tagged, tunnelled and
// truncated frames pass.
func compileFilter(own []netip.AddrPort) ([]bpf.RawInstruction, error) {
	if len(own) == 0 {
		return passAll, nil
	}

	// Each address has its own block of instructions. When the address does not match, control reaches the
	// next block. Jumps in classic BPF reach 255 instructions; a block is far shorter.
	var prog []bpf.Instruction
	for _, addr := range own {
		prog = append(prog, excludeAddress(addr)...)
	}
	prog = append(prog, bpf.RetConstant{Val: 1 << 18})
	raw, err := bpf.Assemble(prog)
	if err != nil {
		return nil, fmt.Errorf("compile the filter for %d addresses: %w", len(own), err)
	}
	return raw, nil
}

// excludeAddress returns instructions that drop the TCP segments from and to one address. For any other
// frame, control reaches the end of the instructions.
func excludeAddress(excluded netip.AddrPort) []bpf.Instruction {
	ip := excluded.Addr().Unmap()

	// The address is compared in words of 32 bits.
	var words []uint32
	octets := ip.AsSlice()
	for i := 0; i < len(octets); i += 4 {
		words = append(words, uint32(octets[i])<<24|uint32(octets[i+1])<<16|uint32(octets[i+2])<<8|uint32(octets[i+3]))
	}

	// Offsets of the protocol and of the addresses in an Ethernet frame.
	etherType, proto, srcAt, dstAt := uint32(0x0800), uint32(23), uint32(26), uint32(30)
	if ip.Is6() {
		etherType, proto, srcAt, dstAt = 0x86dd, 20, 22, 38
	}

	// One block drops segments from the address, the other one segments to it.
	var out []bpf.Instruction
	for _, side := range [...]struct{ addr, port uint32 }{{srcAt, 0}, {dstAt, 2}} {
		var checks [][]bpf.Instruction // each check loads a value and compares it with a constant
		load := func(size int, off, want uint32) {
			checks = append(checks, []bpf.Instruction{
				bpf.LoadAbsolute{Off: off, Size: size},
				bpf.JumpIf{Cond: bpf.JumpEqual, Val: want},
			})
		}
		load(2, 12, etherType)
		load(1, proto, 6)
		for i, word := range words {
			load(4, side.addr+uint32(i)*4, word)
		}
		var block []bpf.Instruction
		for _, check := range checks {
			block = append(block, check...)
		}

		// The ports follow the IP header, whose length varies in IPv4.
		if ip.Is4() {
			block = append(block, bpf.LoadMemShift{Off: 14}, bpf.LoadIndirect{Off: 14 + side.port, Size: 2})
		} else {
			block = append(block, bpf.LoadAbsolute{Off: 54 + side.port, Size: 2})
		}
		block = append(block, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(excluded.Port())}, bpf.RetConstant{Val: 0})

		// A failed check jumps behind the block. Its length is known only now.
		for i, ins := range block {
			if jump, ok := ins.(bpf.JumpIf); ok {
				jump.SkipFalse = uint8(len(block) - i - 1)
				block[i] = jump
			}
		}
		out = append(out, block...)
	}
	return out
}
