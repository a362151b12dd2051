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
)

// writeConfig writes the child's configuration: config.xml and users.xml, anew at each start, and the passwords, once.
func (s *StoreServer) writeConfig() error {
	ours, err := readOrCreatePassword(filepath.Join(s.cfg.Dir, storeUser+".password"))
	if err != nil {
		return err
	}
	theirs, err := readOrCreatePassword(filepath.Join(s.cfg.Dir, analystUser+".password"))
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(s.cfg.Dir, "users.xml"), usersXML(s.cfg.Database, ours, theirs)); err != nil {
		return err
	}
	return replaceFile(filepath.Join(s.cfg.Dir, "config.xml"), s.configXML())
}

// readOrCreatePassword reads the password of a user, or draws it and keeps it where nobody else reads.
func readOrCreatePassword(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		if p := strings.TrimSpace(string(b)); p != "" {
			return p, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	p := rand.Text()
	return p, replaceFile(path, p+"\n")
}

// replaceFile writes a file that is there whole or not at all, for this user only.
func replaceFile(path, text string) error {
	temp := path + ".new"
	if err := os.WriteFile(temp, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func (s *StoreServer) writePorts() error {
	return replaceFile(filepath.Join(s.cfg.Dir, "ports"), fmt.Sprintln(s.cfg.TCPPort, s.cfg.HTTPPort, s.cfg.Database))
}

// configXML keeps the server small: the caches a fraction of the memory, few threads in the background. The limits on dropping are off, since
// the cap on disk drops partitions of any size.
func (s *StoreServer) configXML() string {
	part := func(of int64) int64 { return s.cfg.MaxMemory / of }
	return fmt.Sprintf(`<clickhouse>
 <users_config>users.xml</users_config>
 <timezone>UTC</timezone>
 <max_server_memory_usage>%d</max_server_memory_usage>
 <mark_cache_size>%d</mark_cache_size>
 <index_mark_cache_size>%d</index_mark_cache_size>
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
 <max_connections>256</max_connections>
 <max_partition_size_to_drop>0</max_partition_size_to_drop>
 <max_table_size_to_drop>0</max_table_size_to_drop>
 <merge_tree>
  <old_parts_lifetime>60</old_parts_lifetime>
  <number_of_free_entries_in_pool_to_execute_mutation>2</number_of_free_entries_in_pool_to_execute_mutation>
  <number_of_free_entries_in_pool_to_lower_max_size_of_merge>2</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
  <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>2</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
 </merge_tree>
</clickhouse>
`, s.cfg.MaxMemory, part(16), part(64))
}

// usersXML: the boot session of the library is always "default" without a password, so that user may listen and sleep, and, with one session taken
// by the boot itself, nobody else can log in as it.
func usersXML(database, ours, theirs string) string {
	var limits, bounds, grants strings.Builder
	for _, l := range clickhouse.AnalystLimits {
		fmt.Fprintf(&limits, "<%s>%s</%s>", l.Setting, l.Value, l.Setting)
		fmt.Fprintf(&bounds, "<%s><min>1</min><max>%s</max></%s>", l.Setting, l.Value, l.Setting)
	}
	for _, g := range clickhouse.AnalystGrants(database) {
		fmt.Fprintf(&grants, "<query>GRANT %s</query>", g)
	}
	const loopback = "<networks><ip>127.0.0.1</ip><ip>::1</ip></networks><quota>default</quota>"
	return fmt.Sprintf(`<clickhouse>
 <profiles>
  <default/>
  <boot><max_sessions_for_user>1</max_sessions_for_user></boot>
  <analyst><readonly>2</readonly>%s<constraints>%s</constraints></analyst>
 </profiles>
 <quotas><default/></quotas>
 <users>
  <default><password></password>%s<profile>boot</profile>
   <grants><query>GRANT SYSTEM LISTEN ON *.*</query><query>GRANT SELECT ON system.numbers</query></grants></default>
  <%s><password_sha256_hex>%s</password_sha256_hex>%s<profile>default</profile><access_management>1</access_management></%s>
  <%s><password_sha256_hex>%s</password_sha256_hex>%s<profile>analyst</profile><default_database>%s</default_database><grants>%s</grants></%s>
 </users>
</clickhouse>
`, limits.String(), bounds.String(), loopback, storeUser, sha256Hex(ours), loopback, storeUser, analystUser, sha256Hex(theirs), loopback, database, grants.String(), analystUser)
}

func sha256Hex(password string) string {
	h := sha256.Sum256([]byte(password))
	return hex.EncodeToString(h[:])
}
