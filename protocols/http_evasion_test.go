package protocols_test

import (
	"strings"
	"testing"

	"tidegate/protocols/all"
	"tidegate/protocols/protocoltest"
)

const fourBytes = "<HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nyes\n"

// TestAnyTokenIsAMethod: a server of Go's net/http calls its handler for any token of RFC 9110.
func TestAnyTokenIsAMethod(t *testing.T) {
	methods := []string{"GET1", "G3T", "foo", "Purge", "m-search", "1", "X.Y", "M!#$%'*", "a^b`c|d~e+f", strings.Repeat("A", 40)}
	for _, method := range methods {
		event := `http.request.method="` + method + `" url.original="/evil?x=../../etc/passwd"`
		for _, port := range []uint16{8080, 9000} {
			request := ">" + method + " /evil?x=../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n"
			told(t, dialogue(port, request, fourBytes), event)
			told(t, dialogue(port, ">GET /a HTTP/1.1\r\nHost: a\r\n\r\n", fourBytes, request, fourBytes), event)
			told(t, dialogue(port, ">GET /a HTTP/1.1\r\nHost: a\r\n\r\n"+request[1:], fourBytes+fourBytes[1:]), event)
		}
		behindAGap := dialogue(8080, ">GET /a HTTP/1.1\r\nHost: a\r\n\r\n", fourBytes, ">"+method+" /evil HTTP/1.1\r\nHost: a\r\n\r\n", fourBytes)
		lost := protocoltest.Step{Gap: 100}
		behindAGap.Steps = append(behindAGap.Steps[:2:2], append([]protocoltest.Step{lost}, behindAGap.Steps[2:]...)...)
		told(t, behindAGap, `http.request.method="`+method+`" url.original="/evil"`)
	}
}

// TestLongMethodIsCut: its head and its tail are kept, and the event says so.
func TestLongMethodIsCut(t *testing.T) {
	for _, size := range []int{300, 2047, 2048, 2049, 3000, 30_000} {
		ports := []uint16{8080, 9000}
		if size > 4000 {
			ports = ports[:1] // no protocol is recognised by so long a front
		}
		for _, port := range ports {
			conversation := dialogue(port, ">"+strings.Repeat("a", size)+"END /evil HTTP/1.1\r\nHost: a\r\n\r\n", fourBytes)
			events, _ := conversation.Cut(977).Play(all.Protocols)
			text := strings.Join(events, "\n")
			if len(events) != 1 || !strings.Contains(text, `END" url.original="/evil"`) || !strings.Contains(text, `tags=["truncated"]`) {
				t.Errorf("%d bytes to port %d: %s", size, port, shortened(text))
			}
		}
	}
}

// TestLineOfHTTP09IsARequest: nginx answers it at once and closes the connection.
func TestLineOfHTTP09IsARequest(t *testing.T) {
	const event = `http.request.method="GET" url.original="/evil?x=../../etc/passwd"`
	for _, port := range []uint16{80, 9000} {
		answers := []string{"<yes\n", "<1\n", "<END\n", "<<html><body>a longer answer of the server</body></html>\n", "<" + strings.Repeat("text ", 2000)}
		if port == 80 {
			answers = append(answers, "<END\r\n", "<+PONG\r\n", "<$3\r\nabc\r\n") // files whose first lines are those of other protocols
		}
		for _, answer := range answers {
			for _, line := range []string{">GET /evil?x=../../etc/passwd\r\n", ">GET /evil?x=../../etc/passwd\n", ">\r\n\r\nGET  /evil?x=../../etc/passwd \r\n"} {
				told(t, dialogue(port, line, answer), event)
			}
		}
	}
}
