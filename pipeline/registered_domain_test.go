package pipeline

import "testing"

func TestRegisteredDomainIsPublicSuffixAndOneLabel(t *testing.T) {
	check := func(name, want string) {
		t.Helper()
		if got := RegisteredDomain(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	check("www.example.com", "example.com")
	check("example.com", "example.com")
	check("a.b.example.co.uk", "example.co.uk")
	check("co.uk", "")
	check("com", "")
	check(".", "")
	check("", "")
	check("db.shop.local", "shop.local")
	check(`x.a\.b.com`, `a\.b.com`)
	check(`x.a\\.com`, `a\\.com`)
}
