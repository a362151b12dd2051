package rules

import (
	"encoding/json"
	"errors"
	"strings"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// parseEvent reads the event of a test case: nested or dotted names of fields, as `tidegate replay -o jsonl`
// prints them. Where event.dataset is not among them it follows from the others. Fields that are computed or
// written later are ignored, so that a printed event can be pasted as it is.
func parseEvent(n config.Node) *pipeline.Event {
	if !n.IsMapping() {
		n.Errorf("expected a mapping of fields, got %s", n.Kind())
		return nil
	}
	var b pipeline.Builder
	setFields(&b, n, n.Key(), "", 0)
	e, err := b.Event()
	switch {
	case errors.Is(err, pipeline.ErrNoDataset):
		n.Errorf("event.dataset is missing, and no field belongs to one dataset only")
	case err != nil:
		n.Errorf("%v", err)
	}
	return e
}

// setFields sets the fields in the mapping n, whose names begin with prefix. key is the path of the event,
// for errors.
func setFields(b *pipeline.Builder, n config.Node, key, prefix string, depth int) {
	const maxDepth = 8
	for _, entry := range n.Entries() {
		name := prefix + entry.Key
		value := entry.Value.Named(key + "." + name)
		field := pipeline.Lookup(name)
		// A mapping is the value of a field (container.labels) or a longer prefix.
		switch {
		case field == nil && value.IsMapping() && depth < maxDepth:
			setFields(b, value, key, name+".", depth+1)
		case field == nil:
			value.Errorf("%s", unknownName(name, nil))
		case strings.HasPrefix(name, "verdict."):
		default:
			setField(b, field, value)
		}
	}
}

func setField(b *pipeline.Builder, f *pipeline.Field, n config.Node) {
	err := b.Set(f, valueOf(n))
	// The kind of the node is known better here: whether a number was written without quotes.
	var mismatch *pipeline.TypeError
	switch {
	case err == nil, errors.Is(err, pipeline.ErrComputed):
	case errors.As(err, &mismatch) && !n.IsMapping() && !n.IsList():
		n.Errorf("expected %s, got %s", mismatch.Want, n.Kind())
	default:
		n.Errorf("%v", err)
	}
}

// valueOf returns a value of a file as pipeline.Field.Set takes it.
func valueOf(n config.Node) any {
	if n.IsList() {
		var list []any
		for _, item := range n.Items() {
			list = append(list, valueOf(item))
		}
		return list
	}
	if n.IsMapping() { // of labels, whose values are texts however they are written
		labels := map[string]string{}
		for _, e := range n.Entries() {
			labels[e.Key], _ = e.Value.Scalar()
		}
		return labels
	}
	if text, ok := n.Text(); ok {
		return text
	}
	if number, ok := n.Int(); ok {
		return number
	}
	if flag, ok := n.Bool(); ok {
		return flag
	}
	if written, ok := n.Scalar(); ok {
		return json.Number(written)
	}
	return nil
}
