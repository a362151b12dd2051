package retro

// SetLimits replaces the limits of queries, and returns a function that restores them.
func SetLimits(settings string) (restore func()) {
	before := limits
	limits = settings
	return func() { limits = before }
}
