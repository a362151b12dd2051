package alerts

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"time"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"tidegate/pipeline/config"
)

// Config holds the destinations of alerts.
type Config struct {
	// Time without a match after which an alert counts as resolved.
	ResolveAfter time.Duration `yaml:"resolve_after"`
	// How often an open alert is sent to Alertmanager again.
	ResendInterval time.Duration `yaml:"resend_interval"`
	// Minimum time between two revisions of an alert to one destination.
	Throttle time.Duration `yaml:"throttle"`
	// Timeout of one request to a destination.
	Timeout time.Duration `yaml:"timeout"`
	// Attempts to deliver an alert, while the destination accepts others, after which the alert counts as
	// rejected. The pauses between them grow from half a second to a minute.
	MaxAttempts int `yaml:"max_attempts"`
	// Maximum number of open alerts that are kept, per destination and partition.
	MaxOpen int `yaml:"max_open"`
	// Alertmanagers that receive every alert.
	Alertmanager []Alertmanager `yaml:"alertmanager"`
	// Addresses to which every alert is posted.
	Webhooks []Webhook `yaml:"webhooks"`
}

// HTTP is the address of a destination, with credentials.
type HTTP struct {
	// Name of the destination. Its offset in Kafka and its metrics carry this name.
	Name string `yaml:"name"`
	// Address of the destination: http://… or https://….
	URL string `yaml:"url"`
	// Headers that are added to each request.
	Headers map[string]string `yaml:"headers"`
	// User name for basic authentication.
	Username string `yaml:"username"`
	// Password for basic authentication; or `password_file`.
	Password string `yaml:"password"`
	// File whose first line is the password.
	PasswordFile string `yaml:"password_file"`
	// Token that is sent as `Authorization: Bearer`; or `token_file`.
	Token string `yaml:"token"`
	// File whose first line is the token.
	TokenFile string `yaml:"token_file"`

	TLS config.TLS `yaml:"tls"`
}

// Alertmanager is a destination of Alertmanager's API v2; URL is its address without /api/v2.
type Alertmanager struct {
	HTTP `yaml:",inline"`
	// Labels that are added to every alert.
	Labels map[string]string `yaml:"labels"`
}

// Webhook receives each alert as one JSON object.
type Webhook struct {
	HTTP `yaml:",inline"`
	// Key of the HMAC of each request's body, which the header `X-Tidegate-Signature: sha256=…` carries; or
	// `secret_file`.
	Secret string `yaml:"secret"`
	// File whose first line is the secret.
	SecretFile string `yaml:"secret_file"`
}

// Default returns a configuration without destinations.
func Default() Config {
	return Config{
		ResolveAfter:   15 * time.Minute,
		ResendInterval: time.Minute,
		Throttle:       30 * time.Second,
		Timeout:        10 * time.Second,
		MaxAttempts:    30,
		MaxOpen:        50000,
	}
}

var destinationName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Check returns every problem of c.
func (c Config) Check() []config.Problem {
	problems := slices.Concat(
		config.Range("resolve_after", c.ResolveAfter, 10*time.Millisecond, 24*time.Hour),
		config.Range("resend_interval", c.ResendInterval, 10*time.Millisecond, 24*time.Hour),
		config.Range("throttle", c.Throttle, 10*time.Millisecond, 24*time.Hour),
		config.Range("timeout", c.Timeout, 10*time.Millisecond, 24*time.Hour),
		config.Range("max_attempts", c.MaxAttempts, 1, 1000),
		config.AtLeast("max_open", c.MaxOpen, 1),
	)

	// The names of all destinations share one namespace, with that of the local callback.
	names := map[string]bool{callbackName: true}
	addDestination := func(key string, http HTTP) {
		problems = append(problems, config.Under(key, http.check())...)
		problems = append(problems,
			config.Require(!names[http.Name], key+".name", "%q is used twice, or is reserved", http.Name)...)
		names[http.Name] = true
	}
	for i, d := range c.Alertmanager {
		key := fmt.Sprintf("alertmanager[%d]", i)
		addDestination(key, d.HTTP)
		problems = append(problems, checkLabels(key+".labels", d.Labels)...)
	}
	for i, webhook := range c.Webhooks {
		key := fmt.Sprintf("webhooks[%d]", i)
		addDestination(key, webhook.HTTP)
		problems = append(problems, config.Under(key, slices.Concat(
			config.Exclusive("secret", webhook.Secret, "secret_file", webhook.SecretFile),
			config.File("secret_file", webhook.SecretFile),
		))...)
	}
	return problems
}

