package protocols

import (
	"slices"

	"tidegate/pipeline/config"
)

// Config bounds what one connection may cost.
type Config struct {
	// Largest incomplete message of one direction that is buffered until its rest arrives.
	MaxUnparsedBytes config.Size `yaml:"max_unparsed_bytes"`
	// Bytes of one direction that are examined before the protocol of a connection counts as unknown.
	DetectBytes config.Size `yaml:"detect_bytes"`
	// Bytes that are searched for the start of a message in a connection whose beginning was not captured.
	ResyncBytes config.Size `yaml:"resync_bytes"`
	// Parse errors in a row after which an event with the tag parsing_stopped is emitted, and the protocol of the
	// connection is detected again.
	MaxErrors int `yaml:"max_errors"`
}

// Default returns a configuration that suits a busy host.
func Default() Config {
	return Config{
		MaxUnparsedBytes: 256 * config.KiB,
		DetectBytes:      4 * config.KiB,
		ResyncBytes:      256 * config.KiB,
		MaxErrors:        16,
	}
}

// Check returns every problem of c.
func (c Config) Check() []config.Problem {
	return slices.Concat(
		config.Range("max_unparsed_bytes", c.MaxUnparsedBytes, 16*config.KiB, 64*config.MiB),
		config.Range("detect_bytes", c.DetectBytes, 64, 64*config.KiB),
		config.Range("resync_bytes", c.ResyncBytes, 0, 64*config.MiB),
		config.Range("max_errors", c.MaxErrors, 1, 1<<20),
	)
}
