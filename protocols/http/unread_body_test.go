package http

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

// unreadServer is a server whose handlers read no body, as those of Python's http.server for GET and HEAD. It prints
// its port, then each request that it executes.
const unreadServer = `
import http.server, socketserver
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        print(self.client_address[1], self.command, self.path, flush=True)
        self.send_response(200); self.send_header("Content-Length", "4"); self.end_headers()
        if self.command != "HEAD": self.wfile.write(b"yes\n")
    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = answer
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
`

// startUnread starts a server and returns its address and its output.
func startUnread(t *testing.T) (address string, output *bufio.Reader) {
	t.Helper()
	cmd := exec.Command("python3", "-c", unreadServer)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start python3, which deploy/setup-test.sh installs: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	output = bufio.NewReader(stdout)
	port, err := output.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return "127.0.0.1:" + strings.TrimSpace(port), output
}

// unreadBodies returns conversations by their names. The parts of a client are sent one after the other: each one
// behind a response.
func unreadBodies() map[string][]string {
	const evil = "GET /evil3?x=../../../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n"
	const last = "GET /last HTTP/1.1\r\nHost: a\r\n\r\n"
	all := map[string][]string{}
	for _, method := range []string{"GET", "HEAD", "DELETE", "OPTIONS", "POST", "PUT"} {
		head := func(length int) string {
			return fmt.Sprintf("%s /front HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", method, length)
		}
		whole := head(len(evil)) + evil
		all[method+" whole body"] = []string{whole + last}
		all[method+" body alone"] = []string{whole}
		all[method+" then last"] = []string{whole, last}
		all[method+" long body"] = []string{head(100_000), evil, "GET /evil4 HTTP/1.1\r\nHost: a\r\n\r\n"}
		all[method+" long body at once"] = []string{head(100_000) + evil + strings.ReplaceAll(evil, "evil3", "evil4")}
		all[method+" empty lines"] = []string{head(len(evil)*2) + evil + evil + last}
		for _, size := range []int{3, 4, 5, 9, 11, 40, 43, 50, len(evil) - 1} { // the body ends within the request
			all[fmt.Sprint(method, " cut at ", size)] = []string{head(size) + evil + last}
		}
		post := "POST /evil5 HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n"
		all[method+" nested"] = []string{head(len(post+evil)) + post + evil + last}
		all[method+" many"] = []string{head(100_000) + strings.Repeat(evil, 100)}
		all[method+" pipelined"] = []string{last + whole + last + whole + last}
		all[method+" HEAD within"] = []string{head(100_000), strings.Replace(evil, "GET", "HEAD", 1), evil, last}
		headed := strings.Replace(evil, "GET", "HEAD", 1)
		all[method+" HEAD then last"] = []string{head(len(headed)) + headed + last + last}
		all[method+" the front of a method"] = []string{head(4) + strings.Replace(evil, "GET", "DELETE", 1) + last}
		all[method+" HTTP/0.9"] = []string{head(12) + "GET /evil6\r\n"}
	}
	return all
}

// TestServerThatReadsNoBody: the requests that a real server finds in bodies are told.
func TestServerThatReadsNoBody(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a Python")
	}
	address, output := startUnread(t)
	for name, parts := range unreadBodies() {
		t.Run(name, func(t *testing.T) {
			conversation, port := converse(t, address, parts)
			var executed []string
			for _, done := range executedUntil(t, address, output) {
				if client, request, _ := strings.Cut(done, " "); client == port {
					executed = append(executed, request)
				}
			}
			if len(executed) < 2 {
				t.Fatalf("the server executed %q: the test is wrong", executed)
			}
			for _, cut := range []protocoltest.Conversation{conversation, conversation.Cut(1), conversation.Cut(7)} {
				checkExecuted(t, cut, executed)
			}
		})
	}
}

