package pipeline

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

// sampleValue returns a value for f as a decoder of JSON would, and the text that it has in the event.
func sampleValue(f *Field) (v any, text string) {
	switch {
	case f.Name == "event.dataset":
		return "log", "log"
	case f.Name == "event.outcome":
		return "failure", "failure"
	case f.Name == "network.transport":
		return "udp", "udp"
	case f.Name == "event.action": // process.exit_code is there for this action only
		return "die", "die"
	case f.Name == "event.id":
		return "01234567-89ab-cdef-0123-456789abcdef", "01234567-89ab-cdef-0123-456789abcdef"
	case f.Name == "network.community_id":
		return "1:LQU9qZlK+B5F3KDmev6m5PMibrg=", "1:LQU9qZlK+B5F3KDmev6m5PMibrg="
	case f.Name == "verdict.severity":
		return []any{"low", "critical"}, "low, critical"
	case f.Name == "verdict.tags":
		return []any{"a,b", "c"}, "a,b, c"
	case f.Time != nil:
		return "2026-11-24T10:00:00.5Z", "2026-11-24T10:00:00.5Z"
	case f.IP != nil:
		return "2001:db8::7", "2001:db8::7"
	case f.Num != nil:
		return 7.0, "7"
	case f.Flag != nil:
		return true, "true"
	case f.Strs != nil:
		return []any{"x", "y"}, "x, y"
	case f.Nums != nil:
		return []any{3.0, 5.0}, "3, 5"
	case f.Labels != nil:
		return map[string]any{"app": "web", "tier": "1"}, "app=web, tier=1"
	}
	return "x", "x"
}

// TestEveryFieldCanBeSet sets each field of the table, reads it back, and takes the event through JSON and
// back: the Path of a row is where its getter reads, and FromJSON is the inverse of AppendJSON.
func TestEveryFieldCanBeSet(t *testing.T) {
	for i := range Fields {
		f := &Fields[i]
		if f.Path == "" {
			if err := f.Set(&Event{}, "x"); !errors.Is(err, ErrComputed) {
				t.Errorf("%s: set although it has no Path: %v", f.Name, err)
			}
			continue
		}
		v, text := sampleValue(f)

		datasets := []Dataset{max(f.Body, Dataset_SESSION)}
		if f.hasSeveralPaths() {
			datasets = []Dataset{Dataset_MYSQL, Dataset_HTTP}
		}
		for _, d := range datasets {
			var b Builder
			set := func(f *Field, v any) {
				if err := b.Set(f, v); err != nil {
					t.Errorf("%s: %v", f.Name, err)
				}
			}
			set(Lookup("event.dataset"), d.Name())
			if f.Name == "process.exit_code" {
				set(Lookup("event.action"), "die")
			}
			set(f, v)
			e, err := b.Event()
			if err != nil {
				t.Errorf("%s: %v", f.Name, err)
				continue
			}
			if got := string(f.AppendText(nil, e)); !f.Has(e) || got != text || f.Text(e) != text {
				t.Errorf("%s: set %v, reads %q, want %q", f.Name, v, got, text)
			}
			checkRoundTrip(t, f.Name, e)
		}
	}
}

// TestEventsComeBackFromJSON takes an event in which every field has a value through JSON and back, as each
// dataset in turn.
func TestEventsComeBackFromJSON(t *testing.T) {
	for d := range Datasets {
		if d == 0 {
			continue
		}
		e := filled()
		e.Dataset = Dataset(d)
		before := string(AppendJSON(nil, e))
		back, err := FromJSON([]byte(before))
		if err != nil {
			t.Fatalf("%s: %v\n%s", e.Dataset, err, before)
		}
		if after := string(AppendJSON(nil, back)); after != before {
			t.Errorf("%s: before %s\nafter %s", e.Dataset, before, after)
		}
	}
}

func checkRoundTrip(t *testing.T, name string, e *Event) {
	t.Helper()
	object := AppendJSON(nil, e)
	back, err := FromJSON(object)
	if err != nil {
		t.Errorf("%s: %v\n%s", name, err, object)
		return
	}
	if !proto.Equal(e, back) {
		t.Errorf("%s: %v comes back as %v\n%s", name, e, back, object)
	}
}

