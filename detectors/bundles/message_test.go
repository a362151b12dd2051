package bundles

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"tidegate/detectors/feeds"
	"tidegate/pipeline/config"
	"tidegate/pipeline/lineartest"
)

const testTopic = "tidegate.bundles"

// newKey returns a new key and the list of its public key.
func newKey(t testing.TB) (ed25519.PrivateKey, []ed25519.PublicKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return private, []ed25519.PublicKey{public}
}

// packFiles returns the contents with rule files.
func packFiles(t testing.TB, files map[string]string) *Contents {
	t.Helper()
	folder := fstest.MapFS{}
	for name, text := range files {
		folder[name] = &fstest.MapFile{Data: []byte(text)}
	}
	contents, err := Pack(Selection{Rules: folder})
	if err != nil {
		t.Fatal(err)
	}
	return contents
}

// sealFiles returns a signed message.
func sealFiles(t testing.TB, key ed25519.PrivateKey, sequence int64, files map[string]string) []byte {
	t.Helper()
	message, err := Seal(key, Manifest{Topic: testTopic, Sequence: sequence, Pushed: time.UnixMilli(sequence).UTC()}, packFiles(t, files))
	if err != nil {
		t.Fatal(err)
	}
	return message
}

// expectReason requires a Refusal with this reason, whose text contains text.
func expectReason(t *testing.T, err error, reason Reason, text string) {
	t.Helper()
	refusal, ok := errors.AsType[*Refusal](err)
	if !ok || refusal.Reason != reason || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %s: …%s…", err, reason, text)
	}
}