// converse sends the parts, each behind the response to the one before, and returns what both have sent.
func converse(t *testing.T, address string, parts []string) (conversation protocoltest.Conversation, port string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	answer := make([]byte, 64<<10)
	for i, part := range parts {
		if _, err := io.WriteString(conn, part); err != nil {
			t.Fatal(err)
		}
		conversation.Steps = append(conversation.Steps, protocoltest.Client(part))
		if i == len(parts)-1 {
			break
		}
		size, err := conn.Read(answer)
		if err != nil {
			t.Fatal(err)
		}
		conversation.Steps = append(conversation.Steps, protocoltest.Server(string(answer[:size])))
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	rest, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	conversation.Steps = append(conversation.Steps, protocoltest.Server(string(rest)))
	_, port, _ = net.SplitHostPort(conn.LocalAddr().String())
	conversation.Port = 8000
	return conversation, port
}

// executedUntil returns what the server has executed until it executes a request of its own.
func executedUntil(t *testing.T, address string, output *bufio.Reader) (lines []string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /until HTTP/1.0\r\n\r\n")
	for {
		line, err := output.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(line, " /until\n") {
			return lines
		}
		lines = append(lines, strings.TrimSpace(line))
	}
}

// checkExecuted checks that each request that was executed is an event, and each other event is ambiguous.
func checkExecuted(t *testing.T, conversation protocoltest.Conversation, executed []string) {
	t.Helper()
	var told []string
	isMarked := false
	set := protocols.NewSet(list, protocols.Default(), nil)
	conversation.Emit(set, func(event *pipeline.Event) {
		told = append(told, event.Http.Method+" "+event.Http.UrlOriginal)
		isMarked = isMarked || slices.Contains(event.Tags, pipeline.TagAmbiguous) && event.Partial
	})
	left := slices.Clone(told)
	for _, request := range executed {
		at := slices.Index(left, request)
		if at < 0 {
			t.Fatalf("%q is not told; the server executed\n\t%s\ntold are\n\t%s", request,
				strings.Join(executed, "\n\t"), strings.Join(told, "\n\t"))
		}
		left = slices.Delete(left, at, at+1)
	}
	if !isMarked {
		t.Errorf("no event is ambiguous: %q", told)
	}
}

// TestBodiesThatAreReadAreNoRequests: a server that reads bodies sends one response a request. The requests in the body
// of a POST are not told then; those in the content of a GET, which has no meaning, are ambiguous, and so is the GET.
func TestBodiesThatAreReadAreNoRequests(t *testing.T) {
	tagged := func(event *pipeline.Event) string { return fmt.Sprint(short(event), event.Tags) }
	const body = "GET /inner HTTP/1.1\r\nHost: x\r\n\r\n"
	request := func(method string) string {
		return in(fmt.Sprintf("%s /outer HTTP/1.1\nContent-Length: %d\n\n", method, len(body))) + body
	}
	same(t, play(false, tagged, request("POST"), out(ok5), in(getB), out(empty)), "POST /outer 200 32/5[]", "GET /b 204[]")
	same(t, play(false, tagged, request("GET"), out(ok5), in(getB), out(empty)),
		"GET /outer 200 32/5 partial[ambiguous]", "GET /inner 0 partial[ambiguous]", "GET /b 204 partial[ambiguous]")
	same(t, play(false, tagged, request("GET")), "GET /outer 0 32/0 partial[ambiguous]", "GET /inner 0 partial[ambiguous]")
	for _, other := range []string{
		`{"query": "GET /x HTTP/1.1"}`, "a=b", "GET", "hello", "hello world\nGET /x HTTP/1.1\n", "\x00GET /x HTTP/1.1\n",
	} {
		head := in(fmt.Sprintf("GET /outer HTTP/1.1\nContent-Length: %d\n\n", len(other)))
		same(t, play(false, tagged, head+other, out(ok5), in(getB), out(empty)),
			fmt.Sprintf("GET /outer 200 %d/5[]", len(other)), "GET /b 204[]")
	}
	// A response that is sent unasked when the connection idles shows nothing.
	const unasked = "HTTP/1.1 408 Request Timeout\nContent-Length: 0\n\n"
	same(t, play(false, tagged, request("POST"), out(ok5), out(unasked)), "POST /outer 200 32/5[]", "408 partial[]")
}

// TestRequestsWithinBodiesAreBounded: of those that are held, some are kept and the last one says so.
func TestRequestsWithinBodiesAreBounded(t *testing.T) {
	inner := strings.Repeat("GET /inner HTTP/1.1\r\n\r\n", 10*maxInner)
	head := in(fmt.Sprintf("POST /outer HTTP/1.1\nContent-Length: %d\n\n", len(inner)))
	tagged := func(event *pipeline.Event) string { return fmt.Sprint(short(event), event.Tags) }
	events := play(false, tagged, head+inner, out(ok5), out(empty))
	if len(events) != maxInner+1 || !strings.Contains(strings.Join(events, ""), "truncated") {
		t.Errorf("%d events: %q", len(events), events)
	}
	var longest int
	long := strings.Repeat("a", 1<<20)
	for _, line := range []string{"GET /" + long, "GET / HTTP/1.1\r\nA: " + long, long} {
		observed, created := slices.Clone(list), &parser{}
		observed[0].New = func() protocols.Parser { return created }
		conversation := protocoltest.Conversation{}
		conn := protocols.NewSet(observed, protocols.Default(), nil).Open(conversation.Info(), func(*pipeline.Event) {})
		conn.Data(protocols.Client, []byte("GET /outer HTTP/1.1\r\nContent-Length: 9000000\r\n\r\n"), 1)
		for part := range slices.Chunk(bytes.Repeat([]byte(line+"\r\n"), 3), 1400) {
			conn.Data(protocols.Client, part, 2)
			longest = max(longest, created.Held())
		}
		conn.Close(3)
	}
	if longest > 4*maxHead {
		t.Errorf("%d bytes are held", longest)
	}
}