func (h HTTP) check() []config.Problem {
	return slices.Concat(
		config.Match("name", h.Name, destinationName, "1 to 64 letters, digits, dots, dashes and underscores"),
		checkURL("url", h.URL),
		checkHeaders("headers", h.Headers),
		config.Exclusive("password", h.Password, "password_file", h.PasswordFile),
		config.File("password_file", h.PasswordFile),
		config.Exclusive("token", h.Token, "token_file", h.TokenFile),
		config.File("token_file", h.TokenFile),
		config.Exclusive("username", h.Username, "token", h.Token+h.TokenFile),
		config.Under("tls", h.TLS.Check()),
	)
}

// labelName is the form of the name of a label in Prometheus and Alertmanager
// (prometheus.io/docs/concepts/data_model). Alertmanager rejects every alert with another one.
var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// checkLabels returns every problem of labels that are added to each alert.
func checkLabels(key string, labels map[string]string) []config.Problem {
	var problems []config.Problem
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		place := key + "." + name
		problems = append(problems, slices.Concat(
			config.Require(labelName.MatchString(name), place,
				"%q is not the name of a label: letters, digits and underscores, and no digit in front", name),
			config.Require(!slices.Contains(ownLabels, name), place, "%q is a label that tidegate sets itself", name),
			config.Require(utf8.ValidString(labels[name]), place, "is not UTF-8"),
			config.Require(labels[name] != "", place, "is empty: a label without a value is none to Alertmanager"),
		)...)
	}
	return problems
}

// checkHeaders returns every problem of headers that are added to each request. It does not quote values: they
// may be secrets.
func checkHeaders(key string, headers map[string]string) []config.Problem {
	var problems []config.Problem
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		place := key + "." + name
		problems = append(problems, slices.Concat(
			config.Require(httpguts.ValidHeaderFieldName(name), place, "%q is not the name of a header", name),
			config.Require(httpguts.ValidHeaderFieldValue(headers[name]), place, "has control characters"),
		)...)
	}
	return problems
}

// checkURL does not quote the address in its problem: it may hold a password.
func checkURL(key, address string) []config.Problem {
	parsed, err := url.Parse(address)
	if err != nil {
		return config.Invalid(key, "%w", errors.Unwrap(err))
	}
	ok := (parsed.Scheme == "http" || parsed.Scheme == "https") && parsed.Host != ""
	return config.Require(ok, key, "is not an address like https://host/path")
}

// GrouperConfig bounds the Grouper of one partition of the signals topic.
type GrouperConfig struct {
	// Matches of one group within this time are one alert.
	Window time.Duration `yaml:"window"`
	// How far behind the newest window a late match may be; an older match counts as this late.
	AllowedLateness time.Duration `yaml:"allowed_lateness"`
	// Maximum number of windows that are kept, per partition; at most 4 of each group.
	MaxOpen int `yaml:"max_open"`
	// Maximum number of groups of one rule with open windows, per partition; further groups share one alert.
	MaxPerRule int `yaml:"max_per_rule"`
}

// DefaultGrouper returns a configuration that needs at most some 15 MB of memory per partition.
func DefaultGrouper() GrouperConfig {
	return GrouperConfig{Window: 5 * time.Minute, AllowedLateness: time.Hour, MaxOpen: 20000, MaxPerRule: 5000}
}

// Check returns every problem of c.
func (c GrouperConfig) Check() []config.Problem {
	return slices.Concat(
		config.Range("window", c.Window, time.Second, 24*time.Hour),
		config.Range("allowed_lateness", c.AllowedLateness, c.Window, 24*c.Window),
		config.AtLeast("max_open", c.MaxOpen, 1),
		config.AtLeast("max_per_rule", c.MaxPerRule, 1),
	)
}
