package config

import (
	"errors"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline/lineartest"
)

// part has a value of each kind that a configuration holds.
type part struct {
	Brokers []string `yaml:"brokers"`
	Count   int      `yaml:"count"`

	Wait  time.Duration `yaml:"wait"`
	On    bool          `yaml:"on"`
	Room  Size          `yaml:"room"`
	Share float64       `yaml:"share"`
	Small uint32        `yaml:"small"`
	Name  string        `yaml:"name"`
}

// file is a configuration file with a section, a list, a mapping and TLS settings.
type file struct {
	Kafka part              `yaml:"kafka"`
	List  []part            `yaml:"list"`
	Any   map[string]string `yaml:"any"`
	TLS   OptionalTLS       `yaml:"tls"`
}

// decode decodes a file over two defaults.
func decode(in string) (file, error) {
	got := file{Kafka: part{Count: 7, Name: "default"}}
	document := Parse("f.yaml", []byte(in))
	document.Decode(&got)
	return got, document.Err()
}

func TestDecodeNamesThePlaceAndTheNearestKey(t *testing.T) {
	check := func(in, want string) {
		t.Helper()
		got, err := decode(in)
		switch {
		case want == "" && err != nil:
			t.Errorf("%q: %v", in, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: got %v, want %s", in, err, want)
		case want == "" && strings.Contains(in, "brokers") && got.Kafka.Count != 7:
			t.Errorf("%q: the default was lost", in)
		}
	}
	check("kafka:\n  brokers: [a]\n", "")
	check("any:\n  what: ever\n", "")
	check("", "")
	check("kafka:\n  brokrs: [a]\n", `f.yaml:2:3: kafka.brokrs: unknown key, did you mean "brokers"?`)
	check("kafak:\n  brokers: [a]\n", `f.yaml:1:1: kafak: unknown key, did you mean "kafka"?`)
	check("list:\n- count: 1\n- cuont: 1\n", `f.yaml:3:3: list[1].cuont: unknown key, did you mean "count"?`)
	check("kafka:\n  x1: 1\nzzzzzzzz: 2\n", `zzzzzzzz: unknown key`)
	check("kafka:\n  count: many\n", `f.yaml:2:10: kafka.count: "many" is not a whole number`)
	check("kafka:\n  wait: soon\n", `f.yaml:2:9: kafka.wait: "soon" is not a duration like 150ms, 10s or 48h`)
	check("kafka:\n  wait: 10s\n  on: yes please\n", `f.yaml:3:7: kafka.on: "yes please" is not true or false`)
	check("kafka:\n  brokers: a:1\n", `f.yaml:2:12: kafka.brokers: "a:1" is not a list, such as [a, b]`)
	check("kafka: 5\n", `f.yaml:1:8: kafka: "5" is not a section of keys`)
	check("kafka: [a]\n", `f.yaml:1:8: kafka: expected a section of keys, got a list`)
	check("list: {count: 1}\n", `f.yaml:1:7: list: expected a list, such as [a, b], got a mapping`)
	check("kafka:\n  count: 99999999999999999999\n", `f.yaml:2:10: kafka.count: 99999999999999999999 is out of range`)
	check("kafka:\n  small: 4294967296\n", `f.yaml:2:10: kafka.small: 4294967296 is out of range`)
	check("kafka:\n  small: -1\n", `f.yaml:2:10: kafka.small: -1 is out of range`)
	check("kafka:\n  count: many\n  wait: soon\n", "\nf.yaml:3:9: kafka.wait")
	check("kafka:\n  count: 0x10\n  wait: 0s\n  on: true\n", "")
	check("kafka:\n  room: 8 bytes\n", `f.yaml:2:9: kafka.room: "8 bytes" is not a size like 64KiB, 8MiB or 2GiB`)
	check("tls:\n  enabled: true\n  ca_file: ca.pem\n", "")
	check("tls:\n  ca: ca.pem\n", `f.yaml:2:3: tls.ca: unknown key`)
	check("kafka: [1\n", `f.yaml:1:`)
	check("kafka: {count: 1}\n---\nkafka: {count: 2}\n", `f.yaml:3:1: a second document in one file is not supported`)
	check("kafka:\n  count: >= 5\n", `f.yaml:2:10: count: not YAML: invalid header option: "= 5": a value that begins with > or | stands between quotes`)
	check("kafka:\n  count: 1\n  count: 2\n", `f.yaml:3:3: count: not YAML: mapping key "count" already defined`)
	check("kafka:\n\tcount: 1\n", `a tab stands in front of the line: indent with blanks`)
	check("kafka:\n  count: [1\n", `a [ is not closed`)
	check("kafka:\n  name: a: b\n", `f.yaml:2:9: name: not YAML: mapping value is not allowed in this context: a text with a colon and a blank stands between quotes`)
	check("kafka:\n  name: \"a\n  count: \"b\"\n", `; a quote in line 2 is not closed there`)
	check("kafka: |\na\n", `a text behind | or > is indented more than its key`)
	check("kafka:\n  name: \"a\n", `a quote is not closed`)
	check("kafka: {name: \"\xff\"}", `f.yaml: file is not UTF-8 text`)
	check(strings.Repeat("[", 100), `f.yaml:1:33: nested too deeply`)
}

func TestEmptyDocumentKeepsTheDefaults(t *testing.T) {
	for _, in := range []string{
		"\ufeff", "\ufeff# x\r\n", "\ufeffkafka:\r\n",
		"", "# x", "# x\n", "---", "---\n", "---\n# x\n", "\n\n", "null", "kafka:\n", "kafka:\n  # count: 1\n",
	} {
		got, err := decode(in)
		if err != nil || got.Kafka.Count != 7 || got.Kafka.Name != "default" {
			t.Errorf("%q: got %+v, %v", in, got.Kafka, err)
		}
	}
}

func TestValuesAreDecodedOverDefaults(t *testing.T) {
	got, err := decode("kafka:\n  brokers: [a:1, b:2]\n  wait: 48h\n  room: 8MiB\n  share: 0.5\n  small: 3\n  on: true\n" +
		"list:\n- {name: x, count: 1e3, room: 4096}\n- {name: 0123, count: '12', room: 0x10}\nany: {a: b, c: 1}\n")
	if err != nil {
		t.Fatal(err)
	}
	kafka := got.Kafka
	if len(kafka.Brokers) != 2 || kafka.Wait != 48*time.Hour || kafka.Room != 8*MiB || kafka.Share != 0.5 {
		t.Errorf("got %+v", kafka)
	}
	if kafka.Small != 3 || !kafka.On || kafka.Count != 7 {
		t.Errorf("got %+v", kafka)
	}
	if len(got.List) != 2 || got.List[0].Count != 1000 || got.List[0].Room != 4096 {
		t.Fatalf("got %+v", got.List)
	}
	if got.List[1].Name != "0123" || got.List[1].Count != 12 || got.List[1].Room != 16 {
		t.Errorf("got %+v", got.List)
	}
	if got.Any["a"] != "b" || got.Any["c"] != "1" {
		t.Errorf("got %v", got.Any)
	}
}

func TestAnchorsAliasesAndMergeKeys(t *testing.T) {
	got, err := decode("kafka: &k\n  count: 3\n  name: x\nlist:\n- *k\n- <<: *k\n  name: y\n")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.List) != 2 || got.List[0].Count != 3 || got.List[1].Count != 3 || got.List[1].Name != "y" {
		t.Errorf("got %+v", got.List)
	}

	// Aliases that refer to themselves or to nothing must not be followed for ever.
	for _, in := range []string{
		"kafka: &k\n  <<: *k\n", "kafka: *missing\n", "list: &l [*l]\n", "any: &a\n  x: *a\n",
	} {
		_, _ = decode(in)
	}
}

