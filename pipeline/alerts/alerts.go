// Package alerts groups verdicts into alerts and delivers alerts to Alertmanager (API v2), webhooks and a
// callback.
//
// The package has two halves with the alerts topic between them. The engine's worker owns a Grouper: verdicts
// of its partition go in, revisions of alerts come out, and the engine stores those and writes them to the
// topic. cmd/tidegate runs a Publisher, which reads the topic once for each destination, in a consumer group
// of the destination's own, with a deliverer for each partition.
//
// # Delivery of an alert
//
// A deliverer keeps each open alert in one of two states:
//
//	pending    a revision was read and not delivered yet; openAlert.undelivered is the offset of its message
//	delivered  the destination accepted or rejected the newest revision
//
// A new alert is pending. Delivery makes it delivered; a further revision makes it pending again. A delivered
// alert is removed when it was not updated for resolve_after, and the least recently updated ones when
// max_open is reached.
//
// A new alert is sent at once, later revisions at most once per throttle interval, and only the newest.
// Alertmanager forgets what is not repeated: it gets open alerts again every resend interval, and the end of
// an alert. An attempt that fails is repeated until the destination accepts it; a notification that the
// destination rejects (a 4xx response about its content) becomes a dead letter.
//
// # What is durable
//
// A deliverer commits the offset of the oldest message that is pending. A destination that is down, or a
// publisher that is killed, delays and repeats deliveries and loses none: at least once. The open alerts are
// kept nowhere: at its start a deliverer reads the messages of the last resolve_after again, those below the
// committed offset without sending them.
package alerts

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"time"

	"tidegate/pipeline"
)

// Config says where alerts go.
type Config struct {
	ResolveAfter time.Duration  `yaml:"resolve_after"` // quiet after which an alert is over
	Resend       time.Duration  `yaml:"resend"`        // how often Alertmanager hears of an open alert
	Throttle     time.Duration  `yaml:"throttle"`      // between two revisions of an alert to one destination
	Timeout      time.Duration  `yaml:"timeout"`       // of one request
	MaxOpen      int            `yaml:"max_open"`      // alerts that are remembered, per destination and partition
	Alertmanager []Alertmanager `yaml:"alertmanager"`
	Webhooks     []Webhook      `yaml:"webhooks"`
}

// HTTP is how a destination is spoken to.
type HTTP struct {
	Name         string            `yaml:"name"` // of the destination: its offset and its metrics go by it
	URL          string            `yaml:"url"`
	Headers      map[string]string `yaml:"headers"`
	Username     string            `yaml:"username"` // basic authentication
	Password     string            `yaml:"password"` // or
	PasswordFile string            `yaml:"password_file"`
	Token        string            `yaml:"token"` // Authorization: Bearer, or
	TokenFile    string            `yaml:"token_file"`
	TLS          pipeline.TLS      `yaml:"tls"`
}

// Alertmanager is one of them; URL is its address without /api/v2.
type Alertmanager struct {
	HTTP   `yaml:",inline"`
	Labels map[string]string `yaml:"labels"` // added to every alert
}

// Webhook gets each alert as one JSON object.
type Webhook struct {
	HTTP       `yaml:",inline"`
	Secret     string `yaml:"secret"` // X-Tidegate-Signature: sha256=<HMAC of the body>, or
	SecretFile string `yaml:"secret_file"`
}

// Default sends nowhere.
func Default() Config {
	return Config{
		ResolveAfter: 15 * time.Minute, Resend: time.Minute, Throttle: 30 * time.Second, Timeout: 10 * time.Second, MaxOpen: 50000,
	}
}

var destinationName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Check names every key that cannot be right.
func (c Config) Check() []error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("alerts.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	for key, d := range map[string]time.Duration{"resolve_after": c.ResolveAfter, "resend": c.Resend, "throttle": c.Throttle, "timeout": c.Timeout} {
		if d < 10*time.Millisecond || d > 24*time.Hour {
			bad(key, "%v: 10ms to 24h is meant", d)
		}
	}
	if c.MaxOpen < 1 {
		bad("max_open", "at least 1 is needed")
	}
	names := map[string]bool{callbackName: true}
	one := func(key string, h HTTP) {
		for _, err := range h.check() {
			errs = append(errs, fmt.Errorf("alerts.%s.%w", key, err))
		}
		if names[h.Name] {
			bad(key+".name", "%q is used twice, or is a name of ours", h.Name)
		}
		names[h.Name] = true
	}
	for i, d := range c.Alertmanager {
		one(fmt.Sprintf("alertmanager[%d]", i), d.HTTP)
	}
	for i, d := range c.Webhooks {
		one(fmt.Sprintf("webhooks[%d]", i), d.HTTP)
		if d.Secret != "" && d.SecretFile != "" {
			bad(fmt.Sprintf("webhooks[%d].secret_file", i), "give secret or secret_file, not both")
		}
	}
	return errs
}

func (h HTTP) check() []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !destinationName.MatchString(h.Name) {
		bad("name: %q: 1 to 64 letters, digits, dots, dashes and underscores are meant", h.Name)
	}
	u, err := url.Parse(h.URL)
	switch {
	case err != nil:
		bad("url: %w", errors.Unwrap(err))
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		bad("url: http://… or https://… is meant")
	}
	if h.Password != "" && h.PasswordFile != "" {
		bad("password_file: give password or password_file, not both")
	}
	if h.Token != "" && h.TokenFile != "" {
		bad("token_file: give token or token_file, not both")
	}
	if h.Username != "" && (h.Token != "" || h.TokenFile != "") {
		bad("token: give username or token, not both")
	}
	for _, err := range h.TLS.Check() {
		bad("tls.%w", err)
	}
	return errs
}
