package dns

import "testing"

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
