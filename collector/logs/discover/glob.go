package discover

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tidegate/collector/logs/decode"
)

// Glob discovers plain text files by patterns such as /var/log/nginx/*.log.
//
// The files that logrotate and similar tools make of a file belong to the log of that file, whether a pattern
// matches them or not: access.log.1, access.log.2.gz, access.log-20261126, access.log-20261126.gz,
// access-20261126.log. Files that are created with a date in their name (app-2026-11-26.log, a new one each
// day) form one log as well, app.log.
type Glob struct{ Patterns []string }

// Folders returns the folders in which new logs appear. Patterns with a wildcard in the folder are left out:
// their logs are found only by List.
func (g Glob) Folders() []string {
	var list []string
	for _, pattern := range g.Patterns {
		dir := filepath.Dir(pattern)
		if !hasWildcard(dir) && isDir(dir) && !slices.Contains(list, dir) {
			list = append(list, dir)
		}
	}
	return list
}

func hasWildcard(path string) bool { return strings.ContainsAny(path, `*?[\`) }

// List returns the logs that the patterns match. A log is also listed while only files that rotation has made of
// it exist: between the rename and the creation of the new file. A folder that cannot be read is an error.
func (g Glob) List() ([]Log, error) {
	var list []Log
	var errs []error
	listed := map[string]bool{}
	for _, pattern := range g.Patterns {
		paths, err := matchFiles(pattern)
		if err != nil {
			errs = append(errs, fmt.Errorf("logs.files: %q: %w", pattern, err))
		}
		for _, path := range paths {
			path, ok := regularFile(path)
			if !ok {
				continue
			}
			dir, name := filepath.Dir(path), filepath.Base(path)
			base, _ := splitRotated(name)
			if id := filepath.Join(dir, base); !listed[id] {
				listed[id] = true
				list = append(list, TextLog(dir, base))
			}
		}
	}
	return list, errors.Join(errs...)
}

// matchFiles returns the paths that a pattern matches, and those of which it matches the base name. A folder
// that does not exist or cannot be read is an error, unless a wildcard has found it.
func matchFiles(pattern string) ([]string, error) {
	dirs, namePattern := []string{filepath.Dir(pattern)}, filepath.Base(pattern)
	var errs []error
	found := hasWildcard(dirs[0])
	if found {
		var err error
		if dirs, err = filepath.Glob(dirs[0]); err != nil {
			return nil, err
		}
	}
	var paths []string
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !found {
			errs = append(errs, err)
		}
		for _, entry := range entries {
			base, _ := splitRotated(entry.Name())
			matched, err := filepath.Match(namePattern, entry.Name())
			if err != nil {
				return nil, err
			}
			if !matched {
				matched, _ = filepath.Match(namePattern, base)
			}
			if matched {
				paths = append(paths, filepath.Join(dir, entry.Name()))
			}
		}
	}
	return paths, errors.Join(errs...)
}

// regularFile returns the path without symbolic links of the file that path leads to, if path is a link, and
// reports whether that is a regular file.
func regularFile(path string) (string, bool) {
	info, err := os.Lstat(path)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			info, err = os.Lstat(path)
		}
	}
	return path, err == nil && info.Mode().IsRegular()
}

// TextLog returns the log of one plain text file. Its id is the path of the file.
func TextLog(dir, base string) Log {
	return Log{
		ID: filepath.Join(dir, base), Dir: dir, Base: base, Format: decode.Text,
		Rank: func(name string) (Rank, bool) {
			of, rank := splitRotated(name)
			return rank, of == base
		},
		BaseOf: func(name string) string {
			base, _ := splitRotated(name)
			return base
		},
	}
}

// splitRotated returns the base name from which rotation derived name, and the rank of the file. A name
// without a number or date is a base name. The date may stand behind the name or before its extension.
func splitRotated(name string) (base string, rank Rank) {
	rest, compressed := strings.CutSuffix(name, ".gz")
	if compressed {
		rank.Compressed, rank.Plain = true, rest
	}

	// access.log.1 and access.log-20261126
	if base, rank.Age = cutAge(rest); rank.Age > 0 {
		return base, rank
	}
	// access-20261126.log
	ext := filepath.Ext(rest)
	if stem, age := cutAge(strings.TrimSuffix(rest, ext)); age >= oldestDate && ext != "" {
		rank.Age = age
		return stem + ext, rank
	}
	// access.log; or access.log.gz, compressed by hand, which ranks as the oldest file.
	if compressed {
		rank.Age = 1<<63 - 1
	}
	return rest, rank
}

// oldestDate is less than the age of any date, and more than any number of rotations.
const oldestDate = 1 << 32

// cutAge cuts the number or date from the end of a name and returns the age that it means; 0: there is
// neither.
//
// A date is eight digits or 2026-11-26, and may be followed by an hour, or a time: 20261126, 2026112613,
// 20261126-130500. A later date is a smaller age. The separator in front of a date is '-', '.' or '_', in
// front of a number '.'.
func cutAge(name string) (base string, age int64) {
	// 1. Find the suffix: digits and single dashes, beginning with a digit behind a separator.
	start := len(name)
	isDashBefore := func(i int) bool { return name[i-1] == '-' && i < len(name) && isDigit(name[i]) }
	for start > 0 && (isDigit(name[start-1]) || isDashBefore(start)) {
		start--
	}
	for start < len(name) && name[start] == '-' {
		start++
	}
	if start < 2 || start == len(name) {
		return name, 0
	}
	separator := name[start-1]
	base, suffix := name[:start-1], name[start:]

	// 2. A short number behind a dot counts rotations.
	if number, err := strconv.ParseUint(suffix, 10, 16); err == nil && number > 0 && separator == '.' {
		return base, int64(number)
	}

	// 3. Otherwise the suffix must be a date. It is padded to 14 digits and subtracted from a larger number,
	// so that a later date is a smaller age.
	if separator != '-' && separator != '.' && separator != '_' {
		return name, 0
	}
	digits := strings.ReplaceAll(suffix, "-", "")
	if len(digits) < 8 || len(digits) > 14 || !isDate(digits[:8]) {
		return name, 0
	}
	stamp, err := strconv.ParseInt(digits+strings.Repeat("0", 14-len(digits)), 10, 64)
	if err != nil {
		return name, 0
	}
	return base, 1e15 - stamp
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// isDate reports whether eight digits are a year from 1990 to 2099, a month and a day.
func isDate(digits string) bool {
	year, month, day := digits[:4], digits[4:6], digits[6:]
	return year >= "1990" && year < "2100" && month >= "01" && month <= "12" && day >= "01" && day <= "31"
}
