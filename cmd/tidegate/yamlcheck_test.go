package main

import (
	"strings"
	"testing"
)

func TestDecodeStrictNamesThePlaceAndTheNearestKey(t *testing.T) {
	type part struct {
		Brokers []string `yaml:"brokers"`
		Count   int      `yaml:"count"`
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
	check("kafka:\n  count: many\n", `f.yaml:2:10: `)
	check("kafka: [1\n", `f.yaml:1:`)
}
