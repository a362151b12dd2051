package alerts

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"tidegate/pipeline"
)

// A httpSender sends bodies to one URL.
type httpSender struct {
	url      string
	header   http.Header
	username string
	password string
	client   *http.Client
}

// rejectedError is an answer that says that this body will never be taken.
type rejectedError struct{ text string }

func (r *rejectedError) Error() string { return r.text }

// retryAfterError is an answer that says when to come again.
type retryAfterError struct {
	after time.Duration
	error
}

func (d *retryAfterError) Unwrap() error { return d.error }

func newHTTPSender(h HTTP, path string, timeout time.Duration) (*httpSender, error) {
	p := &httpSender{url: strings.TrimSuffix(h.URL, "/") + path, header: http.Header{}, username: h.Username}
	if path == "" {
		p.url = h.URL
	}
	p.header.Set("Content-Type", "application/json")
	p.header.Set("User-Agent", "tidegate")
	for k, v := range h.Headers {
		p.header.Set(k, v)
	}
	var err error
	if p.password, err = pipeline.Secret(h.Password, h.PasswordFile); err != nil {
		return nil, fmt.Errorf("password_file: %w", err)
	}
	token, err := pipeline.Secret(h.Token, h.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("token_file: %w", err)
	}
	if token != "" {
		p.header.Set("Authorization", "Bearer "+token)
	}
	t, err := h.TLS.Config()
	if err != nil {
		return nil, fmt.Errorf("tls.%w", err)
	}
	p.client = &http.Client{
		Timeout:       timeout,
		Transport:     &http.Transport{TLSClientConfig: t, Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 4, IdleConnTimeout: 90 * time.Second, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return p, nil
}

// postBody sends one body. A refusal is an answer 4xx that is about this body; one about the password or the address is somebody's to
// repair, and passes then.
func (p *httpSender) postBody(ctx context.Context, body []byte, header http.Header) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for _, h := range []http.Header{p.header, header} {
		maps.Copy(req.Header, h)
	}
	if p.username != "" {
		req.SetBasicAuth(p.username, p.password)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
	if resp.StatusCode/100 == 2 {
		return nil
	}
	err = fmt.Errorf("answer %s: %s", resp.Status, strings.TrimSpace(strings.ToValidUTF8(string(text), "")))
	switch c := resp.StatusCode; {
	case c == http.StatusTooManyRequests || c == http.StatusServiceUnavailable:
		return &retryAfterError{parseRetryAfter(resp.Header.Get("Retry-After"), time.Now()), err}
	case c == 401 || c == 403 || c == 404 || c == 407 || c == 408 || c == 425:
		return err
	case c/100 == 4:
		return &rejectedError{err.Error()}
	}
	return err
}

// parseRetryAfter reads seconds or a date; at most five minutes are believed.
func parseRetryAfter(s string, now time.Time) time.Duration {
	d := time.Duration(0)
	if n, err := strconv.Atoi(strings.TrimSpace(s)); err == nil {
		d = time.Duration(min(max(n, 0), 3600)) * time.Second
	} else if t, err := http.ParseTime(s); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), 5*time.Minute)
}
