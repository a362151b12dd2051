package redis

import (
	"strings"
	"testing"
)

// TestNamesOfCommandsAreFoundWithoutMemory: a client that sends no line end has each of its segments searched for a
// command.
func TestNamesOfCommandsAreFoundWithoutMemory(t *testing.T) {
	for name, want := range map[string]bool{
		"get": true, "RESTORE-ASKING": true, "GEORADIUSBYMEMBER_RO": true, "": false, "gett": false,
		strings.Repeat("*", 32): false, strings.Repeat("*", 64): false, strings.Repeat("a", 1000): false,
	} {
		word := []byte(name)
		if got := isCommandWord(word); got != want {
			t.Errorf("%.40q: %v", name, got)
		}
		if allocs := testing.AllocsPerRun(100, func() { isCommandWord(word) }); allocs != 0 {
			t.Errorf("%.40q: %v allocations", name, allocs)
		}
	}
}
