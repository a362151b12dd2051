package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded"
	"tidegate/pipeline/embedded/embeddedtest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("TIDEGATE_TEST_HOLD_STORE"); dir != "" {
		holdStore(dir)
	}
	if dir := os.Getenv("TIDEGATE_TEST_HOLD_BROKER"); dir != "" {
		holdBroker(dir)
	}
	os.Exit(embeddedtest.Run(m))
}

var quiet = slog.New(slog.DiscardHandler)

func config(dir string) embedded.StoreConfig {
	c := embedded.DefaultStore()
	c.Dir, c.HTTPPort = dir, 0
	return c
}

func start(t *testing.T, c embedded.StoreConfig, reg prometheus.Registerer) *embedded.StoreServer {
	t.Helper()
	if err := embeddedtest.Fetch(); err != nil {
		t.Fatal(err)
	}
	s, err := embedded.StartStore(t.Context(), c, quiet, reg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ask(cfg clickhouse.Config, sql string) (string, error) {
	var out bytes.Buffer
	err := clickhouse.Query(context.Background(), cfg, sql, "TSV", &out)
	return strings.TrimSpace(out.String()), err
}

func open(t *testing.T, s *embedded.StoreServer) *clickhouse.Store {
	t.Helper()
	st, err := clickhouse.Open(t.Context(), s.Config(), quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	if err := st.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return st
}

// block returns n rows of partition 0 from offset on, with text that does not compress.
func block(st *clickhouse.Store, offset int64, n int, day time.Duration) *clickhouse.ColumnBlock {
	b := clickhouse.NewColumnBlock()
	at := time.Now().Add(-day).UnixNano()
	for i := range n {
		e := &pipeline.Event{Id: fmt.Appendf(nil, "%016d", offset+int64(i)), Dataset: pipeline.Dataset_LOG, Timestamp: at, Ingested: at, Log: &pipeline.LogLine{Message: fmt.Sprint(offset, i)}}
		b.Append(e, pipeline.Position{Offset: offset + int64(i)}, "t")
	}
	return b
}

func gone(pid int) bool {
	for range 300 {
		if syscall.Kill(pid, 0) != nil {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// TestAnalystReadsOurDatabaseAndNothingElse also checks that the analyst cannot raise the limits.
func TestAnalystReadsOurDatabaseAndNothingElse(t *testing.T) {
	s := embeddedtest.Server(t)
	st := open(t, s)
	if err := st.Insert(t.Context(), block(st, 0, 10, 0), "a"); err != nil {
		t.Fatal(err)
	}
	analyst := s.Config()
	analyst.Username, analyst.PasswordFile = "analyst", ""
	_, analyst.Password = s.Analyst()
	if got, err := ask(analyst, "SELECT count() FROM events"); err != nil || got != "10" {
		t.Errorf("count: %q, %v", got, err)
	}
	if got, err := ask(analyst, "SELECT count() FROM alerts_now"); err != nil || got != "0" {
		t.Errorf("view: %q, %v", got, err)
	}
	for _, sql := range []string{
		"INSERT INTO events (message) VALUES ('x')", "ALTER TABLE events DELETE WHERE 1", "DROP TABLE events", "TRUNCATE TABLE events",
		"CREATE TABLE x (a Int8) ENGINE = Memory", "CREATE USER x", "GRANT SELECT ON *.* TO analyst", "SYSTEM SHUTDOWN", "KILL QUERY WHERE 1",
		"SELECT * FROM file('/etc/passwd', 'LineAsString')", "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')", "SELECT * FROM remote('127.0.0.1', system.one)",
		"SELECT 1 SETTINGS max_execution_time = 0", "SELECT 1 SETTINGS max_rows_to_read = 0", "SELECT 1 SETTINGS max_memory_usage = 0", "SELECT 1 SETTINGS max_memory_usage = 100000000000", "SELECT 1 SETTINGS readonly = 0",
		"SELECT * FROM numbers(2000000)", // more rows than max_result_rows
		"INSERT INTO FUNCTION file('/tmp/tidegate-x', 'TSV') SELECT 1",
	} {
		if got, err := ask(analyst, sql); err == nil {
			t.Errorf("%s: allowed: %.100s", sql, got)
		}
	}
	// Nobody can log in as the library's own user.
	libraryUser := analyst
	libraryUser.Username, libraryUser.Password = "default", ""
	if got, err := ask(libraryUser, "SELECT 1"); err == nil {
		t.Errorf("default may log in: %s", got)
	}
	wrong := analyst
	wrong.Password = "no"
	if _, err := ask(wrong, "SELECT 1"); err == nil || !strings.Contains(err.Error(), `refuses user "analyst": the password is wrong`) {
		t.Errorf("wrong password: %v", err)
	}
}

func TestPlayAnswers(t *testing.T) {
	res, err := http.Get(embeddedtest.Server(t).PlayURL())
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); res.StatusCode != 200 || !bytes.Contains(b, []byte("ClickHouse")) {
		t.Errorf("/play: %s, %d bytes", res.Status, len(b))
	}
}

func TestPasswordsAreForThisUserOnly(t *testing.T) {
	c, err := embedded.StoreClient(filepath.Dir(embeddedtest.Server(t).Config().PasswordFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{c.PasswordFile, embeddedtest.Server(t).Config().PasswordFile} {
		st, err := os.Stat(f)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, st.Mode(), err)
		}
	}
	c.Database = "system"
	if got, err := ask(c, "SELECT currentUser()"); err != nil || got != "analyst" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestKilledChildComesBackWithWhatWasAcknowledged kills the child again and again while blocks are inserted
// and repeated under their tokens.
func TestKilledChildComesBackWithWhatWasAcknowledged(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	reg := prometheus.NewRegistry()
	s := start(t, config(t.TempDir()), reg)
	defer s.Stop(context.Background())
	st := open(t, s)
	stop := make(chan struct{})
	killed := make(chan int)
	go func() {
		n := 0
		defer func() { killed <- n }()
		for n < 3 {
			select {
			case <-stop:
				return
			case <-time.After(150 * time.Millisecond):
			}
			if p := s.PID(); p != 0 && syscall.Kill(p, syscall.SIGKILL) == nil {
				n++
				for s.PID() == p {
					time.Sleep(5 * time.Millisecond)
				}
				for s.PID() == 0 {
					time.Sleep(5 * time.Millisecond)
				}
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	const blocks, rows = 40, 200
	for i := range int64(blocks) {
		b := block(st, i*rows, rows, 0)
		for {
			err := st.Insert(ctx, b, fmt.Sprint("t/0/", i))
			if err == nil {
				break
			}
			if errors.Is(err, pipeline.ErrRowsRejected) || ctx.Err() != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(20 * time.Millisecond)
	}
	close(stop)
	n := <-killed
	for range 200 {
		got, err := ask(s.Config(), "SELECT count(), uniqExact(_offset) FROM events")
		if err == nil {
			if want := fmt.Sprintf("%d\t%d", blocks*rows, blocks*rows); got != want {
				t.Errorf("count and distinct: %s, want %s", got, want)
			}
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n == 0 {
		t.Error("the child was never killed")
	}
	if got := gather(t, reg, "tidegate_embedded_store_restarts_total"); got < float64(n) {
		t.Errorf("%v restarts counted after %d kills", got, n)
	}
}

func gather(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	fs, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fs {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// TestStopLeavesNoProcess also checks that the folder can be used again, with its data and passwords.
func TestStopLeavesNoProcess(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	c := config(t.TempDir())
	s := start(t, c, nil)
	st := open(t, s)
	if err := st.Insert(t.Context(), block(st, 0, 7, 0), "a"); err != nil {
		t.Fatal(err)
	}
	pid := s.PID()
	_, password := s.Analyst()
	if _, err := embedded.StartStore(t.Context(), c, quiet, nil); err == nil || !strings.Contains(err.Error(), "is in use by process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("a second store in the folder: %v", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if !gone(pid) {
		t.Errorf("process %d is left", pid)
	}
	s = start(t, c, nil)
	defer s.Stop(context.Background())
	if _, again := s.Analyst(); again != password {
		t.Error("the password is another")
	}
	if got, err := ask(s.Config(), "SELECT count() FROM events"); err != nil || got != "7" {
		t.Errorf("after the restart: %q, %v", got, err)
	}
}

// holdStore runs in the subprocess that TestKilledParentTakesItsChildAlong kills.
func holdStore(dir string) {
	s, err := embedded.StartStore(context.Background(), config(dir), quiet, nil)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println(s.PID())
	select {}
}

func TestKilledParentTakesItsChildAlong(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	if err := embeddedtest.Fetch(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TIDEGATE_TEST_HOLD_STORE="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	s := start(t, config(dir), nil) // at once, while the child is dying
	defer s.Stop(context.Background())
	if !gone(pid) {
		t.Errorf("process %d is left", pid)
	}
}

func TestBusyPortIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := config(t.TempDir())
	c.HTTPPort = l.Addr().(*net.TCPAddr).Port
	if err := embeddedtest.Fetch(); err != nil {
		t.Fatal(err)
	}
	_, err = embedded.StartStore(t.Context(), c, quiet, nil)
	if want := fmt.Sprintf("port %d on 127.0.0.1 is taken by another program; free it or set embedded.store.http_port", c.HTTPPort); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v", err)
	}
}

func TestMissingOrBrokenLibraryIsOneSentence(t *testing.T) {
	c := config(t.TempDir())
	c.Library = filepath.Join(c.Dir, "no.so")
	if _, err := embedded.StartStore(t.Context(), c, quiet, nil); err == nil || !strings.Contains(err.Error(), "deploy/fetch-libchdb.sh fetches it") {
		t.Errorf("missing: %v", err)
	}
	if err := os.WriteFile(c.Library, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.StartStore(t.Context(), c, quiet, nil); err == nil || !strings.Contains(err.Error(), "load "+c.Library) {
		t.Errorf("broken: %v", err)
	}
}

// TestCapOnDiskDropsTheOldest checks that whole days are dropped before parts, and that drops are counted.
func TestCapOnDiskDropsTheOldest(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	c := config(t.TempDir())
	c.MaxDiskBytes, c.DiskCheckInterval = 64<<20, 100*time.Millisecond
	reg := prometheus.NewRegistry()
	s := start(t, c, reg)
	defer s.Stop(context.Background())
	st := open(t, s)
	noise := make([]byte, 40<<20)
	r, err := os.Open("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, noise); err != nil {
		t.Fatal(err)
	}
	for day := 3; day >= 0; day-- {
		at := time.Now().Add(-time.Duration(day) * 24 * time.Hour).UnixNano()
		b := clickhouse.NewColumnBlock()
		for i := range 40 {
			b.Append(&pipeline.Event{Ingested: at, Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{UrlOriginal: string(noise[i<<20 : (i+1)<<20])}}, pipeline.Position{Offset: int64(day*1000 + i)}, "t")
		}
		if err := st.Insert(t.Context(), b, fmt.Sprint(day)); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		got, err := ask(s.Config(), "SELECT count(), max(_offset) FROM events")
		if err != nil {
			t.Fatal(err)
		}
		if got == "40\t39" && gather(t, reg, "tidegate_embedded_store_dropped_rows_total") == 120 { // the events of today are left
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("rows and highest offset are %s", got)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
