package http

import (
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// TestBytesOfMarkersAreLookedFor: a head without one of them holds no form of an attack.
func TestBytesOfMarkersAreLookedFor(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "/index.html?a=1&b=2": false, "a.b": false, "..": true, "()": true, "(x)": false, "$": true, "<": true, "`": true, "'": true,
		"%": false, "%2": false, "x%20": true, "%2e": true, "%3d": false, "%3c": true, "%3C": true, "a%3d%3c": true, "%3d%5c": true,
		"%41%60": true, "%41%7b": true, "%41%42": false, "%80": false, "%3": false, "%3\\": false, "%s": false,
	} {
		if got := mayHoldMarker([]byte(text)); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
}

// TestFormsOfAttacksAreTexts, each of which shows its form.
func TestFormsOfAttacksAreTexts(t *testing.T) {
	for i, form := range forms {
		for _, text := range form.texts {
			for _, around := range []string{text, "x" + text + "y"} {
				if formsIn([]byte(around))&(1<<i) == 0 {
					t.Errorf("%q is not %s", around, form.name)
				}
			}
			if found := formsIn([]byte(text[:len(text)-1])); found&(1<<i) != 0 && !slices.ContainsFunc(form.texts, func(other string) bool {
				return strings.Contains(text[:len(text)-1], other)
			}) {
				t.Errorf("%q without its end is %s", text, form.name)
			}
		}
	}
	if formsIn([]byte("1 where 5929=5929")) != sqlForm || formsIn([]byte("1 where 5929=5930")) != 0 {
		t.Error("a comparison of equal numbers is a form of SQL")
	}
	if forms[4].name != "sql" || sqlForm != 1<<4 || formsIn(nil) != 0 {
		t.Errorf("SQL is form %b", sqlForm)
	}
	for text, want := range map[string]bool{
		"1 where 5929=5929": true, "a 1=1": true, "a '1'='1'": true, "a (1=1)": true, "a \"1\"=\"1": true, "a 1=12": false, "a 12=1": false,
		"1=1": false, "a1=1": false, "a x=x": false, "a 1=2 3=3": true, "a =1": false, "a 1 = 1": true, "a 1=": false, "a,1=1": false,
		"a 12345678901234567890=12345678901234567890": true, "a 123456789012345678901=123456789012345678901": false,
	} {
		if got := hasEqualNumbers([]byte(text)); got != want {
			t.Errorf("%q compares equal numbers: %t", text, got)
		}
	}
	for text, want := range map[string]string{
		"%2E%2e/": "../", "A+B": "a b", "%41%5A@[`{": "az@[`{", "%4": "%4", "%": "%", "%zz": "%zz", "%2b": "+", "100%25": "100%", "%c3%89": "\xc3\x89",
	} {
		if got := string(unescape([]byte(text))); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestWhiteSpaceIsThatOfLatin1, as the laxest of servers see it (str.isspace of Python, without line feeds).
func TestWhiteSpaceIsThatOfLatin1(t *testing.T) {
	const space = " \t\r\v\f\x1c\x1d\x1e\x1f\x85\xa0"
	for c := range 256 {
		if got, want := isSpace(byte(c)), strings.IndexByte(space, byte(c)) >= 0; got != want {
			t.Errorf("%#x is white space: %t", c, got)
		}
		if got, want := isBlank(byte(c)), strings.IndexByte(" \t\r", byte(c)) >= 0; got != want {
			t.Errorf("%#x is a blank: %t", c, got)
		}
		if got, want := isClean([]byte{'a', byte(c)}), c >= ' ' || strings.IndexByte(space, byte(c)) >= 0; got != want {
			t.Errorf("%#x is clean: %t", c, got)
		}
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		digit := c >= '0' && c <= '9'
		if got := isToken([]byte{byte(c)}); got != (letter || digit || strings.IndexByte("!#$%&'*+-.^_`|~", byte(c)) >= 0) {
			t.Errorf("%#x is one of a token: %t", c, got) // RFC 9110 section 5.6.2
		}
		if isDigit(byte(c)) != digit || isWord([]byte{byte(c)}) != (letter || c == '-' || c == '_') || isUpper([]byte{byte(c)}) != (c < 'a' || c > 'z') {
			t.Errorf("%#x is a digit %t, of a word %t, upper case %t", c, isDigit(byte(c)), isWord([]byte{byte(c)}), isUpper([]byte{byte(c)}))
		}
	}
	places := func(text string, first, last int, trimmed string) {
		t.Helper()
		data := []byte(text)
		if firstSpace(data) != first || lastSpace(data) != last || string(trimSpace(data)) != trimmed {
			t.Errorf("%q: %d, %d, %q", text, firstSpace(data), lastSpace(data), trimSpace(data))
		}
	}
	places("", -1, -1, "")
	places("abc", -1, -1, "abc")
	places("a b\tc", 1, 3, "a b\tc")
	places("\ra b\r", 2, 4, "a b")
	places(" \xa0a\x1f ", 0, 4, "a")
	places("  ", 0, 1, "")
	long := strings.Repeat("M", maxRequestLine)
	if methodEnd([]byte(long[1:]+" /")) != maxRequestLine-1 || methodEnd([]byte(long+" /")) != -1 {
		t.Error("a method ends within maxRequestLine")
	}
}

// TestRequestLinesAreRecognised: a whole line by its version, another by its method.
func TestRequestLinesAreRecognised(t *testing.T) {
	check := func(data string, want protocols.Match) {
		t.Helper()
		if got := detectRequest([]byte(data)); got != want {
			t.Errorf("%.60q: %d, want %d", data, got, want)
		}
	}
	const no, more, yes = protocols.No, protocols.More, protocols.Yes
	check("", more)
	check("\r\n\r\n", more)
	check("\r\nGET / HTTP/1.1\r\n", yes)
	check("GET / HTTP/1.1\r\n", yes)
	check("GET / HTTP/1.1\n", yes)
	check("get / HTTP/1.0\r\n", yes)
	check("GET\t/\vHTTP/1.1\r\n", yes)
	check("BREW /pot HTTP/1.1\r\n", yes)
	check("brew /pot HTTP/1.1\r\n", yes)
	check("brew HTTP/1.1\r\n", no)
	check("BREW HTTP/1.1\r\n", yes)
	check("BREW /a b HTTP/1.1\r\n", yes)
	check("brew /a b HTTP/1.1\r\n", no)
	check("BR /a HTTP/1.x\r\n", no)
	check("BRE /a HTTP/1.x\r\n", yes)
	check("BR3 /a HTTP/1.x\r\n", no)
	check("get /a HTTP/1.x\r\n", yes)
	check("GET /a HTTP/0.9\r\n", yes)
	check("BREW /a HTTP/0.9\r\n", no)
	check("GET /a HTTP/2.0\r\n", yes)
	check("GET /a HTTP/3.7\r\n", yes)
	check("GET /a HTTP/x\r\n", more)
	check("BREW /a HTTP/2.0\r\n", no)
	check("PRI * HTTP/2.0\r\n", no)
	check("GET /a HTTQ/1.1\r\n", more)
	check("GET /a http/1.1\r\n", more)
	check("GET /a b c\r\n", no)
	check("GET / x\r\n", more)
	check("GET /  x\r\n", more)
	check("GET a b\r\n", no)
	check("get /a b\r\n", no)
	check("BREW /a b\r\n", no)
	check("OPTIONS sip:a SIP/2.0\r\n", no)
	check("OPTIONS rtsp://a RTSP/1.0\r\n", no)
	check("GET /\r\n", more)
	check("GET /\r\n\r\n", yes)
	check("GET /\n\n", yes)
	check("GET /\r\nx", more)
	check("get /\r\n", no)
	check("GET http://x/\r\n", more)
	check("GET x\r\n", no)
	check("BREW /\r\n", no)
	check("GET", more)
	check("G", more)
	check("BREW", more)
	check("GET\r", more)
	check("BREW\r", no)
	check("GET\r\n", more)
	check("get\r\n", no)
	check("BREW\r\n", no)
	check("G\x01", no)
	check("(", no)
	check(" GET / HTTP/1.1\r\n", no)
	check("GET /a\x01 HTTP/1.1\r\n", yes)
	check("BREW /a\x01 HTTP/1.1\r\n", no)
	check("BREW /a", more)
	check("GET "+strings.Repeat(" ", maxRequestLine), more)
	check("GET "+strings.Repeat("a", maxRequestLine), more)
	check("GET http://"+strings.Repeat("a", maxRequestLine), yes)
	check("GET /"+strings.Repeat("a", maxRequestLine-2), more)
	check("GET /"+strings.Repeat("a", maxRequestLine-1), yes)
	check("GET /\x01"+strings.Repeat("a", maxRequestLine-2), no)
	check("BREW /"+strings.Repeat("a", maxRequestLine-1), more)
	check(strings.Repeat("M", maxRequestLine+1), more)
	check(strings.Repeat("M", maxRequestLine+1)+" / HTTP/1.1\r\n", yes)
	check(strings.Repeat("M", maxRequestLine+1)+"(", more) // no more than that is looked at
	check("("+strings.Repeat("M", maxRequestLine+1), no)

	whole := func(data string, want bool) {
		t.Helper()
		if got := detectWhole([]byte(data)); got != want {
			t.Errorf("%q is a whole request: %t", data, got)
		}
	}
	whole("GET /\r\n", true)
	whole("\r\nGET /\n", true)
	whole("GET / \r\n", true)
	whole("GET /\r\nx", false)
	whole("GET /", false)
	whole("get /\r\n", false)
	whole("GET / HTTP/1.1\r\n", false)
	whole("GET\r\n", false)
	whole(" /\r\n", false)

	version := func(line string, one, other bool) {
		t.Helper()
		if hasVersion([]byte(line)) != one || hasOtherVersion([]byte(line)) != other {
			t.Errorf("%q has a version: %t, %t", line, hasVersion([]byte(line)), hasOtherVersion([]byte(line)))
		}
	}
	version("HTTP/1.1", true, true)
	version("/ HTTP/1.0 ", true, false)
	version("/HTTP/1.1", false, false)
	version("/ HTTP/1.x", false, true)
	version("/ HTTP/2.0", false, true)
	version("/ HTTP/x", false, false)
	version("/ HTTP/", false, false)
	version("TTP/1.1", false, false)
	version("/ HTTP/0.9", false, true)
	version("HTTP/01.1", false, true)
	version("/ HTTP/0.9 x", false, false)

	for target, want := range map[string]bool{"": false, "/": true, "/a b": false, "x": false, "http://x": true, "://x": false, "/a\xa0b": false} {
		if got := isTarget([]byte(target)); got != want {
			t.Errorf("%q is a target: %t", target, got)
		}
	}
	for url, want := range map[string]int{
		"http://x": 7, "a://": 4, "://x": 0, "http:/x": 0, "abcdefghijk://x": 14, "abcdefghijkl://x": 0, "ht1p://x": 0, "HTTP://x": 7, "http": 0, "": 0,
	} {
		if got := schemeEnd(url); got != want {
			t.Errorf("%q: the authority begins at %d, want %d", url, got, want)
		}
	}
	for _, method := range methods {
		lower := strings.ToLower(method)
		if !isKnownMethod([]byte(method)) || !isKnownMethod([]byte(lower)) || isKnownMethod([]byte(method[1:])) || isKnownMethod([]byte(method+"X")) {
			t.Errorf("%s", method)
		}
		if got, want := hasNoContent(method), strings.Contains(" GET HEAD DELETE OPTIONS TRACE ", " "+method+" "); got != want {
			t.Errorf("%s has no content: %t", method, got)
		}
	}
}

// TestStatusLinesAreRecognised, up to their version and code.
func TestStatusLinesAreRecognised(t *testing.T) {
	const whole = "\r\nHTTP/1.1 200 OK\r\n"
	for size := range len(whole) {
		want := protocols.More
		if size > 2+12 {
			want = protocols.Yes
		}
		if got := detectResponse([]byte(whole[:size])); got != want {
			t.Errorf("%q: %d", whole[:size], got)
		}
		if size > 2 && size <= 2+12 {
			wrong := []byte(whole[:size])
			wrong[size-1] = '!'
			if got := detectResponse(wrong); got != protocols.No {
				t.Errorf("%q: %d", wrong, got)
			}
		}
	}
	for text, want := range map[string]protocols.Match{
		"HTTP/1.1 200\n": 2, "HTTP/1.1 200\r\n": 2, "HTTP/1.1 200\tOK": 2, "HTTP/1.1 2000": 0, "HTTP/1.9 999 ": 2, "HTTP/1./ 200 ": 0, "HTTP/1.: 200 ": 0,
	} {
		if got := detectResponse([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	line := func(text, version string, code uint32, phrase string) {
		t.Helper()
		if gotVersion, gotCode, gotPhrase := statusLine([]byte(text)); string(gotVersion) != version || gotCode != code || string(gotPhrase) != phrase {
			t.Errorf("%q: %q, %d, %q", text, gotVersion, gotCode, gotPhrase)
		}
	}
	line("HTTP/1.1 200 OK", "1.1", 200, "OK")
	line("HTTP/1.1 404 Not Found ", "1.1", 404, "Not Found")
	line("HTTP/1.1  204", "1.1", 204, "")
	line("HTTP/1.1 2x0 OK", "1.1", 2, "OK")
	line("HTTP/1.1 2000 OK", "1.1", 0, "OK")
	line("HTTP/1.1 x", "1.1", 0, "")
	line("HTTP/123456789 200", "12345678", 200, "")
	line("HTTP", "", 0, "")
	line("HTTP/1", "1", 0, "")
	sync := func(dir protocols.Dir, data string, skip int, want protocols.Match) {
		t.Helper()
		if got, match := resync(dir, []byte(data)); got != skip || match != want {
			t.Errorf("%.40q: %d, %d; want %d, %d", data, got, match, skip, want)
		}
	}
	sync(protocols.Server, "bodyHTTP/1.1 200 OK\r\n", 4, protocols.Yes)
	sync(protocols.Server, "HHTTP/1.1 200 OK\r\n", 1, protocols.Yes)
	sync(protocols.Server, "body HTT", 5, protocols.More)
	sync(protocols.Server, "body", 4, protocols.No)
	sync(protocols.Client, "bodyGET / HTTP/1.1\r\n", 4, protocols.Yes)
	sync(protocols.Client, "body\r\nGET / HTTP/1.1\r\n", 6, protocols.Yes)
	sync(protocols.Client, "GET x GET / HTTP/1.1\r\n", 6, protocols.Yes)
	sync(protocols.Client, "BREW /pot HTTP/1.1\r\n", 0, protocols.Yes)
	sync(protocols.Client, "a\nBREW /pot HTTP/1.1\r\n", 2, protocols.Yes)
	sync(protocols.Client, "/HTTP/1.1\nGET / HTTP/1.1\r\n", 10, protocols.Yes)
	sync(protocols.Client, "HTTP/1.1\nGET / HTTP/1.1\r\n", 9, protocols.Yes)
	sync(protocols.Client, "body\nGET /", 5, protocols.More)
	sync(protocols.Client, "", 0, protocols.More)
	sync(protocols.Client, strings.Repeat("x", maxRequestLine), 0, protocols.More)
	sync(protocols.Client, strings.Repeat("x", maxRequestLine+1), maxRequestLine+1-maxKnownMethod, protocols.More)
}

// TestHeadEndsWithAnEmptyLine, whose line breaks may lack or double the CR.
func TestHeadEndsWithAnEmptyLine(t *testing.T) {
	check := func(data string, from, end, next int) {
		t.Helper()
		if gotEnd, gotNext := headEnd([]byte(data), from); gotEnd != end || gotNext != next {
			t.Errorf("%q from %d: %d, %d; want %d, %d", data, from, gotEnd, gotNext, end, next)
		}
	}
	check("a\r\n\r\nb", 0, 5, 0)
	check("a\n\nb", 0, 3, 0)
	check("a\r\n\r\r\nb", 0, 6, 0)
	check("a\r\n\r\r\r\nb", 0, 0, 8)
	check("a\r\nb\r\n\r\n", 0, 8, 0)
	check("a\r\nb", 0, 0, 4)
	check("a\r\n", 0, 0, 2)
	check("a\r\n\r", 0, 0, 2)
	check("a\r\n\r\n", 2, 5, 0)
	check("a\r\n\rb\n\n", 0, 7, 0)

	line := func(data, want, rest string) {
		t.Helper()
		if got, left := cutLine([]byte(data)); string(got) != want || string(left) != rest {
			t.Errorf("%q: %q, %q", data, got, left)
		}
	}
	line("a b\r\nrest", "a b", "rest")
	line("a b\r", "a b\r", "")
	line("\nrest", "", "rest")

	request := func(data, method, target, version string) {
		t.Helper()
		gotMethod, gotTarget, gotVersion := requestLine([]byte(data))
		if string(gotMethod) != method || string(gotTarget) != target || string(gotVersion) != version {
			t.Errorf("%q: %q, %q, %q", data, gotMethod, gotTarget, gotVersion)
		}
	}
	request("GET / HTTP/1.1", "GET", "/", "1.1")
	request("GET /a b HTTP/1.1", "GET", "/a b", "1.1")
	request("GET /a\xa0 HTTP/1.1", "GET", "/a\xa0", "1.1")
	request("GET /a \xa0HTTP/1.1", "GET", "/a", "1.1")
	request("GET /a", "GET", "/a", "")
	request("GET HTTP/1.1", "GET", "", "1.1")
	request("GET", "GET", "", "")
	request("GET / HTTP/123456789", "GET", "/", "12345678")
	request("GET /a HTTPS", "GET", "/a", "HTTPS")
	request("GET /a HTTQ/1.1", "GET", "/a", "HTTQ/1.1")
	request("GET /a HTTQ/1.10", "GET", "/a HTTQ/1.10", "")
	request("BREW /a HTTPS", "BREW", "/a HTTPS", "")
	request(" / HTTP/1.1", "", "/", "1.1")

	cut := func(data, want string) {
		t.Helper()
		if got := string(withoutVersion([]byte(data))); got != want {
			t.Errorf("%q without a front of its version: %q", data, got)
		}
	}
	cut("GET /a HTTP/1.1", "GET /a")
	cut("GET /a HT", "GET /a")
	cut("GET /a ", "GET /a")
	cut("GET /a", "GET /a")
	cut("GET H", "GET H")
	cut("GET /a HTTP/1.1x", "GET /a HTTP/1.1x")
	cut("GET /a x", "GET /a x")

	target := func(data string, want bool) {
		t.Helper()
		if got := hasTarget([]byte(data)); got != want {
			t.Errorf("%q has a target: %t", data, got)
		}
	}
	target("GET /", true)
	target("\r\nGET /", true)
	target("GET ", false)
	target("GET", false)
	target(" /", false)
	target("B / HTTP/1.1\r\n", true)
	target("B /", false)
	target("BREW /", false)
	target("BREW / HTTP/1.1\r\n", true)
	target("GET x\r\n", false)
	target("GET x HTTP/2.0\r\n", true)
	target("GET xHTTP/2.0\r\n", false)

	like := func(data string, want bool) {
		t.Helper()
		if got := looksLikeRequest([]byte(data)); got != want {
			t.Errorf("%q looks like a request: %t", data, got)
		}
	}
	like("GET x HTTP/2.0\r\n", true)
	like("GET HTTP/2.0\r\n", true)
	like("GET xHTTP/2.0\r\n", false)
	like("BREW x HTTP/2.0\r\n", false)
	like("GET x\r\n HTTP/2.0\r\n", false)
	like("HTTP/2.0", false)
	for text, want := range map[string]bool{"": true, "H": true, "HTTP/": true, "HTTP/9 what": true, "HTTX": false, "X": false} {
		if got := looksLikeResponse([]byte(text)); got != want {
			t.Errorf("%q looks like a response: %t", text, got)
		}
	}
}

// TestNumbersOfTheFraming: RFC 9112 section 7.1, RFC 9110 section 8.6, and int of Python.
func TestNumbersOfTheFraming(t *testing.T) {
	check := func(name string, parse func([]byte) (uint64, bool), text string, want uint64, ok bool) {
		t.Helper()
		if got, isNumber := parse([]byte(text)); isNumber != ok || ok && got != want {
			t.Errorf("%s %q: %d, %t", name, text, got, isNumber)
		}
	}
	check("hex", parseHex, "0", 0, true)
	check("hex", parseHex, "1aF", 0x1af, true)
	check("hex", parseHex, "ffffffffffffffff", 1<<64-1, true)
	check("hex", parseHex, "0ffffffffffffffff", 0, false)
	check("hex", parseHex, "f", 15, true)
	check("decimal", parseDecimal, "7", 7, true)
	for _, text := range []string{"", "g", "G", "@", "`", "/", ":", "1 "} {
		check("hex", parseHex, text, 0, false)
	}
	check("decimal", parseDecimal, "109", 109, true)
	check("decimal", parseDecimal, "999999999999999999", 999999999999999999, true)
	check("decimal", parseDecimal, "0999999999999999999", 0, false)
	for _, text := range []string{"", "/", ":", "+1", "1 "} {
		check("decimal", parseDecimal, text, 0, false)
	}
	check("Python", parsePythonInteger, "+1_000", 1000, true)
	check("Python", parsePythonInteger, "12", 12, true)
	check("Python", parsePythonInteger, "1234567890_12345678", 123456789012345678, true)
	check("Python", parsePythonInteger, "1234567890_123456789", 0, false)
	for _, text := range []string{"", "_1", "1_", "1__0", "++1", "-1", "x"} {
		check("Python", parsePythonInteger, text, 0, false)
	}
	for text, want := range map[string]string{"": "", " \t\r": "", " a b\r": "a b", "a": "a"} {
		if got := string(trim([]byte(text))); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
	if boolInt(true) != 1 || boolInt(false) != 0 {
		t.Error("one is true")
	}
}

// TestBodyMayBeginWithARequest, of any method that is followed by a target.
func TestBodyMayBeginWithARequest(t *testing.T) {
	check := func(data string, want bool) {
		t.Helper()
		if got := mayBeginRequest([]byte(data)); got != want {
			t.Errorf("%.40q: %t", data, got)
		}
	}
	check("GET / HTTP/1.1\r\n", true)
	check("\r\n\r\nGET /", true)
	check("BREW /pot", true)
	check("a=b&c=d", false)
	check("name", true)
	check("name\r", true)
	check("name\r\n", true)
	check("{", false)
	check(" GET", false)
	check("a(b c", false)
	check(strings.Repeat("a", maxWord-1), true)
	check(strings.Repeat("a", maxWord), false)
	check("a "+strings.Repeat("b", maxRequestLine-3), true)
	check("a "+strings.Repeat("b", maxRequestLine-2), false)
	check("GET "+strings.Repeat("b", maxRequestLine), true)
}

// opened returns a parser of a connection, and its events.
func opened(events *[]*pipeline.Event) (*parser, *protocols.Conn) {
	p := &parser{}
	protocol := Protocol
	protocol.New = func() protocols.Parser { return p }
	set := protocols.NewSet([]protocols.Protocol{protocol}, protocols.Default(), nil)
	return p, set.Open(protocols.Info{}, func(event *pipeline.Event) { *events = append(*events, event) })
}

// TestWaitingRequestsAreHeld with their texts, and released with their responses; beyond a bound the oldest is emitted.
func TestWaitingRequestsAreHeld(t *testing.T) {
	var events []*pipeline.Event
	p, conn := opened(&events)
	held := func(what string, waiting, texts int) {
		t.Helper()
		if got, want := p.Held(), waiting*protocols.EventBytes+texts; got != want {
			t.Errorf("%s: %d bytes are held, want %d", what, got, want)
		}
	}
	request, response := "GET /abc HTTP/1.1\r\nUser-Agent: agent\r\nReferer: re\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	conn.Data(protocols.Client, []byte(request), 1)
	held("a request", 1, 4+5+2)
	conn.Data(protocols.Server, []byte(response), 2)
	held("its response", 0, 0)
	for range maxWaiting {
		conn.Data(protocols.Client, []byte(request), 3)
	}
	held("as many as may wait", maxWaiting, maxWaiting*11)
	before := len(events)
	conn.Data(protocols.Client, []byte(request), 4)
	held("one more", maxWaiting, maxWaiting*11)
	if len(events) != before+1 || !events[before].Partial {
		t.Fatalf("%d events of the oldest", len(events)-before)
	}
	conn.Data(protocols.Server, []byte(response), 5) // to the oldest
	held("the response to the oldest", maxWaiting, maxWaiting*11)
	conn.Data(protocols.Server, []byte(response), 5)
	held("the response to the next one", maxWaiting-1, (maxWaiting-1)*11)
	conn.Gap(protocols.Server, 3, 6)
	conn.Data(protocols.Client, []byte(request), 7)
	held("responses were lost", 1, 11)
	if last := events[len(events)-1]; !last.Partial || len(p.free) != maxFree {
		t.Errorf("%v, %d exchanges are kept", last, len(p.free))
	}
	p.Reset(conn)
	held("a new connection", 0, 0)
	conn.Data(protocols.Client, []byte("GET / HTTP/1.1\r\nContent-Length: 60\r\n\r\nGET /inner HTTP/1.1\r\n\r\n"), 8)
	held("a request and one in its body", 2, 1+6+cap(p.inner.pending))
	conn.Close(8)
	if p.conn != nil || p.textBytes != 0 || p.inner != nil {
		t.Errorf("%d bytes are held at the end", p.textBytes)
	}
}

// TestTrailersAndChunksAreBounded.
func TestTrailersAndChunksAreBounded(t *testing.T) {
	check := func(what, body string, complete bool) {
		t.Helper()
		var events []*pipeline.Event
		_, conn := opened(&events)
		conn.Data(protocols.Client, []byte("GET / HTTP/1.1\r\n\r\n"), 1)
		conn.Data(protocols.Server, []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+body), 2)
		if (len(events) == 1 && !events[0].Partial) != complete {
			t.Errorf("%s: %d events", what, len(events))
		}
		conn.Close(3)
	}
	check("a body", "3\r\nabc\r\n0\r\n\r\n", true)
	check("line feeds", "3\nabc\n0\n\n", true)
	check("an extension", "3;a=b\r\nabc\r\n0\r\n\r\n", true)
	check("a long extension", "3;"+strings.Repeat("a", maxLine-3)+"\nabc\r\n0\r\n\r\n", true)
	check("a longer one", "3;"+strings.Repeat("a", maxLine-2)+"\nabc\r\n0\r\n\r\n", false)
	check("no number", "x\r\nabc\r\n0\r\n\r\n", false)
	check("no end of a chunk", "3\r\nabcd\r\n0\r\n\r\n", false)
	check("half an end of a chunk", "3\r\nabc\rx0\r\n\r\n", false)
	check("trailers", "0\r\na: b\r\nc: d\r\n\r\n", true)
	line := strings.Repeat("a", 1023) + "\n"
	check("long trailers", "0\r\n"+strings.Repeat(line, maxTrailer/1023)+strings.Repeat("a", maxTrailer%1023-1)+"\n\r\n", true)
	check("longer ones", "0\r\n"+strings.Repeat(line, maxTrailer/1023)+strings.Repeat("a", maxTrailer%1023+1)+"\n\r\n", false)
}
