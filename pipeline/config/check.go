package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The checks below return the problems of one key: none, or one. A Check method puts them together with
// slices.Concat.

// Invalid returns one Problem with a message of its own.
func Invalid(key, format string, args ...any) []Problem {
	return []Problem{{Key: key, Err: fmt.Errorf(format, args...)}}
}

// Require returns a Problem unless ok holds.
func Require(ok bool, key, format string, args ...any) []Problem {
	if ok {
		return nil
	}
	return Invalid(key, format, args...)
}

// Range requires low ≤ value ≤ high.
func Range[T cmp.Ordered](key string, value, low, high T) []Problem {
	return Require(value >= low && value <= high, key,
		"%s is not between %s and %s", text(value), text(low), text(high))
}

// RangeOr requires low ≤ value ≤ high, or the special value, such as 0 for "no limit".
func RangeOr[T cmp.Ordered](key string, value, special, low, high T) []Problem {
	return Require(value == special || value >= low && value <= high, key,
		"%s is neither %s nor between %s and %s", text(value), text(special), text(low), text(high))
}

// AtLeast requires least ≤ value.
func AtLeast[T cmp.Ordered](key string, value, least T) []Problem {
	return Require(value >= least, key, "%s is less than %s", text(value), text(least))
}

// AtLeastOr requires least ≤ value, or the special value.
func AtLeastOr[T cmp.Ordered](key string, value, special, least T) []Problem {
	return Require(value == special || value >= least, key,
		"%s is neither %s nor at least %s", text(value), text(special), text(least))
}

// OneOf requires one of the known words.
func OneOf(key, value string, known ...string) []Problem {
	return Require(slices.Contains(known, value), key,
		"%q is not one of %s%s", value, strings.Join(known, ", "), DidYouMean(value, known))
}

// NotEmpty requires a text.
func NotEmpty(key, value string) []Problem {
	return Require(value != "", key, "is empty")
}

// Exclusive requires that not both of two keys are set, such as password and password_file.
func Exclusive(key, value, otherKey, other string) []Problem {
	return Require(value == "" || other == "", otherKey, "%s is set too: set only one of them", key)
}

// Match requires a text that pattern matches. form describes that in words.
func Match(key, value string, pattern *regexp.Regexp, form string) []Problem {
	return Require(pattern.MatchString(value), key, "%q is not %s", value, form)
}

// File requires an existing file; an empty path is none. Whether the file may be read is not checked, because a process
// may have the section of another one in its configuration.
func File(key, path string) []Problem {
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Invalid(key, "%s: no such file", path)
	case err != nil:
		return nil
	}
	return Require(!info.IsDir(), key, "%s is a folder", path)
}

// Folder requires an existing folder; an empty path is none.
func Folder(key, path string) []Problem {
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Invalid(key, "%s: no such folder", path)
	case err != nil:
		return Invalid(key, "%w", err)
	}
	return Require(info.IsDir(), key, "%s is not a folder", path)
}

// HostPort requires host:port with a host and a port between 1 and 65535.
func HostPort(key, address string) []Problem {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return Invalid(key, "%q is not host:port", address)
	}
	number, err := strconv.Atoi(port)
	return Require(err == nil && number >= 1 && number <= 65535, key,
		"%q is not host:port with a port between 1 and 65535", address)
}

// ListenAddress requires host:port, where the host may be empty (all addresses) and the port 0 (a free one).
func ListenAddress(key, address string) []Problem {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return Invalid(key, "%q is not host:port", address)
	}
	number, err := strconv.Atoi(port)
	return Require(err == nil && number >= 0 && number <= 65535, key,
		"%q is not host:port with a port between 0 and 65535", address)
}

// Each applies a check to every entry of a list.
func Each[T any](key string, list []T, check func(key string, value T) []Problem) []Problem {
	var problems []Problem
	for i, value := range list {
		problems = append(problems, check(fmt.Sprintf("%s[%d]", key, i), value)...)
	}
	return problems
}

// Glob requires a pattern that path.Match takes.
func Glob(key, pattern string) []Problem {
	_, err := path.Match(pattern, "")
	return Require(err == nil && pattern != "", key, "%q is not a glob pattern", pattern)
}

// text returns a value as people write it in a configuration; whole numbers are grouped by thousands.
func text(value any) string {
	switch v := value.(type) {
	case Size:
		return v.String()
	case time.Duration:
		return FormatDuration(v)
	case int, int32, int64, uint, uint32, uint64:
		return groupThousands(fmt.Sprint(v))
	}
	return fmt.Sprint(value)
}

func groupThousands(digits string) string {
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// FormatDuration returns duration as it is written in a configuration: 48h instead of 48h0m0s.
func FormatDuration(duration time.Duration) string {
	text := duration.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
