package redact

import "bytes"

// passwordReaders are commands that read a secret from their standard input.
var passwordReaders = [...]string{
	"chpasswd", "passwd --stdin", "sudo -S", "--password-stdin", "--pass-stdin", "cryptsetup ", "--with-token",
}

// readsPassword reports whether one of passwordReaders is in the part of a pipeline that begins with command.
func readsPassword(command []byte) bool {
	if end := bytes.IndexByte(command, '|'); end >= 0 {
		command = command[:end]
	}
	for _, reader := range passwordReaders {
		if bytes.Contains(command[:min(len(command), maxPhrase)], []byte(reader)) {
			return true
		}
	}
	return false
}

// hidePiped hides what echo writes into a command that reads a secret: echo X | passwd --stdin bob.
func (r *Redactor) hidePiped(v view) {
	text := v.text
	for pos := 0; ; {
		i := bytes.IndexByte(text[pos:], '|')
		if i < 0 {
			return
		}
		front := text[pos : pos+i]
		front = front[max(0, len(front)-maxBalanced):]
		end := pos + i
		pos = end + 1
		from := max(bytes.LastIndex(front, []byte("echo ")), bytes.LastIndex(front, []byte("printf ")))
		if from < 0 || !readsPassword(text[pos:]) {
			continue
		}
		r.hideWritten(v, end-len(front)+from, end)
	}
}

// hideWritten hides the argument of the echo in text[from:end] that may be a secret, the last one. Of user:password
// the user is kept.
func (r *Redactor) hideWritten(v view, from, end int) {
	text := v.text[:end]
	var last valueRange
	for from += bytes.IndexByte(text[from:], ' '); from < end; {
		value := readArgument(text, from)
		if value.from >= end {
			break
		}
		if value.to > value.from {
			last = value
		}
		from = max(value.next, value.from+1)
	}
	word := last.of(text)
	if colon := bytes.IndexByte(word, ':'); colon > 0 {
		last.from += colon + 1
	}
	if content := last.of(text); len(content) > 0 && !isPlaceholder(content) {
		r.hide(v, last.from, last.to, RuleFlag)
	}
}
