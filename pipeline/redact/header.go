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

// schemes are the authentication schemes that are in use. Those of the first list have one word of credentials.
var (
	oneWordSchemes = [...]string{
		"basic", "bearer", "token", "negotiate", "ntlm", "apikey", "api-key", "key", "jwt", "splunk", "genie",
	}
	otherSchemes = [...]string{
		"digest", "hawk", "hoba", "mutual", "oauth", "vapid", "aws", "signature", "dpop", "sharedkey",
		"sharedaccesssignature", "scram-sha-1", "scram-sha-256", "gnap", "privatetoken", "concealed", "mac",
		"snowflake",
	}
)

func isOneWordScheme(word []byte) bool { return isOneOf(bytes.ToLower(word), oneWordSchemes[:]) }

func isScheme(word []byte) bool {
	return isOneWordScheme(word) || isOneOf(bytes.ToLower(word), otherSchemes[:]) ||
		bytes.HasPrefix(bytes.ToUpper(word), []byte("AWS"))
}

// afterScheme returns the offset behind the scheme and the blank at the front of text[from:to], or from.
func afterScheme(text []byte, from, to int) int {
	if n := schemeLength(text[from:to]); n > 0 && isScheme(text[from:from+n]) {
		return from + n + 1
	}
	return from
}

// minDigest is the length of the shortest response of the scheme Digest.
const minDigest = 8

// isResponseOfDigest reports whether the value behind the = at pos is the response of the scheme Digest, RFC
// 7616, whose name is in front of it.
func isResponseOfDigest(text []byte, pos int) bool {
	end := pos + 1
	for end < len(text) && (isQuote(text[end]) || text[end] == '\\') {
		end++
	}
	to := end
	for to < len(text) && to-end < minDigest && text[to] > ' ' && !isQuote(text[to]) && text[to] != ',' {
		to++
	}
	return to-end >= minDigest && containsWord(text[max(0, pos-maxScanned):pos], digestWordBy)
}

var digestWordBy = newWordTable([]string{"digest"})

// minToken is the length from which a user's name without the look of a word is taken for a token.
const minToken = 20

// UserNameIsSecret reports whether the user of HTTP's Basic authentication is a secret: services take a token
// in place of the name, with an empty password or one that says so.
func UserNameIsSecret(user, password []byte) bool {
	if len(user) == 0 {
		return false
	}
	switch string(password) {
	case "", "x-oauth-basic", "x-token-auth", "x-access-token", "x", "X":
		return true
	}
	for i := range user {
		if patternAt(user, i) {
			return true
		}
	}
	return len(user) >= minToken && looksRandom(user) && bytes.IndexByte(user, '@') < 0
}
