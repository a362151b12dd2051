package sqltoken

import (
	"slices"
	"testing"

	"tidegate/pipeline/lineartest"
)

// TestTokensOfStatements: a token is written as its kind and its text. The kinds are w for a word, n for a
// quoted name, l for a literal, # for a number and p for punctuation.
func TestTokensOfStatements(t *testing.T) {
	check := func(sql string, escaped bool, want ...string) {
		t.Helper()
		var got []string
		for scanner := (Scanner{SQL: []byte(sql), Escaped: escaped}); scanner.Next(); {
			got = append(got, string("wnl#p"[scanner.Kind])+string(scanner.Text()))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", sql, got, want)
		}
	}
	check("SELECT `a b`, 'x''y\\'z', \"q\", 0x2A, 12 -- end", false,
		"wSELECT", "na b", "p,", `lx''y\'z`, "p,", "lq", "p,", "l0x2A", "p,", "#12")
	check("/* no */ /*!50100 SET */ @a:=1 # end", false, "wSET", "p@", "wa", "p:", "p=", "#1")
	check("'never ends", false, "lnever ends")
	check(`SELECT \"x\",\n'it\\'s'"`, true, "wSELECT", "lx", "p,", `lit\\'s`, `l`)
}

// FuzzScanner checks that the tokens of any text follow each other, and that none is empty.
func FuzzScanner(f *testing.F) {
	f.Add("SELECT 'a' /* b", false)
	f.Add(`\"x\\\"y\"`, true)
	f.Fuzz(func(t *testing.T, sql string, escaped bool) {
		lineartest.CheckRepeated(t, lineartest.Default, sql, func(sql string) {
			end := 0
			for scanner := (Scanner{SQL: []byte(sql), Escaped: escaped}); scanner.Next(); end = scanner.To {
				from, to := scanner.Inner()
				inOrder := end <= scanner.From && scanner.From < scanner.To && scanner.To <= len(sql)
				inside := scanner.From <= from && from <= to && to <= scanner.To
				if !inOrder || !inside {
					t.Fatalf("token %d:%d, inner %d:%d, after %d", scanner.From, scanner.To, from, to, end)
				}
			}
		})
	})
}
