package redact

import "testing"

// TestSecretsInURLsAreRedacted: the cases are the places of a URL in which secrets stand, and URLs that look
// similar and hold none.
func TestSecretsInURLsAreRedacted(t *testing.T) {
	var redactor Redactor
	check := func(in, want string) {
		t.Helper()
		got, hidden := redactor.URL([]byte(in))
		if string(got) != want || hidden != (in != want) {
			t.Errorf("%s became %s %t, want %s", in, got, hidden, want)
		}
	}
	check("/", "/")
	check("/?a=b", "/?a=b")
	check("/?password=x&a=b", "/?password=REDACTED&a=b")
	check("/?PassWord=x;y", "/?PassWord=REDACTED")
	check("/?user[password]=x&b=c", "/?user[password]=REDACTED&b=c")
	check("/?user%5Bpassword%5D=x", "/?user%5Bpassword%5D=REDACTED")
	check("/?p%61ssword=x", "/?p%61ssword=REDACTED")
	check("/?X-Amz-Signature=x&api_key=y&access-token=z", "/?X-Amz-Signature=REDACTED&api_key=REDACTED&access-token=REDACTED")
	check("/?password=a%26b=c", "/?password=REDACTED")
	check("/?next=%2Fcb%3Ftoken%3Dabc%26x%3D1&y=2", "/?next=%2Fcb%3Ftoken%3DREDACTED%26x%3D1&y=2")
	check("/?u=http://h/?code=1&b=2", "/?u=http://h/?code=REDACTED&b=2")
	check("/a;jsessionid=123/b?c=d", "/a;jsessionid=REDACTED/b?c=d")
	check("http://u:p@h/x", "http://REDACTED@h/x")
	check("http://u:p@w@h/x", "http://REDACTED@h/x")
	check("/?u=https%3A%2F%2Fu%3Ap%40h%2F", "/?u=https%3A%2F%2FREDACTED%40h%2F")
	check("/mail?to=a@b.c", "/mail?to=a@b.c")
	check("/#access_token=abc", "/#access_token=REDACTED")
	check("/?password=", "/?password=")
	check("/?keyboard=x&monkey=y&tokenize=z", "/?keyboard=x&monkey=y&tokenize=z")
	check("/?a=%zz%&token=%", "/?a=%zz%&token=REDACTED")
}
