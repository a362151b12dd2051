package rules

import (
	"io/fs"
	"maps"
	"slices"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// Config selects the rules and limits their evaluation time.
type Config struct {
	// Folder of your own rules, which is watched for changes; empty: none.
	Dir string `yaml:"dir"`
	// Folder of Sigma rules, which are converted as they are loaded and watched for changes; empty: none.
	Sigma string `yaml:"sigma"`
	// Run the rules that come with tidegate.
	Shipped bool `yaml:"shipped"`
	// IDs of rules that do not run.
	Disable []string `yaml:"disable"`
	// Conditions under which a rule does not match, by its ID, added to those in its file.
	Exceptions map[string][]string `yaml:"exceptions"`
	// Severities that replace those of the files, by the ID of the rule: info, low, medium, high or critical.
	Severity map[string]string `yaml:"severity"`
	// Database of places in the format of MaxMind (GeoLite2-City.mmdb), which rules ask with geo(); held in memory, and read again when
	// it changes. Empty: none.
	GeoDatabase string `yaml:"geo_database"`
	// Database of autonomous systems in the format of MaxMind (GeoLite2-ASN.mmdb), which rules ask with asn(). Empty: none.
	ASNDatabase string `yaml:"asn_database"`
	// Time for which a folder is held back that is suddenly empty or has lost half of its rules: its volume may
	// be gone, and the loaded rules stay.
	LossGrace time.Duration `yaml:"loss_grace"`
	// Mean evaluation time, per 256 bytes of text, above which a rule is suspended.
	MaxMeanTime time.Duration `yaml:"max_mean_time"`
	// Time of a single evaluation above which a rule is suspended, if that happens repeatedly.
	MaxTime time.Duration `yaml:"max_time"`
	// PEM files of ed25519 public keys. With one or more, the engine runs the newest bundle on the topic of bundles that one of
	// them has signed, as `tidegate rules push` sends it, in place of `dir`, of `sigma` if it has Sigma rules, and of its feeds; until there
	// is a bundle, it runs `dir`. Empty: no bundles.
	BundleKeys []string `yaml:"bundle_keys"`

	// FeedNames are the feeds that rules can ask. Nil: those of an unknown configuration, so that rules can name any.
	FeedNames []string `yaml:"-"`
	// Models are the files of the trained models that rules can ask, by name.
	Models map[string][]byte `yaml:"-"`

	// Files are read in place of the folder Dir, if they are not nil: those of a signed bundle. They never change. FilesName
	// stands for the name of the folder in errors.
	Files     fs.FS  `yaml:"-"`
	FilesName string `yaml:"-"`
	// SigmaFiles are read in place of the folder Sigma, alike.
	SigmaFiles fs.FS `yaml:"-"`
}

// maxBundleKeys bounds the signatures that are checked for a message of anyone.
const maxBundleKeys = 16

// Default returns a configuration that runs the shipped rules.
func Default() Config {
	return Config{Shipped: true, LossGrace: time.Hour, MaxMeanTime: 50 * time.Microsecond, MaxTime: 20 * time.Millisecond}
}

// Check returns every problem of c.
func (c Config) Check() []config.Problem {
	return slices.Concat(
		config.Folder("dir", c.Dir),
		config.Folder("sigma", c.Sigma),
		config.Require(c.Dir != "" || c.Sigma != "" || c.Shipped, "dir", "is empty, rules.sigma too, and rules.shipped is false: no rule would run"),
		config.File("geo_database", c.GeoDatabase),
		config.File("asn_database", c.ASNDatabase),
		c.checkSeverities(),
		config.Range("loss_grace", c.LossGrace, 0, 365*24*time.Hour),
		config.AtLeast("max_mean_time", c.MaxMeanTime, time.Nanosecond),
		config.AtLeast("max_time", c.MaxTime, time.Nanosecond),
		config.Each("bundle_keys", c.BundleKeys, config.File),
		config.Require(len(c.BundleKeys) <= maxBundleKeys, "bundle_keys", "has %d entries, at most %d are possible", len(c.BundleKeys), maxBundleKeys),
	)
}

func (c Config) checkSeverities() (problems []config.Problem) {
	for _, id := range slices.Sorted(maps.Keys(c.Severity)) {
		known := pipeline.SeverityByName(c.Severity[id]) != pipeline.Severity_SEVERITY_NONE
		problems = append(problems, config.Require(known, "severity."+id,
			"%q is not one of info, low, medium, high, critical", c.Severity[id])...)
	}
	return problems
}