// TestLocateFindsTheKeyOrItsSection: Locate returns the position of a key, or that of the innermost section
// around a missing key.
func TestLocateFindsTheKeyOrItsSection(t *testing.T) {
	document := Parse("f", []byte("a:\n  b: 1\nlist:\n- x: 1\n- y: 2\n"))
	check := func(key, want string) {
		t.Helper()
		if got := document.Locate(Problem{key, errors.New("bad")}).Error(); got != want+key+": bad" {
			t.Errorf("%s: got %s, want it at %s", key, got, want)
		}
	}
	check("a.b", "f:2:3: ")
	check("a.c", "f:1:1: ")
	check("list[1].y", "f:5:3: ")
	check("list[1].z", "f:5:3: ")
	check("list[0].x", "f:4:3: ")
	check("other.part", "f: ")

	document = Parse("f", []byte("a: &a\n  b: 1\nc: *a\n"))
	check("a.b", "f:2:3: ")
	check("c.b", "f:3:1: ")
}

func TestErrorsComeInTheOrderOfTheFile(t *testing.T) {
	document := Parse("f", []byte("a: 1\nb: 2\n"))
	bad := errors.New("bad")
	document.AddProblems([]Problem{{"b", bad}, {"a", bad}, {"c", bad}})
	if got, want := document.Err().Error(), "f: c: bad\nf:1:1: a: bad\nf:2:1: b: bad"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestPositionAtPointsIntoTheFile(t *testing.T) {
	check := func(in string, index int, line, column int) {
		t.Helper()
		var decoded struct {
			When Text `yaml:"when"`
		}
		document := Parse("f", []byte(in))
		document.Decode(&decoded)
		if err := document.Err(); err != nil {
			t.Fatal(err)
		}
		if got := decoded.When.PositionAt(index); got != (Position{line, column}) {
			t.Errorf("%q at %d: got %v, want %d:%d", in, index, got, line, column)
		}
	}
	check("when: a == b\n", 5, 1, 12)
	check("when: 'it''s b'\n", 5, 1, 14)
	check("when: |\n  a ==\n  b\n", 5, 3, 3)
	check("when: a ==\n  b\n", 5, 2, 3)
}

// FuzzDecode checks that any file is decoded without a panic.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("kafka: &k\n  count: 3\nlist:\n- *k\n- <<: *k\n"))
	f.Add([]byte("kafka:\n  room: 8MiB\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		lineartest.CheckRepeated(t, lineartest.Default, in, func(in []byte) {
			var got file
			document := Parse("f", in)
			document.Decode(&got)
			document.AddProblems([]Problem{{"kafka.count", errors.New("bad")}})
			_ = document.Err()
		})
	})
}

