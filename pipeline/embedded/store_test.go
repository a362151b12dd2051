package embedded_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/config"
	"tidegate/pipeline/embedded"
	"tidegate/pipeline/embedded/embeddedtest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("TIDEGATE_TEST_HOLD_STORE"); dir != "" {
		holdStore(dir)
	}
	if dir := os.Getenv("TIDEGATE_TEST_FILL_STORE"); dir != "" {
		fillStore(dir)
	}
	if dir := os.Getenv("TIDEGATE_TEST_HOLD_BROKER"); dir != "" {
		holdBroker(dir)
	}
	os.Exit(embeddedtest.Run(m))
}

var quiet = slog.New(slog.DiscardHandler)

// storeConfig returns the configuration of a store in a folder, at a free port.
func storeConfig(dir string) embedded.StoreConfig {
	cfg := embedded.DefaultStore()
	cfg.Dir, cfg.HTTPPort = dir, 0
	return cfg
}

// startStore starts a ClickHouse that the test stops.
func startStore(t *testing.T, cfg embedded.StoreConfig, reg prometheus.Registerer) *embedded.StoreServer {
	t.Helper()
	if err := embeddedtest.Fetch(); err != nil {
		t.Fatal(err)
	}
	server, err := embedded.StartStore(t.Context(), cfg, quiet, reg)
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// query returns the result of a query as tab-separated text.
func query(cfg clickhouse.Config, sql string) (string, error) {
	var out bytes.Buffer
	err := clickhouse.Query(context.Background(), cfg, sql, "TSV", &out)
	return strings.TrimSpace(out.String()), err
}

// openStore opens the database of a server and creates its tables.
func openStore(t *testing.T, server *embedded.StoreServer) *clickhouse.Store {
	t.Helper()
	store, err := clickhouse.Open(t.Context(), server.Config(), quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	if err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return store
}

// newBlock returns a block of rows of partition 0, from an offset on.
func newBlock(offset int64, rows int) *clickhouse.ColumnBlock {
	block := clickhouse.NewColumnBlock()
	at := time.Now().UnixNano()
	for i := range rows {
		event := &pipeline.Event{
			Id: fmt.Appendf(nil, "%016d", offset+int64(i)), Dataset: pipeline.Dataset_LOG, Timestamp: at, Ingested: at,
			Log: &pipeline.LogLine{Message: fmt.Sprint(offset, i)},
		}
		block.Append(event, pipeline.Position{Offset: offset + int64(i)}, "t")
	}
	return block
}

// waitExited reports whether a process ends within three seconds.
func waitExited(pid int) bool {
	for range 300 {
		if syscall.Kill(pid, 0) != nil {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// hungryQueries are queries that take all the memory that they get, each in a way of its own. Some raise what
// an analyst may raise, so that more is held at a time, or less is written to the disk.
var hungryQueries = []string{
	"SELECT sum(length(text)) FROM (SELECT groupArray(repeat('x', 10000)) AS text FROM numbers(200000))",
	"SELECT count() FROM (SELECT number FROM numbers(100000000) GROUP BY number)" +
		" SETTINGS max_bytes_ratio_before_external_group_by = 0",
	"SELECT repeat(toString(cityHash64(number)), 10) AS text FROM numbers(50000000) ORDER BY text LIMIT 1 OFFSET 49999999" +
		" SETTINGS max_bytes_ratio_before_external_sort = 0",
	"SELECT count() FROM numbers(50000000) AS a JOIN numbers(50000000) AS b USING number" +
		" SETTINGS max_bytes_ratio_before_external_join = 0",
	"SELECT uniqExact(number), quantileExact(number) FROM numbers(200000000)",
	"SELECT max(total) FROM (SELECT sum(number) OVER (ORDER BY number DESC) AS total FROM numbers(100000000))",
	"SELECT sum(length(range(1000000))) FROM numbers(100000) SETTINGS max_block_size = 1000000",
	"SELECT count() FROM (SELECT groupArray(toString(number)) FROM numbers(60000000) GROUP BY number % 1000)" +
		" SETTINGS max_untracked_memory = 100000000000, max_bytes_ratio_before_external_group_by = 0",
}

// TestAnalystsLeaveMemoryForInserts runs as many hungry queries as analysts may run at once, again and again,
// in a store of the least memory. Each block of an engine is inserted meanwhile, by few attempts, in twenty
// rounds of queries, and the process keeps to its memory.
func TestAnalystsLeaveMemoryForInserts(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a ClickHouse")
	}
	const rounds, perRound, rows = 20, 3, 1000
	cfg := storeConfig(t.TempDir())
	cfg.MaxMemoryBytes = config.GiB
	server := startStore(t, cfg, nil)
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	store := openStore(t, server)
	_, analyst := usersOf(t, server)
	pid := server.PID()

	var attempts, blocks, refused atomic.Int64
	for range rounds {
		ctx, endQueries := context.WithCancel(t.Context())
		var queries sync.WaitGroup
		for _, sql := range hungryQueries {
			queries.Go(func() {
				for ctx.Err() == nil {
					err := clickhouse.Query(ctx, analyst, sql, "TSV", io.Discard)
					if err != nil && strings.Contains(strings.ToLower(err.Error()), "memory limit") {
						refused.Add(1)
					}
				}
			})
		}
		for range perRound {
			insertWithRetries(t, store, newBlock(blocks.Load()*rows, rows), &attempts)
			blocks.Add(1)
		}
		endQueries()
		queries.Wait()
	}
	peak := peakMemory(t, pid)
	t.Logf("%d inserts beside the queries in %d attempts, %d queries refused, peak memory %d MiB",
		blocks.Load(), attempts.Load(), refused.Load(), peak>>20)
	if attempts.Load() > blocks.Load()*5/4 {
		t.Errorf("%d attempts for %d inserts", attempts.Load(), blocks.Load())
	}
	if refused.Load() == 0 {
		t.Error("no query was refused for its memory: they do not press")
	}
	if peak > int64(cfg.MaxMemoryBytes)*5/4 {
		t.Errorf("the process took %d MiB, its limit is %d MiB", peak>>20, cfg.MaxMemoryBytes>>20)
	}
	if server.PID() != pid {
		t.Error("the server was restarted")
	}
	got, err := query(server.Config(), "SELECT count() FROM events")
	for range 30 { // the memory of the last round comes back behind its queries
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), "memory limit") {
			break
		}
		time.Sleep(time.Second)
		got, err = query(server.Config(), "SELECT count() FROM events")
	}
	if err != nil || got != fmt.Sprint(blocks.Load()*rows) {
		t.Errorf("%s rows are stored, not %d: %v", got, blocks.Load()*rows, err)
	}
}

// insertWithRetries inserts a block, and counts the attempts.
func insertWithRetries(t *testing.T, store *clickhouse.Store, block *clickhouse.ColumnBlock, attempts *atomic.Int64) {
	t.Helper()
	began, token := time.Now(), fmt.Sprint("token", attempts.Load())
	for {
		attempts.Add(1)
		err := store.Insert(t.Context(), block, token)
		if err == nil {
			return
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("an insert beside the queries: %v", err)
		}
	}
}

// TestSessionsOfAnalystsTakeNoMemory: a session outlives its request by seconds, whatever the client asks for.
func TestSessionsOfAnalystsTakeNoMemory(t *testing.T) {
	server := embeddedtest.Server(t)
	openStore(t, server)
	ask := func(sql, session string) error {
		login := server.Analyst()
		address := "http://" + login.User + ":" + login.Password + "@" + server.Config().HTTPAddr + "/?" + session
		response, err := http.Post(address, "text/plain", strings.NewReader(sql))
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if body, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusOK {
			return errors.New(string(body))
		}
		return nil
	}
	if err := ask("SELECT 1", "session_id=a&session_timeout=3600"); err == nil {
		t.Error("a session may last an hour")
	}
	if err := ask("SELECT 1", "session_id=b"); err != nil {
		t.Error(err)
	}
	deadline := time.Now().Add(time.Minute)
	for ask("SELECT 1", "session_id=b&session_check=1") == nil {
		if time.Now().After(deadline) {
			t.Fatal("a session lasts")
		}
		time.Sleep(4 * time.Second) // each request prolongs the session
	}
}

// peakMemory returns the highest resident memory that a process has had.
func peakMemory(t *testing.T, pid int) (bytes int64) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscan(after, &bytes); err != nil {
		t.Fatalf("%v: %s", err, status)
	}
	return bytes << 10
}

// TestAnalystsFillNoDisk: sorts and groups that do not fit into the memory are written to the disk, up to a limit that
// no analyst can raise.
func TestAnalystsFillNoDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a ClickHouse")
	}
	cfg := storeConfig(t.TempDir())
	cfg.MaxDiskBytes = 64 * config.MiB // a tenth of it for temporary data
	server := startStore(t, cfg, nil)
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	_, analyst := usersOf(t, server)
	const (
		sort = "SELECT substring(id, 1, 5) FROM (SELECT randomPrintableASCII(100) AS id FROM numbers(1000000)) ORDER BY id" +
			" LIMIT 1 OFFSET 999999 SETTINGS max_bytes_before_external_sort = 5000000," +
			" max_bytes_ratio_before_external_sort = 0.01"
		group = "SELECT count() FROM (SELECT randomPrintableASCII(100) AS id FROM numbers(300000) GROUP BY id)" +
			" SETTINGS max_bytes_before_external_group_by = 1000000, max_block_size = 10000, max_threads = 1"
	)
	for _, sql := range []string{sort, group} { // each writes 30 to 100 MB
		if _, err := query(analyst, sql); err == nil || !strings.Contains(err.Error(), "temporary files") {
			t.Errorf("%s: ends with %v", sql, err)
		}
	}
	for _, value := range []string{"0", "100000000000"} {
		if _, err := query(analyst, "SELECT 1 SETTINGS max_temporary_data_on_disk_size_for_query = "+value); err == nil {
			t.Errorf("the analyst raises the limit to %s", value)
		}
	}
}

