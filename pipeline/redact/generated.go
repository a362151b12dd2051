package redact

import "bytes"

// wordShape counts the kinds of characters of a word of a text.
type wordShape struct {
	letters, digits, symbols int
	humps                    int  // capitals behind small letters
	consonants               int  // in the longest run of them
	separators               int  // - _ .
	digitInside              bool // a letter, or a symbol, follows a digit
	other                    bool // a byte that words of text have, and generated secrets do not
}

// shapeOf returns the shape of word.
func shapeOf(word []byte) (s wordShape) {
	run := 0
	for i, c := range word {
		letter := isLetter(c)
		if !letter || bytes.IndexByte([]byte("aeiouyAEIOUY"), c) >= 0 {
			run = 0
		} else {
			run++
			s.consonants = max(s.consonants, run)
		}
		switch {
		case letter:
			s.letters++
			if i > 0 && c <= 'Z' && word[i-1] >= 'a' && word[i-1] <= 'z' {
				s.humps++
			}
			s.digitInside = s.digitInside || isDigitAt(word, i-1)
		case c >= '0' && c <= '9':
			s.digits++
		case c == '-' || c == '_' || c == '.':
			s.separators++
		case bytes.IndexByte([]byte("!$%^&*+=~#@?/"), c) >= 0:
			s.symbols++
			s.digitInside = s.digitInside || c != '/' && c != '=' && isDigitAt(word, i-1) && i+1 < len(word)
		default:
			s.other = true
		}
	}
	return s
}

// isDigitAt reports whether word[i] is a digit.
func isDigitAt(word []byte, i int) bool { return i >= 0 && word[i] >= '0' && word[i] <= '9' }

// technicalWords are words with digits in texts about secrets, in lower case and without - and _.
var technicalWords = [...]string{
	"base64", "base32", "base16", "sha1", "sha2", "sha3", "sha224", "sha256", "sha384", "sha512", "md4", "md5",
	"aes128", "aes192", "aes256",
	"oauth1", "oauth2", "oauth20", "oidc1", "x509", "http1", "http2", "http3", "utf8", "utf16", "ipv4", "ipv6",
	"pkcs1", "pkcs5", "pkcs7", "pkcs8",
	"pkcs11", "pkcs12", "hs256", "hs384", "hs512", "rs256", "rs384", "rs512", "es256", "es384", "es512",
	"ps256", "ed25519", "x25519", "p256", "p384",
	"p521", "pbkdf2", "bcrypt2", "argon2", "argon2i", "argon2id", "tls12", "tls13", "tls1", "ssl3", "tls10",
	"tls11", "des3", "3des", "rc4", "ntlmv1",
	"ntlmv2", "k8s", "s3", "ec2", "i18n", "l10n", "python2", "python3", "win32", "win64", "x86", "amd64",
	"arm64", "curve25519", "secp256k1",
	"chacha20", "poly1305", "chacha20poly1305", "blake2b", "blake3", "sasl2", "saml2", "krb5", "kerberos5",
	"web3", "h2", "oauth2client",
}

// looksGenerated reports whether a word of a sentence is a secret rather than a word: it has letters and digits in
// turn, or symbols within, or letters as no word has them. Numbers with units, versions, dates, addresses, names of
// files and of methods are none. atLeast is the minimum length.
func looksGenerated(word []byte, atLeast int) bool {
	if len(word) < atLeast || len(word) > maxScanned || isPlaceholder(word) || isReferenceFront(word) {
		return false
	}
	s := shapeOf(word)
	switch {
	case s.other, s.letters+s.digits == 0:
		return false
	case s.symbols > 0:
		return hasInnerSymbol(word) && (s.digits > 0 || s.letters > 0 && !isListOfWords(word))
	case s.digits == 0:
		return isUnlikelyWord(&s, len(word))
	case s.letters == 0:
		return s.separators == 0 && s.digits >= 6
	}
	return isMixedWord(word, &s)
}

// maxPhrase bounds the text in which the arguments of a command, and the secret of a sentence, are looked for.
const maxPhrase = 160

// maxScanned is the length of the longest word that is taken for a secret of a sentence.
const maxScanned = 512

