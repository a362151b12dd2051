//go:build linux

package differential

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
)

const unreadPort = 8001 // of a server that reads no body

// unreadSubject is Python's http.server with handlers that read no body: it executes the bodies of requests.
func unreadSubject() *subject {
	return &subject{
		name: "unread", ports: []int{unreadPort}, share: 2, same: sameRequest,
		start: func(l *lab) {
			read := `        self.rfile.read(int(self.headers.get("Content-Length") or 0))` + "\n"
			l.start("unread.log", "python3", "-c", strings.Replace(pythonServer, read, "", 1), fmt.Sprint(unreadPort))
			l.waitTCP(unreadPort)
		},
		converse: converseUnread,
		log:      func(l *lab) map[clientKey][]executed { return accessLog(l, "unread.log", 0) },
	}
}

// converseUnread sends requests with requests in their bodies.
func converseUnread(random *rand.Rand, host, marker string) (conversation, error) {
	conn, local, err := dial(host, unreadPort)
	if err != nil {
		return conversation{}, err
	}
	defer func() { _ = conn.Close() }()
	c := conversation{client: local}
	var forms []string
	count := 0
	request := func(methods ...string) string {
		count++
		method := pick(random, methods...)
		return fmt.Sprintf("%s /%s%dq?x=../../etc/passwd HTTP/1.1\r\nHost: a\r\n", method, marker, count)
	}
	for range pick(random, 1, 1, 2, 4) {
		var inner string
		for range pick(random, 0, 1, 1, 2, 5, 20) {
			inner += request("GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS") + pick(random, "", "", "X: y\r\n", "Via: 1.1 GET / HTTP/1.1\r\n", "User-Agent: a\r\n") + "\r\n"
		}
		length := pick(random, len(inner), len(inner), len(inner), len(inner)/2, max(len(inner)-1, 0), min(len(inner), 9), 100_000)
		head := request("GET", "GET", "HEAD", "DELETE", "OPTIONS", "POST", "PUT") + pick(random, "", "Expect: 100-continue\r\n") + fmt.Sprintf("Content-Length: %d\r\n\r\n", length)
		forms = append(forms, fmt.Sprintf("body of %d with %d", length, len(inner)))
		parts := []string{head + inner}
		if inner != "" && chance(random, 40) {
			parts = []string{head, inner}
		}
		for _, part := range parts {
			c.written = append(c.written, part...)
			name, err := writeSegments(conn, random, []byte(part))
			forms = append(forms, name)
			c.form = strings.Join(forms, ", ")
			if err != nil || chance(random, 50) && readSome(conn) != nil {
				return c, nil // the server has ended the connection, as it may
			}
		}
	}
	_ = conn.CloseWrite()
	if _, err = io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		return c, err
	}
	return c, nil
}
