package redact

import (
	"strings"
	"testing"
	"time"
)

// TestLineTakesLinearTime: each = in front of a quote looked back to the last space of the line for SET
// PASSWORD FOR, which took minutes for a line of 1 MiB.
func TestLineTakesLinearTime(t *testing.T) {
	var r Redactor
	for _, part := range []string{`="`, `x="`, `\:=`, `=\`, `\u0026,=`, `%2f="`} {
		line := []byte(strings.Repeat(part, 1<<20/len(part)))
		start := time.Now()
		r.Line(line)
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("1 MiB of %s: %v", part, took)
		}
	}
}
