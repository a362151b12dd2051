package alerts

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"tidegate/pipeline/config"
)

// An httpSender posts JSON bodies to one URL.
type httpSender struct {
	url      string
	header   http.Header
	username string // "": no basic authentication
	password string
	secrets  *strings.Replacer // removes the secrets of the URL and the headers from a text
	client   *http.Client
}

// A rejectedError means that the destination will never accept the body.
type rejectedError struct{ text string }

func (e *rejectedError) Error() string { return e.text }

// A responseError is a response that neither accepts nor rejects the body.
type responseError struct {
	text       string
	retryAfter time.Duration // pause that the destination requests; 0: none
}

func (e *responseError) Error() string { return e.text }

// newHTTPSender returns a sender to path below the URL of the configuration. It reads the files of secrets
// and certificates.
func newHTTPSender(cfg HTTP, path string, timeout time.Duration) (*httpSender, error) {
	sender := &httpSender{url: cfg.URL, header: http.Header{}, username: cfg.Username}
	if path != "" {
		sender.url = strings.TrimSuffix(cfg.URL, "/") + path
	}

	// The configured headers come last: they may replace those of tidegate, except for the token.
	sender.header.Set("Content-Type", "application/json")
	sender.header.Set("User-Agent", "tidegate")
	for name, value := range cfg.Headers {
		sender.header.Set(name, value)
	}

	var err error
	if sender.password, err = config.Secret(cfg.Password, cfg.PasswordFile); err != nil {
		return nil, fmt.Errorf("password_file: %w", err)
	}
	token, err := config.Secret(cfg.Token, cfg.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("token_file: %w", err)
	}
	if token != "" {
		sender.header.Set("Authorization", "Bearer "+token)
	}

	sender.secrets = newSecretsReplacer(sender)
	tlsConfig, err := cfg.TLS.Load()
	if err != nil {
		return nil, config.WithPrefix("tls", err)
	}
	sender.client = &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			TLSClientConfig: tlsConfig, Proxy: http.ProxyFromEnvironment,
			MaxIdleConnsPerHost: 4, IdleConnTimeout: 90 * time.Second, ForceAttemptHTTP2: true,
		},
		// A redirect is not followed: it counts as an error of the destination.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return sender, nil
}

// newSecretsReplacer returns a replacer for what the errors of a sender must not show. The path and the query of
// a webhook's URL are often its only secret, and servers quote paths and headers in their errors.
func newSecretsReplacer(sender *httpSender) *strings.Replacer {
	secrets := []string{sender.password}
	for name, values := range sender.header {
		if name == "Content-Type" || name == "User-Agent" {
			continue
		}
		for _, value := range values {
			secrets = append(secrets, value)
			secrets = append(secrets, strings.Fields(value)...)
		}
	}
	if address, err := url.Parse(sender.url); err == nil {
		password, _ := address.User.Password()
		secrets = append(secrets, password, address.RequestURI(), address.Path, address.RawQuery, address.Fragment)
		for _, path := range []string{address.EscapedPath(), address.Path} {
			secrets = append(secrets, strings.Split(path, "/")...)
		}
		for _, values := range address.Query() {
			secrets = append(secrets, values...)
		}
	}

	// Shorter texts are words rather than secrets, and the path of an API is public.
	const minSecret = 5
	secrets = slices.DeleteFunc(secrets, func(text string) bool {
		return len(text) < minSecret || strings.Contains("/api/v2/alerts", text)
	})
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	pairs := make([]string, 0, 2*len(secrets))
	for _, secret := range secrets {
		pairs = append(pairs, secret, "REDACTED")
	}
	return strings.NewReplacer(pairs...)
}

// withoutURL returns the cause of an error of net/http, which itself quotes the whole URL.
func (s *httpSender) withoutURL(err error) error {
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err = failed.Err
	}
	return errors.New(s.secrets.Replace(err.Error()))
}

// maxErrorText bounds how much of an error response is read.
const maxErrorText = 1024

// postBody sends one body. It returns a *rejectedError for a 4xx response that is about this body. A 4xx
// response about the password, the address or the time is temporary: somebody can repair its cause.
func (s *httpSender) postBody(ctx context.Context, body []byte, header http.Header) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return s.withoutURL(err)
	}
	maps.Copy(request.Header, s.header)
	maps.Copy(request.Header, header)
	if s.username != "" {
		request.SetBasicAuth(s.username, s.password)
	}

	response, err := s.client.Do(request)
	if err != nil {
		return s.withoutURL(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, maxErrorText))
	if response.StatusCode/100 == 2 {
		return nil
	}

	// The class of the error depends on the remedy: a pause that the destination requests, a repair by an
	// operator, or none, because the body itself is at fault.
	answer := s.secrets.Replace(response.Status + ": " + strings.TrimSpace(strings.ToValidUTF8(string(text), "")))
	switch code := response.StatusCode; code {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return &responseError{"response " + answer, parseRetryAfter(response.Header.Get("Retry-After"), time.Now())}
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusProxyAuthRequired,
		http.StatusRequestTimeout, http.StatusTooEarly:
		return &responseError{text: "response " + answer}
	default:
		if code/100 == 4 {
			return &rejectedError{"response " + answer}
		}
		return &responseError{text: "response " + answer}
	}
}

// maxRetryAfter bounds the pause that a destination can request.
const maxRetryAfter = 5 * time.Minute

// parseRetryAfter returns the pause of a Retry-After header, which holds seconds or a date (RFC 9110, section
// 10.2.3). It returns 0 if the header holds neither.
func parseRetryAfter(value string, now time.Time) time.Duration {
	pause := time.Duration(0)
	if seconds, err := strconv.Atoi(strings.TrimSpace(value)); err == nil {
		pause = time.Duration(min(max(seconds, 0), 3600)) * time.Second
	} else if date, err := http.ParseTime(value); err == nil {
		pause = date.Sub(now)
	}
	return min(max(pause, 0), maxRetryAfter)
}
