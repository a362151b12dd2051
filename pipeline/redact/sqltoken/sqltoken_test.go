package sqltoken

import (
	"slices"
	"testing"
)

func TestTokens(t *testing.T) {
	check := func(sql string, escaped bool, want ...string) {
		t.Helper()
		var got []string
		for s := (Scanner{SQL: []byte(sql), Escaped: escaped}); s.Next(); {
			got = append(got, string("wnl#p"[s.Kind])+string(s.Text()))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", sql, got, want)
		}
	}
	check("SELECT `a b`, 'x''y\\'z', \"q\", 0x2A, 12 -- end", false, "wSELECT", "na b", "p,", `lx''y\'z`, "p,", "lq", "p,", "l0x2A", "p,", "#12")
	check("/* no */ /*!50100 SET */ @a:=1 # end", false, "wSET", "p@", "wa", "p:", "p=", "#1")
	check("'never ends", false, "lnever ends")
	check(`SELECT \"x\",\n'it\\'s'"`, true, "wSELECT", "lx", "p,", `lit\\'s`, `l`)
}

// FuzzScanner: the tokens of any text follow each other, and none is empty.
func FuzzScanner(f *testing.F) {
	f.Add("SELECT 'a' /* b", false)
	f.Add(`\"x\\\"y\"`, true)
	f.Fuzz(func(t *testing.T, sql string, escaped bool) {
		end := 0
		for s := (Scanner{SQL: []byte(sql), Escaped: escaped}); s.Next(); end = s.To {
			if from, to := s.Inner(); s.From < end || s.To <= s.From || s.To > len(sql) || from < s.From || to < from || to > s.To {
				t.Fatalf("token %d:%d, inner %d:%d, behind %d", s.From, s.To, from, to, end)
			}
		}
	})
}
