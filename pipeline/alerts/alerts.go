// Package alerts folds verdicts into alerts and tells them to people's platforms.
//
// In: the verdicts of a partition's events, which the engine's worker gives to its Fold; out of that come alerts, a revision per block,
// which the engine stores and writes to the alerts topic. In, at the other end: that topic, which the Publisher reads once for
// each destination, under an offset of the destination's own; out: Alertmanager (API v2), webhooks, a callback.
//
// A destination hears of a new alert at once and of its later revisions at most once an interval, the newest. An offset is committed
// when everything before it has been delivered, so a destination that is away, or a publisher that is killed, delays and repeats
// but does not lose: at least once, which is what a third party's API can be held to. Alertmanager is told again every minute while
// an alert is open, for it forgets what is not repeated, and told the end after a quarter of an hour of quiet.
//
// What a publisher must remember, the alerts that are open, it takes at its start from the topic itself: it reads again what is
// younger than the time after which alerts resolve, up to its committed offset, without sending.
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
