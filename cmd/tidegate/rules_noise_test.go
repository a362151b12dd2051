package main

import (
	"testing"

	"tidegate/detectors/rules"
)

// TestExceptionOfAGroupIsACondition: it names the values of the group and compiles as an exception of a rule.
func TestExceptionOfAGroupIsACondition(t *testing.T) {
	for _, test := range []struct{ group, container, want string }{
		{"container.id=4f2a source.ip=10.0.0.1", "web", `container.name == "web" and source.ip == "10.0.0.1"`},
		{"container.id=4f2a", "", `container.id == "4f2a"`},
		{"host.id=h destination.port=443", "web", `host.id == "h" and destination.port == 443`},
		{`url.path="/a b\"'\n=" user.name=é`, "", `url.path == "/a b\"'\n=" and user.name == "é"`},
		{"source.ip=", "", `not has(source.ip)`},
		{"dns.answers.data=1 host.id=h", "", ""},
		{"unknown=1", "", ""},
		{"no group", "", ""},
		{"url.path=/aaaaaa~0123456789abcdef", "", ""},
		{"", "web", ""},
	} {
		got := exceptionOf(test.group, test.container)
		if got != test.want {
			t.Errorf("%s: %s, want %s", test.group, got, test.want)
		}
		if got == "" {
			continue
		}
		cfg := rules.Default()
		cfg.Exceptions = map[string][]string{"http-scanner": {got}}
		if _, err := rules.Load(cfg, discardLog(), nil); err != nil {
			t.Errorf("%s: %v", got, err)
		}
	}
}
