package redact

// Label returns the value of a label or an environment variable without its secrets. It hides the whole value
// if key is the name of a secret, and otherwise the same as Line.
func (r *Redactor) Label(key, value string) string {
	if value == "" {
		return value
	}
	if class := classOf([]byte(key)); (class.isSecret() || hasForeignName([]byte(key))) && !isPlaceholder([]byte(value)) &&
		!(class == countable && isCount([]byte(value), 20)) {
		return Marker
	}
	if out, hidden := r.Line([]byte(value)); hidden {
		return string(out)
	}
	return value
}
