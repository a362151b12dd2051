package feeds

import (
	"strings"
	"testing"
	"time"

	"tidegate/pipeline/lineartest"
)

// TestTagsOfAnObjectAreReadOnce: each tag costs no more than its own bytes, however many there are, also those that mean none.
func TestTagsOfAnObjectAreReadOnce(t *testing.T) {
	long := strings.Repeat("x", maxTagText-200)
	limit := lineartest.Default
	limit.BytesPerByte = 150 // of which the decoder takes half; with the tags that are there already it is 220
	for _, tag := range []string{`"None",`, `"null, None",`} {
		text := `[{"domain":"evil.example","tags":["first, second","` + long + `",` + strings.Repeat(tag, 2<<20/len(tag)) + `"last"]}]`
		limit.Check(t, len(text), func() {
			left := int64(maxFeedBytes)
			out := &list{name: "f", details: details{room: 1}}
			if err := out.newParser(1).read(strings.NewReader(text), &left); err != nil || out.index.count != 1 {
				t.Fatal(err)
			}
		})
	}
}

// TestTagsAreJoined: those of a list of texts, of MISP's objects and of one text, within their bound and without what means none.
func TestTagsAreJoined(t *testing.T) {
	check := func(tags, want string) {
		t.Helper()
		left := int64(maxFeedBytes)
		out := &list{name: "f", details: details{room: 1}}
		if err := out.newParser(1).read(strings.NewReader(`[{"domain":"evil.example",`+tags+`}]`), &left); err != nil {
			t.Fatal(err)
		}
		if got := out.details.all[0].tags; got != want {
			t.Errorf("%s: %q, want %q", tags, got, want)
		}
	}
	check(`"tags":["a","b, c","None","","d"]`, "a,b,c,d")
	check(`"tags":"a,b","threat":"x"`, "x,a,b")
	check(`"tags":[{"name":"a"},{"name":"b"}]`, "a,b")
	check(`"tags":["`+strings.Repeat("x", maxTagText)+`","b"]`, "b")
}

// TestLongNameInUnicodeIsRefusedAtOnce: punycode takes a time that is not linear, and no domain is so long.
func TestLongNameInUnicodeIsRefusedAtOnce(t *testing.T) {
	var name strings.Builder
	for char := rune(0x4e00); name.Len() < 100<<10; char++ {
		name.WriteRune(char)
	}
	name.WriteString(".example")
	for _, kind := range []kind{kindAny, kindHost, kindURL} {
		limit := lineartest.Limit{Time: 100 * time.Millisecond, Bytes: 4 << 20}
		limit.Check(t, 0, func() {
			parser := (&list{details: details{room: 1}}).newParser(1)
			text := name.String()
			if kind == kindURL {
				text = "http://" + text + "/x"
			}
			if err := parser.addKind(kind, []byte(text), detail{}); err == nil {
				t.Error("a name of 100 KiB is taken")
			}
		})
	}
}
