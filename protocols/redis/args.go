package redis

import "tidegate/pipeline/redact"

// A keyPlace is where the first key of a command is: the index of an argument, or one of these.
type keyPlace int8

const (
	noKey         keyPlace = 0
	nextArgument  keyPlace = -1
	behindCount   keyPlace = -2 // the next argument is the number of keys
	behindStreams keyPlace = -3 // behind the word STREAMS
)

// addArgument adds the argument that was read to the event. b may be only its first bytes; size is how many
// it has.
func (p *parser) addArgument(b []byte, size uint64) {
	r := &p.command
	i := r.index
	r.index++
	rc := r.e.Redis
	if i == 0 {
		p.setName(b)
		return
	}
	if i == 1 && containers[rc.Command] {
		p.setSubcommand(b)
		return
	}
	rc.ArgsCount++
	rc.ArgsBytes += size
	visible := r.secrets.Next(b, r.damaged)
	if p.isKey(b, i) {
		rc.Key = p.c.Intern(b[:min(len(b), maxKey)])
	}
	if len(rc.Args) >= maxArgs || p.argsBytes+r.argsBytes > maxArgsBytes {
		return
	}
	b = b[:min(len(b), maxArg)]
	r.argsBytes += len(b)
	switch {
	case visible < 0 || visible > len(b) || len(b) == 0:
		rc.Args = append(rc.Args, p.c.Intern(b))
	case visible == 0:
		rc.Args = append(rc.Args, redact.Marker)
	default:
		rc.Args = append(rc.Args, string(b[:visible])+redact.Marker)
	}
}

// setName sets the command's name, and prepares for the kind of arguments that it has.
func (p *parser) setName(b []byte) {
	r := &p.command
	name := upper(&p.scratch, b[:min(len(b), 64)])
	r.e.Redis.Command = p.c.Intern(name)
	r.key = keys[r.e.Redis.Command]
	r.secrets.Begin(r.e.Redis.Command, r.total)
	if r.key == noKey {
		for _, c := range name {
			if c == '.' { // a module's: JSON.SET key
				r.key = 1
			}
		}
	}
}

// setSubcommand appends the second word of a command's name.
func (p *parser) setSubcommand(b []byte) {
	r := &p.command
	rc := r.e.Redis
	sub := upper(&p.scratch, b[:min(len(b), 64)])
	var buf [128]byte
	rc.Command = p.c.Intern(append(append(append(buf[:0], rc.Command...), ' '), sub...))
	r.key = keys[rc.Command]
	r.secrets.Begin(rc.Command, r.total)
}

// isKey reports whether b, the argument at i, is the first key.
func (p *parser) isKey(b []byte, i int64) bool {
	r := &p.command
	switch r.key {
	case noKey:
		return false
	case nextArgument:
		r.key = noKey
		return true
	case behindCount:
		r.key = noKey
		if n, ok := integer(b); ok && n > 0 {
			r.key = nextArgument
		}
		return false
	case behindStreams:
		if string(upper(&p.scratch, b[:min(len(b), 16)])) == "STREAMS" {
			r.key = nextArgument
		}
		return false
	}
	if int64(r.key) != i && int64(r.key) > 0 {
		return false
	}
	switch r.e.Redis.Command {
	case "EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO", "ZUNION", "ZINTER", "ZDIFF", "ZINTERCARD", "SINTERCARD", "LMPOP", "ZMPOP", "BLMPOP", "BZMPOP":
		r.key = behindCount
		return p.isKey(b, i)
	}
	r.key = noKey
	return true
}
