package mysql_test

import (
	"strings"
	"testing"

	"tidegate/protocols"
	"tidegate/protocols/mysql"
	"tidegate/protocols/protocoltest"
)

// TestLongPreparedStatementIsTheSameWhenItIsExecuted: its head and its tail, as at its preparation.
func TestLongPreparedStatementIsTheSameWhenItIsExecuted(t *testing.T) {
	packet := func(seq byte, payload string) string {
		size := len(payload)
		return string([]byte{byte(size), byte(size >> 8), byte(size >> 16), seq}) + payload
	}
	text := "SELECT '" + strings.Repeat("a", 60_000) + "' FROM the_end"
	conversation := protocoltest.Conversation{Port: 3306, Steps: []protocoltest.Step{
		protocoltest.Client(packet(0, "\x16"+text)),
		protocoltest.Server(packet(1, "\x00\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")),
		protocoltest.Client(packet(0, "\x17\x07\x00\x00\x00\x00\x01\x00\x00\x00")),
		protocoltest.Server(packet(1, "\x00\x00\x00\x02\x00\x00\x00")),
	}}
	events := conversation.Events([]protocols.Protocol{mysql.Protocol})
	if len(events) != 2 {
		t.Fatalf("%d events, want 2", len(events))
	}
	prepared, executed := events[0].Mysql, events[1].Mysql
	if !strings.HasPrefix(prepared.Query, "SELECT") || !strings.HasSuffix(prepared.Query, "FROM the_end") || len(prepared.Query) >= len(text) {
		t.Errorf("prepared %.20q … %d bytes", prepared.Query, len(prepared.Query))
	}
	if executed.Command != "COM_STMT_EXECUTE" || executed.StatementId != 7 || executed.Query != prepared.Query || executed.Method != "SELECT" {
		t.Errorf("%s of %d: %d bytes, method %q; %d were prepared", executed.Command, executed.StatementId, len(executed.Query), executed.Method, len(prepared.Query))
	}
}
