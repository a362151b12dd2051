package embedded_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded"
)

// marker is the content of the file that nobody may read through the store.
const marker = "content-of-a-file-of-the-host"

// A breakout tries to reach files of the host through a server.
type breakout struct {
	secret  string // path of a file that holds marker
	targets []string
	written string // path that must not come into being
}

// newBreakout returns a breakout from the server whose folder is dir.
func newBreakout(t *testing.T, dir string) breakout {
	t.Helper()
	host := t.TempDir()
	// Everybody may read the file and write to the folder: nothing but the fence protects them.
	for path := host; path != os.TempDir() && path != "/"; path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	b := breakout{secret: filepath.Join(host, "secret"), written: filepath.Join(host, "written")}
	if err := os.WriteFile(b.secret, []byte(marker+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(filepath.Join(dir, "work"), b.secret)
	if err != nil {
		t.Fatal(err)
	}
	b.targets = []string{b.secret, relative, "file://" + b.secret}
	return b
}

// run makes attempts as a user and returns the statements whose result or error holds the marker, and those that
// write the forbidden file. An attempt is a list of statements that are executed in order.
func (b breakout) run(cfg clickhouse.Config, attempts [][]string) (leaks []string) {
	var mu sync.Mutex
	var workers sync.WaitGroup
	queue := make(chan []string)
	for range 8 {
		workers.Go(func() {
			for attempt := range queue {
				for _, sql := range attempt {
					got, err := query(cfg, sql)
					_, statErr := os.Stat(b.written)
					if strings.Contains(got+fmt.Sprint(err), marker) || statErr == nil {
						mu.Lock()
						leaks = append(leaks, sql)
						mu.Unlock()
						_ = os.Remove(b.written)
					}
				}
			}
		})
	}
	for _, attempt := range attempts {
		queue <- attempt
	}
	close(queue)
	workers.Wait()
	return leaks
}

// list returns the first column of a query.
func list(t *testing.T, cfg clickhouse.Config, sql string) []string {
	t.Helper()
	got, err := query(cfg, sql)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(got, "\n")
}

// scalarAttempts returns attempts by each function, setting and format of the server.
func (b breakout) scalarAttempts(t *testing.T, admin clickhouse.Config) (attempts [][]string) {
	t.Helper()
	functions := list(t, admin, "SELECT name FROM system.functions WHERE NOT is_aggregate AND name NOT LIKE 'sleep%'")
	settings := list(t, admin, "SELECT name FROM system.settings WHERE type LIKE '%String%'")
	formats := list(t, admin, "SELECT name FROM system.formats WHERE is_input")
	if len(functions) < 1000 || len(settings) < 50 || len(formats) < 50 {
		t.Fatalf("the server lists %d functions, %d settings, %d formats: too few to be all",
			len(functions), len(settings), len(formats))
	}
	add := func(format string, args ...any) { attempts = append(attempts, []string{fmt.Sprintf(format, args...)}) }
	for _, function := range functions {
		add("SELECT `%s`('%s')", function, b.secret)
		add("SELECT `%s`('%s', 'x')", function, b.secret)
		add("SELECT `%s`('x', '%s')", function, b.secret)
		add("SELECT `%s`('%s', 'x', 'x')", function, b.secret)
	}
	for _, setting := range settings {
		add("SELECT 1 SETTINGS %s = '%s'", setting, b.secret)
	}
	for _, format := range formats {
		add("SELECT * FROM format(%s, '%s')", format, b.secret)
		add("SELECT * FROM format(%s, 'line String', 'x') SETTINGS format_schema = '%s'", format, b.secret)
	}
	return attempts
}

// tableAttempts returns attempts by each table function, table engine, database engine and dictionary source of
// the server, and by the statements that read or write files.
func (b breakout) tableAttempts(t *testing.T, admin clickhouse.Config) (attempts [][]string) {
	t.Helper()
	// Left out: odbc and jdbc, which wait for a program of their own that the fence does not let them execute,
	// and Azure's storage, which tries for seconds to connect.
	const local = " WHERE name NOT ILIKE '%azure%' AND name NOT ILIKE '%odbc%' AND name NOT ILIKE '%jdbc%'"
	functions := list(t, admin, "SELECT name FROM system.table_functions"+local)
	engines := list(t, admin, "SELECT name FROM system.table_engines"+local)
	databases := list(t, admin, "SELECT name FROM system.database_engines")
	if len(functions) < 30 || len(engines) < 30 {
		t.Fatalf("the server lists %d table functions, %d engines: too few to be all", len(functions), len(engines))
	}

	// $PATH is the path of the secret, $DIR its folder, $OUT the path that must not be written.
	templates := []string{
		"CREATE FUNCTION fence_function AS () -> file('$PATH'); SELECT fence_function()",
		"ATTACH TABLE fence_attached FROM '$DIR' (line String) ENGINE = File(LineAsString); SELECT * FROM fence_attached",
		"CREATE TABLE fence_disk (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = '$DIR/')",
		"RESTORE TABLE fence_restored FROM File('$PATH')",
		"BACKUP TABLE system.one TO File('$OUT')",
		"SELECT 'x' INTO OUTFILE '$OUT'",
		"INSERT INTO FUNCTION file('$OUT') FROM INFILE '$PATH' FORMAT LineAsString",
	}
	for _, function := range functions {
		for _, arguments := range []string{
			"'$PATH'", "'$PATH', 'LineAsString'", "'$PATH', 'LineAsString', 'line String'", "'LineAsString', '$PATH'",
			"['$PATH'], 'LineAsString'", "'cat $PATH', 'LineAsString', 'line String'",
		} {
			templates = append(templates, "SELECT * FROM `"+function+"`("+arguments+")")
		}
		templates = append(templates, "INSERT INTO FUNCTION `"+function+"`('$OUT', 'LineAsString', 'line String') SELECT 'x'")
	}
	for _, engine := range engines {
		for i, arguments := range []string{"'$PATH'", "LineAsString, '$PATH'"} {
			table := fmt.Sprintf("fence_%s_%d", engine, i)
			templates = append(templates, "CREATE TABLE "+table+" (line String) ENGINE = `"+engine+"`("+arguments+
				"); SELECT * FROM "+table+"; DROP TABLE IF EXISTS "+table)
		}
	}
	for _, engine := range databases {
		name := "fence_" + engine
		templates = append(templates, "CREATE DATABASE "+name+" ENGINE = `"+engine+"`('$DIR'); SELECT * FROM "+name+
			".secret; SELECT * FROM "+name+".`$PATH`; DROP DATABASE IF EXISTS "+name)
	}
	for i, source := range []string{
		"FILE(path '$PATH' format 'LineAsString')", "EXECUTABLE(command 'cat $PATH' format 'LineAsString')",
		"LIBRARY(path '$PATH')", "YAMLREGEXPTREE(path '$PATH')", "HTTP(url 'file://$PATH' format 'LineAsString')",
		"EXECUTABLE_POOL(command 'cat $PATH' format 'LineAsString' size 1)",
	} {
		name := fmt.Sprintf("fence_source_%d", i)
		templates = append(templates, "CREATE OR REPLACE DICTIONARY "+name+" (line String) PRIMARY KEY line SOURCE("+source+
			") LAYOUT(COMPLEX_KEY_HASHED()) LIFETIME(0); SELECT * FROM dictionary('"+name+"')")
	}
	templates = append(templates, hostStatements...)
	for _, target := range b.targets {
		replace := strings.NewReplacer("$PATH", target, "$DIR", filepath.Dir(target), "$OUT", b.written)
		for _, template := range templates {
			attempts = append(attempts, strings.Split(replace.Replace(template), "; "))
		}
	}
	return attempts
}

// hostStatements are statements that reach files of the host or another host by other ways than an argument
// of a table function or an engine: named collections, user-defined programs, backups, disks of tables,
// schemas of formats, outputs.
var hostStatements = []string{
	"CREATE NAMED COLLECTION fence_file AS path = '$PATH', format = 'LineAsString', structure = 'line String'; " +
		"SELECT * FROM file(fence_file); DROP NAMED COLLECTION IF EXISTS fence_file",
	"CREATE NAMED COLLECTION fence_url AS url = 'file://$PATH', format = 'LineAsString'; SELECT * FROM url(fence_url); " +
		"DROP NAMED COLLECTION IF EXISTS fence_url",
	"SELECT * FROM format(Protobuf, 'x') SETTINGS format_schema = '$PATH:Message'",
	"SELECT * FROM format(CapnProto, 'x') SETTINGS format_schema = '$PATH:Message'",
	"SELECT * FROM format(Template, 'x') SETTINGS format_template_row = '$PATH', format_template_resultset = '$PATH'",
	"SELECT 1 FORMAT Template SETTINGS format_template_row = '$PATH', format_template_resultset = '$PATH'",
	"SELECT 1 SETTINGS format_schema_source = 'file', format_schema = '$PATH'",
	"SELECT * FROM executable('$PATH', 'LineAsString', 'line String')",
	"SELECT * FROM executable('../../../../../../../../bin/cat $PATH', 'LineAsString', 'line String')",
	"CREATE TABLE fence_program (line String) ENGINE = Executable('cat $PATH', 'LineAsString'); SELECT * FROM fence_program; " +
		"DROP TABLE IF EXISTS fence_program",
	"CREATE TABLE fence_pool (line String) ENGINE = ExecutablePool('cat $PATH', 'LineAsString'); SELECT * FROM fence_pool; " +
		"DROP TABLE IF EXISTS fence_pool",
	"SYSTEM RELOAD FUNCTIONS", "SYSTEM RELOAD CONFIG", "SYSTEM RELOAD MODELS",
	"CREATE TABLE fence_set (a Int8) ENGINE = Set SETTINGS disk = disk(type = local, path = '$DIR/')",
	"CREATE TABLE fence_join (a Int8, b Int8) ENGINE = Join(ANY, LEFT, a) SETTINGS disk = disk(type = local, path = '$DIR/')",
	"CREATE TABLE fence_web (a Int8) ENGINE = MergeTree ORDER BY a" +
		" SETTINGS disk = disk(type = web, endpoint = 'http://127.0.0.1:1/')",
	"CREATE TABLE fence_cache (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = cache," +
		" path = '$DIR/', max_size = 100000, disk = disk(type = local, path = '$DIR/'))",
	"CREATE TABLE fence_storage (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = object_storage," +
		" object_storage_type = local_blob_storage, path = '$DIR/')",
	"ATTACH TABLE fence_path FROM '$PATH' (line String) ENGINE = File(LineAsString); SELECT * FROM fence_path",
	"ATTACH DATABASE fence_database FROM '$DIR'",
	"BACKUP TABLE system.one TO Disk('default', '$OUT')", "RESTORE TABLE system.one FROM Disk('default', '$PATH')",
	"BACKUP DATABASE system TO S3('http://127.0.0.1:1/x', 'a', 'b')", "BACKUP TABLE system.one TO Memory('$OUT')",
	"SELECT 'x' INTO OUTFILE '$OUT' TRUNCATE FORMAT LineAsString",
	"SELECT 'x' INTO OUTFILE '$OUT' APPEND FORMAT LineAsString",
	"INSERT INTO TABLE FUNCTION file('$OUT', 'LineAsString', 'line String') SETTINGS engine_file_truncate_on_insert = 1 SELECT 'x'",
	"SELECT * FROM s3('file://$PATH', 'LineAsString')", "SELECT * FROM iceberg('file://$DIR')",
	"SELECT * FROM icebergLocal('$DIR')", "SELECT * FROM deltaLakeLocal('$DIR')", "SELECT * FROM hudi('file://$DIR')",
	"SELECT * FROM paimonLocal('$DIR')", "SELECT * FROM sqlite('$PATH', 't')", "SELECT * FROM filesystem('$DIR')",
	"SELECT * FROM fileCluster('default', '$PATH', 'LineAsString')", "SELECT catboostEvaluate('$PATH', 1)",
	"SELECT * FROM mergeTreeIndex('$DIR', 't')", "SELECT getServerSetting('$PATH')", "SELECT * FROM hive('$PATH', 'd', 't')",
	"SELECT 1 SETTINGS user_files_path = '$DIR'", "SELECT file('$PATH') SETTINGS user_files_path = '$DIR'",
	"EXECUTE AS default SELECT file('$PATH')", "SYSTEM INSTRUMENT ADD 'x' LOG ENTRY '$PATH'",
	"SELECT * FROM python('$PATH', 'LineAsString')", "SELECT * FROM Python($PATH)",
	"SELECT * FROM file('$PATH', 'Npy')", "SELECT * FROM file('$PATH.zip :: *', 'LineAsString')",
	"SELECT * FROM dictionary('$PATH')", "SELECT * FROM input('$PATH')", "SELECT _path, _file FROM file('$DIR/*', 'One')",
}

// TestStoreReadsNoFileOfTheHost tries every function, table function, engine, setting and format of the real
// library that may take a path, as analyst and as admin.
func TestStoreReadsNoFileOfTheHost(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a ClickHouse")
	}
	t.Setenv(secretVariable, marker)
	server := startStore(t, storeConfig(t.TempDir()), nil)
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	admin, analyst := usersOf(t, server)
	b := newBreakout(t, filepath.Dir(admin.PasswordFile))
	attempts := slices.Concat(b.scalarAttempts(t, admin), b.tableAttempts(t, admin))
	pid := server.PID()

	for user, cfg := range map[string]clickhouse.Config{"analyst": analyst, "admin": admin} {
		if leaks := b.run(cfg, attempts); len(leaks) > 0 {
			t.Errorf("the %s reaches files of the host by %d statements, such as %s", user, len(leaks), leaks[0])
		}
		// The passwords lie in the folder of the store, and the kernel shows much of the host in files.
		for _, path := range []string{
			admin.PasswordFile, filepath.Join(filepath.Dir(admin.PasswordFile), "users.xml"), "/etc/passwd", "/etc/ld.so.cache",
			"/proc/self/environ", "/proc/1/cmdline", "/proc/self/root/etc/passwd", "/proc/self/mem", "/proc/self/maps",
			"/proc/self/status", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "/proc/stat", "/proc/cpuinfo",
			"/usr/lib/os-release", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs",
		} {
			if got, err := query(cfg, "SELECT file('"+path+"')"); err == nil {
				t.Errorf("the %s reads %s: %q", user, path, got)
			}
		}
		b.checkSystemTables(t, admin, cfg, user)
		// The server connects to nothing, not even to itself.
		ping := "SELECT * FROM url('http://" + admin.HTTPAddr + "/ping', 'LineAsString') SETTINGS http_max_tries = 1"
		if got, err := query(cfg, ping); err == nil {
			t.Errorf("the %s makes the server connect: %q", user, got)
		}
	}
	if server.PID() != pid {
		t.Error("the server was restarted meanwhile: some statements were not tried")
	}
}

// TestUnfencedStoreReadsFilesOfTheHost is the control of TestStoreReadsNoFileOfTheHost: the same statements find
// the file where there is no fence.
func TestUnfencedStoreReadsFilesOfTheHost(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a ClickHouse")
	}
	server := startStore(t, unfenced(t, storeConfig(t.TempDir())), nil)
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	admin, analyst := usersOf(t, server)
	b := newBreakout(t, filepath.Dir(admin.PasswordFile))
	if leaks := b.run(analyst, [][]string{{"SELECT file('" + b.secret + "')"}}); len(leaks) != 1 {
		t.Error("the analyst of a server without a fence does not read the file: the statements prove nothing")
	}
	writes := [][]string{{"INSERT INTO FUNCTION file('" + b.written + "', 'LineAsString', 'line String') SELECT 'x'"}}
	if leaks := b.run(admin, writes); len(leaks) != 1 {
		t.Error("the admin of a server without a fence does not write the file: the statements prove nothing")
	}
}

