package clickhouse

import "tidegate/pipeline"

// FieldsMarkdown returns docs/FIELDS.md: the fields, and the columns that are not fields.
func FieldsMarkdown() string {
	positions := make([]pipeline.PositionColumn, len(positionColumns))
	for i, c := range positionColumns {
		positions[i] = pipeline.PositionColumn{Name: c.name, Type: c.kind, Doc: c.doc}
	}
	return pipeline.FieldsMarkdown(positions)
}
