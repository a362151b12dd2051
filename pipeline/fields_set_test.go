package pipeline

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"tidegate/pipeline/lineartest"
)

// sampleValue returns a value for a field as a JSON decoder returns it, and its text in the event.
func sampleValue(field *Field) (value any, text string) {
	switch {
	case field.Name == "event.dataset":
		return "log", "log"
	case field.Name == "event.outcome":
		return "failure", "failure"
	case field.Name == "network.transport":
		return "udp", "udp"
	case field.Name == "event.action": // process.exit_code exists for this action only
		return "die", "die"
	case field.Name == "event.id":
		return "01234567-89ab-cdef-0123-456789abcdef", "01234567-89ab-cdef-0123-456789abcdef"
	case field.Name == "network.community_id":
		return "1:LQU9qZlK+B5F3KDmev6m5PMibrg=", "1:LQU9qZlK+B5F3KDmev6m5PMibrg="
	case field.Name == "verdict.severity":
		return []any{"low", "critical"}, "low, critical"
	case field.Name == "verdict.tags":
		return []any{"a,b", "c"}, "a,b, c"
	case field.Time != nil:
		return "2026-11-24T10:00:00.5Z", "2026-11-24T10:00:00.5Z"
	case field.IP != nil:
		return "2001:db8::7", "2001:db8::7"
	case field.Num != nil:
		return 7.0, "7"
	case field.Flag != nil:
		return true, "true"
	case field.Strs != nil:
		return []any{"x", "y"}, "x, y"
	case field.Nums != nil:
		return []any{3.0, 5.0}, "3, 5"
	case field.Labels != nil:
		return map[string]any{"app": "web", "tier": "1"}, "app=web, tier=1"
	}
	return "x", "x"
}

// TestEveryFieldCanBeSet: each field of the table is read back after it was set, so the Path of a row leads
// to the field that its getter reads. The event is equal after AppendJSON and FromJSON.
func TestEveryFieldCanBeSet(t *testing.T) {
	for i := range Fields {
		field := &Fields[i]
		if field.Path == "" {
			if err := field.Set(&Event{}, "x"); !errors.Is(err, ErrComputed) {
				t.Errorf("%s: set although it has no Path: %v", field.Name, err)
			}
			continue
		}
		value, text := sampleValue(field)

		datasets := []Dataset{max(field.Body, Dataset_SESSION)}
		if field.hasSeveralPaths() {
			datasets = []Dataset{Dataset_MYSQL, Dataset_HTTP}
		}
		for _, dataset := range datasets {
			var builder Builder
			set := func(field *Field, value any) {
				if err := builder.Set(field, value); err != nil {
					t.Errorf("%s: %v", field.Name, err)
				}
			}
			set(Lookup("event.dataset"), dataset.Name())
			if field.Name == "process.exit_code" {
				set(Lookup("event.action"), "die")
			}
			set(field, value)
			event, err := builder.Event()
			if err != nil {
				t.Errorf("%s: %v", field.Name, err)
				continue
			}
			got := string(field.AppendText(nil, event))
			if !field.Has(event) || got != text || field.Text(event) != text {
				t.Errorf("%s: set %v, reads %q, want %q", field.Name, value, got, text)
			}
			checkRoundTrip(t, field.Name, event)
		}
	}
}

// TestEventsComeBackFromJSON: an event in which every field has a value is the same after AppendJSON and
// FromJSON, for each dataset.
func TestEventsComeBackFromJSON(t *testing.T) {
	for dataset := range Datasets {
		if dataset == 0 {
			continue
		}
		event := filled()
		event.Dataset = Dataset(dataset)
		before := string(AppendJSON(nil, event))
		back, err := FromJSON([]byte(before))
		if err != nil {
			t.Fatalf("%s: %v\n%s", event.Dataset, err, before)
		}
		if after := string(AppendJSON(nil, back)); after != before {
			t.Errorf("%s: before %s\nafter %s", event.Dataset, before, after)
		}
	}
}

// checkRoundTrip checks that an event is equal after AppendJSON and FromJSON.
func checkRoundTrip(t *testing.T, name string, event *Event) {
	t.Helper()
	object := AppendJSON(nil, event)
	back, err := FromJSON(object)
	if err != nil {
		t.Errorf("%s: %v\n%s", name, err, object)
		return
	}
	if !proto.Equal(event, back) {
		t.Errorf("%s: %v comes back as %v\n%s", name, event, back, object)
	}
}

