package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml/parser"
)

func TestDecodeStrictNamesThePlaceAndTheNearestKey(t *testing.T) {
	type part struct {
		Brokers []string `yaml:"brokers"`
		Count   int      `yaml:"count"`

		Wait time.Duration `yaml:"wait"`
		On   bool          `yaml:"on"`
	}
	type config struct {
		Kafka part              `yaml:"kafka"`
		List  []part            `yaml:"list"`
		Any   map[string]string `yaml:"any"`
	}
	check := func(in, want string) {
		t.Helper()
		c := config{Kafka: part{Count: 7}}
		err := decodeStrict("f.yaml", []byte(in), &c)
		switch {
		case want == "" && err != nil:
			t.Errorf("%q: %v", in, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: got %v, want %s", in, err, want)
		case want == "" && strings.Contains(in, "brokers") && c.Kafka.Count != 7:
			t.Errorf("%q: the default was lost", in)
		}
	}
	check("kafka:\n  brokers: [a]\n", "")
	check("any:\n  what: ever\n", "")
	check("", "")
	check("kafka:\n  brokrs: [a]\n", `f.yaml:2:3: kafka.brokrs is not a key; nearest is "brokers"`)
	check("kafak:\n  brokers: [a]\n", `f.yaml:1:1: kafak is not a key; nearest is "kafka"`)
	check("list:\n- count: 1\n- cuont: 1\n", `f.yaml:3:3: list[1].cuont is not a key; nearest is "count"`)
	check("kafka:\n  x1: 1\nzzzzzzzz: 2\n", `zzzzzzzz is not a key`)
	check("kafka:\n  count: many\n", `f.yaml:2:10: kafka.count: "many" is not a whole number`)
	check("kafka:\n  wait: soon\n", `f.yaml:2:9: kafka.wait: "soon" is not a duration like 150ms, 10s or 48h`)
	check("kafka:\n  wait: 10s\n  on: yes please\n", `f.yaml:3:7: kafka.on: "yes please" is not true or false`)
	check("kafka:\n  brokers: a:1\n", `f.yaml:2:12: kafka.brokers: "a:1" is not a list, such as [a, b]`)
	check("kafka: 5\n", `f.yaml:1:8: kafka: "5" is not a section of keys`)
	check("kafka: [a]\n", `f.yaml:1:8: kafka: a list, where a section of keys is meant`)
	check("list: {count: 1}\n", `f.yaml:1:7: list: a section of keys, where a list, such as [a, b] is meant`)
	check("kafka:\n  count: 99999999999999999999\n", `f.yaml:2:10: kafka.count: 99999999999999999999 is out of range`)
	check("kafka:\n  count: many\n  wait: soon\n", "\nf.yaml:3:9: kafka.wait")
	check("kafka:\n  count: 0x10\n  wait: 0s\n  on: true\n", "")
	check("kafka: [1\n", `f.yaml:1:`)
}

func TestLocateFindsTheKeyOrThePartThatItBelongsTo(t *testing.T) {
	file, err := parser.ParseBytes([]byte("a:\n  b: 1\nlist:\n- x: 1\n- y: 2\n"), 0)
	if err != nil {
		t.Fatal(err)
	}
	check := func(key, want string) {
		t.Helper()
		if got := locate("f", keyPlaces(file), errors.New(key+": bad")).Error(); got != want+key+": bad" {
			t.Errorf("%s: got %s, want it at %s", key, got, want)
		}
	}
	check("a.b", "f:2:3: ")
	check("a.c", "f:1:1: ")
	check("list[1].y", "f:5:3: ")
	check("list[1].z", "f:5:3: ")
	check("list[0].x", "f:4:3: ")
	check("other.part", "f: ")
}
