package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// storeFormat is the format of the folder of a store, which the file "format" in it holds. It is raised when an earlier
// version of tidegate can no longer read what this one writes, such as parts of a newer library.
const storeFormat = 1

// checkFolder returns an error if what is in the folder of a store must not be started, because ClickHouse would take
// it for an empty one or detach parts that it cannot read. Nothing is changed.
func checkFolder(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "format"))
	switch {
	case errors.Is(err, fs.ErrNotExist): // new, or of a version before this file
	case err != nil:
		return err
	default:
		format, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return fmt.Errorf("%s holds %.20q instead of a number: it is damaged; write %d into it if no newer version of "+
				"tidegate has used the folder", filepath.Join(dir, "format"), text, storeFormat)
		}
		if format > storeFormat {
			return fmt.Errorf("%s was written by a newer version of tidegate (format %d, this one reads %d): start that "+
				"version again, or move the folder away to begin with an empty store", dir, format, storeFormat)
		}
	}

	// ClickHouse begins anew where no database is described, and hides the data of the old one.
	databases, err := filepath.Glob(filepath.Join(dir, "data", "metadata", "*.sql"))
	if err != nil || len(databases) > 0 {
		return err
	}
	tables, err := tablesWithParts(dir)
	if err != nil || len(tables) == 0 {
		return err
	}
	return fmt.Errorf("%s describes no database, but %s holds data: restore %s from a backup, or move it away to begin "+
		"with an empty store", filepath.Join(dir, "data", "metadata"), tables[0], dir)
}

// writeFormat records the format of the folder.
func (s *StoreServer) writeFormat() error {
	return writePrivate(filepath.Join(s.cfg.Dir, "format"), strconv.Itoa(storeFormat)+"\n")
}

// tablesWithParts returns the folders of tables that hold data, in the order of their names.
func tablesWithParts(dir string) (tables []string, err error) {
	parts, err := filepath.Glob(filepath.Join(dir, "data", "store", "*", "*", "*", "checksums.txt"))
	for _, part := range parts {
		if table := filepath.Dir(filepath.Dir(part)); !slices.Contains(tables, table) {
			tables = append(tables, table)
		}
	}
	return tables, err
}

// describeFolderError adds the remedy to an error of a folder that cannot be written.
func describeFolderError(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: free space on the disk of %s, or set data_dir", err, dir)
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: tidegate must be able to write to %s; or set data_dir", err, dir)
	}
	return err
}

// reportDamage counts the data that ClickHouse does not use: parts that it has detached because they are damaged, and
// folders of tables that no metadata describes. It logs them when there are more than before.
func (s *StoreServer) reportDamage(ctx context.Context) error {
	lines, err := s.queryLines(ctx, "SELECT path FROM system.detached_parts"+
		" WHERE startsWith(reason, 'broken') OR startsWith(reason, 'unexpected') ORDER BY path")
	if err != nil {
		return err
	}
	tables, err := tablesWithParts(s.cfg.Dir)
	if err != nil {
		return err
	}
	known, err := s.queryLines(ctx,
		"SELECT toString(uuid) FROM system.tables UNION ALL SELECT toString(uuid) FROM system.dropped_tables")
	if err != nil {
		return err
	}
	for _, table := range tables {
		// One that was dropped meanwhile is neither known nor there.
		if _, err := os.Stat(table); err == nil && !slices.Contains(known, filepath.Base(table)) {
			lines = append(lines, table)
		}
	}
	s.metrics.damaged.Set(float64(len(lines)))
	if len(lines) > s.damaged {
		s.log.Error("damaged data of the embedded clickhouse is left out; it is kept where it lies, restore it from a backup",
			"folders", len(lines), "first", lines[0], "log", s.logPath())
	}
	s.damaged = len(lines)
	return nil
}

func (s *StoreServer) logPath() string { return filepath.Join(s.cfg.Dir, "log", "clickhouse.log") }
