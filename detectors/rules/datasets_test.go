package rules

import (
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
)

// eventsFrom returns an event of each dataset that comes from a port of a client.
func eventsFrom(port uint32) (events []*pipeline.Event) {
	for _, name := range pipeline.DatasetNames() {
		event := &pipeline.Event{Dataset: pipeline.DatasetByName(name), Source: &pipeline.Endpoint{Port: port}}
		if newBody := pipeline.Datasets[event.Dataset.Index()].NewBody; newBody != nil {
			newBody(event)
		}
		events = append(events, event)
	}
	return events
}

// TestListedDatasetsNarrowARule: a rule fires on events of the datasets that it lists only, also if its condition
// holds for others.
func TestListedDatasetsNarrowARule(t *testing.T) {
	check := func(listed string, want ...string) {
		t.Helper()
		set, err := compileText(t, ruleYAML("r", "source.port == 4711")+listed)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		events := eventsFrom(4711)
		set.Evaluate(events)
		for _, event := range events {
			if len(event.Verdicts) > 0 {
				got = append(got, event.Dataset.Name())
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%q fires on %q, want %q", listed, got, want)
		}
		if named := slices.Sorted(slices.Values(set.Rules()[0].Datasets)); !slices.Equal(named, want) {
			t.Errorf("%q: the rule names %q, want %q", listed, named, want)
		}
	}
	check("  datasets: [dns]\n", "dns")
	check("  datasets: dns\n", "dns")
	check("  datasets: [redis, http]\n", "http", "redis")

	// With no dataset for which the condition can hold the rule is an error.
	_, err := compileText(t, ruleYAML("r", `redis.key == "a"`)+"  datasets: [dns]\n")
	if err == nil || !strings.Contains(err.Error(), "can never be true") {
		t.Errorf("a condition of another dataset: %v", err)
	}
}

// TestConditionsWithAConstantAreIndexed: rules whose condition needs a constant are candidates only for the events
// that have it. The others are evaluated for every event, and have a lint.
func TestConditionsWithAConstantAreIndexed(t *testing.T) {
	check := func(when string, want bool) {
		t.Helper()
		// A field is looked up whether it is the first of the set or not.
		for _, text := range []string{ruleYAML("r", when), ruleYAML("q", `http.request.method == "X"`) + ruleYAML("r", when)} {
			set, err := compileText(t, text)
			if err != nil {
				t.Fatal(err)
			}
			rule := set.Rules()[len(set.Rules())-1]
			lint := slices.ContainsFunc(set.Lints(), func(lint Lint) bool {
				return lint.Rule == "r" && strings.HasPrefix(lint.Message, "has no index key")
			})
			if rule.Indexed != want || lint == want {
				t.Errorf("%s: indexed %v, lint %v; want %v", when, rule.Indexed, lint, want)
			}
		}
	}
	for _, when := range []string{
		`redis.key == "a"`, `"a" == redis.key`, `mysql.rows == 5`, `5 == mysql.rows`, `redis.key in ["a", "b"]`,
		`mysql.rows in [5, 6]`, `lower(redis.key) == "a"`, `redis.key contains "abc"`, `redis.key startsWith "abc"`,
		`redis.key endsWith "abc"`, `redis.key matches "x.*abcd"`, `source.ip == "203.0.113.9"`,
		`source.ip in ["203.0.113.9", "2001:db8::1"]`, `cidr(source.ip, "203.0.113.9/32")`,
		`any(redis.args, # == "a")`, `redis.key == "a" and mysql.rows > 5 or redis.key == "b"`,
		`len(redis.key) == 5`, `len(redis.key) > 3 and redis.key == "a"`, `redis.key == "a" or mysql.rows == 5`,
	} {
		check(when, true)
	}
	for _, when := range []string{
		`redis.key != "a"`, `mysql.rows > 5`, `len(redis.key) > 5`, `not (redis.key == "a")`, `redis.key == ""`,
		`mysql.rows == 0`, `source.ip in ["203.0.113.0/24"]`, `source.ip in ["203.0.113.9", "198.51.100.0/24"]`,
		`redis.key == "a" or mysql.rows > 5`, `redis.key matches "[abc]+"`, `all(redis.args, # == "a")`,
	} {
		check(when, false)
	}
}

// TestLiteralsOfEachFieldAreFound in an event that has one in each of several fields.
func TestLiteralsOfEachFieldAreFound(t *testing.T) {
	set, err := compileText(t, ruleYAML("args", `any(redis.args, # contains "wxyz")`)+ruleYAML("command", `redis.command contains "ghijkl"`)+
		ruleYAML("key", `redis.key contains "abcdef"`)+ruleYAML("both", `redis.key contains "abcdef" and redis.command contains "ghijkl"`))
	if err != nil {
		t.Fatal(err)
	}
	check := func(command, key, arg, want string) {
		t.Helper()
		event := &pipeline.Event{Dataset: pipeline.Dataset_REDIS, Redis: &pipeline.RedisCommand{Command: command, Key: key, Args: []string{arg}}}
		for range 2 {
			event.Verdicts = nil
			set.Evaluate([]*pipeline.Event{event})
			if got := fired(event); got != want {
				t.Errorf("%s %s %s: %q, want %q", command, key, arg, got, want)
			}
		}
	}
	check("ghijkl", "abcdef", "wxyz", "args both command key")
	check("ghijkl", "ghijkl", "ghijkl", "command")
	check("abcdef", "abcdef", "abcdef", "key")
	check("wxyz", "wxyz", "wxyz", "args")
	check("", "", "", "")
}

// TestListsOfNumbersMayHaveNegativeOnes: a list of a file holds the numbers with their signs.
func TestListsOfNumbersMayHaveNegativeOnes(t *testing.T) {
	set, err := compileText(t, "lists: {n: [-3, 5]}\nrules:\n"+ruleYAML("r", "-len(redis.key) in n")+
		ruleYAML("q", "len(redis.key) in n"))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"abc": "r", "abcde": "q", "ab": "", "": ""} {
		event := &pipeline.Event{Dataset: pipeline.Dataset_REDIS, Redis: &pipeline.RedisCommand{Key: key}}
		set.Evaluate([]*pipeline.Event{event})
		if got := fired(event); got != want {
			t.Errorf("%q fires %q, want %q", key, got, want)
		}
	}
}
