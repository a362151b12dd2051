package redis

import (
	"tidegate/pipeline"
	"tidegate/pipeline/redact"
)

// A keyPosition is the position of the first key of a command: the index of an argument, or one of the
// constants.
type keyPosition int8

const (
	noKey         keyPosition = 0
	nextArgument  keyPosition = -1
	behindCount   keyPosition = -2 // the next argument is the number of keys, then the first key follows
	behindStreams keyPosition = -3 // after the word STREAMS
)

// minText is the length from which an argument that is no key is searched for secrets as a text: a document, a URL.
const minText = 8

// isOnlyWords reports whether text has letters and blanks only. It is not searched for secrets.
func isOnlyWords(text []byte) bool {
	for _, c := range text {
		if c != ' ' && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

// addArgument adds the argument that was read to the event. data has its first bytes; size is its whole
// length.
func (p *parser) addArgument(data []byte, size uint64) {
	cmd := &p.command
	index := cmd.index
	cmd.index++
	body := cmd.event.Redis

	// The name of the command comes first, in one word or two.
	if index == 0 {
		p.setName(data)
		return
	}
	if index == 1 && containers[body.Command] {
		p.setSubcommand(data)
		return
	}

	// Every argument is counted, and passes through the state of redaction and of the key's position.
	body.ArgsCount++
	body.ArgsBytes += size
	visible := cmd.secrets.Next(data, cmd.damaged)
	isKey := p.isKey(data, index)
	if isKey {
		body.Key = p.conn.Intern(data[:min(len(data), maxKey)])
	}

	// What follows a word that cannot be a command may be anything, such as the header fields of a request to
	// another server.
	if cmd.unnamed {
		return
	}
	text := p.argumentText(data, size, visible)
	if visible < 0 && !isKey && len(text) >= minText && !isOnlyWords(text) {
		text, _ = p.conn.Redactor().Line(text)
	}
	cut := len(body.Args) >= maxArgs-lastArgs
	switch {
	case p.argsBytes+cmd.argsBytes > maxArgsBytes:
		cmd.event.AddTag(pipeline.TagTruncated)
		return
	case p.isSetting(data, index) && cut && cmd.settings < maxSettings:
		cmd.settings++
		fallthrough
	case !cut:
		body.Args = append(body.Args, p.conn.Intern(text))
	default:
		slot := &cmd.last[cmd.lastCount%lastArgs]
		*slot = append((*slot)[:0], text...)
		cmd.lastCount++
		return
	}
	cmd.argsBytes += len(text)
}

// argumentText returns what is kept of an argument of size bytes. data has its first bytes, or all of them; the
// first visible bytes are not secret, if visible is not negative.
func (p *parser) argumentText(data []byte, size uint64, visible int) []byte {
	const head = maxArg - argTail
	cmd := &p.command
	switch {
	case visible == 0 && size > 0:
		return append(p.text[:0], redact.Marker...)
	case visible > 0: // less than the argument has
		p.text = append(append(p.text[:0], data[:min(len(data), visible, head)]...), redact.Marker...)
		return p.text
	case size <= maxArg:
		return data
	}
	tail := cmd.tail
	if uint64(len(data)) == size {
		tail = data[size-argTail:]
	}
	cmd.event.AddTag(pipeline.TagTruncated)
	p.text = append(append(p.text[:0], data[:min(len(data), head)]...), "…"...)
	p.text = append(p.text, tail...)
	return p.text
}

// keepLastArguments adds the last arguments to the event, of a command that has more than are kept.
func (p *parser) keepLastArguments() {
	cmd := &p.command
	if cmd.lastCount == 0 {
		return
	}
	if cmd.lastCount > lastArgs {
		cmd.event.AddTag(pipeline.TagTruncated)
	}
	for i := max(0, cmd.lastCount-lastArgs); i < cmd.lastCount; i++ {
		text := cmd.last[i%lastArgs]
		cmd.argsBytes += len(text)
		cmd.event.Redis.Args = append(cmd.event.Redis.Args, p.conn.Intern(text))
	}
	cmd.lastCount = 0
}

// isSetting reports whether data, the argument with this index, names one of settings in CONFIG SET, or is the
// value of one.
func (p *parser) isSetting(data []byte, index int64) bool {
	cmd := &p.command
	if cmd.event.Redis.Command != "CONFIG SET" {
		return false
	}
	if index%2 != 0 { // a value: CONFIG SET name value name value …
		is := cmd.inSetting
		cmd.inSetting = false
		return is
	}
	cmd.inSetting = settings[string(upper(&p.scratch, data[:min(len(data), 64)]))]
	return cmd.inSetting
}

// setName sets the command's name, and with it the position of the key and the secrets of the arguments.
func (p *parser) setName(word []byte) {
	cmd := &p.command
	name := upper(&p.scratch, word[:min(len(word), 64)])
	cmd.event.Redis.Command = p.conn.Intern(name)
	cmd.unnamed = !isName(name)
	cmd.key = keys[cmd.event.Redis.Command]
	cmd.secrets.Begin(cmd.event.Redis.Command, cmd.total)
	if cmd.key == noKey {
		for _, c := range name {
			if c == '.' { // a command of a module: JSON.SET key
				cmd.key = 1
			}
		}
	}
}

// setSubcommand appends the second word of a command's name.
func (p *parser) setSubcommand(data []byte) {
	cmd := &p.command
	body := cmd.event.Redis
	sub := upper(&p.scratch, data[:min(len(data), 64)])
	p.text = append(append(append(p.text[:0], body.Command...), ' '), sub...)
	body.Command = p.conn.Intern(p.text)
	cmd.key = keys[body.Command]
	cmd.secrets.Begin(body.Command, cmd.total)
}

// isKey reports whether data, the argument with index i, is the first key. It is called for every argument in
// order, since cmd.key changes as the arguments before the key are read.
func (p *parser) isKey(data []byte, i int64) bool {
	cmd := &p.command
	switch cmd.key {
	case noKey:
		return false
	case nextArgument:
		cmd.key = noKey
		return true
	case behindCount:
		cmd.key = noKey
		if count, ok := integer(data); ok && count > 0 {
			cmd.key = nextArgument
		}
		return false
	case behindStreams:
		if string(upper(&p.scratch, data[:min(len(data), 16)])) == "STREAMS" {
			cmd.key = nextArgument
		}
		return false
	}
	if int64(cmd.key) != i && int64(cmd.key) > 0 {
		return false
	}

	// The argument is at the position in the table. For these commands it is the number of keys.
	switch cmd.event.Redis.Command {
	case "EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO", "ZUNION", "ZINTER", "ZDIFF",
		"ZINTERCARD", "SINTERCARD", "LMPOP", "ZMPOP", "BLMPOP", "BZMPOP":
		cmd.key = behindCount
		return p.isKey(data, i)
	}
	cmd.key = noKey
	return true
}
