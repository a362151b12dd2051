package embedded

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/config"
	"tidegate/pipeline/statedir"
)

// writeConfig writes the server's configuration at each start, and the passwords at the first.
func (s *StoreServer) writeConfig() error {
	_, _, err := readOrCreatePassword(filepath.Join(s.cfg.Dir, storeUser+".password"))
	if err != nil {
		return err
	}
	_, s.newPassword, err = readOrCreatePassword(filepath.Join(s.cfg.Dir, analystUser+".password"))
	if err != nil {
		return err
	}
	return writePrivate(filepath.Join(s.cfg.Dir, "config.xml"), s.configXML())
}

// writeUsers writes the definition of the users, which a child reads once, at its start. removeUsers removes
// it then: it holds the hashes of the passwords, and whoever may query the store can read what the child can.
func (s *StoreServer) writeUsers() error {
	storePassword, _, err := readOrCreatePassword(filepath.Join(s.cfg.Dir, storeUser+".password"))
	if err != nil {
		return err
	}
	analystPassword, _, err := readOrCreatePassword(filepath.Join(s.cfg.Dir, analystUser+".password"))
	if err != nil {
		return err
	}
	return writePrivate(filepath.Join(s.cfg.Dir, "users.xml"), usersXML(s.cfg, storePassword, analystPassword))
}

func (s *StoreServer) removeUsers() { _ = os.Remove(filepath.Join(s.cfg.Dir, "users.xml")) }

