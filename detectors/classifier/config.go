package classifier

import "tidegate/pipeline/config"

// Config sets whether and how the classifier evaluates events.
type Config struct {
	// Evaluate events with the trained model.
	Enabled bool `yaml:"enabled"`
	// Lowest score, 0 to 1, that causes a verdict; 0: the model's own threshold.
	Threshold float64 `yaml:"threshold"`
	// Count the verdicts in the metrics, but do not attach them to events.
	Shadow bool `yaml:"shadow"`
}

// Default returns a configuration that uses the model with its own threshold.
func Default() Config { return Config{Enabled: true} }

// Check returns every problem of c.
func (c Config) Check() []config.Problem {
	return config.Range("threshold", c.Threshold, 0, 1) // rejects NaN too
}
