package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"tidegate/pipeline/config"
)

// Query runs sql over HTTP and copies the result to out. It logs in as the read-only user where one is
// configured. format is a format of ClickHouse (PrettyCompactMonoBlock, JSONEachRow, CSVWithNames, …); a
// FORMAT clause in sql takes precedence. The server finishes the query before it sends the first byte, so
// that out receives the whole result or nothing.
func Query(ctx context.Context, cfg Config, sql, format string, out io.Writer) error {
	return QueryWith(ctx, cfg, sql, nil, format, out)
}

// QueryWith is Query for sql with parameters, such as {p0:String}. values are by name, escaped as in TSV; the elements
// of an array are in quotes: ['a','b'].
func QueryWith(ctx context.Context, cfg Config, sql string, values map[string]string, format string, out io.Writer) error {
	user, password, file := cfg.ReadUser, cfg.ReadPassword, cfg.ReadPasswordFile
	if user == "" {
		user, password, file = cfg.Username, cfg.Password, cfg.PasswordFile
	}
	password, err := config.Secret(password, file)
	if err != nil {
		return fmt.Errorf("read the password of %s: %w", user, err)
	}

	// Build the request. Each query has its own client, because people query rarely.
	client, scheme, err := httpClient(cfg)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	parameters := url.Values{
		"default_format": {format}, "wait_end_of_query": {"1"}, "database": {cfg.Database},
		"output_format_pretty_color": {"0"},
	}
	for name, value := range values {
		parameters.Set("param_"+name, value)
	}
	ask := func() (*http.Response, error) {
		endpoint := url.URL{Scheme: scheme, Host: cfg.HTTPAddr, Path: "/", RawQuery: parameters.Encode()}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint.String(), strings.NewReader(sql))
		if err != nil {
			return nil, fmt.Errorf("query ClickHouse at %s: %w", cfg.HTTPAddr, err)
		}
		request.Header.Set("X-ClickHouse-User", user)
		request.Header.Set("X-ClickHouse-Key", password)
		response, err := client.Do(request)
		if err != nil {
			if u, ok := errors.AsType[*url.Error](err); ok {
				err = u.Err // without the URL
			}
			return nil, fmt.Errorf("ClickHouse at %s does not answer: %w", cfg.HTTPAddr, err)
		}
		return response, nil
	}

	// Ask without newerSettings where the server does not know them.
	maps.Copy(parameters, newerSettings)
	response, err := ask()
	if err == nil && response.Header.Get("X-ClickHouse-Exception-Code") == codeUnknownSetting {
		_ = response.Body.Close()
		for name := range newerSettings {
			parameters.Del(name)
		}
		response, err = ask()
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))
		return queryError(cfg.HTTPAddr, user, response, string(text))
	}
	if _, err := io.Copy(out, response.Body); err != nil {
		return fmt.Errorf("read the result of ClickHouse at %s: %w", cfg.HTTPAddr, err)
	}
	return nil
}

// newerSettings are settings that an old server may not know: names of columns are not shortened, and JSON is valid
// UTF-8 also where a column holds other bytes.
var newerSettings = url.Values{
	"output_format_pretty_max_column_name_width_cut_to": {"0"},
	"output_format_json_validate_utf8":                  {"1"},
}

// codeUnknownSetting is ClickHouse's UNKNOWN_SETTING, as a header has it.
const codeUnknownSetting = "115"

var parameterEscaper = strings.NewReplacer("\\", "\\\\", "'", "\\'", "\t", "\\t", "\n", "\\n", "\r", "\\r", "\x00", "\\0")

// ArrayParameter returns texts as QueryWith takes the value of a parameter of the type Array(String).
func ArrayParameter(texts []string) string {
	var out strings.Builder
	out.WriteByte('[')
	for i, text := range texts {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteByte('\'')
		_, _ = parameterEscaper.WriteString(&out, text)
		out.WriteByte('\'')
	}
	out.WriteByte(']')
	return out.String()
}

func httpClient(cfg Config) (*http.Client, string, error) {
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: max(cfg.Timeout, time.Second)}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
	}
	if !cfg.TLS.Enabled {
		return &http.Client{Transport: transport}, "http", nil
	}
	tlsConfig, err := loadTLS(cfg.TLS)
	if err != nil {
		return nil, "", err
	}
	transport.TLSClientConfig = tlsConfig
	return &http.Client{Transport: transport}, "https", nil
}

var (
	versionSuffix = regexp.MustCompile(`\s*\(version [^()]*(\([^)]*\))?\)\s*$`)
	codePrefix    = regexp.MustCompile(`^Code: \d+\. DB::Exception: `)
)

// refusedTime matches the error of a comparison with a time as alerts, JSON and replay write it.
var refusedTime = regexp.MustCompile(`Cannot convert string '?(\d{4}-\d\d-\d\dT[0-9:.]+(?:Z|[+-]\d\d:?\d\d))'? to type DateTime64`)

// timeHint returns the end of an error that says how the time in it is written, "" for other errors. No setting of
// ClickHouse makes a comparison take such a text, but its functions do.
func timeHint(text string) string {
	found := refusedTime.FindStringSubmatch(text)
	if found == nil {
		return ""
	}
	return fmt.Sprintf("; write toDateTime64('%s', 9)", found[1])
}

// queryError returns the server's error message of an HTTP response, without the code and the version around
// it.
func queryError(addr, user string, response *http.Response, text string) error {
	code, _ := strconv.ParseInt(response.Header.Get("X-ClickHouse-Exception-Code"), 10, 32)
	if _, denied := loginCodes[int32(code)]; denied {
		return errors.New(deniedText(addr, user))
	}
	text = versionSuffix.ReplaceAllString(strings.TrimSpace(text), "")
	text = codePrefix.ReplaceAllString(text, "")
	if text == "" {
		text = response.Status
	}
	return fmt.Errorf("ClickHouse at %s: %s%s", addr, text, timeHint(text))
}
