package mysql

import (
	"strings"
	"testing"

	"tidegate/pipeline/lineartest"
)

// TestMethodIsTheFirstWord: the method is the first word in upper case, without comments and brackets before
// it.
func TestMethodIsTheFirstWord(t *testing.T) {
	check := func(sql, want string) {
		t.Helper()
		if got := method([]byte(sql)); got != want {
			t.Errorf("%q: %q, want %q", sql, got, want)
		}
	}
	check("select 1", "SELECT")
	check("  \n-- a\n# b\n/* c */ (SELECT 1)", "SELECT")
	check("/*!40101 SET NAMES utf8 */", "SET")
	check("Frobnicate x", "FROBNICATE")
	check("SELECT", "SELECT")
	check("", "")
	check("/* never ends", "")
	check("'x'", "")
	check("{\"json\":1}", "")
	check(strings.Repeat("a", 100), "")
}

// FuzzMethod scans arbitrary text. No function may panic.
func FuzzMethod(f *testing.F) {
	f.Add("SELECT 1")
	f.Add("/*!")
	f.Fuzz(func(t *testing.T, sql string) {
		lineartest.CheckRepeated(t, lineartest.Default, sql, func(sql string) {
			method([]byte(sql))
			matchStatement([]byte(sql), true)
			databaseOfUse([]byte(sql))
		})
	})
}