// TestBundleHasTheFilesThatWerePacked: hidden files are left out, and the same files are the same bytes.
func TestBundleHasTheFilesThatWerePacked(t *testing.T) {
	key, keys := newKey(t)
	files := map[string]string{"a.yaml": "a", "sub/b.yml": "b", "lists/names.txt": "n", ".git/config": "x", ".hidden.yaml": "x"}
	dir := t.TempDir()
	feed := filepath.Join(dir, "evil.txt")
	if err := os.WriteFile(feed, []byte("evil.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	folder := fstest.MapFS{}
	for name, text := range files {
		folder[name] = &fstest.MapFile{Data: []byte(text), ModTime: time.Now()}
	}
	contents, err := Pack(Selection{Rules: folder, Feeds: []feeds.Config{{Name: "evil", Path: feed, Severity: "low", LossGrace: time.Minute}}})
	if err != nil {
		t.Fatal(err)
	}
	message, err := Seal(key, Manifest{Topic: testTopic, Sequence: 7, Comment: "c", By: "me"}, contents)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := Open(message, keys, testTopic)
	if err != nil {
		t.Fatal(err)
	}
	if bundle.Sequence != 7 || bundle.Comment != "c" || bundle.By != "me" || bundle.Name() != contents.Name() || !bundle.Key.Equal(keys[0]) {
		t.Errorf("manifest %+v", bundle.Manifest)
	}
	var names []string
	_ = fs.WalkDir(bundle.Rules(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			t.Error(err)
		} else if !entry.IsDir() {
			names = append(names, name)
			if text, err := fs.ReadFile(bundle.Rules(), name); err != nil || string(text) != files[name] {
				t.Errorf("%s is %q, %v", name, text, err)
			}
		}
		return nil
	})
	if got := strings.Join(names, " "); got != "a.yaml lists/names.txt sub/b.yml" || bundle.RuleFiles() != 3 {
		t.Errorf("files %s", got)
	}
	if len(bundle.Feeds) != 1 || bundle.Feeds[0].Settings != (feeds.Config{Name: "evil", Severity: "low", LossGrace: time.Minute}) {
		t.Fatalf("feeds %+v", bundle.Feeds)
	}
	written, err := bundle.WriteFeeds(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(written[0].Path); err != nil || string(data) != "evil.example\n" {
		t.Errorf("feed %q, %v", data, err)
	}
	if again := packFiles(t, map[string]string{"a.yaml": "a"}); again.sum() != packFiles(t, map[string]string{"a.yaml": "a"}).sum() {
		t.Error("the same files are not the same bytes")
	}
}

// TestChangedMessagesAreRefused: no byte of a message can be changed, and neither the key nor the topic.
func TestChangedMessagesAreRefused(t *testing.T) {
	key, keys := newKey(t)
	message := sealFiles(t, key, 1, map[string]string{"a.yaml": "rules: []"})
	if _, err := Open(message, keys, testTopic); err != nil {
		t.Fatal(err)
	}
	for at := range message {
		changed := bytes.Clone(message)
		changed[at] ^= 1
		if _, err := Open(changed, keys, testTopic); err == nil {
			t.Fatalf("byte %d was changed, and the message accepted", at)
		} else if reason, _ := refusalOf(err); reason != ReasonSignature && reason != ReasonFormat {
			t.Fatalf("byte %d: %v", at, err)
		}
	}
	for length := range message {
		if _, err := Open(message[:length], keys, testTopic); err == nil {
			t.Fatalf("the first %d bytes are accepted", length)
		}
	}
	_, err := Open(append(bytes.Clone(message), 0), keys, testTopic)
	expectReason(t, err, ReasonSignature, "none of the keys has signed it")
	_, other := newKey(t)
	_, err = Open(message, other, testTopic)
	expectReason(t, err, ReasonSignature, "none of the keys has signed it")
	_, err = Open(message, nil, testTopic)
	expectReason(t, err, ReasonSignature, "none of the keys has signed it")
	_, err = Open(message, keys, "other.bundles")
	expectReason(t, err, ReasonSignature, `it is signed for the topic "tidegate.bundles"`)
	if _, err := Open(message, append(other, keys...), testTopic); err != nil {
		t.Errorf("the second of two keys: %v", err)
	}

	// A signature over the same bytes for another purpose is none of a bundle.
	plain := append([]byte(magic), ed25519.Sign(key, message[headerSize:])...)
	_, err = Open(append(plain, message[headerSize:]...), keys, testTopic)
	expectReason(t, err, ReasonSignature, "none of the keys has signed it")
	_, err = Open(make([]byte, MaxMessage+1), keys, testTopic)
	expectReason(t, err, ReasonTooLarge, "at most")
}

// signContents returns a message that is signed, whatever its contents are.
func signContents(t testing.TB, key ed25519.PrivateKey, manifest Manifest, archive []byte) []byte {
	t.Helper()
	contents := &Contents{data: archive}
	message, err := Seal(key, manifest, contents)
	if err != nil {
		t.Fatal(err)
	}
	return message
}

// archive returns a zip archive with one file for each name.
func archive(t testing.TB, names ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	writer := zip.NewWriter(&out)
	for _, name := range names {
		method := zip.Store
		if name == "rules/deflated" {
			method = zip.Deflate
		}
		file, err := writer.CreateHeader(&zip.FileHeader{Name: name, Method: method})
		if err == nil && !strings.HasSuffix(name, "/") {
			_, err = file.Write([]byte(strings.Repeat("x", 100)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestContentsAreBounded: also a bundle that is signed has no file outside of its folders, and none that is too large.
func TestContentsAreBounded(t *testing.T) {
	key, keys := newKey(t)
	open := func(data []byte) error {
		_, err := Open(signContents(t, key, Manifest{Topic: testTopic, Sequence: 1}, data), keys, testTopic)
		return err
	}
	if err := open(archive(t, "rules/a.yaml", "rules/b/c.yaml", "feeds/a", "feeds/b/c", "sigma/a")); err != nil {
		t.Error(err)
	}
	for _, name := range []string{
		"../a.yaml", "/a.yaml", "rules/../a.yaml", "rules/./a", "rules//a", "rules/.a", "rules/b/.c/d", "other/a", "a", "rules", "rules/", "sigma/", "feeds/a/.b",
		"rules/a\\b", "rules/c:d", "rules/a\x00", "rules/a\nb", "rules/" + strings.Repeat("n", 255), "rules" + strings.Repeat("/d", 20), "",
	} {
		expectReason(t, open(archive(t, name)), ReasonContents, "")
	}
	expectReason(t, open(archive(t, "rules/a", "rules/a")), ReasonContents, "occurs twice")
	expectReason(t, open(archive(t, "rules/a", "rules/a/b")), ReasonContents, "a file and a folder")
	expectReason(t, open(archive(t, "rules/a/b", "rules/a")), ReasonContents, "occurs twice")
	expectReason(t, open(archive(t, "rules/deflated")), ReasonContents, "is compressed")
	expectReason(t, open(archive(t)), ReasonContents, "is empty")
	expectReason(t, open([]byte("no archive")), ReasonContents, "read the contents")
	var many []string
	for i := range maxFiles + 1 {
		many = append(many, "rules/"+strings.Repeat("a", i%200+1)+string(rune('a'+i/200)))
	}
	expectReason(t, open(archive(t, many...)), ReasonTooLarge, "more than 4000 files")
	expectReason(t, open(make([]byte, maxContents+1)), ReasonTooLarge, "more than")

	// A file whose checksum is wrong.
	damaged := archive(t, "rules/a.yaml")
	damaged[bytes.Index(damaged, []byte("xxxx"))] = 'y'
	expectReason(t, open(damaged), ReasonContents, "checksum")

	// Settings of feeds.
	for text, want := range map[string]string{
		`[{"file":"a","settings":{"Name":"n","Unknown":1}}]`:                                        "unknown field",
		`[{"file":"../a","settings":{"Name":"n"}}]`:                                                 "has no file",
		`[{"file":"b","settings":{"Name":"n"}}]`:                                                    "has no file",
		`[{"file":"a","settings":{"Name":"n","Path":"/etc/passwd"}}]`:                               "or a path",
		`[{"file":"a","settings":{"Name":"n"}},{"file":"a","settings":{"Name":"n"}}]`:               "a name twice",
		"[" + strings.Repeat(`{"file":"a","settings":{"Name":"n"}},`, maxFeeds+1) + `{"file":"a"}]`: "feeds",
	} {
		var packed packer
		packed.zip = zip.NewWriter(&packed.out)
		err := errors.Join(packed.add("feeds/a", []byte("x")), packed.add(feedSettings, []byte(text)), packed.zip.Close())
		if err != nil {
			t.Fatal(err)
		}
		err = open(packed.out.Bytes())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %s", text, err, want)
		}
	}
}

// TestManifestMustNameTheContents: a signed manifest with other contents is refused.
func TestManifestMustNameTheContents(t *testing.T) {
	key, keys := newKey(t)
	sign := func(manifest Manifest, data []byte) []byte {
		text, _ := json.Marshal(manifest)
		var signed bytes.Buffer
		signed.Write(binary.BigEndian.AppendUint32(nil, uint32(len(text))))
		signed.Write(text)
		compressor := gzip.NewWriter(&signed)
		_, _ = compressor.Write(data)
		_ = compressor.Close()
		message := append([]byte(magic), ed25519.Sign(key, toSign(signed.Bytes()))...)
		return append(message, signed.Bytes()...)
	}
	data := archive(t, "rules/a.yaml")
	_, err := Open(sign(Manifest{Topic: testTopic, Sequence: 1, Contents: strings.Repeat("0", 64)}, data), keys, testTopic)
	expectReason(t, err, ReasonContents, "and the manifest says")
	_, err = Open(sign(Manifest{Topic: testTopic, Sequence: 1}, data), keys, testTopic)
	expectReason(t, err, ReasonContents, "lacks")
	_, err = Open(sign(Manifest{Topic: testTopic, Contents: strings.Repeat("0", 64)}, data), keys, testTopic)
	expectReason(t, err, ReasonContents, "lacks")
	_, err = Open(sign(Manifest{Topic: testTopic, Sequence: 1, Comment: strings.Repeat("c", maxManifest)}, data), keys, testTopic)
	expectReason(t, err, ReasonContents, "the manifest has")
}

// TestSigmaRulesAndFeedsArePacked: a folder of Sigma rules, a feed that is a folder, and one that was downloaded, which is
// a feed of its file from then on. What a killed engine has left of a folder is removed.
func TestSigmaRulesAndFeedsArePacked(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("misp/a.json", "a.example\n")
	write("misp/sub/b.txt", "b.example\n")
	write("misp/.hidden", "c.example\n")
	write("downloaded.feed", "d.example\n")
	contents, err := Pack(Selection{
		Rules: fstest.MapFS{"r.yaml": {Data: []byte(ruleText("one"))}},
		Sigma: fstest.MapFS{"web/s.yml": {Data: []byte("title: t")}, ".git/x": {Data: []byte("x")}},
		Feeds: []feeds.Config{
			{Name: "folder", Path: filepath.Join(dir, "misp")},
			{
				Name: "downloaded", Path: filepath.Join(dir, "downloaded.feed"), URL: "https://feeds.example/secret", Interval: time.Hour, Timeout: time.Minute,
				MaxSize: 1 << 20, MaxUnpackedSize: 1 << 20, TLS: config.TLS{CAFile: "ca.pem"}, Severity: "low",
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	key, keys := newKey(t)
	message, err := Seal(key, Manifest{Topic: testTopic, Sequence: 1}, contents)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := Open(message, keys, testTopic)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := fs.ReadFile(bundle.Sigma(), "web/s.yml"); err != nil || string(text) != "title: t" || bundle.SigmaFiles() != 1 || bundle.RuleFiles() != 1 {
		t.Errorf("%q, %v, %d files of Sigma, %d of rules", text, err, bundle.SigmaFiles(), bundle.RuleFiles())
	}
	if packFiles(t, map[string]string{"a.yaml": "a"}).Sigma() != nil {
		t.Error("a bundle without Sigma rules has a folder of them")
	}
	if got := bundle.Feeds[1].Settings; got != (feeds.Config{Name: "downloaded", Severity: "low"}) {
		t.Errorf("settings %+v", got)
	}
	target := t.TempDir()
	left := filepath.Join(target, "0-misp", "a.json.tmp-1")
	if err := errors.Join(os.MkdirAll(filepath.Dir(left), 0o700), os.WriteFile(left, []byte("cut.exa"), 0o600)); err != nil {
		t.Fatal(err)
	}
	list, err := bundle.WriteFeeds(target)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a file that is not in the bundle is left", err)
	}
	set, _, err := feeds.Load(t.Context(), list)
	if err != nil || set.Len() != 3 {
		t.Errorf("%d indicators, %v", set.Len(), err)
	}
	files, err := bundle.Files()
	var names []string
	for _, file := range files {
		names = append(names, file.Name)
	}
	want := "feeds.json feeds/0-misp/a.json feeds/0-misp/sub/b.txt feeds/1-downloaded.feed rules/r.yaml sigma/web/s.yml"
	if got := strings.Join(names, " "); got != want || err != nil {
		t.Errorf("files %s, %v", got, err)
	}
	if files[3].Size != 10 || files[3].SHA256 != "7756b1f774d4ee4428c184713ebfd387047e64f2d8fe8c5812c77ededd108076" { // printf 'd.example\n' | sha256sum
		t.Errorf("%+v", files[3])
	}
}

// TestPackRefuses: what does not fit, and a private key that lies in the folder.
func TestPackRefuses(t *testing.T) {
	private, _, err := NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	_, err = Pack(Selection{Rules: fstest.MapFS{"a.yaml": {Data: []byte("x")}, "rules.key": {Data: private}}})
	if err == nil || !strings.Contains(err.Error(), "rules/rules.key holds a private key") {
		t.Error(err)
	}
	_, err = Pack(Selection{Rules: fstest.MapFS{"a.yaml": {Data: make([]byte, maxContents+1)}}})
	expectReason(t, err, ReasonTooLarge, "give engines large lists as feeds of their own")
	_, err = Pack(Selection{Rules: fstest.MapFS{"a\\b.yaml": {Data: []byte("x")}}})
	expectReason(t, err, ReasonContents, "is no name")
	_, err = Pack(Selection{Rules: fstest.MapFS{}})
	expectReason(t, err, ReasonContents, "is empty")
	if _, err = Pack(Selection{Rules: config.RegularFS(t.TempDir() + "/none")}); err == nil {
		t.Error("a folder that does not exist")
	}
	_, err = Pack(Selection{Rules: fstest.MapFS{"a.yaml": {Data: []byte("x")}}, Feeds: []feeds.Config{{Name: "f", Path: t.TempDir() + "/none"}}})
	if err == nil || !strings.Contains(err.Error(), "pack the feed f: ") {
		t.Error(err)
	}

	// Bytes that cannot be compressed.
	key, _ := newKey(t)
	random := make([]byte, MaxMessage+1)
	for state, i := uint64(1), 0; i < len(random); i++ {
		state = state*6364136223846793005 + 1442695040888963407
		random[i] = byte(state >> 56)
	}
	contents, err := Pack(Selection{Rules: fstest.MapFS{"list.txt": {Data: random}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Seal(key, Manifest{Topic: testTopic, Sequence: 1}, contents)
	expectReason(t, err, ReasonTooLarge, "at most 4194304 are sent")
}

// TestKeysOfOpenSSL: keys and signatures are the ones of openssl, in both directions.
func TestKeysOfOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("openssl is not installed; deploy/setup-test.sh installs it")
	}
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %v: %v: %s", args, err, out)
		}
	}
	write := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}

	// A key of openssl signs here, and openssl verifies.
	run("genpkey", "-algorithm", "ed25519", "-out", "key.pem")
	run("pkey", "-in", "key.pem", "-pubout", "-out", "public.pem")
	if err := os.Chmod(filepath.Join(dir, "key.pem"), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := ReadPrivateKey(filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := ReadPublicKeys([]string{filepath.Join(dir, "public.pem")})
	if err != nil || !keys[0].Equal(PublicKey(key)) {
		t.Fatal(err, keys)
	}
	message := sealFiles(t, key, 1, map[string]string{"a.yaml": "x"})
	if _, err := Open(message, keys, testTopic); err != nil {
		t.Fatal(err)
	}
	write("signed", toSign(message[headerSize:]))
	write("signature", message[len(magic):headerSize])
	run("pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin", "-in", "signed", "-sigfile", "signature")

	// A key from here signs with openssl.
	private, public, err := NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	write("own.pem", private)
	own, err := ReadPublicKeys([]string{write("own.pub", public)})
	if err != nil {
		t.Fatal(err)
	}
	run("pkeyutl", "-sign", "-inkey", "own.pem", "-rawin", "-in", "signed", "-out", "signature2")
	signature, err := os.ReadFile(filepath.Join(dir, "signature2"))
	if err != nil {
		t.Fatal(err)
	}
	resigned := append(append([]byte(magic), signature...), message[headerSize:]...)
	if _, err := Open(resigned, own, testTopic); err != nil {
		t.Error(err)
	}

	// What is no ed25519 key.
	run("genpkey", "-algorithm", "x25519", "-out", "x.pem")
	_ = os.Chmod(filepath.Join(dir, "x.pem"), 0o600)
	expectError := func(err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	_, err = ReadPrivateKey(filepath.Join(dir, "x.pem"))
	expectError(err, "it is not an ed25519 key")
	_, err = ReadPrivateKey(filepath.Join(dir, "own.pub"))
	expectError(err, `it holds "PUBLIC KEY", want "PRIVATE KEY"`)
	_, err = ReadPublicKeys([]string{filepath.Join(dir, "own.pem")})
	expectError(err, `it holds "PRIVATE KEY", want "PUBLIC KEY"`)
	_, err = ReadPublicKeys([]string{write("two", append(bytes.Clone(public), public...))})
	expectError(err, "it holds more than one key")
	_, err = ReadPublicKeys([]string{write("text", []byte("hello"))})
	expectError(err, "it is not PEM")
	if err := os.Chmod(filepath.Join(dir, "own.pem"), 0o640); err != nil {
		t.Fatal(err)
	}
	_, err = ReadPrivateKey(filepath.Join(dir, "own.pem"))
	expectError(err, "has the mode 0640, so others may read it: chmod 600 ")
}

// FuzzOpen signs what the fuzzer writes, so that it reaches the parsers behind the signature. Whatever is accepted is
// within the bounds.
func FuzzOpen(f *testing.F) {
	key, keys := newKey(f)
	good := sealFiles(f, key, 1, map[string]string{"a.yaml": "rules: []", "b/c.txt": "list"})
	f.Add(good[headerSize:], true)
	f.Add(good, false)
	f.Add(archive(f, "rules/../x"), false)
	f.Fuzz(func(t *testing.T, data []byte, sign bool) {
		lineartest.Default.Check(t, len(data), func() {
			message := data
			if sign {
				message = append(append([]byte(magic), ed25519.Sign(key, toSign(data))...), data...)
			}
			bundle, err := Open(message, keys, testTopic)
			if err != nil {
				if _, ok := errors.AsType[*Refusal](err); !ok {
					t.Fatalf("%v is no Refusal", err)
				}
				return
			}
			for _, file := range bundle.files.File {
				if !isValidName(file.Name) || file.UncompressedSize64 > maxContents {
					t.Fatalf("%q of %d bytes", file.Name, file.UncompressedSize64)
				}
			}
		})
	})
}

// FuzzContents parses archives.
func FuzzContents(f *testing.F) {
	f.Add(packFiles(f, map[string]string{"a.yaml": "rules: []", "b/c.txt": "list"}).data)
	f.Add(archive(f, "rules/a", "feeds/b", "rules/deflated"))
	f.Fuzz(func(t *testing.T, data []byte) {
		lineartest.CheckRepeated(t, lineartest.Default, data, func(data []byte) { _, _ = parseContents(data) })
	})
}

// FuzzReport parses reports of engines, which anyone may write who may write to the topic.
func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"engine":"a","bundle":"b","refused":{"error":"x"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		lineartest.CheckRepeated(t, lineartest.Default, data, func(data []byte) { _, _ = parseReport(data) })
	})
}
