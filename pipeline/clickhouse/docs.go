package clickhouse

import "tidegate/pipeline"

// FieldsMarkdown returns docs/FIELDS.md: the fields, and the columns of events that are not fields, and those of alerts.
func FieldsMarkdown() string {
	positions := make([]pipeline.DocumentedColumn, len(positionColumns))
	for i, c := range positionColumns {
		positions[i] = pipeline.DocumentedColumn{Name: c.name, Type: c.kind, Doc: c.doc}
	}
	alerts := make([]pipeline.DocumentedColumn, len(alertFields))
	for i, field := range alertFields {
		kind := field.column.kind
		if field.column.name == "severity" {
			kind = "Enum8"
		}
		alerts[i] = pipeline.DocumentedColumn{Name: field.column.name, Type: kind, Doc: field.doc}
	}
	alerts = append(alerts, pipeline.DocumentedColumn{
		Name: "stored", Type: "DateTime64(3, 'UTC')", Doc: "Time at which the revision was stored.",
	})
	return pipeline.FieldsMarkdown(positions, alerts)
}
