package memcached

import (
	"bytes"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// Bounds of what is kept of commands within the data of stores.
const maxInner = 256 // commands that are withheld, and as many that wait for a reply

// A dataReader reads the data blocks of stores, line by line, as if they were commands: a server that refuses a store
// may read its data as commands (memcached does so behind some malformed flags of ms). Commands that are found are withheld
// until the reply to the store. Behind CLIENT_ERROR or ERROR they are reported, with the tag ambiguous: what is read of the
// data depends on the server and its version. Behind SERVER_ERROR the data are skipped; the commands are reported if a reply
// comes for which no command waits. Behind any other reply they are dropped.
type dataReader struct {
	left    uint64 // bytes of the block that are still to come
	number  uint64 // of the store, see parser.commands
	at      uint64 // offset in the stream of the line that is read
	line    []byte // the front of that line, if it can be one of a command
	dead    bool   // the line is none of a command
	reports bool   // the commands of this block are reported, not withheld

	withheld   []inner // found, and not reported
	incomplete bool    // more were found than are withheld
	unanswered []inner // reported, and waiting for a reply for which no other command waits
}

// An inner is a command within the data of the store of a number.
type inner struct {
	pending
	store uint64
}

// secondLetters has the second letters of the commands by their first bytes, as bits.
var secondLetters = func() (table [256]uint32) {
	for name := range commands {
		table[name[0]] |= 1 << (name[1] - 'a')
	}
	return table
}()

// mayBeCommand reports whether the first two bytes of data, if there are as many, are those of a command. Most lines of
// text are none by them.
func mayBeCommand(data []byte) bool {
	if data = trimBlanks(data); len(data) == 0 {
		return true
	}
	letters := secondLetters[data[0]]
	return letters != 0 && (len(data) < 2 || data[1] >= 'a' && data[1] <= 'z' && letters&(1<<(data[1]-'a')) != 0)
}

// maxBlanks bounds the blanks in front of a command within data: they are read again with each piece of the line.
const maxBlanks = 64

// trimBlanks returns a line without the blanks at its front, up to maxBlanks.
func trimBlanks(line []byte) []byte {
	blanks := 0
	for blanks < min(len(line), maxBlanks) && line[blanks] == ' ' {
		blanks++
	}
	return line[blanks:]
}

// beginData begins the data block of a store.
func (p *parser) beginData(size uint64) {
	p.data.left, p.data.number, p.data.at = size, p.commands, 0
	p.data.line, p.data.dead, p.data.reports = p.data.line[:0], false, false
}

// readData reads the available part of the data block and returns its length.
func (p *parser) readData(data []byte) int {
	d := &p.data
	size := int(min(d.left, uint64(len(data))))
	d.left -= uint64(size)
	offset := p.conn.Offset(protocols.Client)
	for from := 0; from < size; {
		if len(d.line) == 0 && !d.dead {
			d.at, d.dead = offset+uint64(from), !mayBeCommand(data[from:size])
		}
		length := bytes.IndexByte(data[from:size], '\n') + 1
		if length == 0 {
			p.keepLine(data[from:size])
			break
		}
		p.endLine(data[from : from+length])
		from += length
	}
	return size
}

// keepLine appends data to the front of the line that is read.
func (p *parser) keepLine(data []byte) {
	d := &p.data
	if d.dead {
		return
	}
	d.line = append(d.line, data[:min(len(data), maxLine+1)]...)
	word, _, complete := bytes.Cut(trimBlanks(d.line), []byte{' '})
	if len(d.line) > maxLine || len(word) > maxNameLength+2 || complete && !isCommandName(word) {
		d.line, d.dead = d.line[:0], true
	}
}

func isCommandName(word []byte) bool {
	_, ok := commands[string(word)]
	return ok
}

// endLine reads the line whose end is rest.
func (p *parser) endLine(rest []byte) {
	d := &p.data
	line := rest
	if len(d.line) > 0 {
		d.line = append(d.line, rest[:min(len(rest), maxLine)]...)
		line = d.line
	}
	if !d.dead {
		p.readInner(line)
	}
	d.line, d.dead = d.line[:0], false
}

// readInner withholds or reports the command of a line within data, if it is one.
func (p *parser) readInner(data []byte) {
	d := &p.data
	line, length := protocols.CutLine(data, maxLine)
	if length == 0 {
		return
	}
	if word, _ := nextWord(line); !isCommandName(word) {
		return
	}
	cmd, ok := parseCommand(line)
	switch {
	case !ok || !printable(line):
		return
	case !d.reports && len(d.withheld) >= maxInner:
		p.conn.Count("inner_commands_dropped")
		d.incomplete = true
		return
	}
	found := inner{pending: p.newPending(&cmd, p.conn.EventAt(protocols.Client, d.at), length), store: d.number}
	found.event.Partial = true
	found.event.AddTag(pipeline.TagAmbiguous)
	if d.reports {
		p.reportInner(found)
		return
	}
	p.keysBytes += found.keysBytes
	d.withheld = append(d.withheld, found)
}

// reportInner reports a command within data: at once if it has no reply, else with a reply for which no other command waits.
func (p *parser) reportInner(found inner) {
	d := &p.data
	if found.flags&(noReply|quiet) != 0 {
		p.emit(found.event, 0)
		return
	}
	p.keysBytes += found.keysBytes
	d.unanswered = append(d.unanswered, found)
	if len(d.unanswered) > maxInner {
		p.keysBytes -= d.unanswered[0].keysBytes
		p.emit(d.unanswered[0].event, 0)
		d.unanswered = d.unanswered[:copy(d.unanswered, d.unanswered[1:])]
	}
}

// joinLine joins the front of a line at the end of a data block with the line behind the block.
func (p *parser) joinLine(rest []byte) {
	if d := &p.data; len(d.line) > 0 {
		p.endLine(rest)
		d.reports = false
	}
}

// decideData is called with the reply to the command of a number: it reports or drops what was found in the data of that
// store. The data of earlier ones are those of stores without a reply.
func (p *parser) decideData(number uint64, line replyLine) {
	d := &p.data
	p.flushTold(number)
	isRefused := line.isError && string(line.status) != "SERVER_ERROR"
	if isRefused && d.number == number && (d.left > 0 || len(d.line) > 0) {
		d.reports = true
	}
	if len(d.withheld) == 0 || line.isError && !isRefused {
		return
	}
	kept := d.withheld[:0]
	for _, found := range d.withheld {
		switch {
		case found.store == number && isRefused:
			p.keysBytes -= found.keysBytes
			p.reportInner(found)
		case found.store <= number:
			p.keysBytes -= found.keysBytes
			pipeline.ReleaseEvent(found.event)
		default:
			kept = append(kept, found)
		}
	}
	d.withheld = kept
}

// reportWithheld reports what is withheld: a reply came for which no command waits.
func (p *parser) reportWithheld() {
	d := &p.data
	if d.incomplete && len(d.withheld) > 0 {
		d.withheld[len(d.withheld)-1].event.AddTag(pipeline.TagTruncated)
		d.incomplete = false
	}
	for _, found := range d.withheld {
		p.keysBytes -= found.keysBytes
		p.reportInner(found)
	}
	d.withheld = d.withheld[:0]
	d.reports = d.reports || d.left > 0
}

// takeTold returns the command within data that a reply answers for which no other command waits; ok is false if there
// is none.
func (p *parser) takeTold() (first pending, ok bool) {
	p.reportWithheld()
	d := &p.data
	if len(d.unanswered) == 0 {
		return first, false
	}
	first = d.unanswered[0].pending
	d.unanswered = d.unanswered[:copy(d.unanswered, d.unanswered[1:])]
	return first, true
}

// flushTold emits the commands within the data of stores before the command of a number, which has its reply.
func (p *parser) flushTold(number uint64) {
	d := &p.data
	done := 0
	for done < len(d.unanswered) && d.unanswered[done].store < number {
		p.keysBytes -= d.unanswered[done].keysBytes
		p.emit(d.unanswered[done].event, 0)
		done++
	}
	d.unanswered = d.unanswered[:copy(d.unanswered, d.unanswered[done:])]
}

// closeData emits the commands that were reported, and drops those that are withheld.
func (p *parser) closeData() {
	for _, found := range p.data.unanswered {
		p.emit(found.event, 0)
	}
	for _, found := range p.data.withheld {
		pipeline.ReleaseEvent(found.event)
	}
	p.data = dataReader{}
}