// isReferenceFront reports whether word begins as paths, variables, options, numbers with signs and anchors do.
func isReferenceFront(word []byte) bool {
	if bytes.IndexByte([]byte("/.$-%@#&{[<(*~"), word[0]) < 0 {
		return false
	}
	return len(word) < 2 || isLetter(word[1]) || folded[word[1]] <= separator
}

// hasInnerSymbol reports whether word has a symbol of passwords within: not that of a path, an assignment, a
// variable or an address.
func hasInnerSymbol(word []byte) bool {
	if bytes.Contains(word, []byte("//")) || bytes.IndexByte(word, '@') > 0 && bytes.IndexByte(word, '.') > 0 {
		return false
	}
	for i, c := range word {
		if i > 0 && bytes.IndexByte([]byte("!$%^&*+~#@="), c) >= 0 && (i+1 < len(word) || c == '=' && i > 8) {
			return true
		}
	}
	return false
}

// isListOfWords reports whether word has letters and symbols that join words of a sentence: and/or, name=value,
// user@host, C++.
func isListOfWords(word []byte) bool {
	joints := 0
	for i, c := range word {
		if isLetter(c) || c == '-' || c == '_' || c == '.' {
			continue
		}
		if bytes.IndexByte([]byte("/=@&+#"), c) < 0 || i+1 < len(word) && !isLetter(word[i+1]) && word[i+1] != c {
			return false
		}
		joints++
	}
	return joints < 4
}

// isUnlikelyWord reports whether letters without digits are no word of a language and no name of a program.
func isUnlikelyWord(s *wordShape, size int) bool {
	switch {
	case s.separators > 0:
		return false
	case s.humps > 0:
		return size >= 8 && size <= 5*s.humps && (s.humps > 2 || s.consonants > 4)
	}
	return s.consonants > 5 && size >= 8 || size >= 18 && size <= 40
}

// isMixedWord reports whether a word of letters and digits is a secret.
func isMixedWord(word []byte, s *wordShape) bool {
	if isTechnicalWord(word) || isUnit(word) || s.separators > 0 && isJoinedWord(word) {
		return false
	}
	if !s.digitInside { // hunter2, and user1, node12
		return s.separators == 0 && s.letters >= 5 && s.digits <= 6 || s.digits >= 4 && s.letters >= 4
	}
	return true
}

// isTechnicalWord reports whether word is one of technicalWords.
func isTechnicalWord(word []byte) bool {
	var buf [24]byte
	lower := buf[:0]
	for _, c := range word {
		if folded[c] > separator {
			if len(lower) == len(buf) {
				return false
			}
			lower = append(lower, folded[c])
		}
	}
	return isOneOf(lower, technicalWords[:])
}

// isUnit reports whether word is a number with a unit, a version, a time or a number of hexadecimal digits: 64KB,
// 12.5s, v1.2.3, 2nd, 2026-11-24T12, 0x1f.
func isUnit(word []byte) bool {
	rest := bytes.TrimLeft(word, "vV")
	if len(rest) == 0 || rest[0] < '0' || rest[0] > '9' {
		return false
	}
	if rest[0] == '0' && len(rest) > 1 && rest[1]|0x20 == 'x' {
		return true
	}
	letters := len(bytes.Trim(rest, "0123456789.-:,+"))
	return letters <= 3
}

// isJoinedWord reports whether a word is of parts with - _ . between them that are each a word, a number or a
// technical word: auth-token-2, file.txt, user_id2, sha-256, 1.2.3-rc1.
func isJoinedWord(word []byte) bool {
	hex := 0
	for len(word) > 0 {
		end := bytes.IndexAny(word, "-_.")
		if end < 0 {
			end = len(word)
		}
		part := word[:end]
		s := shapeOf(part)
		switch {
		case s.digits == 0 || s.letters == 0:
		case len(part) >= 4 && isHex(part):
			hex++
		case s.digitInside && !isTechnicalWord(part) && !isUnit(part), s.digits > 3:
			return false
		}
		word = word[min(len(word), end+1):]
	}
	return hex < 2
}

// isHex reports whether data consists of hexadecimal digits.
func isHex(data []byte) bool {
	for _, c := range data {
		if hexDigit(c) < 0 {
			return false
		}
	}
	return true
}
