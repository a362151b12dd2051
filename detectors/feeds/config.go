package feeds

import (
	"cmp"
	"net/url"
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
	// http or https URL from which the feed is downloaded, and kept over failures and restarts in the file at path, of
	// the folder data_dir/feeds if that is empty. Empty: somebody else keeps path up to date.
	URL string `yaml:"url"`
	// Time between two downloads, which a server may answer with "not modified". 0: an hour.
	Interval time.Duration `yaml:"interval"`
	// Time that a download may take in all, with reading it. 0: 5 minutes.
	Timeout time.Duration `yaml:"timeout"`
	// Bytes that a download may have. 0: 512 MiB.
	MaxSize config.Size `yaml:"max_size"`
	// Bytes that a download may have once it is decompressed. 0: 1 GiB.
	MaxUnpackedSize config.Size `yaml:"max_unpacked_size"`
	// Encryption of the download.
	TLS config.TLS `yaml:"tls"`
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

func (c Config) interval() time.Duration { return cmp.Or(c.Interval, defaultInterval) }
func (c Config) timeout() time.Duration  { return cmp.Or(c.Timeout, defaultTimeout) }
func (c Config) maxSize() int64          { return cmp.Or(int64(c.MaxSize), defaultMaxSize) }

// maxUnpacked returns how many bytes the files of the feed may have, decompressed.
func (c Config) maxUnpacked() int64 {
	if c.URL == "" {
		return maxFeedBytes
	}
	return cmp.Or(int64(c.MaxUnpackedSize), defaultMaxUnpacked)
}

// lossGrace returns LossGrace or its default.
func (c Config) lossGrace() time.Duration { return cmp.Or(c.LossGrace, time.Hour) }

// Check returns every problem of c.
func (c Config) Check() []config.Problem {
	known := c.Severity == "" || pipeline.SeverityByName(c.Severity) != pipeline.Severity_SEVERITY_NONE
	return slices.Concat(
		config.NotEmpty("name", c.Name),
		config.NotEmpty("path", c.Path),
		c.checkSource(),
		config.Require(known, "severity", "%q is not one of info, low, medium, high, critical", c.Severity),
		config.Range("confidence", c.Confidence, 0, 100),
		config.Range("loss_grace", c.LossGrace, 0, 365*24*time.Hour),
	)
}

// checkSource returns the problems of path, url and what belongs to it.
func (c Config) checkSource() []config.Problem {
	if c.URL == "" {
		return slices.Concat(
			checkPath(c.Path),
			config.Require(c.Interval == 0 && c.Timeout == 0 && c.MaxSize == 0 && c.MaxUnpackedSize == 0 && c.TLS == config.TLS{}, "url",
				"is empty, but interval, timeout, max_size, max_unpacked_size or tls is set"),
		)
	}
	parsed, err := url.Parse(c.URL)
	return slices.Concat(
		config.Require(err == nil && parsed.Host != "" && (parsed.Scheme == "http" || parsed.Scheme == "https"), "url", "is not an http or https URL"),
		config.Range("interval", c.Interval, 0, 366*24*time.Hour),
		config.Require(c.Interval == 0 || c.Interval >= time.Minute, "interval", "is less than a minute"),
		config.Range("timeout", c.Timeout, 0, time.Hour),
		config.Range("max_size", c.MaxSize, 0, maxFeedBytes),
		config.Range("max_unpacked_size", c.MaxUnpackedSize, 0, maxFeedBytes),
		config.Under("tls", c.TLS.Check()),
	)
}
