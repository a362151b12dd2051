package logs

import (
	"strings"
	"testing"
)

func checkLevel(t *testing.T, line, want string) {
	t.Helper()
	if got := detectLevel([]byte(line)); got != want {
		t.Errorf("%q: %q, want %q", line, got, want)
	}
}

// TestLettersAreLevels: those of MongoDB's member s, and of klog and glog.
func TestLettersAreLevels(t *testing.T) {
	for letter, want := range map[string]string{
		"F": "fatal", "E": "error", "W": "warn", "I": "info", "D": "debug", "D1": "debug", "D5": "debug",
		"D0": "", "D6": "", "D12": "", "I1": "", "X": "", "": "",
	} {
		checkLevel(t, `{"t":1,"s":"`+letter+`","c":"NETWORK"}`, want)
	}
	checkLevel(t, `{"s":"D1`, "")
	checkLevel(t, `{"s":"`, "")
	checkLevel(t, `{"s": "I"}`, "") // MongoDB writes no space
	checkLevel(t, `{"s":"I","s":"E"}`, "info")

	for letter, want := range map[string]string{"I": "info", "W": "warn", "E": "error", "F": "fatal", "D": "", "i": ""} {
		checkLevel(t, letter+`1231 23:59:59.000001 1 a.go:1] x`, want)
		checkLevel(t, letter+`20261231 23:59:59.000001 1 a.cc:1] x`, want)
	}
	for _, line := range []string{
		`I1301 23:08:00.1 x`, `I1132 23:08:00.1 x`, `Ix124 23:08:00.1 x`, `I11x4 23:08:00.1 x`, `I1124T23:08:00.1 x`,
		`I1124 23-08:00.1 x`, `I1124 23:08-00.1 x`, `I1124 23:08:0`, `Ix0261231 23:59:59.0 x`,
	} {
		checkLevel(t, line, "")
	}
	checkLevel(t, `I0101 00:00:00`, "info")
	checkLevel(t, `I20260101 00:00:00.0`, "info")
}

// TestNumbersOfPinoAndBunyanAreLevels.
func TestNumbersOfPinoAndBunyanAreLevels(t *testing.T) {
	for number, want := range map[string]string{
		"10": "trace", "20": "debug", "30": "info", "40": "warn", "50": "error", "60": "fatal", "70": "", "0": "", "300": "", "5": "",
	} {
		checkLevel(t, `{"level":`+number+`,"time":1}`, want)
	}
}

// TestKeysOfLevelsHaveAValue behind = or :, in quotes or without.
func TestKeysOfLevelsHaveAValue(t *testing.T) {
	for _, key := range []string{"level", "lvl", "severity", "levelname", "LEVEL", "Severity"} {
		for _, behind := range []string{"=warn", "=WARN x", `="warn"`, `: warn`, `='warn'`, ` = "warn"`, ` : "Warning"`} {
			checkLevel(t, "x "+key+behind, "warn")
		}
		for _, behind := range []string{"", "=", " warn", `"warn"`, "=warner", "=x warn", "=warn2"} {
			checkLevel(t, "x "+key+behind, "")
		}
	}
	for _, key := range []string{
		"level", "severity", "lvl", "levelname", "level_name", "log.level", "@level", "loglevel", "log_level", "severity_text",
		"SeverityText", "@l",
	} {
		checkLevel(t, `{"`+key+`":"Error"}`, "error")
		checkLevel(t, `{"x`+key+`":"Error"}`, "")
	}
	checkLevel(t, `{"log":{"severity":"error"}}`, "error")
	checkLevel(t, `{"log":{"a":{"level":"error"}}}`, "")
	checkLevel(t, `{"log":{"a":{"b":1},"level":"error"}}`, "error")
	checkLevel(t, `{"log":{"a":1},"x":{"level":"error"}}`, "")
	checkLevel(t, `{"log":{"level":"error","lvl":"info"}}`, "error")
	checkLevel(t, `{"a":[1,2],"level":"error"}`, "error")
	checkLevel(t, `{"a":[1,2],"log":{"b":1,"level":"error"}}`, "error")
	checkLevel(t, `{"a":"\\","level":"error"}`, "error")
	checkLevel(t, `{"":"x","level":"error"}`, "error")
	checkLevel(t, "\t "+`{"level":"error"}`, "error")
	checkLevel(t, `{"level":"\u001b[31merror"}`, "error")
	checkLevel(t, `{"level":"\u001B[1;31m\u001b[4merror"}`, "error")
	checkLevel(t, `{"level":"\u001b[3xerror"}`, "")
}

