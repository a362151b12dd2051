package redact

import (
	"strings"
	"testing"
	"time"
)

// TestLineTakesLinearTime: earlier, the search for SET PASSWORD FOR went back to the last space of the line
// at each = in front of a quote. A line of 1 MiB took minutes.
func TestLineTakesLinearTime(t *testing.T) {
	var redactor Redactor
	for _, part := range []string{`="`, `x="`, `\:=`, `=\`, `\u0026,=`, `%2f="`} {
		line := []byte(strings.Repeat(part, 1<<20/len(part)))
		start := time.Now()
		redactor.Line(line)
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("1 MiB of %s: %v", part, took)
		}
	}
}
