package redis

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
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
	p, events := opened(false)
	held := func(what string, want int) {
		t.Helper()
		if got := p.Held(); got != want {
			t.Errorf("%s: %d bytes are held, want %d", what, got, want)
		}
	}
	held("nothing", 0)
	p.send(t, "GET", "abc")
	held("one", protocols.EventBytes+3)
	p.send(t, "SET", "a", "bc")
	p.send(t, "PING")
	held("three", 3*protocols.EventBytes+6)
	p.answer(t, "$-1\r\n")
	held("two", 2*protocols.EventBytes+3)
	p.answer(t, "+OK\r\n+PONG\r\n")
	held("all are answered", 0)
	words := make([]string, 30)
	for i := range words {
		words[i] = "word"
	}
	p.send(t, append([]string{"MGET"}, words...)...) // the first ones and the last ones are kept
	held("a long one", protocols.EventBytes+4*maxArgs)
	p.answer(t, "*0\r\n")
	held("it is answered", 0)
	if args := (*events)[3].Redis.Args; len(args) != maxArgs {
		t.Errorf("%d arguments are kept", len(args))
	}

	p.send(t, "GET", "abc")
	if p.Reset(p.conn); p.pairing.Len() != 0 || p.Held() != 0 {
		t.Errorf("a new connection: %d commands wait, %d bytes are held", p.pairing.Len(), p.Held())
	}
}

// TestCommandsWithoutRepliesAreBounded: the oldest one is emitted, and counted.
func TestCommandsWithoutRepliesAreBounded(t *testing.T) {
	reg := prometheus.NewRegistry()
	conversation := protocoltest.Conversation{Port: 6379}
	events := 0
	conn := protocols.NewSet(list, protocols.Default(), reg).Open(conversation.Info(), func(event *pipeline.Event) {
		if events++; !event.Partial || event.Duration != 0 {
			t.Errorf("%v", event)
		}
	})
	command := []byte(resp("GET", "a"))
	for range maxWaiting + 3 {
		conn.Data(protocols.Client, command, 1)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := 0.0
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if label.GetValue() == "too_many_waiting" {
					counted += metric.GetCounter().GetValue()
				}
			}
		}
	}
	if events != 3 || counted != 3 {
		t.Errorf("%d commands are emitted, %v counted", events, counted)
	}
}