// chain is a type that contains itself.
type chain struct {
	N    int    `yaml:"n"`
	Next *chain `yaml:"next"`
}

// TestAliasRefersToTheValueInFrontOfIt: earlier, an alias to a value that contains it was followed for ever,
// an alias to no value was null, and an alias to an anchor that is defined twice had the later value.
func TestAliasRefersToTheValueInFrontOfIt(t *testing.T) {
	check := func(in string, want int, wantErr string) {
		t.Helper()
		var got chain
		document := Parse("f.yaml", []byte(in))
		document.Decode(&got)
		last := &got
		for last.Next != nil {
			last = last.Next
		}
		if err := document.Err(); wantErr == "" && (err != nil || last.N != want) {
			t.Errorf("%q: n is %d, want %d; %v", in, last.N, want, err)
		} else if wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr)) {
			t.Errorf("%q: got %v, want %s", in, err, wantErr)
		}
	}
	check("n: &a 1\nnext: {n: *a}\n", 1, "")
	check("n: &a 1\nnext: {n: *a, next: {n: &a 2}}\n", 2, "")
	check("n: &a 1\nnext:\n  next: {n: *a}\n  n: &a 2\n", 1, "")
	check("n: *a\n", 0, "f.yaml:1:4: alias *a refers to no value in front of it")
	check("n: *a\nnext: {n: &a 1}\n", 0, "f.yaml:1:4: alias *a refers to no value in front of it")
	check("next: &a\n  next: *a\n", 0, "f.yaml:2:9: alias *a refers to no value in front of it")
	check("next: &a\n  <<: *a\n", 0, "f.yaml:2:7: alias *a refers to no value in front of it")
}
