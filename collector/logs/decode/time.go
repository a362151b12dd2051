package decode

import "encoding/binary"

// A timeParser parses times. It keeps the last date, because nearly all records of a buffer share it.
type timeParser struct {
	date     [10]byte
	midnight int64 // of date, seconds since 1970
}

// parse returns the RFC 3339 time in data as ns since 1970; 0: data is not such a time. Digits of the
// second's fraction after the ninth are ignored.
func (p *timeParser) parse(data []byte) int64 {
	if len(data) < len("2006-01-02T15:04:05Z") ||
		data[10] != 'T' && data[10] != 't' || data[13] != ':' || data[16] != ':' {
		return 0
	}

	// The date changes once a day: comparing it with two loads is cheaper than parsing it.
	sameDate := binary.LittleEndian.Uint64(data) == binary.LittleEndian.Uint64(p.date[:]) &&
		data[8] == p.date[8] && data[9] == p.date[9]
	if !sameDate && !p.setDate(data) {
		return 0
	}
	hour, minute, second := twoDigits(data[11:]), twoDigits(data[14:]), twoDigits(data[17:])
	if hour > 23 || minute > 59 || second > 60 {
		return 0
	}

	// The fraction of a second.
	ns, i := int64(0), 19
	if data[i] == '.' {
		scale := int64(1e9)
		for i++; i < len(data) && data[i] >= '0' && data[i] <= '9'; i++ {
			if scale > 1 {
				scale /= 10
				ns += int64(data[i]-'0') * scale
			}
		}
	}
	offset, ok := parseZone(data[i:])
	if !ok {
		return 0
	}
	return (p.midnight+int64(hour)*3600+int64(minute)*60+int64(second)-offset)*1e9 + ns
}

// parseZone returns the offset from UTC of a zone: Z, or a sign, hours and minutes.
func parseZone(data []byte) (seconds int64, ok bool) {
	if len(data) == 1 && (data[0] == 'Z' || data[0] == 'z') {
		return 0, true
	}
	if len(data) != 6 || data[0] != '+' && data[0] != '-' || data[3] != ':' {
		return 0, false
	}
	hours, minutes := twoDigits(data[1:]), twoDigits(data[4:])
	if hours > 23 || minutes > 59 {
		return 0, false
	}
	seconds = int64(hours)*3600 + int64(minutes)*60
	if data[0] == '-' {
		seconds = -seconds
	}
	return seconds, true
}

// setDate parses the date at the front of data, 2006-01-02, and caches it. It returns false if data begins
// with no date, or with a year outside the range of an int64 of nanoseconds.
func (p *timeParser) setDate(data []byte) bool {
	century, yy, mm, dd := twoDigits(data), twoDigits(data[2:]), twoDigits(data[5:]), twoDigits(data[8:])
	year := int64(century)*100 + int64(yy)
	if century > 99 || yy > 99 || data[4] != '-' || data[7] != '-' || mm < 1 || mm > 12 || dd < 1 || dd > 31 ||
		year < 1678 || year > 2261 {
		return false
	}

	// Compute the days since 1970 in the Gregorian calendar. Years begin in March here, so that a leap day is
	// the last day of its year.
	month := int64(mm)
	if month <= 2 {
		year--
		month += 12
	}
	days := 365*year + year/4 - year/100 + year/400 + (153*(month-3)+2)/5 + int64(dd) - 1 - 719468
	copy(p.date[:], data[:10])
	p.midnight = days * 86400
	return true
}

// twoDigits returns the decimal number in the first two bytes of b; 100: they are not digits.
func twoDigits(b []byte) uint {
	tens, ones := uint(b[0]-'0'), uint(b[1]-'0')
	if tens > 9 || ones > 9 {
		return 100
	}
	return tens*10 + ones
}