// secretVariable is set in the environment of the test, which starts the server.
const secretVariable = "TIDEGATE_TEST_ENVIRONMENT"

// checkSystemTables reads each system table as a user. None holds the marker, which is in the environment of
// the process that has started the server, or a password or its hash.
func (b breakout) checkSystemTables(t *testing.T, admin, cfg clickhouse.Config, user string) {
	t.Helper()
	tables := list(t, admin, "SELECT name FROM system.tables WHERE database = 'system' AND name NOT LIKE '%zookeeper%'"+
		" AND name NOT IN ('numbers', 'numbers_mt', 'zeros', 'zeros_mt', 'primes')")
	if len(tables) < 80 {
		t.Fatalf("the server lists %d system tables: too few to be all", len(tables))
	}
	password, err := os.ReadFile(admin.PasswordFile)
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(bytes.TrimSpace(password))
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		got, err := query(cfg, "SELECT * FROM system.`"+table+"` LIMIT 5000 FORMAT TSVRaw")
		text := got + fmt.Sprint(err)
		for what, secret := range map[string]string{
			"the environment": marker, "a password": strings.TrimSpace(string(password)), "a hash": hex.EncodeToString(hash[:]),
		} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s reads %s in system.%s", user, what, table)
			}
		}
		if user == "analyst" && err == nil && len(host) > 3 && strings.Contains(got, host) {
			t.Logf("system.%s shows the name of the host", table)
		}
	}
}

// usersOf returns how the two users of a server log in. The database and its tables exist.
func usersOf(t *testing.T, server *embedded.StoreServer) (admin, analyst clickhouse.Config) {
	t.Helper()
	admin = openStore(t, server).Config()
	analyst = admin
	analyst.Username, analyst.PasswordFile = "analyst", ""
	analyst.Password = server.Analyst().Password
	return admin, analyst
}
