package embedded_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded"
	"tidegate/pipeline/embedded/embeddedtest"
)

// Sizes of newStoreFolder.
const damageParts, damageRows = 4, 100

// newStoreFolder returns the folder of a stopped store with damageParts parts of events.
func newStoreFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	server := startStore(t, storeConfig(dir), nil)
	store := openStore(t, server)
	if _, err := query(server.Config(), "SYSTEM STOP MERGES"); err != nil {
		t.Fatal(err)
	}
	for i := range int64(damageParts) {
		if err := store.Insert(t.Context(), newBlock(i*damageRows, damageRows), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// copyFolder returns a copy of the folder of a store.
func copyFolder(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "store")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// partFiles returns the files of that name in all parts of events.
func partFiles(t *testing.T, dir, name string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "data/store/*/*/2*_*_*_0", name))
	if err != nil || len(files) != damageParts {
		t.Fatalf("%d files %s, %v", len(files), name, err)
	}
	return files
}

// storedParts returns the names of the parts of events that hold data, detached ones too.
func storedParts(t *testing.T, dir string) (parts []string) {
	t.Helper()
	for _, folder := range []string{"2*", "detached/*_2*"} {
		files, err := filepath.Glob(filepath.Join(dir, "data/store/*/*", folder, "data.bin"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			parts = append(parts, strings.TrimPrefix(filepath.Base(filepath.Dir(file)), "broken-on-start_"))
		}
	}
	slices.Sort(parts)
	return parts
}

func writeFile(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tryStart starts a store and returns the error of that.
func tryStart(t *testing.T, dir string, log *lockedBuffer, reg prometheus.Registerer) (*embedded.StoreServer, error) {
	t.Helper()
	server, err := embedded.StartStore(t.Context(), storeConfig(dir), slog.New(slog.NewTextHandler(log, nil)), reg)
	if err == nil {
		t.Cleanup(func() { _ = server.Stop(context.Background()) })
	}
	return server, err
}

// TestDamagedPartsAreDetachedAndTold: whatever file of a part is damaged, the store starts with the others. The part is
// kept, counted and logged with its path.
func TestDamagedPartsAreDetachedAndTold(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a ClickHouse")
	}
	intact := newStoreFolder(t)
	check := func(name string, damagedParts int, damage func(file string)) {
		t.Helper()
		dir := copyFolder(t, intact)
		var damaged []string
		for _, file := range partFiles(t, dir, name)[:damagedParts] {
			damage(file)
			damaged = append(damaged, filepath.Base(filepath.Dir(file)))
		}
		var log lockedBuffer
		reg := prometheus.NewRegistry()
		server, err := tryStart(t, dir, &log, reg)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		rows, err := query(server.Config(), "SELECT count() FROM events WHERE notEmpty(message)")
		if want := fmt.Sprint((damageParts - damagedParts) * damageRows); err != nil || rows != want {
			t.Errorf("%s: %s rows, want %s, %v", name, rows, want, err)
		}
		awaitConnections(t, name+" is told", func() bool {
			return metricValue(t, reg, "tidegate_embedded_store_damaged_folders") == float64(damagedParts)
		})
		path := filepath.Join(dir, "data/store")
		if !strings.Contains(log.String(), "damaged data") || !strings.Contains(log.String(), "first="+path) {
			t.Errorf("%s: %s", name, log.String())
		}
		for _, part := range damaged {
			if !slices.Contains(storedParts(t, dir), part) {
				t.Errorf("%s: part %s is gone", name, part)
			}
		}
		if err := server.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	truncate := func(file string) {
		if err := os.Truncate(file, 1); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"columns.txt", "checksums.txt", "primary.cidx", "serialization.json"} {
		check(name, 1, truncate)
	}
	check("data.cmrk4", 2, truncate)
	check("count.txt", 1, func(file string) { _ = os.Remove(file) })
	check("columns.txt", damageParts, func(file string) { writeFile(t, file, "\x00garbage") })
}

// TestFolderThatCannotBeReadIsRefused: the start names the path and the remedy, and changes nothing.
func TestFolderThatCannotBeReadIsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a ClickHouse")
	}
	intact := newStoreFolder(t)
	check := func(file, text string, want ...string) {
		t.Helper()
		dir := copyFolder(t, intact)
		before := storedParts(t, dir)
		if file = filepath.Join(dir, file); text != "" {
			writeFile(t, file, text)
		} else if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		var log lockedBuffer
		_, err := tryStart(t, dir, &log, nil)
		for _, word := range append(want, dir) {
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v does not say %q", file, err, word)
			}
		}
		if after := storedParts(t, dir); !slices.Equal(after, before) {
			t.Errorf("%s: the data were %v and are %v", file, before, after)
		}
	}
	check("format", "2\n", "newer version of tidegate (format 2", "move the folder away")
	check("format", "x", "instead of a number")
	check("data/metadata/tidegate.sql", "", "describes no database", "restore", "data/store/")
	check("data/metadata/tidegate.sql", "garbage", "tidegate.sql", "backup", "log/clickhouse.log")
	check("data/metadata/tidegate/events.sql", "garbage", "events.sql", "backup", "log/clickhouse.log")
}