func TestFromMapNamesEveryMistake(t *testing.T) {
	check := func(m map[string]any, want string) {
		t.Helper()
		_, err := FromMap(m)
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	check(map[string]any{"log.level": "info", "log": map[string]any{"stream": 1, "offset": "x"}},
		"log.offset: expected a whole number, got text\nlog.stream: expected text, got a number")
	check(map[string]any{"source.ip": "10.0.0", "event.dataset": "http", "no.field": 1, "source.port": -1.0},
		"no.field: unknown field\nsource.ip: not an address: \"10.0.0\"\nsource.port: -1 is out of range")
	check(map[string]any{"dns.id": 1, "http.version": "1.1"}, "http.version: is a field of http, but the event has fields of dns")
	check(map[string]any{"dns.id": 1, "event.dataset": "http"}, "event.dataset is http, but the event has fields of dns")
	check(map[string]any{"source.port": 1}, ErrNoDataset.Error())
	check(map[string]any{"event.dataset": "htp"}, "event.dataset: no dataset is called \"htp\"\n"+ErrNoDataset.Error())
	check(map[string]any{"network.transport": "sctp", "event.dataset": "log"}, "network.transport: expected tcp or udp, got \"sctp\"")
	check(map[string]any{"event.outcome": "failed", "event.dataset": "log"}, "event.outcome: expected success or failure, got \"failed\"")
	check(map[string]any{"container.labels": "x", "event.dataset": "log"}, "container.labels: expected a mapping of labels, got text")
	check(map[string]any{"dns.id": 1.5}, "dns.id: expected a whole number, got a number")
	check(map[string]any{"event.partial": "yes", "event.dataset": "log"}, "event.partial: expected true or false, got text")
}

// TestSelectivityIsOfFieldsWithFewValues: only text that is stored as LowCardinality, and small numbers, can
// have few values.
func TestSelectivityIsOfFieldsWithFewValues(t *testing.T) {
	for i := range Fields {
		f := &Fields[i]
		few := f.Str != nil && strings.HasPrefix(f.Column.Type, "LowCardinality") || f.Num != nil && f.Column.Type == "UInt16"
		if f.Selectivity < 0 || f.Selectivity > 4 || f.Selectivity > 0 && !few {
			t.Errorf("%s: selectivity %d with column type %s", f.Name, f.Selectivity, f.Column.Type)
		}
	}
}

// TestBodiesAreWhereThePathsLead: a field with a Body lies in the body of that dataset, any other in the
// common part.
func TestBodiesAreWhereThePathsLead(t *testing.T) {
	for i := range Fields {
		f := &Fields[i]
		if f.Path == "" || f.hasSeveralPaths() {
			continue
		}
		v, _ := sampleValue(f)
		e := &Event{}
		if err := f.Set(e, v); err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
		for d := range Datasets {
			if has := Datasets[d].HasBody; has != nil && has(e) != (f.Body == Dataset(d)) {
				t.Errorf("%s: Body is %s, but its Path %s sets the body of %s: %v", f.Name, f.Body, f.Path, Dataset(d), has(e))
			}
		}
	}
}

func FuzzFromJSON(f *testing.F) {
	f.Add(string(AppendJSON(nil, filled())))
	f.Add(`{"event":{"dataset":"log"},"message":"x","container":{"labels":{"a":"b"}}}`)
	f.Add(`{"event.dataset":"http","verdict":{"tags":["a,b"]}}`)
	f.Fuzz(func(t *testing.T, object string) {
		e, err := FromJSON([]byte(object))
		if err != nil {
			return
		}
		once := AppendJSON(nil, e)
		back, err := FromJSON(once)
		if err != nil {
			t.Fatalf("%q was read, but not what is written of it: %v\n%s", object, err, once)
		}
		if twice := AppendJSON(nil, back); string(twice) != string(once) {
			t.Fatalf("%s\n%s", once, twice)
		}
	})
}
