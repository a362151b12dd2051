package redact

import "bytes"

// maxScheme is the longest name of an authentication scheme.
const maxScheme = 32

// Scheme splits the value of an Authorization field into the name of the scheme, which is not secret, and the
// credentials, which are. A value of one word may be the credentials themselves, so it has no scheme.
func Scheme(value []byte) (scheme, credentials []byte, ok bool) {
	length := schemeLength(value)
	if length == 0 {
		return nil, value, false
	}
	return value[:length], value[length:], true
}

// schemeLength returns the length of the scheme at the front of an Authorization, RFC 9110 section 11.4, or
// 0.
func schemeLength(value []byte) int {
	length := bytes.IndexByte(value[:min(len(value), maxScheme+1)], ' ')
	if length <= 0 {
		return 0
	}
	for _, c := range value[:length] {
		if !isLetter(c) && c != '-' && c != '_' {
			return 0
		}
	}
	return length
}
