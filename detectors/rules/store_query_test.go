package rules

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded/embeddedtest"
)

func TestMain(m *testing.M) { os.Exit(embeddedtest.Run(m)) }

// storeEvents stores events, whose rows have their index as _offset.
func storeEvents(t *testing.T, store *clickhouse.Store, topic string, events []*pipeline.Event) {
	t.Helper()
	block := clickhouse.NewColumnBlock()
	for i, event := range events {
		event.Ingested = time.Now().UnixNano()
		block.Append(event, pipeline.Position{Offset: int64(i)}, topic)
	}
	if err := store.Insert(t.Context(), block, topic); err != nil {
		t.Fatal(err)
	}
}

// findStored returns the indexes of the stored events for which the query holds.
func findStored(t *testing.T, store *clickhouse.Store, topic string, query StoreQuery) map[int]bool {
	t.Helper()
	values := maps.Clone(query.Parameters)
	values["topic"] = topic
	var out bytes.Buffer
	sql := "SELECT _offset FROM events WHERE _topic = {topic:String} AND " + query.Where
	if err := clickhouse.QueryWith(t.Context(), store.Config(), sql, values, "TSV", &out); err != nil {
		t.Errorf("%v\n%s\n%q", err, query.Where, query.Parameters)
		return nil
	}
	found := map[int]bool{}
	for line := range strings.Lines(out.String()) {
		var index int
		if _, err := fmt.Sscan(line, &index); err != nil {
			t.Fatal(err)
		}
		found[index] = true
	}
	return found
}

// checkStoreQueries compares the stored events that the query of each rule finds with those that the rule matches, and
// returns how many rules have an exact query.
func checkStoreQueries(t *testing.T, store *clickhouse.Store, topic string, set *Set, events []*pipeline.Event) (exact int) {
	t.Helper()
	storeEvents(t, store, topic, events)
	matched := map[string]map[int]bool{}
	for i, event := range events {
		event.Verdicts = nil
		set.Evaluate([]*pipeline.Event{event})
		for _, verdict := range event.Verdicts {
			if matched[verdict.Rule] == nil {
				matched[verdict.Rule] = map[int]bool{}
			}
			matched[verdict.Rule][i] = true
		}
		event.Verdicts = nil
	}
	for _, rule := range set.Rules() {
		if rule.Correlation != nil {
			continue
		}
		query := set.StoreQuery(rule)
		found := findStored(t, store, topic, query)
		if query.Exact {
			exact++
		}
		for i, event := range events {
			isMatch := matched[rule.ID][i]
			isOdd := bytes.Contains(pipeline.AppendJSON(nil, event), []byte(`\ufffd`)) // a text is not valid UTF-8
			if isMatch && !found[i] || !isMatch && found[i] && query.Exact && !isOdd {
				t.Errorf("%s %s: matches %v, found %v\n%s\n%s\n%q", topic, rule.ID, isMatch, found[i],
					set.slots.render(rule.when.root), query.Where, query.Parameters)
				t.Errorf("%s", pipeline.AppendJSON(nil, event))
				break
			}
		}
	}
	return exact
}

// TestStoreQueriesFindWhatRandomRulesMatch: random rules and events, compared in a real ClickHouse.
func TestStoreQueriesFindWhatRandomRulesMatch(t *testing.T) {
	store := embeddedtest.Store(t, "storequery", "native")
	rules, exact := 0, 0
	for seed := range uint64(12) {
		random := randomExpression{rand.New(rand.NewPCG(seed, 15))}
		set, _, _ := random.ruleSet(t, 60)
		var events []*pipeline.Event
		for range 200 {
			event := random.event()
			if event.Dataset == pipeline.Dataset_DATASET_NONE {
				continue // none is stored
			}
			id := [16]byte{15: byte(len(events)), 14: byte(seed), 13: 1}
			event.Id = id[:]
			dropOtherBodies(event)
			events = append(events, event)
		}
		rules += len(set.Rules())
		exact += checkStoreQueries(t, store, fmt.Sprintf("seed%d", seed), set, events)
	}
	t.Logf("%d rules, %d with an exact query", rules, exact)
}

