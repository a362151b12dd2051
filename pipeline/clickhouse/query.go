package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"tidegate/pipeline"
)

// Query runs sql over HTTP, as the read-only user where one is configured, and copies the answer to w in the given ClickHouse format
// (PrettyCompactMonoBlock, JSONEachRow, CSVWithNames, …) unless the statement names one itself. The server finishes the query before the
// first byte comes, so an error is an error and never half an answer.
func Query(ctx context.Context, cfg Config, sql, format string, w io.Writer) error {
	user, password, file := cfg.ReadUser, cfg.ReadPassword, cfg.ReadPasswordFile
	if user == "" {
		user, password, file = cfg.Username, cfg.Password, cfg.PasswordFile
	}
	password, err := pipeline.Secret(password, file)
	if err != nil {
		return fmt.Errorf("read the password of %s: %w", user, err)
	}
	client, scheme, err := httpClient(cfg)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	at := url.URL{Scheme: scheme, Host: cfg.HTTPAddr, Path: "/", RawQuery: url.Values{
		"default_format": {format}, "wait_end_of_query": {"1"}, "database": {cfg.Database}, "output_format_pretty_color": {"0"},
	}.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.String(), strings.NewReader(sql))
	if err != nil {
		return fmt.Errorf("ask ClickHouse at %s: %w", cfg.HTTPAddr, err)
	}
	req.Header.Set("X-ClickHouse-User", user)
	req.Header.Set("X-ClickHouse-Key", password)
	res, err := client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return fmt.Errorf("ClickHouse at %s does not answer: %w", cfg.HTTPAddr, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
		return queryError(cfg.HTTPAddr, user, res, string(text))
	}
	if _, err := io.Copy(w, res.Body); err != nil {
		return fmt.Errorf("read the answer of ClickHouse at %s: %w", cfg.HTTPAddr, err)
	}
	return nil
}

func httpClient(cfg Config) (*http.Client, string, error) {
	t := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: max(cfg.Timeout, time.Second)}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
	}
	if !cfg.TLS.Enabled {
		return &http.Client{Transport: t}, "http", nil
	}
	c, err := cfg.TLS.clientConfig()
	if err != nil {
		return nil, "", err
	}
	t.TLSClientConfig = c
	return &http.Client{Transport: t}, "https", nil
}

var (
	versionTail = regexp.MustCompile(`\s*\(version [^()]*(\([^)]*\))?\)\s*$`)
	codeHead    = regexp.MustCompile(`^Code: \d+\. DB::Exception: `)
)

// queryError is the server's message without its frame.
func queryError(addr, user string, res *http.Response, text string) error {
	switch res.Header.Get("X-ClickHouse-Exception-Code") {
	case "516", "193", "192", "194":
		return fmt.Errorf("ClickHouse at %s refuses user %q: the password is wrong or there is no such user", addr, user)
	}
	text = versionTail.ReplaceAllString(strings.TrimSpace(text), "")
	text = codeHead.ReplaceAllString(text, "")
	if text == "" {
		text = res.Status
	}
	return fmt.Errorf("ClickHouse at %s: %s", addr, text)
}
