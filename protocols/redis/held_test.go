package redis

import (
	"testing"

	"tidegate/pipeline"
)

// TestFlagsAreThoseOfTheCommand that is read; a command that is not kept has none.
func TestFlagsAreThoseOfTheCommand(t *testing.T) {
	if got := (&commandReader{}).flags(); got != 0 {
		t.Errorf("a command that is not kept has the flags %d", got)
	}
	for name, want := range map[string]flags{
		"SUBSCRIBE": subscribes, "PSUBSCRIBE": subscribes, "SSUBSCRIBE": subscribes, "UNSUBSCRIBE": subscribes, "PUNSUBSCRIBE": subscribes,
		"SUNSUBSCRIBE": subscribes, "MONITOR": monitors, "RESET": resets, "SYNC": replicates, "PSYNC": replicates, "GET": 0, "": 0,
	} {
		command := commandReader{event: &pipeline.Event{Redis: &pipeline.RedisCommand{Command: name}}}
		if got := command.flags(); got != want {
			t.Errorf("%s has the flags %d, want %d", name, got, want)
		}
	}
}

// TestParserHoldsItsArguments: the memory budget is charged with them.
func TestParserHoldsItsArguments(t *testing.T) {
	if got := (&parser{argsBytes: 100}).Held(); got != 100 {
		t.Errorf("%d bytes are held, want 100", got)
	}
}
