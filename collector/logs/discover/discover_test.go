package discover

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline/lineartest"
)

func TestNamesOfRotatedFilesBelongToTheirLog(t *testing.T) {
	check := func(name, wantBase string) {
		t.Helper()
		if base, _ := splitRotated(name); base != wantBase {
			t.Errorf("%s: %s, want %s", name, base, wantBase)
		}
	}
	check("access.log", "access.log")
	check("access.log.1", "access.log")
	check("access.log.10.gz", "access.log")
	check("access.log-20261126", "access.log")
	check("access.log-20261126.gz", "access.log")
	check("access.log-20261126-1305.gz", "access.log")
	check("access.log-2026-11-26", "access.log")
	check("access-20261126.log", "access.log")
	check("app.2026-11-26.log", "app.log")
	check("app_2026112613.log.gz", "app.log")
	check("access.log.gz", "access.log")
	check("worker-1.log", "worker-1.log")
	check("worker-12345678.log", "worker-12345678.log")
	check("syslog", "syslog")
	check("20261126", "20261126")
	check("app.v2", "app.v2")
	check("-1", "-1")
	check("", "")
}

func TestRotatedFilesAreOrderedByAge(t *testing.T) {
	for _, want := range [][]string{
		{"a.log", "a.log.1", "a.log.2.gz", "a.log.10.gz", "a.log.gz"},
		{"a.log", "a.log-20261126", "a.log-20261125.gz", "a.log-20251231.gz"},
		{"a-2026112613.log", "a-2026112612.log", "a-20261126.log", "a-20261125.log.gz"},
	} {
		log := TextLog("/x", "a.log")
		got := slices.Clone(want)
		slices.Reverse(got)
		slices.SortStableFunc(got, func(a, b string) int {
			rankA, okA := log.Rank(a)
			rankB, okB := log.Rank(b)
			if !okA || !okB {
				t.Errorf("%s or %s is not of the log", a, b)
			}
			return cmp.Compare(rankA.Age, rankB.Age)
		})
		if !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

func TestGlobListsEachLogOnce(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{
		"a.log", "a.log.1", "a-20261126.log", "b.log-20261126.gz", "c.txt", "sub/d.log", "sub/e.log.1", "sub/f.txt.1",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	glob := Glob{Patterns: []string{root + "/*.log*", root + "/a*", root + "/*/*.log"}}
	logs, err := glob.List()
	var got []string
	for _, log := range logs {
		got = append(got, strings.TrimPrefix(log.ID, root+"/"))
	}
	slices.Sort(got)
	if want := []string{"a.log", "b.log", "sub/d.log", "sub/e.log"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v %v, want %v", err, got, want)
	}
	if _, err := (Glob{Patterns: []string{root + "/absent/*.log"}}).List(); err == nil {
		t.Error("a folder that does not exist has a complete list")
	}
	if folders := glob.Folders(); !slices.Equal(folders, []string{root}) {
		t.Errorf("folders %v", folders)
	}
}

func TestDockersNamesAreRanked(t *testing.T) {
	log := DockerLog("id", "/x", "id-json.log")
	check := func(name string, age int64, compressed, ok bool) {
		t.Helper()
		if rank, got := log.Rank(name); got != ok || ok && (rank.Age != age || rank.Compressed != compressed) {
			t.Errorf("%s: %+v %v", name, rank, got)
		}
	}
	check("id-json.log", 0, false, true)
	check("id-json.log.1", 1, false, true)
	check("id-json.log.12.gz", 12, true, true)
	check("id-json.log.gz", 0, false, false)
	check("id-json.log.0", 0, false, false)
	check("id-json.logx", 0, false, false)
	check("id-json.log.1.tmp", 0, false, false)
	check("other", 0, false, false)
}

func FuzzRotatedNames(f *testing.F) {
	f.Add("access.log-20261126-130500.gz")
	f.Fuzz(func(t *testing.T, name string) {
		lineartest.CheckRepeated(t, lineartest.Default, name, func(name string) {
			base, rank := splitRotated(name)
			if len(base) > len(name) || rank.Age < 0 || rank.Age == 0 && base != name {
				t.Fatalf("%q: %q %+v", name, base, rank)
			}
		})
	})
}

func TestOnlyAFolderIsAFolder(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !isDir(dir) || isDir(file) || isDir(filepath.Join(dir, "missing")) {
		t.Errorf("folder %t, file %t, missing %t", isDir(dir), isDir(file), isDir(filepath.Join(dir, "missing")))
	}
}
