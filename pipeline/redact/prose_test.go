package redact

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// proseLines returns the lines of testdata/prose.txt: ordinary lines with the words that secrets have around them.
func proseLines(t testing.TB) []string {
	t.Helper()
	data, err := os.ReadFile("testdata/prose.txt")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

// TestProseStaysProse: ordinary lines about passwords, tokens, keys and sessions do not change, nor do they as the
// value of a document.
func TestProseStaysProse(t *testing.T) {
	var redactor Redactor
	for _, line := range proseLines(t) {
		inJSON := `{"level":"info","msg":` + quoteJSON(line) + `}`
		for _, text := range []string{line, "2026-11-24 INFO main: " + line, inJSON} {
			if out, hidden := redactor.Line([]byte(text)); hidden {
				t.Errorf("%s\n    → %s", text, out)
			}
		}
	}
}

// TestFewWordsOfDocumentsAreHidden: of the documents and comments of this repository, which have more of these words
// than any log, less than one line in five hundred changes.
func TestFewWordsOfDocumentsAreHidden(t *testing.T) {
	var redactor Redactor
	lines, marks := 0, 0
	root := "../.."
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := entry.Name(); entry.IsDir() && (name == "redact" || name == "testdata" || path != root && name[0] == '.') {
			return filepath.SkipDir
		}
		isCode := strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go")
		if entry.IsDir() || !isCode && !strings.HasSuffix(path, ".md") {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSpace(line)
			if isCode && !strings.HasPrefix(line, "//") || line == "" {
				continue
			}
			lines++
			if _, hidden := redactor.Line([]byte(line)); hidden {
				marks++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if lines < 1000 || marks*500 > lines {
		t.Errorf("%d of %d lines changed", marks, lines)
	}
}

// TestListsOfWordsHaveNoWordTwice: a repeated word is a slip: another one may be missing.
func TestListsOfWordsHaveNoWordTwice(t *testing.T) {
	for name, list := range map[string][]string{
		"contained": contained[:], "parts": parts[:], "ambiguousWords": ambiguousWords[:], "suffixes": suffixes[:],
		"passOwners": passOwners[:], "keyOwners": keyOwners[:], "everydayWords": everydayWords[:], "doubtfulWords": doubtfulWords[:],
		"wholeWords": wholeWords[:], "codeOwners": codeOwners[:], "harmless": harmless[:], "harmlessNames": harmlessNames[:],
		"headers": headers[:], "valueWords": valueWords[:], "settings": settings[:], "placeholders": placeholders[:],
		"proseWords": proseWords[:], "memberNames": memberNames[:], "technicalWords": technicalWords[:],
		"codeNames": codeNames[:], "pinOwners": pinOwners[:], "pinDevices": pinDevices[:], "encodings": encodings[:], "cipherCalls": cipherCalls[:],
		"loginStems": loginStems[:], "namedSchemes": namedSchemes[:],
	} {
		sorted := slices.Sorted(slices.Values(list))
		for i, word := range sorted {
			if i > 0 && word == sorted[i-1] {
				t.Errorf("%s has %q twice", name, word)
			}
		}
	}
}
