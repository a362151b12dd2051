package pipeline_test

import (
	"slices"
	"testing"

	"tidegate/pipeline"
)

func TestTagsAreAFewAndDifferent(t *testing.T) {
	event := &pipeline.Event{}
	event.AddTag(pipeline.TagTruncated)
	event.AddTag(pipeline.TagUrgentData)
	event.AddTag(pipeline.TagTruncated)
	if want := []string{pipeline.TagTruncated, pipeline.TagUrgentData}; !slices.Equal(event.Tags, want) {
		t.Errorf("tags are %q, want %q", event.Tags, want)
	}
	for _, tag := range pipeline.Tags {
		event.AddTag(tag.Name)
	}
	if len(event.Tags) != 8 {
		t.Errorf("an event got %d tags, want at most 8", len(event.Tags))
	}
	if pipeline.Lookup("tags") == nil {
		t.Error("tags is no field")
	}
}

func TestTagsReturnToThePoolEmpty(t *testing.T) {
	event := pipeline.EventFromVTPool()
	event.AddTag(pipeline.TagTruncated)
	event.ResetVT()
	if len(event.Tags) != 0 {
		t.Errorf("a reset event has tags %q", event.Tags)
	}
	if allocs := testing.AllocsPerRun(100, func() { event.ResetVT(); event.AddTag(pipeline.TagTruncated) }); allocs > 0 {
		t.Errorf("a tag costs %v allocations in a pooled event", allocs)
	}
}
