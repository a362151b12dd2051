package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"

	"tidegate/collector/logs/decode"
	"tidegate/pipeline/redact"
)

// decompressed returns a reader of in, whose data may be compressed with gzip.
func decompressed(in io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(in, 64<<10)
	if magic, _ := buffered.Peek(2); string(magic) != "\x1f\x8b" {
		return buffered, nil
	}
	reader, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, fmt.Errorf("read gzip: %w", err)
	}
	return reader, nil
}

// A messageReader takes the messages of containers out of the lines of a log: of records of Docker and of
// CRI. Parts of a long message are joined. A line of another form is a message.
type messageReader struct {
	decoder decode.Decoder
	parts   [decode.NumStreams][]byte // of a message whose end was not read yet
	states  [decode.NumStreams]redact.LogState
}

// readLine reads a line. ends reports whether a message ends with it, which is valid until the next call,
// with the state of its stream.
func (m *messageReader) readLine(line []byte) (message []byte, state *redact.LogState, ends bool) {
	record := decode.Record{Text: line, Ends: true}
	switch {
	case bytes.HasPrefix(line, []byte(`{"log":`)) && bytes.Contains(line, []byte(`"stream":`)):
		if m.decoder == nil {
			m.decoder = decode.DockerJSON.New()
		}
		m.decoder.Decode(line, &record) // of a line that is no record nothing changes
	default:
		decodeCRI(line, &record)
	}
	stream := record.Stream
	if known := m.parts[stream]; len(known) > 0 || !record.Ends {
		known = append(known, record.Text...)
		m.parts[stream], record.Text = known, known
		record.Ends = record.Ends || len(known) > maxRedactLine
	}
	if record.Ends {
		m.parts[stream] = m.parts[stream][:0]
	}
	return record.Text, &m.states[stream], record.Ends
}

// decodeCRI reads a line of the log of a pod into record, if it is one: time, stream, F or P (a part),
// message.
func decodeCRI(line []byte, record *decode.Record) {
	const shortest = len("2026-11-24T23:08:00Z")
	at, rest, _ := bytes.Cut(line, []byte(" "))
	stream, rest, _ := bytes.Cut(rest, []byte(" "))
	tag, message, _ := bytes.Cut(rest, []byte(" "))
	if len(at) < shortest || at[10] != 'T' || len(tag) == 0 || len(tag) > 1 && tag[1] != ':' {
		return
	}
	if tag[0] != 'F' && tag[0] != 'P' {
		return
	}
	switch string(stream) {
	case "stdout":
		record.Stream = decode.Stdout
	case "stderr":
		record.Stream = decode.Stderr
	default:
		return
	}
	record.Text, record.Ends = message, tag[0] == 'F'
}