// TestAnalystReadsTheDatabaseAndNothingElse: the analyst cannot raise the limits either.
func TestAnalystReadsTheDatabaseAndNothingElse(t *testing.T) {
	server := embeddedtest.Server(t)
	store := openStore(t, server)
	if err := store.Insert(t.Context(), newBlock(0, 10), "a"); err != nil {
		t.Fatal(err)
	}
	analyst := server.Config()
	analyst.Username, analyst.PasswordFile = "analyst", ""
	analyst.Password = server.Analyst().Password
	if got, err := query(analyst, "SELECT count() FROM events"); err != nil || got != "10" {
		t.Errorf("count: %q, %v", got, err)
	}
	if got, err := query(analyst, "SELECT count() FROM alerts"); err != nil || got != "0" {
		t.Errorf("view: %q, %v", got, err)
	}
	for _, sql := range []string{
		"INSERT INTO events (message) VALUES ('x')", "ALTER TABLE events DELETE WHERE 1",
		"DROP TABLE events", "TRUNCATE TABLE events", "CREATE TABLE x (a Int8) ENGINE = Memory",
		"CREATE USER x", "GRANT SELECT ON *.* TO analyst", "SYSTEM SHUTDOWN", "KILL QUERY WHERE 1",
		"SELECT * FROM file('/etc/passwd', 'LineAsString')",
		"SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')", "SELECT * FROM remote('127.0.0.1', system.one)",
		"SELECT 1 SETTINGS max_execution_time = 0", "SELECT 1 SETTINGS max_rows_to_read = 0",
		"SELECT 1 SETTINGS max_memory_usage = 0", "SELECT 1 SETTINGS max_memory_usage = 100000000000",
		"SELECT 1 SETTINGS max_memory_usage_for_user = 0",
		"SELECT 1 SETTINGS readonly = 0",
		"SELECT count() FROM system.parts", "SELECT * FROM system.processes", "SELECT * FROM system.users",
		"SELECT * FROM numbers(2000000)", // more rows than max_result_rows
		"INSERT INTO FUNCTION file('/tmp/tidegate-x', 'TSV') SELECT 1",
	} {
		if got, err := query(analyst, sql); err == nil {
			t.Errorf("%s: allowed: %.100s", sql, got)
		}
	}

	// Nobody can log in as the default user of ClickHouse.
	libraryUser := analyst
	libraryUser.Username, libraryUser.Password = "default", ""
	if got, err := query(libraryUser, "SELECT 1"); err == nil {
		t.Errorf("default may log in: %s", got)
	}
	wrong := analyst
	wrong.Password = "no"
	_, err := query(wrong, "SELECT 1")
	if err == nil || !strings.Contains(err.Error(), `refuses user "analyst": the password is wrong`) {
		t.Errorf("wrong password: %v", err)
	}
}

