package pipeline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// A Builder builds an event from named values, one field at a time. It is the inverse of AppendJSON. The zero
// Builder is ready for use.
type Builder struct {
	event   Event
	body    Dataset // of the first field that belongs to one
	pending []pendingValue
}

// A pendingValue is the value of a field that exists in more than one body. It is written when the dataset of
// the event is known.
type pendingValue struct {
	field *Field
	value any
}

// ErrNoDataset is returned by Builder.Event when neither event.dataset is set nor a field that belongs to one
// dataset only.
var ErrNoDataset = errors.New("event.dataset is missing, and no field belongs to one dataset only")

// Set writes value to the field, as Field.Set does. The fields of one event belong to one dataset.
func (b *Builder) Set(field *Field, value any) error {
	if field.Body != Dataset_DATASET_NONE {
		if b.body != Dataset_DATASET_NONE && b.body != field.Body {
			return fmt.Errorf("is a field of %s, but the event has fields of %s", field.Body.Name(), b.body.Name())
		}
		b.body = field.Body
	}
	if field.hasSeveralPaths() {
		b.pending = append(b.pending, pendingValue{field, value})
		return nil
	}
	return field.Set(&b.event, value)
}

// Event returns the event. If event.dataset is not set, the dataset is that of the fields.
func (b *Builder) Event() (*Event, error) {
	event := &b.event
	switch {
	case event.Dataset == Dataset_DATASET_NONE:
		event.Dataset = b.body
	case b.body != Dataset_DATASET_NONE && b.body != event.Dataset:
		return event, fmt.Errorf("event.dataset is %s, but the event has fields of %s",
			event.Dataset.Name(), b.body.Name())
	}
	if event.Dataset == Dataset_DATASET_NONE {
		return event, ErrNoDataset
	}

	// The dataset is known: write the fields that exist in more than one body.
	var errs []error
	for _, p := range b.pending {
		if err := p.field.Set(event, p.value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.field.Name, err))
		}
	}
	b.pending = nil
	return event, errors.Join(errs...)
}

// FromMap returns the event with the values of object. Its keys are field names, dotted or nested, as in the
// output of AppendJSON. Fields that are computed from others (network.type) are ignored. The error names
// every invalid field.
func FromMap(object map[string]any) (*Event, error) {
	var builder Builder
	var errs []error
	builder.setTree(object, "", &errs)
	event, err := builder.Event()
	if err = errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	return event, nil
}

// FromJSON returns the event of one JSON object in the form of AppendJSON.
func FromJSON(object []byte) (*Event, error) {
	decoder := json.NewDecoder(bytes.NewReader(object))
	decoder.UseNumber()
	var m map[string]any
	if err := decoder.Decode(&m); err != nil {
		return nil, fmt.Errorf("read event: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read event: text follows the object, at byte %d", decoder.InputOffset())
	}
	return FromMap(m)
}

// setTree sets the fields below prefix. A mapping in object is either the value of a field (container.labels)
// or holds fields with a longer prefix.
func (b *Builder) setTree(object map[string]any, prefix string, errs *[]error) {
	for _, key := range slices.Sorted(maps.Keys(object)) {
		name := prefix + key
		field := Lookup(name)
		if nested, ok := object[key].(map[string]any); ok && field == nil {
			b.setTree(nested, name+".", errs)
			continue
		}
		if field == nil {
			*errs = append(*errs, fmt.Errorf("%s: unknown field", name))
			continue
		}
		if err := b.Set(field, object[key]); err != nil && !errors.Is(err, ErrComputed) {
			*errs = append(*errs, fmt.Errorf("%s: %w", name, err))
		}
	}
}
