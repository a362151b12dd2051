package rules

import (
	"maps"
	"slices"
	"strconv"

	"github.com/expr-lang/expr/ast"

	"tidegate/detectors/classifier"
	"tidegate/detectors/feeds"
	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// trainedModels are the models that rules may ask, by name. Each is decoded when the first rule that asks it is compiled.
type trainedModels struct {
	files   map[string][]byte
	decoded map[string]*classifier.Model
}

// open returns the model with a name.
func (m *trainedModels) open(name string) (*classifier.Model, error) {
	if model := m.decoded[name]; model != nil {
		return model, nil
	}
	model, err := classifier.Decode(m.files[name])
	if err != nil {
		return nil, err
	}
	if m.decoded == nil {
		m.decoded = map[string]*classifier.Model{}
	}
	m.decoded[name] = model
	return model, nil
}

// versions returns the versions of the models that rules ask. They are part of the version of the set, as those of databases.
func (m *trainedModels) versions() (versions []string) {
	for _, name := range slices.Sorted(maps.Keys(m.decoded)) {
		versions = append(versions, "model "+name+" "+m.decoded[name].Version())
	}
	return versions
}

// modelCall resolves model("name"), the score of the current event.
func (r *resolver) modelCall(callNode *ast.CallNode) *node {
	known := slices.Sorted(maps.Keys(r.slots.models.files))
	var name *ast.StringNode
	if len(callNode.Arguments) == 1 {
		name, _ = callNode.Arguments[0].(*ast.StringNode)
	}
	switch {
	case name == nil:
		return r.addError(callNode, `model takes the name of a model between quotes: model("generated-domains")`)
	case !slices.Contains(known, name.Value):
		return r.addError(name, "unknown model %q%s", name.Value, config.DidYouMean(name.Value, known))
	}
	model, err := r.slots.models.open(name.Value)
	if err != nil {
		return r.addError(name, "model %q cannot be read: %v", name.Value, err)
	}
	return r.slotNode(callNode, r.slots.addSlot(slot{
		label: "model(" + strconv.Quote(name.Value) + ")", how: scored, key: name.Value, model: model, kind: decimal,
		field: pipeline.Lookup("dns.question.name"), body: pipeline.Dataset_DNS,
	}))
}

// feedCall resolves feed("name", value): whether a feed lists a value.
func (r *resolver) feedCall(callNode *ast.CallNode) *node {
	var name *ast.StringNode
	if len(callNode.Arguments) == 2 {
		name, _ = callNode.Arguments[0].(*ast.StringNode)
	}
	if name == nil || name.Value == "" {
		return r.addError(callNode, `feed takes the name of a feed between quotes and a value: feed("blocklist", source.ip)`)
	}
	if r.slots.feedNames != nil && !slices.Contains(r.slots.feedNames, name.Value) {
		if len(r.slots.feedNames) == 0 {
			return r.addError(name, "unknown feed %q: the configuration has no feeds", name.Value)
		}
		return r.addError(name, "unknown feed %q%s", name.Value, config.DidYouMean(name.Value, r.slots.feedNames))
	}
	of := r.resolve(callNode.Arguments[1])
	switch {
	case of.kind == invalid:
		return of
	case of.kind.isList():
		return r.addError(callNode.Arguments[1], "feed takes one value: any(%s, feed(%q, #))", r.slots.render(of), name.Value)
	case of.kind != text && of.kind != address:
		return r.addError(callNode.Arguments[1], "feed takes a text or an address, %s is %s", r.slots.render(of), of.kind)
	}
	r.slots.feeds[name.Value] = true
	if of.op != opSlot {
		return &node{op: opFeed, kind: flag, at: r.at(callNode), args: []*node{of}, text: name.Value}
	}
	source := r.slots.list[of.slot] // stays one of the slots that the rule reads: the time of a lookup grows with its text
	label := "feed(" + strconv.Quote(name.Value) + ", " + source.label + ")"
	return r.slotNode(callNode, r.slots.addSlot(slot{
		label: label, how: inFeed, of: of.slot, key: name.Value, kind: flag, field: source.field, body: source.body,
	}))
}

// isInFeed reports whether a feed lists a text at the time of the current event.
func (v *eventValues) isInFeed(feed, text string) bool {
	return v.feeds != nil && text != "" && v.feeds.HasAt(feed, text, v.event.Timestamp)
}

// FeedNames returns the names of the feeds that the rules ask, sorted.
func (s *Set) FeedNames() []string { return slices.Sorted(maps.Keys(s.slots.feeds)) }

// WithFeeds returns the set with other feeds that its rules ask; nil: none. Both sets can be used at the same time.
func (s *Set) WithFeeds(feeds *feeds.Set) *Set {
	other := *s
	other.feeds = feeds
	return &other
}
