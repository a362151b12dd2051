// Package decode turns the bytes of log files into records. It implements the formats and is independent of
// files, rotation and checkpoints.
//
// The input is one record at a time: package tail reads a file, cuts it at newlines and passes the bytes
// between them. The output is a Record: text, time, stream, and whether the line ends with it, since some
// formats spread one line over several records. Each format is a Format in a file of its own: DockerJSON
// (docker.go) and Text (text.go). A further format needs no change in tail, and none here but a line in
// Detect (detect.go), by which replay recognises it. A format whose records do not end in a newline is not supported.
package decode

// A Format is one way to write log files.
type Format struct {
	Name string // for messages: "json-file"

	// Dated is true when every record carries a time of its own, to the nanosecond. The first record of such
	// a file occurs in no other file of the log, and a record without a time is malformed.
	Dated bool

	// Prefix begins every record and stands nowhere else in one; nil: there are no such bytes. A record that was
	// torn by a full disk or a crash ends where the next one begins.
	Prefix []byte

	// New returns a Decoder. A Decoder may keep state and belongs to one goroutine.
	New func() Decoder
}

// A Decoder reads the records of one format.
type Decoder interface {
	// Decode reads data, one record without its newline, into record. It returns false when data is not a record
	// of the format, and data is unchanged then. Otherwise data may have been overwritten: record.Text is in it.
	Decode(data []byte, record *Record) bool
}

// A Record is one decoded record. Text is valid as long as the bytes that were decoded.
type Record struct {
	Text   []byte // without the newline that ends a line
	Time   int64  // ns since 1970; 0: the record has no time
	Stream Stream
	Ends   bool // the line ends with this record

	// Group identifies the records of one line: successive records of a stream with the same Group belong to
	// one line. A record of another group begins a new line, also if the line before it has no end. 0 matches
	// every group.
	Group int64
}

// A Stream is the output of the program to which a line was written.
type Stream uint8

// The streams. Lines of different streams may be interleaved record by record.
const (
	NoStream Stream = iota // the format has no streams
	Stdout
	Stderr
	NumStreams
)

// String returns the value of the field log.stream; "" for NoStream.
func (s Stream) String() string {
	switch s {
	case Stdout:
		return "stdout"
	case Stderr:
		return "stderr"
	}
	return ""
}
