package clickhouse

import "tidegate/pipeline"

// FieldsMarkdown returns docs/FIELDS.md with the columns that are not fields, in the order of positionColumns.
func FieldsMarkdown() string {
	positions := make([]pipeline.PositionColumn, len(positionColumns))
	for i, doc := range []string{
		"Kafka topic.", "Partition of the topic.", "Offset of the message, which holds many events.", "Position within the message, from 0.",
		"Identity of the collector, drawn once per state folder.",
		"Epoch of the collector: drawn at random at each start, one for logs and one for packets.",
		"Number of the batch, counted per collector, epoch and partition.",
	} {
		positions[i] = pipeline.PositionColumn{Name: positionColumns[i].name, Type: positionColumns[i].kind, Doc: doc}
	}
	return pipeline.FieldsMarkdown(positions)
}
