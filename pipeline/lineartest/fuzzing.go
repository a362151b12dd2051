package lineartest

import (
	"flag"
	"sync"
)

// fuzzing reports whether this process is one of `go test -fuzz`.
var fuzzing = sync.OnceValue(func() bool {
	for _, name := range []string{"test.fuzz", "test.fuzzworker"} {
		if set := flag.Lookup(name); set != nil && set.Value.String() != "" && set.Value.String() != "false" {
			return true
		}
	}
	return false
})