// TestTableWithoutMetadataIsKept: the engine creates the table anew. The folder of the old one is counted and stays.
func TestTableWithoutMetadataIsKept(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a ClickHouse")
	}
	dir := newStoreFolder(t)
	before := storedParts(t, dir)
	if err := os.Remove(filepath.Join(dir, "data/metadata/tidegate/events.sql")); err != nil {
		t.Fatal(err)
	}
	var log lockedBuffer
	reg := prometheus.NewRegistry()
	server, err := tryStart(t, dir, &log, reg)
	if err != nil {
		t.Fatal(err)
	}
	openStore(t, server)
	awaitConnections(t, "the folder is told", func() bool {
		return metricValue(t, reg, "tidegate_embedded_store_damaged_folders") == 1
	})
	if after := storedParts(t, dir); !slices.Equal(after, before) {
		t.Errorf("the data were %v and are %v", before, after)
	}
}

// TestFolderThatCannotBeWrittenIsNamed: on a read-only and on a full disk the start ends with the path and the remedy.
func TestFolderThatCannotBeWrittenIsNamed(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a ClickHouse")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may mount")
	}
	mount := func(options string, flags uintptr) string {
		t.Helper()
		dir := t.TempDir()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
		return dir
	}
	check := func(dir string, want ...string) {
		t.Helper()
		var log lockedBuffer
		_, err := tryStart(t, dir, &log, nil)
		for _, word := range append(want, dir, "set data_dir") {
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("%v does not say %q", err, word)
			}
		}
	}
	intact := newStoreFolder(t)

	readOnly := mount("size=64m", 0)
	if err := os.CopyFS(readOnly, os.DirFS(intact)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("", readOnly, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	check(readOnly, "read-only file system")
	check(filepath.Join(readOnly, "new"), "read-only file system")

	full := mount("size=64m", 0)
	if err := os.CopyFS(full, os.DirFS(intact)); err != nil {
		t.Fatal(err)
	}
	before := storedParts(t, full)
	filler, err := os.Create(filepath.Join(full, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for chunk := make([]byte, 4096); err == nil; {
		_, err = filler.Write(chunk)
	}
	_ = filler.Close()
	check(full, "no space left on device", "free space")
	if after := storedParts(t, full); !slices.Equal(after, before) {
		t.Errorf("the data were %v and are %v", before, after)
	}
	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}
	var log lockedBuffer
	server, err := tryStart(t, full, &log, nil)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := query(server.Config(), "SELECT count() FROM events")
	if err != nil || rows != fmt.Sprint(damageParts*damageRows) {
		t.Errorf("with space again: %s rows, %v", rows, err)
	}
	_ = server.Stop(t.Context())
}

// fillStore starts a store, creates the tables, and inserts blocks until it is killed, in the subprocess of
// TestStoreThatIsKilledWhileItStartsLosesNothing. It prints a line for each block that is acknowledged.
func fillStore(dir string) {
	ctx := context.Background()
	server, err := embedded.StartStore(ctx, storeConfig(dir), quiet, nil)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	store, err := clickhouse.Open(ctx, server.Config(), quiet, nil)
	if err == nil {
		err = store.Migrate(ctx)
	}
	for err == nil {
		if err = store.Insert(ctx, newBlock(time.Now().UnixNano(), 1), rand.Text()); err == nil {
			fmt.Println("stored")
		}
	}
	fmt.Println("error", err)
	os.Exit(1)
}

// TestStoreThatIsKilledWhileItStartsLosesNothing kills the whole process tree at twenty moments, from the first start in
// an empty folder to inserts. Each start succeeds that is not killed, and in the end all acknowledged rows are there.
func TestStoreThatIsKilledWhileItStartsLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a ClickHouse")
	}
	if err := embeddedtest.Fetch(); err != nil {
		t.Fatal(err)
	}
	const kills = 20
	dir := t.TempDir()
	stored, longest := 0, 2*time.Second
	for kill := range kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "TIDEGATE_TEST_FILL_STORE="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The last and each fifth one run until they have stored a block, which shows how long a start takes.
		whole := kill%5 == 4
		var timer *time.Timer
		if !whole {
			timer = time.AfterFunc(mathrand.N(longest), func() { _ = cmd.Process.Kill() })
		}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if text := lines.Text(); text != "stored" {
				t.Fatalf("start %d: %s", kill, text)
			}
			stored++
			if whole {
				longest = time.Since(began) * 5 / 4
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if timer != nil {
			timer.Stop()
		}
	}

	var log lockedBuffer
	reg := prometheus.NewRegistry()
	server, err := tryStart(t, dir, &log, reg)
	if err != nil {
		t.Fatal(err)
	}
	got, err := query(server.Config(), "SELECT count() >= "+fmt.Sprint(stored)+", count() = uniqExact(_offset) FROM events")
	if err != nil || got != "1\t1" {
		t.Errorf("%d rows were acknowledged; at least these, and each once: %q, %v", stored, got, err)
	}
	if damaged := metricValue(t, reg, "tidegate_embedded_store_damaged_folders"); damaged != 0 {
		t.Errorf("%v folders are damaged: %s", damaged, log.String())
	}
	t.Logf("%d blocks stored in %d lives", stored, kills)
}
