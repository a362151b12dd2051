package redis

import "tidegate/pipeline/redact"

// A keyAt tells where the first key is.
type keyAt int8

const (
	noKey   keyAt = 0
	keyNow  keyAt = -1 // the next argument
	numKeys keyAt = -2 // the next argument is how many there are
	streamK keyAt = -3 // behind the word STREAMS
)

// argument takes the argument that was read; b may hold only its first bytes, size is how many it has.
func (p *parser) argument(b []byte, size uint64) {
	r := &p.request
	i := r.index
	r.index++
	rc := r.e.Redis
	if i == 0 {
		p.name(b)
		return
	}
	if i == 1 && containers[rc.Command] {
		p.subCommand(b)
		return
	}
	rc.ArgsCount++
	rc.ArgsBytes += size
	visible := r.secrets.Next(b, r.hole)
	if p.isKey(b, i) {
		rc.Key = p.c.Intern(b[:min(len(b), maxKey)])
	}
	if len(rc.Args) >= maxArgs || p.kept+r.kept > maxKept {
		return
	}
	b = b[:min(len(b), maxArg)]
	r.kept += len(b)
	switch {
	case visible < 0 || visible > len(b) || len(b) == 0:
		rc.Args = append(rc.Args, p.c.Intern(b))
	case visible == 0:
		rc.Args = append(rc.Args, redact.Marker)
	default:
		rc.Args = append(rc.Args, string(b[:visible])+redact.Marker)
	}
}

// name takes the command's name and prepares for what its arguments are.
func (p *parser) name(b []byte) {
	r := &p.request
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

// subCommand takes the second word of a command's name.
func (p *parser) subCommand(b []byte) {
	r := &p.request
	rc := r.e.Redis
	sub := upper(&p.scratch, b[:min(len(b), 64)])
	var buf [128]byte
	rc.Command = p.c.Intern(append(append(append(buf[:0], rc.Command...), ' '), sub...))
	r.key = keys[rc.Command]
	r.secrets.Begin(rc.Command, r.total)
}

// isKey tells that the argument at i is the first key.
func (p *parser) isKey(b []byte, i int64) bool {
	r := &p.request
	switch r.key {
	case noKey:
		return false
	case keyNow:
		r.key = noKey
		return true
	case numKeys:
		r.key = noKey
		if n, ok := integer(b); ok && n > 0 {
			r.key = keyNow
		}
		return false
	case streamK:
		if string(upper(&p.scratch, b[:min(len(b), 16)])) == "STREAMS" {
			r.key = keyNow
		}
		return false
	}
	if int64(r.key) != i && int64(r.key) > 0 {
		return false
	}
	switch r.e.Redis.Command {
	case "EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO", "ZUNION", "ZINTER", "ZDIFF", "ZINTERCARD", "SINTERCARD", "LMPOP", "ZMPOP", "BLMPOP", "BZMPOP":
		r.key = numKeys
		return p.isKey(b, i)
	}
	r.key = noKey
	return true
}
