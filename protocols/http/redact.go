package http

import (
	"strings"
)

// redacted stands for a secret that was there.
const redacted = "REDACTED"

// secretNames are parameters whose value is a credential, in lower case without - _ [ ] and dots.
var secretNames = map[string]bool{
	"password": true, "passwd": true, "passwort": true, "pass": true, "pwd": true, "passphrase": true, "passcode": true, "pw": true, "psw": true,
	"token": true, "jwt": true, "secret": true, "sig": true, "signature": true, "code": true, "key": true, "apikey": true, "auth": true,
	"authorization": true, "credential": true, "credentials": true, "session": true, "sessionid": true, "sid": true, "sessid": true,
	"jsessionid": true, "phpsessid": true, "otp": true, "pin": true, "assertion": true, "samlresponse": true, "ticket": true, "accesskey": true,
	"privatekey": true, "bearer": true, "hmac": true, "nonce": true,
}

// secretEnds make a parameter secret whose name ends with one of them: user[password], x-amz-security-token.
var secretEnds = [...]string{"password", "passwd", "pwd", "token", "secret", "apikey", "signature", "accesskey", "secretkey", "privatekey", "sessionid", "credential"}

// maxName is the longest name of a parameter that is looked at as a whole; of a longer one, its end.
const maxName = 64

// url gives b as a string without its secrets: the password of a user, and the values of parameters that look like credentials,
// also of a URL that is itself the value of a parameter, and also where their marks are percent-encoded.
func (p *parser) url(b []byte) string {
	if !suspicious(b) {
		return p.c.Intern(b)
	}
	out := p.scratch[:0]
	out = redactUser(out, b)
	// Parameters are redacted in place behind what was just written: what is kept never grows past one REDACTED each.
	from := len(out)
	out = redactParameters(out, out[:from])
	p.scratch = out
	return p.c.Intern(out[from:])
}

// suspicious tells that b can hold a secret at all.
func suspicious(b []byte) bool {
	for _, c := range b {
		if c == '=' || c == '@' || c == '%' {
			return true
		}
	}
	return false
}

// redactUser appends b to out with user:password@ behind each // as REDACTED@.
func redactUser(out, b []byte) []byte {
	for i := 0; i < len(b); {
		w := slashes(b, i)
		if w == 0 {
			out = append(out, b[i])
			i++
			continue
		}
		out = append(out, b[i:i+w]...)
		i += w
		at := -1
		j := i
		for ; j < len(b) && !endsAuthority(b, j); j++ {
			if b[j] == '@' || code(b, j) == '@' {
				at = j
			}
		}
		if at >= 0 {
			out = append(out, redacted...)
			i = at
		}
	}
	return out
}

// slashes is the width of // at i, plain or encoded, or 0.
func slashes(b []byte, i int) int {
	w := width(b, i)
	if i+w >= len(b) || char(b, i) != '/' || char(b, i+w) != '/' {
		return 0
	}
	return w + width(b, i+w)
}

func endsAuthority(b []byte, i int) bool {
	switch char(b, i) {
	case '/', '?', '#', '&', ' ', '"':
		return true
	}
	return false
}

// redactParameters appends b to out with the values of secret parameters replaced. b may be a front part of out.
func redactParameters(out, b []byte) []byte {
	start := 0     // of the parameter's name
	query := false // behind the first ?
	for i := 0; i < len(b); {
		w := width(b, i)
		switch char(b, i) {
		case '?', '#':
			query = query || w == 1
			start = i + w
		case '&', ';', ' ', '/', ',':
			start = i + w
		case '=':
			if !secret(b[start:i]) {
				start = i + w // a value may hold a URL with parameters of its own
				break
			}
			out = append(out, b[i:i+w]...)
			i += w
			end := i
			for end < len(b) && !endsValue(b, end, query, w > 1) {
				end++
			}
			if end > i {
				out = append(out, redacted...)
			}
			i, start = end, end
			continue
		}
		out = append(out, b[i:i+w]...)
		i += w
	}
	return out
}

// endsValue tells that the value of a secret ends at i. One whose own = was encoded lies in the value of another parameter and may
// end with an encoded mark; in a plain one that is a character of the secret.
func endsValue(b []byte, i int, query, nested bool) bool {
	c := b[i]
	if nested {
		c = char(b, i)
	}
	switch c {
	case '&', '#':
		return true
	case ';', '/', '?':
		return !query
	}
	return false
}

// width is how many bytes the character at i takes: 3 where it is percent-encoded.
func width(b []byte, i int) int {
	if code(b, i) >= 0 {
		return 3
	}
	return 1
}

// char is the character at i, decoded.
func char(b []byte, i int) byte {
	if c := code(b, i); c >= 0 {
		return byte(c)
	}
	return b[i]
}

// code is what %xx at i means, or −1.
func code(b []byte, i int) int {
	if i+2 >= len(b) || b[i] != '%' {
		return -1
	}
	v, ok := hex(b[i+1 : i+3])
	if !ok {
		return -1
	}
	return int(v)
}

// secret tells that a parameter of this name holds a credential.
func secret(name []byte) bool {
	var buf [maxName]byte
	n := 0
	if len(name) > 3*maxName {
		name = name[len(name)-3*maxName:]
	}
	for i := 0; i < len(name); i += width(name, i) {
		c := char(name, i)
		switch {
		case c >= 'A' && c <= 'Z':
			c |= 0x20
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		default:
			continue
		}
		if n == maxName {
			n = copy(buf[:], buf[1:])
		}
		buf[n] = c
		n++
	}
	if secretNames[string(buf[:n])] {
		return true
	}
	s := string(buf[:n])
	for _, end := range secretEnds {
		if strings.HasSuffix(s, end) {
			return true
		}
	}
	return false
}
