package config

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestProblemsAreWordedAlike: each check names the key, the value and the allowed values.
func TestProblemsAreWordedAlike(t *testing.T) {
	check := func(problems []Problem, want string) {
		t.Helper()
		got := ""
		if err := Join("engine", problems); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	check(Range("block_rows", 5, 1000, 1_000_000), "engine.block_rows: 5 is not between 1,000 and 1,000,000")
	check(Range("block_rows", 1000, 1000, 1_000_000), "")
	check(Range("linger", 2*time.Hour, time.Millisecond, time.Hour), "engine.linger: 2h is not between 1ms and 1h")
	check(Range("block_bytes", 5*KiB, MiB, GiB), "engine.block_bytes: 5KiB is not between 1MiB and 1GiB")
	check(RangeOr("replicas", 0, -1, 1, 32), "engine.replicas: 0 is neither -1 nor between 1 and 32")
	check(RangeOr("replicas", -1, -1, 1, 32), "")
	check(AtLeast("max", 0, 1), "engine.max: 0 is less than 1")
	check(AtLeastOr("disk", MiB, 0, 64*MiB), "engine.disk: 1MiB is neither 0 nor at least 64MiB")
	check(OneOf("assign", "grup", "group", "static"), `engine.assign: "grup" is not one of group, static, did you mean "group"?`)
	check(NotEmpty("dir", ""), "engine.dir: is empty")
	check(Exclusive("password", "a", "password_file", "b"), "engine.password_file: password is set too: set only one of them")
	check(Exclusive("password", "a", "password_file", ""), "")
	check(HostPort("addr", "a"), `engine.addr: "a" is not host:port`)
	check(HostPort("addr", ":1"), `engine.addr: ":1" is not host:port`)
	check(HostPort("addr", "a:0"), `engine.addr: "a:0" is not host:port with a port between 1 and 65535`)
	check(HostPort("addr", "[::1]:65535"), "")
	check(ListenAddress("addr", ":0"), "")
	check(ListenAddress("addr", "x:http"), `engine.addr: "x:http" is not host:port with a port between 0 and 65535`)
	check(Each("brokers", []string{"a:1", "b"}, HostPort), `engine.brokers[1]: "b" is not host:port`)
	check(Glob("include", "["), `engine.include: "[" is not a glob pattern`)
	check(Under("tls", OptionalTLS{TLS: TLS{CAFile: os.DevNull}}.Check()),
		"engine.tls.enabled: is false, but other keys of tls are set")
	check(Under("tls", TLS{CertFile: os.DevNull}.Check()),
		"engine.tls.cert_file: cert_file and key_file must be set together")
	check(Under("tls", TLS{CAFile: "a", CertFile: "b", KeyFile: "c"}.Check()), "engine.tls.ca_file: a: no such file\n"+
		"engine.tls.cert_file: b: no such file\nengine.tls.key_file: c: no such file")
	check(File("password_file", ""), "")
	check(File("password_file", "/"), "engine.password_file: / is a folder")
	check(Folder("dir", ""), "")
	check(Folder("dir", "/no/such"), "engine.dir: /no/such: no such folder")
	check(Folder("dir", os.DevNull), "engine.dir: "+os.DevNull+" is not a folder")
	check(slices.Concat(AtLeast("a", 0, 1), AtLeast("b", 0, 1)), "engine.a: 0 is less than 1\nengine.b: 0 is less than 1")
}

func TestSizesAreReadAsTheyAreWritten(t *testing.T) {
	for in, want := range map[string]Size{
		"0": 0, "17": 17, "8MiB": 8 * MiB, "512 KiB": 512 * KiB, "1.5GiB": 3 * GiB / 2, "2TiB": 2 * TiB,
	} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("%s: got %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "MiB", "8MB", "8M", "-1", "-1KiB", "0.3KiB", "nan", "inf", "9999999999TiB", "1e40"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("%q: got %v, want an error", in, got)
		}
	}
	for _, size := range []Size{0, 1, 1023, KiB, 8 * MiB, 3 * GiB / 2, 5 * TiB} {
		if got, err := ParseSize(size.String()); err != nil || got != size {
			t.Errorf("%s is read as %v, %v", size, got, err)
		}
	}
}

func TestDurationsHaveNoEmptyParts(t *testing.T) {
	for duration, want := range map[time.Duration]string{
		0: "0s", 48 * time.Hour: "48h", 90 * time.Minute: "1h30m", 10 * time.Second: "10s", 15 * time.Minute: "15m",
		1500 * time.Millisecond: "1.5s", time.Hour + time.Second: "1h0m1s",
	} {
		if got := FormatDuration(duration); got != want {
			t.Errorf("%v: got %s, want %s", duration, got, want)
		}
	}
}

func TestSecretIsTheValueOrTheFirstLineOfTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte("hunter2\r\nmore\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Secret("", path); err != nil || got != "hunter2" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := Secret("x", "/nonexistent"); err != nil || got != "x" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("\nmore\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Secret("", path); err == nil {
		t.Error("an empty first line was accepted")
	}
}