func TestPlayAnswers(t *testing.T) {
	response, err := http.Get(embeddedtest.Server(t).PlayURL())
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode != 200 || !bytes.Contains(body, []byte("ClickHouse")) {
		t.Errorf("/play: %s, %d bytes", response.Status, len(body))
	}
}

func TestOnlyTheOwnerMayReadThePasswordFiles(t *testing.T) {
	cfg, err := embedded.StoreClient(filepath.Dir(embeddedtest.Server(t).Config().PasswordFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{cfg.PasswordFile, embeddedtest.Server(t).Config().PasswordFile} {
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	cfg.Database = "system"
	if got, err := query(cfg, "SELECT currentUser()"); err != nil || got != "analyst" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestPasswordsAreForTheOwnerOnly: another user of the host reads no file that holds a password or its hash,
// wherever the folder lies. The passwords are in no log, no metric, and neither in the arguments nor in the
// environment of the child.
func TestPasswordsAreForTheOwnerOnly(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a ClickHouse")
	}
	var log lockedBuffer
	reg := prometheus.NewRegistry()
	cfg := storeConfig(t.TempDir())
	if err := embeddedtest.Fetch(); err != nil {
		t.Fatal(err)
	}
	server, err := embedded.StartStore(t.Context(), cfg, slog.New(slog.NewTextHandler(&log, nil)), reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	admin, analyst := usersOf(t, server)
	wrong := analyst
	wrong.Password += "x"
	if _, err := query(wrong, "SELECT 1"); err == nil {
		t.Error("a wrong password is accepted")
	}
	if err := syscall.Kill(server.PID(), syscall.SIGKILL); err != nil { // the restart is logged
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if got, err := query(analyst, "SELECT 1"); err == nil && got == "1" && server.PID() != 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the child is not restarted")
		}
	}

	adminPassword, err := os.ReadFile(admin.PasswordFile)
	if err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	places := map[string]string{"log": log.String(), "metrics": fmt.Sprint(families)}
	for _, name := range []string{
		fmt.Sprintf("/proc/%d/cmdline", server.PID()), fmt.Sprintf("/proc/%d/environ", server.PID()),
		filepath.Join(cfg.Dir, "log", "clickhouse.log"), filepath.Join(cfg.Dir, "config.xml"), filepath.Join(cfg.Dir, "ports"),
	} {
		data, err := os.ReadFile(name)
		if err != nil || len(data) == 0 {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
		places[name] = string(data)
	}
	for place, text := range places {
		for _, password := range []string{strings.TrimSpace(string(adminPassword)), analyst.Password} {
			hash := sha256.Sum256([]byte(password))
			if strings.Contains(text, password) || strings.Contains(text, hex.EncodeToString(hash[:])) {
				t.Errorf("%s holds a password or its hash", place)
			}
		}
	}

	files := []string{admin.PasswordFile, server.Analyst().PasswordFile}
	checkOnlyOwnerReads(t, cfg.Dir, files)
}

// checkOnlyOwnerReads reads files below dir as another user of the host. Nothing but their own modes protects them.
func checkOnlyOwnerReads(t *testing.T, dir string, files []string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	control := filepath.Join(dir, "control")
	if err := os.WriteFile(control, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path := dir; path != os.TempDir() && path != "/"; path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// 60700 is the user of the child, from which ClickHouse would hand the file to analysts.
	for _, uid := range []uint32{65534, 60700} {
		read := func(file string) error {
			cmd := exec.Command("cat", file)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
			return cmd.Run()
		}
		if err := read(control); err != nil {
			t.Fatalf("user %d cannot read the control: %v", uid, err)
		}
		for _, file := range files {
			if err := read(file); err == nil {
				t.Errorf("user %d reads %s", uid, file)
			}
		}
	}
}

// A lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(data)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// TestKilledChildKeepsAcknowledgedBlocks: the child is killed up to three times while blocks are inserted. An
// insert that failed is repeated with its token, and each row is stored once.
func TestKilledChildKeepsAcknowledgedBlocks(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	reg := prometheus.NewRegistry()
	server := startStore(t, storeConfig(t.TempDir()), reg)
	defer server.Stop(context.Background())
	store := openStore(t, server)

	// This goroutine kills the child up to three times, and sends the number of kills when it ends.
	stop := make(chan struct{})
	killed := make(chan int)
	go func() {
		kills := 0
		defer func() { killed <- kills }()
		for kills < 3 {
			select {
			case <-stop:
				return
			case <-time.After(150 * time.Millisecond):
			}
			if pid := server.PID(); pid != 0 && syscall.Kill(pid, syscall.SIGKILL) == nil {
				kills++
				for server.PID() == pid {
					time.Sleep(5 * time.Millisecond)
				}
				for server.PID() == 0 {
					time.Sleep(5 * time.Millisecond)
				}
			}
		}
	}()

	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	const blocks, rows = 40, 200
	for i := range int64(blocks) {
		block := newBlock(i*rows, rows)
		for {
			err := store.Insert(ctx, block, fmt.Sprint("t/0/", i))
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
	kills := <-killed
	got, err := query(server.Config(), "SELECT count(), uniqExact(_offset) FROM events")
	for ; err != nil && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		got, err = query(server.Config(), "SELECT count(), uniqExact(_offset) FROM events")
	}
	if want := fmt.Sprintf("%d\t%d", blocks*rows, blocks*rows); got != want {
		t.Errorf("count and distinct: %q, %v; want %s", got, err, want)
	}
	if kills == 0 {
		t.Error("the child was never killed")
	}
	if got := metricValue(t, reg, "tidegate_embedded_store_restarts_total"); got < float64(kills) {
		t.Errorf("%v restarts counted after %d kills", got, kills)
	}
}

// metricValue returns the value of a counter or a gauge.
func metricValue(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			metric := family.GetMetric()[0]
			return metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// TestStopLeavesNoProcess: the folder can be used again after Stop, with its data and passwords.
func TestStopLeavesNoProcess(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	cfg := storeConfig(t.TempDir())
	server := startStore(t, cfg, nil)
	store := openStore(t, server)
	if err := store.Insert(t.Context(), newBlock(0, 7), "a"); err != nil {
		t.Fatal(err)
	}
	pid := server.PID()
	first := server.Analyst()
	_, err := embedded.StartStore(t.Context(), cfg, quiet, nil)
	if err == nil || !strings.Contains(err.Error(), "is in use by process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("a second store in the folder: %v", err)
	}

	if err := server.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if !waitExited(pid) {
		t.Errorf("process %d is left", pid)
	}

	server = startStore(t, cfg, nil)
	defer server.Stop(context.Background())
	if again := server.Analyst(); again.Password != first.Password || again.New || !first.New {
		t.Errorf("the password has changed, or is shown again: %v, then %v", first, again)
	}
	if got, err := query(server.Config(), "SELECT count() FROM events"); err != nil || got != "7" {
		t.Errorf("after the restart: %q, %v", got, err)
	}
}

// holdStore runs a store in the subprocess that TestChildEndsWithItsKilledParent kills.
func holdStore(dir string) {
	server, err := embedded.StartStore(context.Background(), storeConfig(dir), quiet, nil)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println(server.PID())
	select {}
}

func TestChildEndsWithItsKilledParent(t *testing.T) {
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

	server := startStore(t, storeConfig(dir), nil) // at once, while the child is still ending
	defer server.Stop(context.Background())
	if !waitExited(pid) {
		t.Errorf("process %d is left", pid)
	}
}

func TestBusyPortIsNamed(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	cfg := storeConfig(t.TempDir())
	cfg.HTTPPort = listener.Addr().(*net.TCPAddr).Port
	if err := embeddedtest.Fetch(); err != nil {
		t.Fatal(err)
	}
	_, err = embedded.StartStore(t.Context(), cfg, quiet, nil)
	const format = "port %d on 127.0.0.1 is taken by another program; free it or set embedded.store.http_port"
	if want := fmt.Sprintf(format, cfg.HTTPPort); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v", err)
	}
}

func TestMissingOrBrokenLibraryIsNamed(t *testing.T) {
	cfg := storeConfig(t.TempDir())
	cfg.Library = filepath.Join(cfg.Dir, "no.so")
	_, err := embedded.StartStore(t.Context(), cfg, quiet, nil)
	if err == nil || !strings.Contains(err.Error(), "deploy/fetch-libchdb.sh fetches it") {
		t.Errorf("missing: %v", err)
	}
	if err := os.WriteFile(cfg.Library, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = embedded.StartStore(t.Context(), cfg, quiet, nil)
	if err == nil || !strings.Contains(err.Error(), "load "+cfg.Library) {
		t.Errorf("broken: %v", err)
	}
}

// randomText returns size bytes that do not compress.
func randomText(t *testing.T, size int) string {
	t.Helper()
	noise := make([]byte, size)
	_, _ = rand.Read(noise)
	return string(noise)
}

// insertNoise inserts a block of rows at a time. The URL of each row is noise.
func insertNoise(t *testing.T, store *clickhouse.Store, at time.Time, offset int64, rows, size int) {
	t.Helper()
	block := clickhouse.NewColumnBlock()
	for i := range rows {
		exchange := &pipeline.HTTPExchange{UrlOriginal: randomText(t, size)}
		event := &pipeline.Event{Ingested: at.UnixNano(), Dataset: pipeline.Dataset_HTTP, Http: exchange}
		block.Append(event, pipeline.Position{Offset: offset + int64(i)}, "t")
	}
	if err := store.Insert(t.Context(), block, fmt.Sprint(offset)); err != nil {
		t.Fatal(err)
	}
}

// TestCapOnDiskDropsTheOldestDay inserts a part for each of four days, from the oldest on, of which one fits.
func TestCapOnDiskDropsTheOldestDay(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	cfg := storeConfig(t.TempDir())
	cfg.MaxDiskBytes, cfg.DiskCheckInterval = 64<<20, 100*time.Millisecond
	reg := prometheus.NewRegistry()
	server := startStore(t, cfg, reg)
	defer server.Stop(context.Background())
	store := openStore(t, server)
	for day := 3; day >= 0; day-- {
		insertNoise(t, store, time.Now().Add(-time.Duration(day)*24*time.Hour), int64(day*1000), 40, 1<<20)
	}

	// The cap of 64 MiB leaves the 40 rows of today.
	deadline := time.Now().Add(20 * time.Second)
	for {
		got, err := query(server.Config(), "SELECT count(), max(_offset) FROM events")
		if err != nil {
			t.Fatal(err)
		}
		if got == "40\t39" && metricValue(t, reg, "tidegate_embedded_store_dropped_rows_total") == 120 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("rows and highest offset are %s", got)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestCapOnDiskDropsLittleAtATime inserts three times as much as fits, while merges make parts outdated. The
// rows that are left are always the newest ones without a gap, and nearly as many as fit: no drop takes more than is
// needed. The folder gets below the cap again.
func TestCapOnDiskDropsLittleAtATime(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	const limit, rows, size, blocks = 64 << 20, 64, 16 << 10, 110
	cfg := storeConfig(t.TempDir())
	cfg.MaxDiskBytes, cfg.DiskCheckInterval = limit, 100*time.Millisecond
	server := startStore(t, cfg, nil)
	defer server.Stop(context.Background())
	store := openStore(t, server)

	least, dropped := int64(limit), false // of the samples behind the first drop
	for i := range int64(blocks) {
		insertNoise(t, store, time.Now(), i*rows, rows, size)
		var count, first, last int64
		got, err := query(server.Config(), "SELECT count(), min(_offset), max(_offset) FROM events")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscan(got, &count, &first, &last); err != nil {
			t.Fatal(err)
		}
		if last != (i+1)*rows-1 || count != last-first+1 {
			t.Fatalf("after block %d: %d rows from %d to %d", i, count, first, last)
		}
		if first > 0 {
			least, dropped = min(least, count), true
		}
	}

	fit := int64(limit / size)
	if !dropped || least < fit*3/4 {
		t.Errorf("%d rows fit; at least %d were there, dropped: %t", fit, least, dropped)
	}
	// Parts that are outdated go with a delay; without inserts the folder is below the cap for good.
	deadline := time.Now().Add(2 * time.Minute)
	for diskUse(t, filepath.Join(cfg.Dir, "data")) > limit {
		if time.Now().After(deadline) {
			parts, err := query(server.Config(), "SELECT table, name, active, rows, bytes_on_disk, refcount, "+
				"now() - modification_time, now() - remove_time, removal_state FROM system.parts ORDER BY active, name FORMAT TSV")
			t.Fatalf("the folder has %d bytes; parts (%v):\n%s", diskUse(t, filepath.Join(cfg.Dir, "data")), err, parts)
		}
		time.Sleep(time.Second)
	}
}

// diskUse returns the size of all files below a folder.
func diskUse(t *testing.T, dir string) (sum int64) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil // removed meanwhile
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
		return nil
	})
	return sum
}