// TestWordsAreLevelsWhereTheyAreMarkedSo by what stands around them.
func TestWordsAreLevelsWhereTheyAreMarkedSo(t *testing.T) {
	for _, line := range []string{
		"a [error] b", "a [error x", "a [error: x", "a <error> b", "a (error) b", "[a1_b:error] x",
		"ERROR", "a ERROR b", "a\tERROR\tb", "a|ERROR|b", "a |ERROR: b", "a ERROR, b", "[1 ERROR] b", "a ERROR! b",
		"app.ERROR: b", "ERROR[0012] b", "ERROR[1] b", "ERROR1: b", "ERROR5: b", "ERROR1:", "ERROR[1]",
		"error: b", "error:",
	} {
		checkLevel(t, line, "error")
	}
	for _, line := range []string{
		"a [error", "a [error, b", "a <error) b", "a <error b", "a (error> b", "a (error b", "[:error] x", "[a-b:error] x", "a:error] x",
		"aERROR b", "a ERRORb", "a.ERROR b", "a=ERROR b", "a ERROR= b", "[ERROR! b", "ERROR] b", "|ERROR] b",
		"ERROR[12 b", "ERROR[] b", "ERROR[1x] b", "ERROR[12", "ERROR0: b", "ERROR6: b", "ERROR1 b", "ERROR12: b", "ERROR1",
		"Error: b", "FaTAL b", "FATAl b", "zERROR b", " error: b", "error:b", "error b", "a error: b", "alert: b", "er: b",
	} {
		checkLevel(t, line, "")
	}
	for word, want := range map[string]string{
		"info": "info", "warn": "warn", "warning": "warn", "debug": "debug", "trace": "trace", "fatal": "fatal", "crit": "fatal",
		"critical": "fatal", "verbose": "trace", "fail": "error", "dbug": "debug", "trce": "trace", "notice": "", "severe": "",
	} {
		checkLevel(t, word+": x", want)
	}
	checkLevel(t, "key=\"[error]\" [warn] x", "warn")
	checkLevel(t, "INFORMATION x [warn] y", "warn")
}

// TestLevelIsLookedForInTheFrontOfALine: a word that the end of the front cuts may be another one.
func TestLevelIsLookedForInTheFrontOfALine(t *testing.T) {
	checkLevel(t, strings.Repeat(" ", levelWindow-7)+"[error] x", "error")
	checkLevel(t, strings.Repeat(" ", levelWindow-6)+"[error] x", "")
	checkLevel(t, strings.Repeat(" ", levelWindow-6)+"ERROR x", "error")
	checkLevel(t, strings.Repeat(" ", levelWindow-5)+"ERROR x", "")
	checkLevel(t, strings.Repeat(" ", levelWindow-6)+"ERROR", "error")
	behind := `","level":"info"}`
	front := `{"msg":"`
	checkLevel(t, front+strings.Repeat("x", jsonLevelWindow-len(front)-len(behind))+behind, "info")
	checkLevel(t, front+strings.Repeat("x", jsonLevelWindow-len(front)-len(behind)+5)+behind, "")
}

// TestMemberWithoutANameIsNotThatOfTheLog: the levels within the member log of an object count, and those of no other member.
func TestMemberWithoutANameIsNotThatOfTheLog(t *testing.T) {
	for line, want := range map[string]string{
		`{"log":{"level":"error"}}`:                 "error",
		`{"log":"x","":{"level":"error"}}`:          "",
		`{"log":"x","a":{"level":"error"}}`:         "",
		`{"":"x","log":{"":1,"level":"error"}}`:     "error",
		`{"log":{"a":{"level":"error"}}}`:           "",
		`{"log":{"a":[{"level":"error"}]},"b":"x"}`: "",
		`{"`: "",
	} {
		if got := detectLevel([]byte(line)); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
