package tail

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"tidegate/collector/logs/decode"
)

// TestCutLineIsTheSameHoweverItComes: three quarters of the limit are the head and one the tail, whether the line comes whole
// or in parts; characters stay whole, and all bytes are counted.
func TestCutLineIsTheSameHoweverItComes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	letters := []string{"a", "b", "é", "€", "😀"}
	cuts := 0
	for range 500 {
		var text strings.Builder
		for range rng.IntN(8000) {
			text.WriteString(letters[rng.IntN(len(letters))])
		}
		limit := shortLine + rng.IntN(1000)
		whole, cut := Cut(text.String(), limit)

		budget := &budget{maxMemory: 1 << 30}
		var pending pendingLine
		pending.startLine(&file{}, &decode.Record{}, 0)
		for rest := []byte(text.String()); len(rest) > 0; {
			n := min(1+rng.IntN(700), len(rest))
			pending.appendPart(rest[:n], limit, budget)
			rest = rest[n:]
		}
		if budget.pendingBytes.Load() != int64(cap(pending.text)) {
			t.Fatalf("%d bytes are charged for %d", budget.pendingBytes.Load(), cap(pending.text))
		}
		var line Line
		pending.setLine(&line, decode.NoStream)
		if string(line.Text) != whole || line.Truncated != cut || line.Bytes != uint64(text.Len()) {
			t.Fatalf("%d bytes to %d: cut %t to %d bytes in parts, %t to %d at once", text.Len(), limit, line.Truncated, len(line.Text), cut, len(whole))
		}
		pending.discardLine(budget)
		if budget.pendingBytes.Load() != 0 || pending.active {
			t.Fatalf("%d bytes are charged for nothing", budget.pendingBytes.Load())
		}

		// What is left is a head and a tail of the limit, but for the mark and for parts of characters.
		if cut != (text.Len() > limit) {
			t.Fatalf("%d bytes to %d: cut %t", text.Len(), limit, cut)
		}
		if !cut {
			continue
		}
		cuts++
		head, tail, _ := strings.Cut(whole, CutMark)
		if !strings.HasPrefix(text.String(), head) || !strings.HasSuffix(text.String(), tail) || !utf8.ValidString(whole) {
			t.Fatalf("%.20q … %.20q", head, tail)
		}
		if want := limit - limit/4 - len(CutMark); len(head) > want || len(head) < want-3 || len(tail) > limit/4 || len(tail) < limit/4-3 {
			t.Fatalf("a limit of %d bytes: %d at the front, %d at the end", limit, len(head), len(tail))
		}
	}
	if cuts < 100 {
		t.Errorf("%d of 500 lines were cut", cuts)
	}
}

// TestHeadOfAFileIsItsFirstRecord behind NULs, as long as it has its end, is final, or is as long as a record may be.
func TestHeadOfAFileIsItsFirstRecord(t *testing.T) {
	check := func(content string, final bool, want string, ok bool) {
		t.Helper()
		head, got := readHead(strings.NewReader(content), final)
		if got != ok || ok && string(head.record) != want || ok && !bytes.HasPrefix([]byte(content)[head.start:], head.record) {
			t.Errorf("%.20q of %d bytes, final %t: %.20q of %d bytes at %d, %t", content, len(content), final, head.record, len(head.record), head.start, got)
		}
	}
	nuls := strings.Repeat("\x00", 100_000)
	long := strings.Repeat("x", 3*firstRead)
	for _, final := range []bool{false, true} {
		check("a\nb\n", final, "a\n", true)
		check("\n", final, "\n", true)
		check(nuls[:1]+"a\nb\n", final, "a\n", true)
		check(nuls[:17]+"a\n", final, "a\n", true)
		check(nuls+"a\nb\n", final, "a\n", true)
		check(long+"\nb\n", final, long+"\n", true)
		check("", final, "", false)
		check(nuls, final, "", false)
		check("abc", final, "abc", final)
		check(long, final, long, final)
		check(strings.Repeat("y", maxRecord+1), final, strings.Repeat("y", maxRecord), true)
	}
	if got := countNULs([]byte("\x00\x00a\x00")); got != 2 {
		t.Errorf("%d NULs at the front", got)
	}
}
