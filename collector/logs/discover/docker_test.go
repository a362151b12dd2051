package discover

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tidegate/collector/logs/decode"
)

// TestDockerListsAFolderForEachContainer, and logs elsewhere of those that have none there.
func TestDockerListsAFolderForEachContainer(t *testing.T) {
	root, elsewhere := t.TempDir(), t.TempDir()
	a, b, c, d := strings.Repeat("a", 64), strings.Repeat("b", 64), strings.Repeat("c", 64), strings.Repeat("d", 64)
	containers := filepath.Join(root, "containers")
	docker := Docker{Root: root, Elsewhere: func() map[string]string {
		return map[string]string{
			a: filepath.Join(elsewhere, "a.log"), c: filepath.Join(elsewhere, "c.log"), d: filepath.Join(elsewhere, "missing", "d.log"),
		}
	}}
	list := func(docker Docker, wantErr bool, want ...string) {
		t.Helper()
		logs, err := docker.List()
		var got []string
		for _, log := range logs {
			got = append(got, filepath.Join(log.Dir, log.Base))
			if log.Container != log.ID || log.Format.Name != decode.DockerJSON.Name {
				t.Errorf("%+v", log)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) || (err != nil) != wantErr {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	list(docker, true, filepath.Join(elsewhere, "a.log"), filepath.Join(elsewhere, "c.log"))
	for _, name := range []string{a, b, "short", strings.Repeat("z", 64)} {
		if err := os.MkdirAll(filepath.Join(containers, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(containers, strings.Repeat("e", 64)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	own := []string{filepath.Join(containers, a, a+"-json.log"), filepath.Join(containers, b, b+"-json.log")}
	list(docker, false, append(own, filepath.Join(elsewhere, "c.log"))...)
	docker.Elsewhere = nil
	list(docker, false, own...)
	if folders := docker.Folders(); !slices.Equal(folders, []string{containers}) || docker.Folder() != containers {
		t.Errorf("folders %q", folders)
	}
}

// TestIdOfAContainerIs64HexDigits.
func TestIdOfAContainerIs64HexDigits(t *testing.T) {
	for _, end := range []string{"0", "9", "a", "f"} {
		if id := strings.Repeat("0", 63) + end; !isContainerID(id) {
			t.Errorf("%s is no id", id)
		}
	}
	for _, end := range []string{"", "00", "/", ":", "`", "g", "A"} {
		if id := strings.Repeat("0", 63) + end; isContainerID(id) {
			t.Errorf("%s is an id", id)
		}
	}
}

// TestRankOfARotatedFile: a number or a date is its age, and a compressed file names what was compressed.
func TestRankOfARotatedFile(t *testing.T) {
	check := func(name, wantBase string, want Rank) {
		t.Helper()
		if base, rank := splitRotated(name); base != wantBase || rank != want {
			t.Errorf("%s: %s %+v, want %s %+v", name, base, rank, wantBase, want)
		}
	}
	const day, second = 1e15 - 20261126000000, 1e15 - 20261126130501
	check("a.log", "a.log", Rank{})
	check("a.log.1", "a.log", Rank{Age: 1})
	check("a.log.2.gz", "a.log", Rank{Age: 2, Compressed: true, Plain: "a.log.2"})
	check("a.log.gz", "a.log", Rank{Age: 1<<63 - 1, Compressed: true, Plain: "a.log"})
	check("a.log-20261126", "a.log", Rank{Age: day})
	check("a.log_20261126.gz", "a.log", Rank{Age: day, Compressed: true, Plain: "a.log_20261126"})
	check("a-2026-11-26.log", "a.log", Rank{Age: day})
	check("a-20261126.log.gz", "a.log", Rank{Age: day, Compressed: true, Plain: "a-20261126.log"})
	check("a.log-20261126130501", "a.log", Rank{Age: second})
	check("a.log-20261126-130501", "a.log", Rank{Age: second})
	check("a.log.65535", "a.log", Rank{Age: 65535})
	check("a.log.65536", "a.log.65536", Rank{})
	check("a.log.0", "a.log.0", Rank{})
	check("a.log-1", "a.log-1", Rank{})
	check("a.log+20261126", "a.log+20261126", Rank{})
	check("a.log-202611261305011", "a.log-202611261305011", Rank{})
	check("a.log-2026112", "a.log-2026112", Rank{})
	check("a.1.log", "a.1.log", Rank{})
	check("a-20261126", "a", Rank{Age: day})
	check("a-19891231", "a-19891231", Rank{})
	check("a-19900101", "a", Rank{Age: 1e15 - 19900101000000})
	check("a-20991231", "a", Rank{Age: 1e15 - 20991231000000})
	check("a-21000101", "a-21000101", Rank{})
	check("a-20261301", "a-20261301", Rank{})
	check("a-20260001", "a-20260001", Rank{})
	check("a-20260132", "a-20260132", Rank{})
	check("a-20260100", "a-20260100", Rank{})
	check("a-20261231", "a", Rank{Age: 1e15 - 20261231000000})
	check("a-20260101", "a", Rank{Age: 1e15 - 20260101000000})
	check(".20261126", ".20261126", Rank{})
	check("x.20261126", "x", Rank{Age: day})
	check("a--20261126", "a-", Rank{Age: day})
	check("a-", "a-", Rank{})
	log := TextLog("/x", "a.log")
	if log.BaseOf("a.log.3.gz") != "a.log" || log.BaseOf("b") != "b" || log.ID != "/x/a.log" || log.Container != "" {
		t.Errorf("%+v", log)
	}
}

// TestPatternsOfFoldersAreExpanded: a folder that a wildcard finds may have gone since, one that is named must be there.
func TestPatternsOfFoldersAreExpanded(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a/x.log", "a/x.log.1", "b/y.txt"} {
		if err := os.WriteFile(filepath.Join(root, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(root, "a", "x.log"), filepath.Join(root, "b", "link.log")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(root, "missing"), filepath.Join(root, "b", "broken.log")); err != nil {
		t.Fatal(err)
	}
	check := func(pattern string, ok bool, want ...string) {
		t.Helper()
		paths, err := matchFiles(pattern)
		for i, path := range paths {
			paths[i] = strings.TrimPrefix(path, root+"/")
		}
		if !slices.Equal(paths, want) || (err == nil) != ok {
			t.Errorf("%s: %q, %v, want %q", pattern, paths, err, want)
		}
	}
	check(root+"/*/x.log", true, "a/x.log", "a/x.log.1")
	check(root+"/a/*.log", true, "a/x.log", "a/x.log.1")
	check(root+"/missing*/x.log", true)
	check(root+"/missing/x.log", false)
	check(root+"/a*/x[", false)
	check(root+"/a[/x", false)

	// A link leads to its file, which is listed once; a broken one to none.
	glob := Glob{Patterns: []string{root + "/*/*.log", root + "/a/x.log", root + "/missing/*.log"}}
	logs, err := glob.List()
	if len(logs) != 1 || logs[0].ID != filepath.Join(root, "a", "x.log") || err == nil || !strings.Contains(err.Error(), "logs.files: ") {
		t.Errorf("%d logs, %v", len(logs), err)
	}
	glob.Patterns = []string{root + "/a/*", root + "/a/x", root + "/b?/*", root + "/missing/*"}
	if folders := glob.Folders(); !slices.Equal(folders, []string{root + "/a"}) {
		t.Errorf("folders %q", folders)
	}
}
