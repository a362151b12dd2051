package classifier

import "tidegate/pipeline/config"

// Config says how the classifier is used.
type Config struct {
	// Evaluate events by the trained models.
	Enabled bool `yaml:"enabled"`
	// Score, 0 to 1, from which there is a verdict; 0: the model's own threshold.
	Threshold float64 `yaml:"threshold"`
	// Count the verdicts in the metrics, but do not attach them to events.
	Shadow bool `yaml:"shadow"`
}

// Default returns a configuration that uses the models as they were trained.
func Default() Config { return Config{Enabled: true} }

// Check returns every problem of c.
func (c Config) Check() []config.Problem {
	return config.Range("threshold", c.Threshold, 0, 1) // which .nan is not in either
}
