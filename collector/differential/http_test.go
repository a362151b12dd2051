//go:build linux

package differential

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"tidegate/pipeline"
)

const (
	nginxPort       = 80
	nginxOtherPort  = 9000 // a port that hints at no protocol
	nginxInjectPort = 81   // packets are injected into the connections to this port
	goPort          = 8080
	pythonPort      = 8000
)

const nginxConfig = `user root; pid %[1]s/nginx.pid; error_log %[1]s/nginx.err; daemon off; master_process off; events {}
http {
 log_format oracle escape=json '{"client":"$remote_addr","port":$remote_port,"server":$server_port,"line":"$request","status":$status}';
 access_log %[1]s/access.log oracle;
 client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u;
 scgi_temp_path %[1]s/s;
 large_client_header_buffers 8 64k; client_header_buffer_size 16k; ignore_invalid_headers off; merge_slashes off;
 server { listen %[2]d; listen %[3]d; listen %[4]d; listen [::]:%[2]d; listen [::]:%[3]d; listen [::]:%[4]d; location / { return 200 "yes\n"; }
  location /none { return 204; } location /same { return 304; } location /moved { return 301 /x; } }
}
`

// accessLine is a line of the logs of the HTTP servers.
type accessLine struct {
	Client string
	Port   int
	Server int // port of the server, 0 where it has only one
	Line   string
	Status int
}

// accessLog reads the accessLines of a log that are of the given ports of the server.
func accessLog(l *lab, name string, servers ...int) map[clientKey][]executed {
	logged := map[clientKey][]executed{}
	for text := range bytes.SplitSeq(l.read(name), []byte("\n")) {
		var line accessLine
		if err := json.Unmarshal([]byte(validText(text)), &line); err != nil && bytes.Contains(text, []byte(`"client"`)) {
			l.t.Errorf("%s: a line of the log cannot be read: %v: %q", name, err, text)
		} else if err != nil || line.Line == "" || !slices.Contains(servers, line.Server) {
			continue
		}
		client := keyOfText(line.Client, fmt.Sprint(line.Port))
		logged[client] = append(logged[client], executed{text: requestLine(line.Line), refused: line.Status >= 400})
	}
	return logged
}

// validText returns text in which each byte that is no valid UTF-8 is escaped for JSON, as in events.
func validText(text []byte) string {
	var out strings.Builder
	for len(text) > 0 {
		char, size := utf8.DecodeRune(text)
		if char == utf8.RuneError && size == 1 {
			fmt.Fprintf(&out, `\\x%02x`, text[0])
		} else {
			out.Write(text[:size])
		}
		text = text[size:]
	}
	return out.String()
}

// requestLine returns "METHOD target" of a request line as a server logs it.
func requestLine(line string) string {
	words := strings.FieldsFunc(line, func(c rune) bool { return c <= ' ' })
	if len(words) > 2 && strings.HasPrefix(words[len(words)-1], "HTTP/") {
		words = words[:len(words)-1]
	}
	return strings.Join(words, " ")
}

func sameRequest(e observed, logged executed) bool {
	return e.dataset == pipeline.Dataset_HTTP && e.text == logged.text
}

func nginxSubject() *subject {
	return &subject{
		name: "nginx", ports: []int{nginxPort, nginxOtherPort}, share: 4, same: sameRequest,
		start: func(l *lab) {
			conf := l.write("nginx.conf", fmt.Sprintf(nginxConfig, l.dir, nginxPort, nginxOtherPort, nginxInjectPort))
			l.start("nginx.out", "nginx", "-c", conf, "-e", filepath.Join(l.dir, "nginx.err"))
			l.waitTCP(nginxPort)
		},
		converse: func(random *rand.Rand, host, marker string) (conversation, error) {
			return converseHTTP(random, host, pick(random, nginxPort, nginxOtherPort), marker, looseHTTP)
		},
		log: func(l *lab) map[clientKey][]executed { return accessLog(l, "access.log", nginxPort, nginxOtherPort) },
	}
}

