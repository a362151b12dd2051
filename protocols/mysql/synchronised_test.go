package mysql

import "testing"

// TestOddCommandIsOneWhereAPacketIsKnownToBegin: behind a login that was captured, while no bytes were lost.
func TestOddCommandIsOneWhereAPacketIsKnownToBegin(t *testing.T) {
	for _, phase := range []phase{afterGreeting, commandPhase} {
		for _, known := range []bool{false, true} {
			for _, lost := range []bool{false, true} {
				p := &parser{phase: phase, capabilitiesKnown: known, bytesLost: lost}
				if want := phase == commandPhase && known && !lost; p.synchronised() != want {
					t.Errorf("phase %d, login %t, lost %t: synchronised is %t", phase, known, lost, !want)
				}
			}
		}
	}
}
