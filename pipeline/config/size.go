package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A Size is a number of bytes. A configuration writes it as 8MiB, 512KiB or 1.5GiB, or as a plain number of
// bytes.
type Size int64

// The units of a Size.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
	TiB Size = 1 << 40
)

// sizeUnits are the units, the largest first.
var sizeUnits = []struct {
	name  string
	bytes Size
}{{"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}}

// ParseSize reads a Size. Units are powers of 1024; MB and M are rejected, because some programs mean
// 1,000,000 by them.
func ParseSize(text string) (Size, error) {
	number, unit := strings.TrimSpace(text), Size(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}

	if count, err := strconv.ParseInt(number, 10, 64); err == nil && count >= 0 && count <= math.MaxInt64/int64(unit) {
		return Size(count) * unit, nil
	}
	decimal, err := strconv.ParseFloat(number, 64)
	bytes := decimal * float64(unit)
	if err != nil || !(bytes >= 0 && bytes < 1<<62) || bytes != math.Trunc(bytes) {
		return 0, fmt.Errorf("%q is not a size like 64KiB, 8MiB or 2GiB", text)
	}
	return Size(bytes), nil
}

// String returns s in the largest unit of which it is a whole number.
func (s Size) String() string {
	for _, unit := range sizeUnits {
		if s != 0 && s%unit.bytes == 0 {
			return strconv.FormatInt(int64(s/unit.bytes), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}