// goSubject is net/http in this process. Its log has the form of nginx's.
func goSubject() *subject {
	var mu sync.Mutex
	logged := map[clientKey][]executed{}
	return &subject{
		name: "net/http", ports: []int{goPort}, share: 2, same: sameRequest,
		start: func(l *lab) {
			listener, err := net.Listen("tcp", fmt.Sprint(":", goPort)) // of both versions of IP
			if err != nil {
				l.t.Fatal(err)
			}
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				remote, _ := netip.ParseAddrPort(r.RemoteAddr)
				mu.Lock()
				defer mu.Unlock()
				client := keyOfClient(remote)
				logged[client] = append(logged[client], executed{text: r.Method + " " + strings.ReplaceAll(validText([]byte(r.RequestURI)), `\\`, `\`)})
				fmt.Fprintln(w, "yes")
			})
			server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, DisableGeneralOptionsHandler: true}
			go func() { _ = server.Serve(listener) }()
			l.t.Cleanup(func() { _ = server.Close() })
		},
		converse: func(random *rand.Rand, host, marker string) (conversation, error) {
			return converseHTTP(random, host, goPort, marker, strictHTTP)
		},
		log: func(*lab) map[clientKey][]executed {
			mu.Lock()
			defer mu.Unlock()
			return logged
		},
	}
}

const pythonServer = `
import http.server, json, os, socket, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        client = self.client_address[0].removeprefix("::ffff:")
        line = {"client": client, "port": self.client_address[1], "line": self.requestline.encode("latin-1").decode("utf-8", "backslashreplace"), "status": 200}
        os.write(1, ("\n" + json.dumps(line) + "\n").encode())  # in one call, behind what a thread has written to stderr
        self.send_response(200); self.send_header("Content-Length", "4"); self.end_headers()
        if self.command != "HEAD": self.wfile.write(b"yes\n")
    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = answer
    def log_message(self, *args): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6  # and IPv4 with it
    def server_bind(self): socketserver.TCPServer.server_bind(self)  # without a look-up of the host's name
Server(("::", int(sys.argv[1])), Handler).serve_forever()
`

func pythonSubject() *subject {
	return &subject{
		name: "http.server", ports: []int{pythonPort}, share: 2, same: sameRequest,
		start: func(l *lab) {
			l.start("python.log", "python3", "-c", pythonServer, fmt.Sprint(pythonPort))
			l.waitTCP(pythonPort)
		},
		converse: func(random *rand.Rand, host, marker string) (conversation, error) {
			return converseHTTP(random, host, pythonPort, marker, pythonHTTP)
		},
		log: func(l *lab) map[clientKey][]executed { return accessLog(l, "python.log", 0) },
	}
}

// An httpDialect holds the forms that a kind of server takes.
type httpDialect struct {
	spaces []string // between the words of the request line
	chunks bool     // the server reads chunked bodies
	folds  bool     // the server reads fields of several lines
	old    bool     // the server reads requests of HTTP/0.9
	// lengths is set if the server reads lengths as the int() of Python does.
	lengths bool
}

var (
	looseHTTP  = httpDialect{spaces: []string{" ", " ", " ", "  ", "    "}, chunks: true, old: true}
	strictHTTP = httpDialect{spaces: []string{" "}, chunks: true, folds: true}
	pythonHTTP = httpDialect{spaces: []string{" ", " ", "\t", "\v", "\f", " \t "}, folds: true, old: true, lengths: true}
)

// converseHTTP sends some requests on one connection and reads until the server closes it or has answered.
func converseHTTP(random *rand.Rand, host string, port int, marker string, dialect httpDialect) (conversation, error) {
	conn, local, err := dial(host, port)
	if err != nil {
		return conversation{}, err
	}
	defer func() { _ = conn.Close() }()
	c := conversation{client: local}

	// Requests follow one another with and without waiting for the answer.
	count := pick(random, 1, 1, 2, 3, 8)
	pipelined := chance(random, 50)
	var forms []string
	var pending []byte
	for i := range count {
		request, form := httpRequest(random, fmt.Sprintf("%s%dq", marker, i), dialect, i == count-1)
		if chance(random, 15) {
			request, form = oddRequest(random, fmt.Sprintf("%s%dq", marker, i), dialect)
		}
		pending = append(pending, request...)
		forms = append(forms, form)
		if pipelined && i < count-1 {
			continue
		}
		c.written = append(c.written, pending...)
		name, err := writeSegments(conn, random, pending)
		pending = nil
		forms = append(forms, name)
		if err != nil || !pipelined && i < count-1 && readSome(conn) != nil {
			break // the server has ended the connection, as it may
		}
	}
	c.form = strings.Join(forms, ", ")
	_ = conn.CloseWrite()
	_, err = io.Copy(io.Discard, conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return c, err
	}
	return c, nil
}

// readSome reads what the server sends next.
func readSome(conn net.Conn) error {
	_, err := conn.Read(make([]byte, 64<<10))
	return err
}

// httpRequest returns a request whose target contains marker, at its end where it is padded.
func httpRequest(random *rand.Rand, marker string, dialect httpDialect, last bool) ([]byte, string) {
	var forms []string
	form := func(text string) { forms = append(forms, text) }
	var out bytes.Buffer

	// 1. What stands in front of the request line.
	switch {
	case chance(random, 10):
		count := pick(random, 1, 2, 30, 3000)
		form(fmt.Sprint(count, " CRLF in front"))
		out.WriteString(strings.Repeat("\r\n", count))
	case chance(random, 5):
		form("LF in front")
		out.WriteString("\n")
	}

	// 2. The request line.
	lineEnd := pick(random, "\r\n", "\r\n", "\r\n", "\n")
	method := pick(random, "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
	target, targetForm := httpTarget(random, marker)
	version := pick(random, "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0")
	if last && dialect.old && len(target) < 1000 && chance(random, 20) {
		out.WriteString("GET " + target + lineEnd)
		return out.Bytes(), strings.Join(append(forms, targetForm, "HTTP/0.9"), ", ")
	}
	first, second := pick(random, dialect.spaces...), pick(random, dialect.spaces...)
	form(fmt.Sprintf("%s%q%s%q%s%q", method, first, targetForm, second, version, lineEnd))
	out.WriteString(method + first + target + second + version + lineEnd)

	// 3. Headers.
	var headers []string
	headers = append(headers, "Host: "+pick(random, "shop.example", "shop.example:8080", "10.0.0.1"))
	for range random.IntN(6) {
		headers = append(headers, pick(random,
			"User-Agent: test/1.0", "X-Empty:", "X-Spaces:   \t  value \t", "Accept: */*", "X-Long: "+strings.Repeat("v", 3000),
			"x-lower: 1", "X-UPPER: 1", "uSeR-aGeNt: mixed", "Expect: 100-continue", "Connection: keep-alive, X-Empty", "TE: trailers", "Cookie: a=b; c=d", "X-Colon: a: b: c", "Accept-Encoding: gzip", "Via: 1.1 GET / HTTP/1.1"))
	}

	// A field may go on in the next line (obs-fold).
	if dialect.folds && chance(random, 20) {
		form("folded")
		headers = append(headers, "X-Folded: a"+lineEnd+pick(random, " ", "\t", " \t ")+"b: c", "User-Agent:"+lineEnd+" folded/1.0")
	}

	// 4. The body.
	var body string
	if method == "POST" || method == "PUT" || chance(random, 10) {
		content := pick(random, "", "a=b", "GET /not-a-request HTTP/1.1\r\nHost: x\r\n\r\n", strings.Repeat("z", 20_000))
		if dialect.chunks && chance(random, 40) {
			form("chunked")
			headers = append(headers, "Transfer-Encoding: chunked")
			body = chunked(random, content)
		} else {
			fold := " "
			if dialect.folds && chance(random, 10) {
				form("folded length")
				fold = lineEnd + pick(random, " ", "\t")
			}
			length := fmt.Sprint(len(content))
			if dialect.lengths && len(content) > 9 && chance(random, 10) {
				form("odd length")
				length = pick(random, "+"+length, "00"+length, length[:1]+"_"+length[1:], "+00"+length)
			}
			headers = append(headers, fmt.Sprint("Content-Length:", fold, length))
			body = content
		}
	}
	if last && chance(random, 50) {
		headers = append(headers, "Connection: close")
	} else if version == "HTTP/1.0" {
		headers = append(headers, "Connection: keep-alive")
	}
	random.Shuffle(len(headers), func(i, j int) { headers[i], headers[j] = headers[j], headers[i] })
	out.WriteString(strings.Join(headers, lineEnd) + lineEnd + lineEnd + body)
	return out.Bytes(), strings.Join(forms, ", ")
}

// oddRequest returns a request whose framing, or whose place in the connection, parsers disagree about.
func oddRequest(random *rand.Rand, marker string, dialect httpDialect) ([]byte, string) {
	content := pick(random, "", "a=b", "GET /not-a-request HTTP/1.1\r\nHost: x\r\n\r\n", strings.Repeat("z", 5000))
	method := pick(random, "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS")
	target := "/" + pick(random, "", "", "none/", "same/", "moved/") + marker
	version := "HTTP/1.1"
	length := fmt.Sprintf("Content-Length: %d\r\n", len(content))
	fields, body, form := "", "", ""
	switch random.IntN(15) {
	case 0:
		form = "WebSocket"
		method = "GET"
		fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
	case 1:
		form = "h2c"
		fields = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
	case 2:
		form = "TLS upgrade"
		fields, body = "Connection: upgrade\r\nUpgrade: TLS/1.2, x\r\n"+length, content
	case 3:
		form = "expectation"
		fields, body = pick(random, "Expect: 100-Continue\r\n", "Expect: other\r\n", "Expect:\r\n", "Expect: 100-continue, x\r\n")+length, content
	case 4:
		form = "length twice"
		fields, body = length+pick(random, length, strings.ToLower(length), "X: y\r\n"+length), content
	case 5:
		form = "transfer encoding"
		fields = pick(random, "transfer-encoding: Chunked\r\n", "Transfer-Encoding:\tchunked\r\n", "Transfer-Encoding: chunked \t\r\n",
			"Transfer-Encoding: identity\r\n", "Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding: \"chunked\"\r\n",
			"Transfer-Encoding: chunked, chunked\r\n", "Transfer-Encoding: xchunked\r\n", "Transfer-Encoding:chunked\r\n",
			"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "Transfer_Encoding: chunked\r\n",
			"Transfer-Encoding : chunked\r\n", "X: y\r\n Transfer-Encoding: chunked\r\n")
		body = chunked(random, content)
	case 6:
		form = "length and chunks"
		fields, body = length+"Transfer-Encoding: chunked\r\n", chunked(random, content)
	case 7:
		form = "absolute"
		target = pick(random, "http://a", "HTTP://a:80", "https://a", "http://[::1]") + target
	case 8:
		form = "asterisk"
		method, target = "OPTIONS", "*"
	case 9:
		form = "CONNECT"
		method, target = "CONNECT", marker+".example:443"
	case 10:
		form = "version"
		version = pick(random, "HTTP/1.2", "HTTP/1.9", "HTTP/1.01", "HTTP/01.1", "HTTP/1.10", "HTTP/2.0", "HTTP/0.9", "HTTP/1", "http/1.1", "HTTP/1.1 ")
	case 11:
		form = "bad chunks"
		fields = "Transfer-Encoding: chunked\r\n"
		body = pick(random, "5\nabcde\n0\n\n", "5 \r\nabcde\r\n0\r\n\r\n", "5;\r\nabcde\r\n0;x\r\n\r\n", "5;a=\"b;c\"\r\nabcde\r\n0\r\n\r\n",
			"0x5\r\nabcde\r\n0\r\n\r\n", "+5\r\nabcde\r\n0\r\n\r\n", "5\r\nabcde0\r\n\r\n", "\r\n0\r\n\r\n", "000000000000000005\r\nabcde\r\n0\r\n\r\n",
			"5\r\nabcde\r\n0\r\nContent-Length: 9\r\nX: GET / HTTP/1.1\r\n\r\n", "5\r\nabcde\r\n00\r\n\r\n", "5\rabcde\r\n0\r\n\r\n", "-1\r\n\r\n",
			"5\t;x\r\nabcde\r\n0\r\nX\n\n", "5\r\nabcde\r\n\r\n")
	case 12:
		form = "odd fields"
		fields = pick(random, "no colon\r\n", ": no name\r\n", "X : y\r\n", "X\x00: y\r\n", "X: a\x00b\r\n", "X: a\rb\r\n", "\tX: y\r\n", "X_Y: z\r\n", "Host: b\r\n",
			"X: \xff\xfe\r\n", "Content-Length:\r\n", "Content-Length: 0\r\n", "Content-Length: -1\r\n", "Content-Length: 0x2\r\n", "Content-Length : 2\r\n",
			"\r", "Connection: close, keep-alive\r\n", "Connection: x\r\nConnection: close\r\n", strings.Repeat("X: y\r\n", 99))
	case 13:
		form = "odd line"
		target += pick(random, "\xff\xfe", "\x7f", "%00", "%", "?", "\\..\\", "\"", "{}|^`", "\u00a0", " b", "\tb", "#a b")
	default:
		form = "HTTP/1.0 without keep-alive"
		version = "HTTP/1.0"
	}
	if !dialect.chunks && strings.Contains(body, "\r\n0\r\n") && chance(random, 70) {
		fields, body = "", "" // the server reads the chunks as requests
	}
	lineEnd := pick(random, "\r\n", "\r\n", "\n")
	request := fmt.Sprintf("%s %s %s%sHost: a\r\n%s\r\n%s", method, target, version, lineEnd, fields, body)
	return []byte(request), fmt.Sprintf("odd: %s %q", form, shorten(request, 200))
}

// httpTarget returns a request target that contains marker.
func httpTarget(random *rand.Rand, marker string) (target, form string) {
	switch random.IntN(10) {
	case 0:
		return "http://shop.example/" + marker, "absolute"
	case 1:
		return "//" + marker, "two slashes"
	case 2:
		return "/%2e%2e/%2E%2e/etc/passwd?" + marker, "percent"
	case 3:
		padding := pick(random, 2000, 5000, 9000, 30_000)
		return "/?a=" + strings.Repeat("x", padding) + "&b=" + marker, fmt.Sprint("padded by ", padding)
	case 4:
		return "/" + marker + "?q=<script>&r='--&s=${jndi:ldap://x}", "attack"
	case 5:
		return "/" + marker + "#fragment", "fragment"
	case 6:
		return "/a;b=c/" + marker + "?&&==", "odd query"
	default:
		return "/" + marker, "path"
	}
}

// chunked returns content in chunks, in the odd forms that servers take.
func chunked(random *rand.Rand, content string) string {
	var out strings.Builder
	for content != "" {
		length := 1 + random.IntN(len(content))
		size := fmt.Sprintf(pick(random, "%x", "%X", "00%x", "%x;name=value"), length)
		out.WriteString(size + "\r\n" + content[:length] + "\r\n")
		content = content[length:]
	}
	out.WriteString("0\r\n" + pick(random, "", "", "X-Trailer: 1\r\n") + "\r\n")
	return out.String()
}
