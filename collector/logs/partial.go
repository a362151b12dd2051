package logs

// partBytes is where dockerd cuts a line. A record without a newline that holds less is the last of its stream.
const partBytes = 16384

// lineHardMax ends a line whose end does not come: what is behind it is a line of its own.
const lineHardMax = 64 << 20

// A pendingLine is a line whose end has not been read yet.
type pendingLine struct {
	active  bool
	carried bool // it begins in an earlier file of the chain
	file    identity
	start   int64 // of its first record, in file
	time    int64
	text    []byte
	bytes   uint64 // of the whole payload; more than len(text) if it was capped
}

// A line is what becomes an event.
type line struct {
	file    identity
	start   int64
	time    int64
	stream  stream
	known   bool // the stream was said
	text    []byte
	bytes   uint64
	partial bool
}

// startLine makes r, whose record begins at start, the first part of a line.
func (p *pendingLine) startLine(f *file, r *record, start int64) {
	*p = pendingLine{active: true, file: f.id, start: start, time: r.time, text: p.text[:0]}
}

// appendPart adds a part. What is beyond the cap is counted, not kept.
func (p *pendingLine) appendPart(b []byte, limit int, bud *budget) {
	p.bytes += uint64(len(b))
	if bud.pendingBytes.Load() > bud.maxMemory {
		limit = min(limit, 2*partBytes) // many long lines at once: each keeps what most lines need
	}
	room := min(max(0, limit-len(p.text)), len(b))
	was := cap(p.text)
	p.text = append(p.text, b[:room]...)
	bud.pendingBytes.Add(int64(cap(p.text) - was))
}

// toLine ends the line.
func (p *pendingLine) toLine(s stream) line {
	return line{file: p.file, start: p.start, time: p.time, stream: s, known: true, text: p.text, bytes: p.bytes}
}

// discardLine forgets the line and its memory.
func (p *pendingLine) discardLine(bud *budget) {
	bud.pendingBytes.Add(-int64(cap(p.text)))
	*p = pendingLine{}
}

// readFrom is the place in f at which reading must begin again so that the lines which are open now are read whole: base, or where
// the first of them begins. One that began in an earlier file may be continued anywhere in this one.
func (f *file) readFrom(base int64) int64 {
	for i := range f.pending {
		switch p := &f.pending[i]; {
		case !p.active:
		case p.carried:
			return 0
		default:
			base = min(base, p.start)
		}
	}
	return base
}
