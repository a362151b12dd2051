package http

import (
	"testing"

	"tidegate/pipeline/redact"
	"tidegate/protocols/protocoltest"
)

// TestContentLengthIsDigitsOnly: a length that servers refuse is no length.
func TestContentLengthIsDigitsOnly(t *testing.T) {
	for text, want := range map[string]uint64{"0": 0, "7": 7, "0012": 12, "123456789012345678": 123456789012345678} {
		if got, ok := parseDecimal([]byte(text)); !ok || got != want {
			t.Errorf("%q: %d, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "/", ":", "1/", "1:", "-1", "+1", "1 ", "1a", "0x1", "1234567890123456789"} {
		if got, ok := parseDecimal([]byte(text)); ok {
			t.Errorf("%q: %d", text, got)
		}
	}
}

// TestUserOfCutCredentials: of credentials that end within a character of base64, the whole characters count. A user without a password is hidden: it may be a token.
func TestUserOfCutCredentials(t *testing.T) {
	for credentials, want := range map[string]string{"YWI6x": redact.Marker, "YWI6": redact.Marker, "YWI6eA==": redact.Marker, "YWI": "", "YW": ""} {
		conversation := protocoltest.Conversation{Port: 80, Steps: []protocoltest.Step{
			protocoltest.Client("GET / HTTP/1.1\r\nAuthorization: Basic " + credentials + "\r\n\r\n"),
			protocoltest.Server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
		}}
		events := conversation.Events(list)
		if len(events) != 1 || events[0].Http.UserName != want {
			t.Errorf("%q: %v", credentials, events)
		}
	}
}
