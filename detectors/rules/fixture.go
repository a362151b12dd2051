package rules

import (
	"encoding/json"
	"errors"
	"strings"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// parseEvent parses the event of a test case: fields with nested or dotted names, as `tidegate replay -o
// jsonl` prints them. If event.dataset is absent, it follows from the other fields. Fields that are computed
// or written later are ignored, so that a printed event can be pasted unchanged.
func parseEvent(node config.Node) *pipeline.Event {
	if !node.IsMapping() {
		node.Errorf("expected a mapping of fields, got %s", node.Kind())
		return nil
	}
	var b pipeline.Builder
	setFields(&b, node, node.Key(), "", 0)
	event, err := b.Event()
	switch {
	case errors.Is(err, pipeline.ErrNoDataset):
		node.Errorf("event.dataset is missing, and no field belongs to one dataset only")
	case err != nil:
		node.Errorf("%v", err)
	}
	return event
}

// setFields sets the fields of the mapping n, to whose keys prefix is prepended. key is the path of the event
// in the file, for errors.
func setFields(builder *pipeline.Builder, n config.Node, key, prefix string, depth int) {
	const maxDepth = 8
	for _, entry := range n.Entries() {
		name := prefix + entry.Key
		value := entry.Value.Named(key + "." + name)
		field := pipeline.Lookup(name)
		// A mapping is the value of a field (container.labels) or a longer prefix.
		switch {
		case field == nil && value.IsMapping() && depth < maxDepth:
			setFields(builder, value, key, name+".", depth+1)
		case field == nil:
			value.Errorf("%s", unknownName(name, nil))
		case strings.HasPrefix(name, "verdict."):
		default:
			setField(builder, field, value)
		}
	}
}

func setField(b *pipeline.Builder, f *pipeline.Field, node config.Node) {
	err := b.Set(f, valueOf(node))
	// The node has the kind of the value as it was written: whether a number has no quotes.
	var mismatch *pipeline.TypeError
	switch {
	case err == nil, errors.Is(err, pipeline.ErrComputed):
	case errors.As(err, &mismatch) && !node.IsMapping() && !node.IsList():
		node.Errorf("expected %s, got %s", mismatch.Want, node.Kind())
	default:
		node.Errorf("%v", err)
	}
}

// valueOf returns a value of a file as pipeline.Field.Set takes it.
func valueOf(node config.Node) any {
	if node.IsList() {
		var list []any
		for _, item := range node.Items() {
			list = append(list, valueOf(item))
		}
		return list
	}
	if node.IsMapping() { // of labels, whose values are texts however they are written
		labels := map[string]string{}
		for _, e := range node.Entries() {
			labels[e.Key], _ = e.Value.Scalar()
		}
		return labels
	}
	if text, ok := node.Text(); ok {
		return text
	}
	if number, ok := node.Int(); ok {
		return number
	}
	if flag, ok := node.Bool(); ok {
		return flag
	}
	if written, ok := node.Scalar(); ok {
		return json.Number(written)
	}
	return nil
}