// readOrCreatePassword returns the password in the file at path. It generates one at the first start. Only
// this user can read the file.
func readOrCreatePassword(path string) (password string, created bool, err error) {
	data, err := os.ReadFile(path)
	if err == nil {
		if password = strings.TrimSpace(string(data)); password != "" {
			return password, false, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", false, err
	}
	password = rand.Text()
	return password, true, writePrivate(path, password+"\n")
}

// writePrivate replaces a file, which only this user can read.
func writePrivate(path, text string) error { return statedir.WriteFile(path, []byte(text), 0o600) }

func (s *StoreServer) writePorts() error {
	return writePrivate(filepath.Join(s.cfg.Dir, "ports"), fmt.Sprintln(s.cfg.TCPPort, s.cfg.HTTPPort, s.cfg.Database))
}

// Times of the removal of parts that a merge has replaced. ClickHouse does not sync the new part, so the old
// ones stay until the kernel has written it (vm.dirty_expire_centisecs is 30 s). A table is looked at every
// cleanupSeconds; by default ClickHouse waits for up to five minutes, in which a store may write a multiple
// of its cap on disk.
const (
	outdatedPartSeconds = 45
	cleanupSeconds      = 15
)

// Limits of the server's own ports, which any process of the host may find. A connection that sends no request, or half
// of one, is closed after halfOpenSeconds. Each has a thread and a megabyte: the server refuses those beyond
// maxConnections. The engine keeps its connections open.
const (
	maxConnections  = 256
	halfOpenSeconds = 5
)

// configXML returns the configuration of a small server: caches of a fraction of the memory, few background
// threads, no client in the server.
//
//   - ThreadStatus would log for each thread of each query that it finds no metrics of threads in /proc, which is
//     outside of the fence.
//   - The limits on dropping are off, because enforceDiskCap drops parts of any size.
//   - Sorts that do not fit into the memory write to the disk, and keep to the limit of the server only.
//   - The memory is measured as that of the process: a cgroup holds other processes of tidegate, too.
//   - A session of HTTP holds 30 KB that are counted for nobody, for up to an hour: thousands would take the memory of
//     the inserts.
//   - On a busy host ClickHouse would drop connections at random, those of inserts among them.
//   - The folder of a table whose metadata is lost is kept: ClickHouse would hide it, and remove it later.
//   - An analyst may read no table of the server's state: a query of system.parts holds the outdated parts, which
//     cannot be removed meanwhile.
func (s *StoreServer) configXML() string {
	mergeLimit := ""
	if s.cfg.MaxDiskBytes > 0 {
		mergeLimit = fmt.Sprintf("  <max_bytes_to_merge_at_max_space_in_pool>%d</max_bytes_to_merge_at_max_space_in_pool>\n",
			s.cfg.MaxDiskBytes/mergeShare)
	}
	return fmt.Sprintf(`<clickhouse>
 <users_config>users.xml</users_config>
 <timezone>UTC</timezone>
 <logger><levels><ThreadStatus>none</ThreadStatus></levels></logger>
 <enable_webterminal>0</enable_webterminal>
 <max_server_memory_usage>%[1]d</max_server_memory_usage>
 <memory_worker_use_cgroup>0</memory_worker_use_cgroup>
 <memory_worker_purge_total_memory_threshold_ratio>0.7</memory_worker_purge_total_memory_threshold_ratio>
 <mark_cache_size>%[2]d</mark_cache_size>
 <index_mark_cache_size>%[3]d</index_mark_cache_size>
 <primary_index_cache_size>%[2]d</primary_index_cache_size>
 <text_index_tokens_cache_size>%[2]d</text_index_tokens_cache_size>
 <text_index_header_cache_size>%[3]d</text_index_header_cache_size>
 <text_index_postings_cache_size>%[2]d</text_index_postings_cache_size>
 <max_temporary_data_on_disk_size>%[7]d</max_temporary_data_on_disk_size>
 <uncompressed_cache_size>0</uncompressed_cache_size>
 <mmap_cache_size>256</mmap_cache_size>
 <background_pool_size>2</background_pool_size>
 <background_move_pool_size>1</background_move_pool_size>
 <background_fetches_pool_size>1</background_fetches_pool_size>
 <background_common_pool_size>2</background_common_pool_size>
 <background_schedule_pool_size>4</background_schedule_pool_size>
 <background_buffer_flush_schedule_pool_size>1</background_buffer_flush_schedule_pool_size>
 <background_distributed_schedule_pool_size>1</background_distributed_schedule_pool_size>
 <background_message_broker_schedule_pool_size>1</background_message_broker_schedule_pool_size>
 <tables_loader_foreground_pool_size>2</tables_loader_foreground_pool_size>
 <tables_loader_background_pool_size>2</tables_loader_background_pool_size>
 <max_thread_pool_size>256</max_thread_pool_size>
 <max_concurrent_queries>64</max_concurrent_queries>
 <max_connections>%[8]d</max_connections>
 <default_session_timeout>1</default_session_timeout>
 <max_session_timeout>1</max_session_timeout>
 <database_catalog_unused_dir_cleanup_period_sec>0</database_catalog_unused_dir_cleanup_period_sec>
 <min_os_cpu_wait_time_ratio_to_drop_connection>0</min_os_cpu_wait_time_ratio_to_drop_connection>
 <max_os_cpu_wait_time_ratio_to_drop_connection>0</max_os_cpu_wait_time_ratio_to_drop_connection>
 <max_partition_size_to_drop>0</max_partition_size_to_drop>
 <max_table_size_to_drop>0</max_table_size_to_drop>
 <access_control_improvements>
  <select_from_system_db_requires_grant>true</select_from_system_db_requires_grant>
 </access_control_improvements>
 <merge_tree>
  <old_parts_lifetime>%[4]d</old_parts_lifetime>
  <cleanup_delay_period>%[5]d</cleanup_delay_period>
  <max_cleanup_delay_period>%[5]d</max_cleanup_delay_period>
  <cleanup_delay_period_random_add>1</cleanup_delay_period_random_add>
%[6]s  <number_of_free_entries_in_pool_to_execute_mutation>2</number_of_free_entries_in_pool_to_execute_mutation>
  <number_of_free_entries_in_pool_to_lower_max_size_of_merge>2</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
  <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>2</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
 </merge_tree>
</clickhouse>
`, s.cfg.MaxMemoryBytes, s.cfg.MaxMemoryBytes/16, s.cfg.MaxMemoryBytes/64,
		outdatedPartSeconds, cleanupSeconds, mergeLimit, s.cfg.MaxDiskBytes/outdatedShare, maxConnections)
}

// serverMemory is the memory of the server without queries.
const serverMemory = 256 * config.MiB

// analystMemory returns the memory of all queries of the analyst: half of what the server leaves. The other
// half is for inserts and merges.
func analystMemory(cfg StoreConfig) int64 { return int64(cfg.MaxMemoryBytes-serverMemory) / 2 }

// usersXML returns the definition of the users. The session of the library itself is always user "default"
// without a password. This user may only listen, and is limited to one session. The library opens that
// session at its start, so nobody else can log in as "default".
func usersXML(cfg StoreConfig, storePassword, analystPassword string) string {
	// Settings, their constraints and the grants of the analyst.
	var limits, bounds, grants strings.Builder
	for _, limit := range clickhouse.AnalystLimits {
		value := limit.Value
		switch {
		case strings.HasPrefix(limit.Setting, "max_memory_usage"):
			value = min(value, analystMemory(cfg))
		case strings.HasPrefix(limit.Setting, "max_temporary_data") && cfg.MaxDiskBytes > 0:
			value = min(value, int64(cfg.MaxDiskBytes)/outdatedShare/clickhouse.MaxAnalystQueries)
		}
		fmt.Fprintf(&limits, "<%s>%d</%s>", limit.Setting, value, limit.Setting)
		fmt.Fprintf(&bounds, "<%s><min>1</min><max>%d</max></%s>", limit.Setting, value, limit.Setting)
	}
	for _, g := range clickhouse.AnalystGrants(cfg.Database) {
		fmt.Fprintf(&grants, "<query>GRANT %s</query>", g)
	}
	const loopback = "<networks><ip>127.0.0.1</ip><ip>::1</ip></networks><quota>default</quota>"
	return fmt.Sprintf(`<clickhouse>
 <profiles>
  <default><memory_overcommit_ratio_denominator>0</memory_overcommit_ratio_denominator>%s</default>
  <library><max_sessions_for_user>1</max_sessions_for_user></library>
  <owner><receive_timeout>300</receive_timeout></owner>
  <analyst><readonly>2</readonly><receive_timeout>300</receive_timeout>%s<constraints>%s</constraints></analyst>
 </profiles>
 <quotas><default/></quotas>
 <users>
  <default><password></password>%s<profile>library</profile>
   <grants><query>GRANT SYSTEM LISTEN ON *.*</query></grants></default>
  <%s><password_sha256_hex>%s</password_sha256_hex>%s<profile>owner</profile><access_management>1</access_management></%s>
  <%s><password_sha256_hex>%s</password_sha256_hex>%s<profile>analyst</profile><default_database>%s</default_database><grants>%s</grants></%s>
 </users>
</clickhouse>
`,
		halfOpenTimeouts(), limits.String(), bounds.String(), loopback,
		storeUser, sha256Hex(storePassword), loopback, storeUser,
		analystUser, sha256Hex(analystPassword), loopback, cfg.Database, grants.String(), analystUser)
}

// halfOpenTimeouts returns the settings that end connections without a request. They are those of the server, not of a
// user: http_receive_timeout holds for each read of HTTP, receive_timeout for the hello of the native protocol.
func halfOpenTimeouts() string {
	var out strings.Builder
	for _, setting := range []string{"http_headers_read_timeout", "http_receive_timeout", "receive_timeout"} {
		fmt.Fprintf(&out, "<%s>%d</%s>", setting, halfOpenSeconds, setting)
	}
	return out.String()
}

func sha256Hex(password string) string {
	h := sha256.Sum256([]byte(password))
	return hex.EncodeToString(h[:])
}