func TestFromMapNamesEveryMistake(t *testing.T) {
	check := func(object map[string]any, want string) {
		t.Helper()
		_, err := FromMap(object)
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

// TestOddValuesAreRejected covers values that once became another value, or a panic.
func TestOddValuesAreRejected(t *testing.T) {
	for text, want := range map[string]string{
		`{"event.dataset":"dns"} x`:               "text follows the object",
		`{"event.dataset":"dns"}{}`:               "text follows the object",
		`{"@timestamp":"9999-01-01T00:00:00Z"}`:   "not in the years 1678 to 2262",
		`{"@timestamp":"0001-01-01T00:00:00Z"}`:   "not in the years 1678 to 2262",
		`{"@timestamp":"2262-04-11T23:47:17Z"}`:   "not in the years 1678 to 2262",
		`{"@timestamp":"1677-09-21T00:12:43.1Z"}`: "not in the years 1678 to 2262",
	} {
		if _, err := FromJSON([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", text, err, want)
		}
	}
	for _, text := range []string{"2262-04-11T23:47:16.854775807Z", "1677-09-21T00:12:43.145224192Z"} {
		event, err := FromJSON([]byte(`{"event.dataset":"dns","@timestamp":"` + text + `"} ` + "\n"))
		if err != nil || time.Unix(0, event.Timestamp).UTC().Format(time.RFC3339Nano) != text {
			t.Errorf("%s: %v, %v", text, event, err)
		}
	}
	if err := Lookup("container.labels").Set(&Event{}, []*Label{nil}); err == nil {
		t.Error("a label that is nil is accepted")
	}
}

// TestSelectivityIsSetForFieldsWithFewValues: only small numbers, and texts that are stored as
// LowCardinality, have few values.
func TestSelectivityIsSetForFieldsWithFewValues(t *testing.T) {
	for i := range Fields {
		field := &Fields[i]
		few := field.Str != nil && strings.HasPrefix(field.Column.Type, "LowCardinality") ||
			field.Num != nil && field.Column.Type == "UInt16"
		if field.Selectivity < 0 || field.Selectivity > 4 || field.Selectivity > 0 && !few {
			t.Errorf("%s: selectivity %d with column type %s", field.Name, field.Selectivity, field.Column.Type)
		}
	}
}

// TestPathLeadsToTheBody: the Path of a field with a Body leads into the body of that dataset. The Path of
// any other field leads into the common part.
func TestPathLeadsToTheBody(t *testing.T) {
	for i := range Fields {
		field := &Fields[i]
		if field.Path == "" || field.hasSeveralPaths() {
			continue
		}
		value, _ := sampleValue(field)
		event := &Event{}
		if err := field.Set(event, value); err != nil {
			t.Errorf("%s: %v", field.Name, err)
		}
		for dataset := range Datasets {
			if has := Datasets[dataset].HasBody; has != nil && has(event) != (field.Body == Dataset(dataset)) {
				t.Errorf("%s: Body is %s, but its Path %s sets the body of %s: %v",
					field.Name, field.Body, field.Path, Dataset(dataset), has(event))
			}
		}
	}
}

func FuzzFromJSON(f *testing.F) {
	f.Add(string(AppendJSON(nil, filled())))
	f.Add(`{"event":{"dataset":"log"},"message":"x","container":{"labels":{"a":"b"}}}`)
	f.Add(`{"event.dataset":"http","verdict":{"tags":["a,b"]}}`)
	f.Fuzz(func(t *testing.T, object string) {
		lineartest.CheckRepeated(t, lineartest.Default, object, func(object string) {
			event, err := FromJSON([]byte(object))
			if err != nil {
				return
			}
			once := AppendJSON(nil, event)
			back, err := FromJSON(once)
			if err != nil {
				t.Fatalf("%q was read, but not the JSON of its event: %v\n%s", object, err, once)
			}
			if twice := AppendJSON(nil, back); string(twice) != string(once) {
				t.Fatalf("%s\n%s", once, twice)
			}
		})
	})
}
