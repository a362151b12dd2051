package protocols

import (
	"strings"
	"testing"

	"tidegate/pipeline"
)

// TestEveryByteIsCounted: ids of events are made of the offset of their first byte, so it counts what was parsed, skipped,
// lost, dropped or not understood.
func TestEveryByteIsCounted(t *testing.T) {
	check := func(client, server int, pieces ...string) {
		t.Helper()
		var log []string
		set, _ := toys(&log, nil)
		conn := set.Open(Info{}, func(*pipeline.Event) {})
		run(conn, pieces...)
		for dir, want := range []int{client, server} {
			stream := &conn.streams[dir]
			if got := int(stream.offset) + len(stream.tail); got != want {
				t.Errorf("%.100q: %d bytes of side %d, want %d: %q", pieces, got, dir, want, log)
			}
		}
	}
	check(3, 0, ">hi\n")
	check(8, 4, ">hi\n", "<abc\n", ">unfin")
	check(3+5+19, 0, ">hi\n", "> gap 5", ">lost\n#a\nb\n#c\nd\nefg\n")
	check(3+8+12+5, 0, ">hi\n", ">skip 20\n", ">0123456789ab", "> gap 5")
	check(3+5, 0, ">hi\n", ">!x#a\n", ">")
	check(3+70+3+2, 0, ">hi\n", ">"+strings.Repeat("x", 70), ">y\n#", ">z\n")
	check(7+5, 2, ">nothing", ">more\n", "<ab")
}
