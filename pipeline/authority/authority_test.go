package authority

import (
	"net/netip"
	"strings"
	"testing"
)

func TestHostOfAnAuthority(t *testing.T) {
	check := func(text, want string) {
		t.Helper()
		if got := string(Host([]byte(text))); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for _, port := range []string{"", ":", ":8080"} {
		for _, user := range []string{"", "user@", "user:p@ss@"} {
			check(user+"evil.example"+port, "evil.example")
			check(user+"evil.example."+port, "evil.example")
			check(user+"evil.example.."+port, "evil.example")
			check(user+"203.0.113.9"+port, "203.0.113.9")
			check(user+"203.0.113.9."+port, "203.0.113.9")
			check(user+"[2001:db8::9]"+port, "[2001:db8::9]")
			check(user+"[::ffff:203.0.113.9]"+port, "[::ffff:203.0.113.9]")
			check(user+"[fe80::9%25eth0]"+port, "[fe80::9%25eth0]")
		}
	}
	check("", "")
	check(".", ".")
	check("2001:db8::9", "2001:db8::9")
	check("::ffff:203.0.113.9", "::ffff:203.0.113.9")
	check("fe80::9%eth0", "fe80::9%eth0")
	check("evil.example:80:90", "evil.example")
	check("[2001:db8::9", "[2001:db8::9")
	check("[", "[")
}

func TestAddressInEverySpelling(t *testing.T) {
	v4, v6 := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8::9")
	check := func(text string, want netip.Addr) {
		t.Helper()
		if got, ok := Addr(text); got != want || ok != want.IsValid() {
			t.Errorf("%q: %v, %v; want %v", text, got, ok, want)
		}
	}
	for _, around := range []string{"%s", " %s\t", `"%s"`} {
		for _, spelling := range []string{
			"203.0.113.9", "203.0.113.9.", "203.0.113.9:8080", "203.0.113.9:", "203.0.113.9.:80", "203.0.113.9%eth0",
			"203.0.113.9:_hidden", "[203.0.113.9]", "[203.0.113.9]:80", "::ffff:203.0.113.9", "[::ffff:203.0.113.9]:80",
			"::FFFF:cb00:7109", "[::ffff:203.0.113.9%25eth0]:80", "::ffff:203.0.113.9:8080", "0:0:0:0:0:ffff:203.0.113.9",
		} {
			check(strings.ReplaceAll(around, "%s", spelling), v4)
		}
		for _, spelling := range []string{
			"2001:db8::9", "2001:DB8:0:0::9", "[2001:db8::9]", "[2001:db8::9]:1234", "[2001:db8::9].", "[2001:db8::9].:80",
			"2001:db8::9%eth0", "[2001:db8::9%eth0]:80", "[2001:db8::9%25br-lan]", "2001:db8:0:0:0:0:0:9:8080",
			"2001:0db8:0000:0000:0000:0000:0000:0009",
		} {
			check(strings.ReplaceAll(around, "%s", spelling), v6)
		}
	}
	for _, other := range []string{
		"", ".", ":", "::g", "[]", "[", "]", "[2001:db8::9", "[2001:db8::9]x", "evil.example", "9.evil.example", "unknown",
		"203.0.113", "203.0.113.999", "203.0.113.9.1", "203.0.113.9 ,", "203.0.113.9/24", "::1%2e%2e/", "cafe", "cafe:80", "1", "%", "%eth0",
		"3405803785", "2001:db8::9::1", strings.Repeat("1", 1<<16),
	} {
		check(other, netip.Addr{})
	}
}

func TestNamesAllocateNothing(t *testing.T) {
	for _, text := range []string{"evil.example", "a-b.evil.example:8080", "evil1", "[evil]"} {
		if n := testing.AllocsPerRun(100, func() { Addr(text) }); n != 0 {
			t.Errorf("%q: %v allocations", text, n)
		}
	}
}

func TestNumericAddresses(t *testing.T) {
	check := func(text, want string) {
		t.Helper()
		got, ok := NumericIPv4([]byte(text))
		if want == "" && ok || want != "" && (!ok || got.String() != want) {
			t.Errorf("%q: %v, %v; want %q", text, got, ok, want)
		}
	}
	for _, text := range []string{
		"3405803785", "0xcb007109", "0XCB007109", "031300070411", "0xcb.0.0x71.9", "203.0.28937", "203.0x7109", "0313.0.0161.011",
		"203.0.113.0x9", "203.0.0x71.011", "0xcb.0x7109",
	} {
		check(text, "203.0.113.9")
	}
	check("127.1", "127.0.0.1")
	check("0", "0.0.0.0")
	check("0x", "0.0.0.0") // as browsers read it
	check("2852039166", "169.254.169.254")
	check("010.0.0.1", "8.0.0.1")
	check("0x7f.1", "127.0.0.1")
	for _, text := range []string{
		"", "203.0.113.9", "203.0.113.256", "203.0.113.0x100", "4294967296", "1.2.3.4.5", "09", "0x.example", "1.2.3.4.0x5",
		"203.0.113.", "203..113.9", "9.evil.example", "evil.example", "256.1", "1.16777216", "1.2.65536", "0xcb00710g", "-1", "1e3",
	} {
		check(text, "")
	}
}

func FuzzAddr(f *testing.F) {
	for _, seed := range []string{"203.0.113.9:80", "[2001:db8::9%25eth0]:80", "::ffff:203.0.113.9:80", "evil.example.", "0xcb.1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		addr, ok := Addr(text)
		if ok != addr.IsValid() || addr.Zone() != "" || addr.Is4In6() {
			t.Fatalf("%q: %v, %v", text, addr, ok)
		}
		if ok {
			if again, _ := Addr(addr.String()); again != addr {
				t.Fatalf("%q: %v, then %v", text, addr, again)
			}
		}
		host := Host([]byte(text))
		if len(host) > len(text) || len(host) > 1 && host[len(host)-1] == '.' {
			t.Fatalf("%q: host %q", text, host)
		}
		NumericIPv4([]byte(text))
	})
}
