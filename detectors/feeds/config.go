package feeds

import (
	"cmp"
	"slices"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// Config is one feed: its indicators, and the severity and confidence of its verdicts.
type Config struct {
	// Name of the feed. Its verdicts have the rule "feed-" and this name.
	Name string `yaml:"name"`
	// File of indicators, or folder of such files: plain, hosts, CSV, MISP, STIX 2.1, URLhaus, ThreatFox, also with gzip.
	Path string `yaml:"path"`
	// Severity of the feed's verdicts: info, low, medium, high or critical; empty: high.
	Severity string `yaml:"severity"`
	// Confidence, 1 to 100, of lines without a confidence; 0: 75.
	Confidence uint32 `yaml:"confidence"`
	// Accept addresses of private networks (RFC 1918, fc00::/7). They name other hosts in each network, so
	// lists of others must not have them.
	AllowLocal bool `yaml:"allow_local"`
	// The feed is an allow-list: what it lists has no verdict of the other feeds, but where they list a narrower domain
	// or network.
	Allow bool `yaml:"allow"`
	// Time for which a file is held back that is suddenly empty, mostly invalid, or has lost half of its
	// indicators: an update may have failed, and the loaded ones stay. 0: an hour.
	LossGrace time.Duration `yaml:"loss_grace"`
}

// lossGrace returns LossGrace or its default.
func (c Config) lossGrace() time.Duration { return cmp.Or(c.LossGrace, time.Hour) }

// Check returns every problem of c.
func (c Config) Check() []config.Problem {
	known := c.Severity == "" || pipeline.SeverityByName(c.Severity) != pipeline.Severity_SEVERITY_NONE
	return slices.Concat(
		config.NotEmpty("name", c.Name),
		config.NotEmpty("path", c.Path),
		checkPath(c.Path),
		config.Require(known, "severity", "%q is not one of info, low, medium, high, critical", c.Severity),
		config.Range("confidence", c.Confidence, 0, 100),
		config.Range("loss_grace", c.LossGrace, 0, 365*24*time.Hour),
	)
}
