package redis

// redacted stands for a secret that was there.
const redacted = "REDACTED"

// A secretWord is what the arguments so far say of the next one.
type secretWord uint8

const (
	plain      secretWord = iota
	secretNext            // this one is a password
	userNext              // this is a user's name, the next a password
	aclRules              // ACL SETUSER: rules, of which some are passwords
	pairs                 // CONFIG SET: names and values in turn
	pairSecret            // … and this is the value of a secret one
	pairPlain             // … and this is the value of another
	options               // an option AUTH may come
	blind                 // a word before was lost that might have said so
)

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
	hide := p.follow(b)
	if p.isKey(b, i) {
		rc.Key = p.c.Intern(b[:min(len(b), maxKey)])
	}
	if len(rc.Args) >= maxArgs || p.kept+r.kept > maxKept {
		return
	}
	b = b[:min(len(b), maxArg)]
	r.kept += len(b)
	switch {
	case hide > len(b) || hide == 0 || len(b) == 0:
		rc.Args = append(rc.Args, p.c.Intern(b))
	case hide < 0:
		rc.Args = append(rc.Args, redacted)
	default: // a rule keeps its first characters
		rc.Args = append(rc.Args, string(b[:hide])+redacted)
	}
}

// name takes the command's name and prepares for what its arguments are.
func (p *parser) name(b []byte) {
	r := &p.request
	name := upper(&p.scratch, b[:min(len(b), 64)])
	r.e.Redis.Command = p.c.Intern(name)
	r.key = keys[r.e.Redis.Command]
	switch r.e.Redis.Command {
	case "AUTH":
		r.word = secretNext
		if r.total > 2 {
			r.word = userNext
		}
	case "HELLO", "MIGRATE":
		r.word = options
	default:
		if r.key == noKey {
			for _, c := range name {
				if c == '.' { // a module's: JSON.SET key
					r.key = 1
				}
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
	switch rc.Command {
	case "ACL SETUSER":
		r.word = aclRules
	case "CONFIG SET", "SENTINEL SET", "SENTINEL CONFIG":
		r.word = pairs
	}
}

// follow tells how much of the argument b is secret: 0 nothing, −1 all, n > 0 what is behind its first n bytes.
func (p *parser) follow(b []byte) int {
	r := &p.request
	if r.hole && r.word != plain {
		r.word = blind
	}
	switch r.word {
	case blind:
		return -1
	case secretNext:
		r.word = plain
		if r.e.Redis.Command != "AUTH" {
			r.word = options
		}
		return -1
	case userNext:
		r.word = secretNext
	case options:
		switch string(upper(&p.scratch, b[:min(len(b), 16)])) {
		case "AUTH":
			r.word = secretNext
			if r.e.Redis.Command == "HELLO" {
				r.word = userNext
			}
		case "AUTH2":
			r.word = userNext
		}
	case aclRules:
		if len(b) > 1 && (b[0] == '>' || b[0] == '<' || b[0] == '#' || b[0] == '!') {
			return 1
		}
	case pairs:
		r.word = pairPlain
		if secretSetting(upper(&p.scratch, b[:min(len(b), 64)])) {
			r.word = pairSecret
		} else if r.e.Redis.Command != "CONFIG SET" && r.e.Redis.ArgsCount == 1 {
			r.word = pairs // the master's name, or SET
		}
	case pairSecret:
		r.word = pairs
		return -1
	case pairPlain:
		r.word = pairs
	}
	return 0
}

// secretSetting tells that a setting holds a password.
func secretSetting(name []byte) bool {
	switch string(name) {
	case "REQUIREPASS", "MASTERAUTH", "PRIMARYAUTH", "TLS-KEY-FILE-PASS", "TLS-CLIENT-KEY-FILE-PASS", "AUTH-PASS", "SENTINEL-PASS", "USER":
		return true
	}
	return false
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
