package redact

import "bytes"

// passwordReaders are commands that read a secret from their standard input.
var passwordReaders = [...]string{
	"chpasswd", "passwd --stdin", "sudo -S", "--password-stdin", "--pass-stdin", "cryptsetup ", "--with-token", "kinit ",
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
	r.hideHereStrings(v)
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

// hereString is the mark of a text that a command of a shell reads.
var hereString = []byte("<<<")

// hideHereStrings hides the here-strings that a command reads as a secret: docker login --password-stdin <<< X.
func (r *Redactor) hideHereStrings(v view) {
	text := v.text
	for pos := 0; ; {
		i := bytes.Index(text[pos:], hereString)
		if i < 0 {
			return
		}
		front := text[pos : pos+i]
		pos += i + len(hereString)
		if !readsPassword(front[max(0, len(front)-maxPhrase):]) {
			continue
		}
		value := readArgument(text, pos)
		from := value.from
		if colon := bytes.IndexByte(value.of(text), ':'); colon > 0 {
			from += colon + 1
		}
		if content := text[from:max(from, value.to)]; len(content) > 0 && !isPlaceholder(content) {
			r.hide(v, from, value.to, RuleFlag)
		}
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
