package dns

import (
	"fmt"
	"strings"
	"testing"
)

// TestNumbersHaveTheNamesOfIANA; a type without a name is TYPE and its number (RFC 3597, section 5).
func TestNumbersHaveTheNamesOfIANA(t *testing.T) {
	for typ, want := range map[uint16]string{
		0: "TYPE0", 1: "A", 28: "AAAA", 54: "TYPE54", 65: "HTTPS", 255: "ANY", 257: "CAA", 262: "WALLET", 263: "TYPE263", 300: "TYPE300",
		32767: "TYPE32767", 32768: "TA", 32769: "DLV", 32770: "TYPE32770", 65535: "TYPE65535",
	} {
		if got := typeName(typ); got != want {
			t.Errorf("type %d: %q, want %q", typ, got, want)
		}
	}
	for class, want := range map[uint16]string{0: "", 1: "IN", 2: "", 3: "CH", 4: "HS", 5: "", 254: "NONE", 255: "ANY", 256: ""} {
		if got := className(class); got != want {
			t.Errorf("class %d: %q, want %q", class, got, want)
		}
	}
}

// TestCodesHaveTheNamesOfIANA, or their numbers, and the bits of a header the names of RFC 1035 and RFC 4035.
func TestCodesHaveTheNamesOfIANA(t *testing.T) {
	for code := range uint16(40) {
		want := fmt.Sprintf("RCODE%d", code)
		if int(code) < len(responseCodes) && responseCodes[code] != "" {
			want = responseCodes[code]
		}
		if got := responseCode(code); got != want {
			t.Errorf("response code %d: %s, want %s", code, got, want)
		}
	}
	if responseCode(3) != "NXDOMAIN" || responseCode(23) != "BADCOOKIE" || responseCode(24) != "RCODE24" || responseCode(12) != "RCODE12" {
		t.Error("names of response codes")
	}
	for bit := range 16 {
		want := map[int]string{10: "AA", 9: "TC", 8: "RD", 7: "RA", 5: "AD", 4: "CD"}[bit]
		if got := strings.Join(headerFlags(nil, 1<<bit), " "); got != want {
			t.Errorf("bit %d: %q, want %q", bit, got, want)
		}
	}
	if got := strings.Join(headerFlags(nil, 0xffff), " "); got != "AA TC RD RA AD CD" {
		t.Error(got)
	}
}

// TestOctetsOfNamesAreWritten as RFC 4343 section 2.1 says, each of them.
func TestOctetsOfNamesAreWritten(t *testing.T) {
	for c := range 256 {
		want := fmt.Sprintf(`\%03d`, c)
		switch {
		case c == '.' || c == '\\':
			want = `\` + string(rune(c))
		case c > ' ' && c <= '~':
			want = strings.ToLower(string(rune(c)))
		}
		if got := string(appendLabel(nil, []byte{byte(c)})); got != want {
			t.Errorf("octet %d: %s, want %s", c, got, want)
		}
	}
}