// dropOtherBodies removes the bodies of other datasets than that of an event, which rules do not read.
func dropOtherBodies(event *pipeline.Event) {
	if event.Dataset != pipeline.Dataset_HTTP {
		event.Http = nil
	}
	if event.Dataset != pipeline.Dataset_DNS {
		event.Dns = nil
	}
	if event.Dataset != pipeline.Dataset_LOG {
		event.Log = nil
	}
	if event.Dataset != pipeline.Dataset_CONTAINER {
		event.Change = nil
	}
	if event.Dataset != pipeline.Dataset_MYSQL {
		event.Mysql = nil
	}
	if event.Dataset != pipeline.Dataset_REDIS {
		event.Redis = nil
	}
}

// TestStoreQueriesFindWhatShippedRulesMatch: the events of all cases of all shipped rules.
func TestStoreQueriesFindWhatShippedRulesMatch(t *testing.T) {
	store := embeddedtest.Store(t, "storeshipped", "native")
	set, err := Load(Default(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var events []*pipeline.Event
	for _, rule := range set.Rules() {
		for _, ruleCase := range rule.Tests {
			for _, event := range ruleCase.events {
				event = proto.CloneOf(event)
				event.Id = binary.BigEndian.AppendUint64(make([]byte, 8), uint64(len(events)+1))
				events = append(events, event)
			}
		}
	}
	exact := checkStoreQueries(t, store, "shipped", set, events)
	t.Logf("%d rules, %d with an exact query, %d events", len(set.Rules()), exact, len(events))
}

// TestConstantsOfStoreQueriesAreBound: no constant is part of the SQL, and each comes back as it is.
func TestConstantsOfStoreQueriesAreBound(t *testing.T) {
	store := embeddedtest.Store(t, "storeconstants", "native")
	constants := []string{
		"'", `"`, "`", `\`, `\\`, `\'`, "\n", "\t", "\r\n", "\x00", "a\x00b", "{p0:String}", "{topic:String}", "'; DROP TABLE events; --", "%", "_", "%27",
		"[", "]", "['a','b']", ",", "é", "\u2028", `\N`, "NULL", "\\x41", "\b\f\v\a\x1b", "?", "$1", "@x", strings.Repeat("x", 10000),
	}
	var text strings.Builder
	text.WriteString("rules:\n")
	var events []*pipeline.Event
	for i, constant := range constants {
		for form, when := range map[string]string{"equal": "message == %q", "list": "message in [%q, \"z'z\"]", "part": "message contains %q"} {
			text.WriteString(ruleYAML(fmt.Sprintf("%s%02d", form, i), fmt.Sprintf(when, constant)))
		}
		id := binary.BigEndian.AppendUint64(make([]byte, 8), uint64(i+1))
		events = append(events, &pipeline.Event{Id: id, Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: constant}})
	}
	set, err := compileText(t, text.String())
	if err != nil {
		t.Fatal(err)
	}
	checkStoreQueries(t, store, "constants", set, events)
	for _, rule := range set.Rules() {
		if query := set.StoreQuery(rule); len(query.Where) > 200 || strings.Contains(query.Where, "DROP") {
			t.Errorf("%s: %s", rule.ID, query.Where)
		}
	}
}

// TestLongListsOfStoreQueries: a list that is nearly as long as parameters may be passes every server on the way, and of a
// longer one the query finds every event.
func TestLongListsOfStoreQueries(t *testing.T) {
	store := embeddedtest.Store(t, "storelists", "http")
	for _, test := range []struct {
		entries, uses int
		exact         bool
	}{{575, 6, true}, {590, 1, false}, {575, 7, false}} {
		var list []string
		for i := range test.entries {
			list = append(list, fmt.Sprintf("'é%%&+ %05d %s'", i, strings.Repeat("=", 60)))
		}
		text := "lists:\n  long:\n  - " + strings.Join(list, "\n  - ") + "\nrules:\n" +
			ruleYAML("r", strings.Repeat("message in long and ", test.uses)+"true")
		set, err := compileText(t, text)
		if err != nil {
			t.Fatal(err)
		}
		var events []*pipeline.Event
		for i, message := range []string{strings.Trim(list[7], "'"), "other"} {
			id := binary.BigEndian.AppendUint64(make([]byte, 8), uint64(i+1))
			events = append(events, &pipeline.Event{Id: id, Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: message}})
		}
		exact := checkStoreQueries(t, store, fmt.Sprint("list", test.entries, "-", test.uses), set, events)
		if (exact == 1) != test.exact {
			t.Errorf("%d entries, %d times: %d exact", test.entries, test.uses, exact)
		}
	}
}
