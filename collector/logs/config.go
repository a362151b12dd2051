package logs

import (
	"path/filepath"
	"slices"
	"time"

	"tidegate/pipeline/config"
)

// Config configures where the logs are and how they are read.
type Config struct {
	// Follow the logs of containers.
	Enabled bool `yaml:"enabled"`
	// Docker's data-root, as a path of this process.
	DockerDataRoot string `yaml:"docker_data_root"`
	// Glob patterns of plain text files that are read as well, such as /var/log/nginx/*.log. Symbolic links
	// to files are followed.
	Files []string `yaml:"files"`
	// Where reading starts on a new host: `beginning`, or `end`, which skips lines older than the collector's
	// state folder.
	StartAt string `yaml:"start_at"`
	// Maximum bytes of a line. Of a longer line the first three quarters and the last quarter of these are kept,
	// with … between them, and the event is marked: log.truncated.
	MaxLineBytes config.Size `yaml:"max_line_bytes"`
	// Time after which an incomplete line is sent as a partial event.
	PartialTimeout time.Duration `yaml:"partial_timeout"`
	// Remove secrets from lines before they leave the host.
	Redact bool `yaml:"redact"`
	// Maximum number of open log files; 0: the process's limit of open files, minus a reserve of 256.
	MaxOpenFiles int `yaml:"max_open_files"`
	// Memory for read buffers, and as much again for lines that are not complete.
	BufferBytes config.Size `yaml:"buffer_bytes"`

	// DrainTimeout is the time at a stop to read removed files to their end. What is left is counted.
	DrainTimeout time.Duration `yaml:"-"`

	// NotBefore is the time at which the collector's state was created. With start_at: end, older lines are
	// skipped. Zero: now.
	NotBefore time.Time `yaml:"-"`
}

// Default returns a configuration that reads every line, at Docker's usual place.
func Default() Config {
	return Config{
		Enabled:        true,
		DockerDataRoot: "/var/lib/docker",
		StartAt:        "beginning",
		MaxLineBytes:   256 * config.KiB,
		PartialTimeout: time.Minute,
		Redact:         true,
		BufferBytes:    16 * config.MiB,
		DrainTimeout:   2 * time.Second,
	}
}

// Check returns every problem of c.
func (c Config) Check() []config.Problem {
	return slices.Concat(
		config.NotEmpty("docker_data_root", c.DockerDataRoot),
		config.Each("files", c.Files, func(key, pattern string) []config.Problem {
			return slices.Concat(
				config.Require(filepath.IsAbs(pattern), key, "%q is not an absolute path", pattern),
				config.Glob(key, pattern),
			)
		}),
		config.OneOf("start_at", c.StartAt, "beginning", "end"),
		config.Range("max_line_bytes", c.MaxLineBytes, config.KiB, 16*config.MiB),
		config.AtLeast("partial_timeout", c.PartialTimeout, time.Second),
		config.AtLeast("max_open_files", c.MaxOpenFiles, 0),
		config.AtLeast("buffer_bytes", c.BufferBytes, 4*config.MiB),
	)
}
