package embedded

import (
	"bytes"
	"container/list"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Limits of the port for queries. Any process of the host may connect to it.
const (
	maxQueryConnections = 1024 // of clients; some 20 KB each
	maxQueriesAtServer  = 100  // connections to the server; more requests wait
	maxLongRequests     = 50   // of them, with a body longer than maxShortBody
	maxShortBody        = 64 << 10
	requestTimeout      = 5 * time.Second
	answerTimeout       = time.Minute
	idleTimeout         = 30 * time.Second
	maxRequestHeader    = 64 << 10
)

// A queryPort is the HTTP port of the store for people and their tools. It hands on whole requests to the server, which
// listens on a port of its own for this program.
//
// The server has a thread and a megabyte for each connection from its first byte on, and refuses connections when it has
// too many: clients that never send a request would keep out analysts and inserts. Here they take a few kilobytes for
// requestTimeout, and the oldest of them is closed when there are more than maxQueryConnections. Inserts do not pass.
type queryPort struct {
	listener net.Listener
	server   *http.Server
	evicted  prometheus.Counter

	mu      sync.Mutex
	waiting list.List                  // net.Conn without a whole request, the oldest first; guarded by mu
	entries map[net.Conn]*list.Element // of waiting; guarded by mu
	open    int                        // connections; guarded by mu
}

// newQueryPort serves a listener until Close. serverPort is the HTTP port of the server on 127.0.0.1.
func newQueryPort(listener net.Listener, serverPort int, evicted prometheus.Counter, log *slog.Logger) *queryPort {
	port := &queryPort{listener: listener, evicted: evicted, entries: map[net.Conn]*list.Element{}}
	target := url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(serverPort))}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&target)
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: requestTimeout}).DialContext,
			DisableCompression:     true, // the answer is handed on as it is
			MaxConnsPerHost:        maxQueriesAtServer,
			IdleConnTimeout:        idleTimeout / 2,
			MaxResponseHeaderBytes: 64 << 20, // progress is sent in headers
		},
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "the embedded ClickHouse does not answer: "+err.Error(), http.StatusServiceUnavailable)
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	port.server = &http.Server{
		Handler:           port.handOnWholeRequests(proxy),
		ReadHeaderTimeout: requestTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxRequestHeader,
		ConnState: port.followState,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, conn)
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	go func() { _ = port.server.Serve(listener) }()
	return port
}

// Close closes the port and its connections.
func (p *queryPort) Close() { _ = p.server.Close() }

// connKey is the key of the net.Conn in the context of a request.
type connKey struct{}

// followState keeps the list of connections that wait for a request, and closes the oldest of them beyond the limit.
func (p *queryPort) followState(conn net.Conn, state http.ConnState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch state {
	case http.StateNew:
		p.open++
		p.entries[conn] = p.waiting.PushBack(conn)
		if p.open > maxQueryConnections {
			oldest := p.waiting.Front().Value.(net.Conn) // the new one, if all others have requests
			_ = oldest.Close()
			p.removeWaiting(oldest)
			p.evicted.Inc()
		}
	case http.StateIdle:
		p.removeWaiting(conn)
		p.entries[conn] = p.waiting.PushBack(conn)
	case http.StateClosed, http.StateHijacked:
		p.open--
		p.removeWaiting(conn)
	}
}

// removeWaiting removes a connection from the list. p.mu is held.
func (p *queryPort) removeWaiting(conn net.Conn) {
	if entry := p.entries[conn]; entry != nil {
		p.waiting.Remove(entry)
		delete(p.entries, conn)
	}
}

// endWaiting removes the connection of a request from the list: the request is handed on.
func (p *queryPort) endWaiting(r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.removeWaiting(r.Context().Value(connKey{}).(net.Conn))
}

// handOnWholeRequests returns a handler that reads a body before it calls next. Of bodies longer than maxShortBody it
// reads the beginning, and calls next for maxLongRequests of them at a time.
func (p *queryPort) handOnWholeRequests(next http.Handler) http.Handler {
	long := make(chan struct{}, maxLongRequests)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		answer := timedAnswer{w, control}
		if r.Body == http.NoBody {
			p.endWaiting(r)
			next.ServeHTTP(answer, r)
			return
		}
		body := timedBody{r.Body, control}
		beginning, err := io.ReadAll(io.LimitReader(body, maxShortBody))
		if err != nil {
			http.Error(w, "read the request: "+err.Error(), http.StatusRequestTimeout)
			return
		}
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(beginning), body), body}
		if len(beginning) == maxShortBody {
			select {
			case long <- struct{}{}:
				defer func() { <-long }()
			case <-time.After(requestTimeout):
				http.Error(w, "too many requests with a long body", http.StatusServiceUnavailable)
				return
			}
		}
		p.endWaiting(r)
		next.ServeHTTP(answer, r)
	})
}

// A timedBody ends with an error when the client sends nothing for requestTimeout.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b timedBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(requestTimeout))
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		// A read in the background notices that the client leaves, and would take the deadline for that.
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// A timedAnswer ends with an error when the client reads nothing for answerTimeout.
type timedAnswer struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (a timedAnswer) Write(p []byte) (int, error) {
	_ = a.control.SetWriteDeadline(time.Now().Add(answerTimeout))
	return a.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (a timedAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// listenForQueries listens on a port of 127.0.0.1, or on a free one where port is 0.
func listenForQueries(ctx context.Context, port int) (net.Listener, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	return listener, listenError("ClickHouse", "embedded.store.http_port", port, err)
}
