package redact

import (
	"bytes"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// foreignNames are the names of passwords with other letters than a to z, and those of several words, in
// lower case. Those with these letters only are in parts and contained.
var foreignNames = [...]string{
	"contraseña", "contraseñas", "clave de acceso", "palabra de paso", "parola d'ordine", "kata sandi", "hasło", "lösenord",
	"şifre", "şifreniz", "jelszó", "lykilorð", "slaptažodis", "salasõna", "mật khẩu", "пароль", "пароля", "парола", "гасло",
	"лозинка", "құпиясөз", "κωδικός", "κωδικός πρόσβασης", "συνθηματικό", "סיסמה", "סיסמא", "كلمة المرور", "كلمة السر", "पासवर्ड",
	"รหัสผ่าน", "パスワード", "暗証番号", "密码", "密碼", "口令", "비밀번호", "암호",
}

// foreignLinks are the texts between one of foreignNames and the value that it states.
var foreignLinks = [...]string{
	"：", "＝", ":", "=", "は", "が", "是", "为", "為", "는 ", "은 ", " es ", " é ", " is ", " — ", " – ", " - ", " är ", " jest ",
	" to ", " είναι ", " este ",
}

// foreignVariants are foreignNames as they are written: in small letters, with a capital, in capitals.
var foreignVariants = func() (list []string) {
	for _, name := range foreignNames {
		first, size := utf8.DecodeRuneInString(name)
		for _, variant := range []string{name, string(unicode.ToUpper(first)) + name[size:], strings.ToUpper(name)} {
			if !slices.Contains(list, variant) {
				list = append(list, variant)
			}
		}
	}
	slices.SortFunc(list, func(x, y string) int { return len(y) - len(x) }) // the longest first
	return list
}()

// foreignBy has the variants by their first byte, foreignByEnd by their last, and foreignByHigh by their first byte
// beyond ASCII.
var foreignBy, foreignByEnd, foreignByHigh = func() (first, last, high [256][]string) {
	for _, name := range foreignVariants {
		first[name[0]] = append(first[name[0]], name)
		end := name[len(name)-1]
		last[end] = append(last[end], name)
		if i := highByte(name); i < len(name) {
			high[name[i]] = append(high[name[i]], name)
		}
	}
	return first, last, high
}()

// highByte returns the offset of the first byte of name beyond ASCII, or its length.
func highByte(name string) int {
	i := 0
	for i < len(name) && name[i] < utf8.RuneSelf {
		i++
	}
	return i
}

// hasForeignName reports whether text ends with one of foreignNames.
func hasForeignName(text []byte) bool {
	end := len(text)
	for limit := max(0, end-maxName); end > limit; end-- {
		if c := text[end-1]; c != ' ' && c != '"' && c != '\'' && c != '\\' {
			break
		}
	}
	if end == 0 {
		return false
	}
	for _, name := range foreignByEnd[text[end-1]] {
		if end >= len(name) && string(text[end-len(name):end]) == name {
			return true
		}
	}
	return false
}

// hasForeignNameAround reports whether one of foreignNames is in text, with its first byte beyond ASCII at pos.
func hasForeignNameAround(text []byte, pos int) bool {
	for _, name := range foreignByHigh[text[pos]] {
		if from := pos - highByte(name); from >= 0 && len(text)-from >= len(name) && string(text[from:from+len(name)]) == name {
			return true
		}
	}
	return false
}

// foreignNameAt returns the end of the one of foreignNames at pos; 0 if there is none.
func foreignNameAt(text []byte, pos int) int {
	for _, name := range foreignBy[text[pos]] {
		if len(text)-pos >= len(name) && string(text[pos:pos+len(name)]) == name {
			return pos + len(name)
		}
	}
	return 0
}

// foreignLinkAt returns the offset behind the link of a name that ends at pos, and whether it is an =; 0 if
// there is none.
func foreignLinkAt(text []byte, pos int) (end int, assigns bool) {
	for limit := pos + maxQuotes; pos < min(len(text), limit) && (isQuote(text[pos]) || text[pos] == '\\' ||
		(text[pos] == ']' || text[pos] == '}' || text[pos] == ')') && pos > 0 && isQuote(text[pos-1])); {
		pos++
	}
	mark := skipBlanks(text, pos)
	for _, link := range foreignLinks {
		from := pos
		if link[0] != ' ' {
			from = mark
		}
		if len(text)-from > len(link) && string(text[from:from+len(link)]) == link {
			return from + len(link), link == "=" || link == "＝"
		}
	}
	return 0, false
}

// hideForeign hides the values behind foreignNames: пароль: X, 密码是 X.
func (r *Redactor) hideForeign(v view) {
	text := v.text
	pass := namePass{Redactor: r, view: v}
	for i := 0; i < len(text); {
		end := 0
		if len(foreignBy[text[i]]) > 0 {
			end = foreignNameAt(text, i)
		}
		if end == 0 || text[i] < 0x80 && folded[byteBefore(text, i)] > separator {
			i++
			continue
		}
		i = end
		start, assigns := foreignLinkAt(text, end)
		if start == 0 || start < len(text) && bytes.HasPrefix(text[start:], []byte("//")) {
			continue
		}
		if start < len(text) && (text[start] == '>' || text[start] == '=') {
			start++ // =>, :=, ==
		}
		quoted := isQuote(text[end]) || text[end] == '\\'
		value := readValue(text, start, pass.stringAt(start) && !quoted)
		if isForeignSecret(text, value, assigns) {
			r.hide(v, value.from, value.to, RuleName)
		}
		i = max(value.next, end)
	}
}

// isForeignSecret reports whether a value behind one of foreignNames is a secret: it is in quotes or behind
// =, does not look like a word, or is the last word of its line. A word with other letters than those of
// ASCII is one of a sentence.
func isForeignSecret(text []byte, value valueRange, assigns bool) bool {
	content := value.of(text)
	if isPlaceholder(content) || len(content) == 0 {
		return false
	}
	if value.quoted || assigns || looksRandom(content) {
		return true
	}
	if bytes.ContainsFunc(content, isBeyondASCII) {
		return false
	}
	behind := skipBlanks(text, value.next)
	isLast := behind == len(text) || text[behind] < ' ' || bytes.IndexByte([]byte("\"'\\<,;&"), text[behind]) >= 0
	return isLast && !isProseWord(content)
}

func isBeyondASCII(char rune) bool { return char > unicode.MaxASCII }

// isForeignWord reports whether word has letters beyond ASCII, and none of ASCII and no digits.
func isForeignWord(word []byte) bool {
	return len(word) > 1 && word[0] >= 0x80 && !bytes.ContainsFunc(word, func(char rune) bool {
		return char <= unicode.MaxASCII && folded[char] > separator
	})
}

// Wide characters are those of East Asian writing that stand for one of ASCII, and typographic quotes.

// wideByte returns the byte of ASCII for which the wide character at text[i] stands, and its width; 0 if
// there is none.
func wideByte(text []byte, i int) (c byte, width int) {
	if i+2 >= len(text) {
		return 0, 0
	}
	second, third := text[i+1], text[i+2]
	switch text[i] {
	case 0xef: // U+FF01 to U+FF5E
		switch {
		case second == 0xbc && third >= 0x81 && third <= 0xbf:
			return third - 0x60, 3
		case second == 0xbd && third >= 0x80 && third <= 0x9e:
			return third - 0x20, 3
		}
	case 0xe3:
		if second == 0x80 && third == 0x80 { // an ideographic space
			return ' ', 3
		}
	case 0xe2:
		if second != 0x80 {
			break
		}
		switch third {
		case 0x98, 0x99, 0x9a, 0x9b:
			return '\'', 3
		case 0x9c, 0x9d, 0x9e, 0x9f:
			return '"', 3
		}
	}
	return 0, 0
}

// decodeWide decodes one wide character.
func decodeWide(out, text []byte, i int) ([]byte, int) {
	if c, width := wideByte(text, i); width > 0 {
		return append(out, c), width
	}
	return append(out, text[i]), 1
}

// hasWide reports whether text has a wide character.
func hasWide(text []byte) bool {
	for i := range text {
		if text[i] >= 0xe2 {
			if _, width := wideByte(text, i); width > 0 {
				return true
			}
		}
	}
	return false
}
