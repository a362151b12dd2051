package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "rewrite the generated files")

const repoRoot = "../.."

// TestConfigReferenceIsNotStale: docs/CONFIG.md says what the Config structs and their comments say, and every key has a sentence.
func TestConfigReferenceIsNotStale(t *testing.T) {
	t.Setenv("TIDEGATE_STATE", "")
	r := &reference{t: t, files: map[string]map[string]*ast.StructType{}, used: map[string]bool{}}
	want := r.write()
	for key := range sentences {
		if !r.used[key] {
			t.Errorf("sentences has %s, which is not a key", key)
		}
	}
	name := filepath.Join(repoRoot, "docs", "CONFIG.md")
	if *update {
		if err := os.WriteFile(name, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/CONFIG.md is stale: make golden")
	}
}

// A reference writes docs/CONFIG.md from the type of Config, its defaults, and the comments in the source.
type reference struct {
	t     *testing.T
	out   bytes.Buffer
	files map[string]map[string]*ast.StructType // by folder of a package: its structs
	used  map[string]bool                       // of sentences
}

const referenceHead = "# Configuration\n\n" +
	"Generated from the Config structs and their comments (`make golden`); a test fails when it is stale.\n\n" +
	"One YAML file, `/etc/tidegate/tidegate.yaml` or what `--config` names, is decoded over the defaults below. It is read strictly: a key that is\n" +
	"not here is an error that names file, line and the nearest key, and every problem is told, not the first. `tidegate doctor --config FILE` checks\n" +
	"it without starting anything. An empty file is a valid one; [tidegate.example.yaml](../deploy/tidegate.example.yaml) is one for a cluster.\n\n" +
	"Durations are written `150ms`, `10s`, `48h`; sizes are whole numbers of bytes.\n\n" +
	"`TIDEGATE_STATE` in the environment replaces the default of `state`; `--state` and `--listen` replace what the file says. `TIDEGATE_CACHE` is the\n" +
	"folder in which `deploy/fetch-libchdb.sh` keeps the embedded ClickHouse.\n"

func (r *reference) write() []byte {
	r.out.WriteString(referenceHead)
	c := defaultConfig()
	r.section("", reflect.ValueOf(c))
	return r.out.Bytes()
}

// section writes a table of the plain keys of a struct, and then a section for each that is a struct itself.
func (r *reference) section(prefix string, v reflect.Value) {
	title := "At the top"
	if prefix != "" {
		title = "`" + prefix + "`"
	}
	if prefix != "embedded" { // it has no keys of its own
		fmt.Fprintf(&r.out, "\n## %s\n", title)
	}
	if intro := intros[prefix]; intro != "" {
		fmt.Fprintf(&r.out, "\n%s\n", intro)
	}
	head := false
	type part struct {
		key string
		v   reflect.Value
	}
	var parts []part
	r.fields(prefix, v, func(key, comment string, f reflect.Value) {
		if f.Kind() == reflect.Struct {
			parts = append(parts, part{key, f})
			return
		}
		if !head {
			head = true
			r.out.WriteString("\n| key | type | default | meaning |\n|---|---|---|---|\n")
		}
		fmt.Fprintf(&r.out, "| `%s` | %s | %s | %s |\n", key, kindOf(f.Type()), defaultOf(key, f), r.sentence(key, comment))
		if f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Struct {
			parts = append(parts, part{key + "[]", reflect.New(f.Type().Elem()).Elem()})
		}
	})
	for _, p := range parts {
		r.section(p.key, p.v)
	}
}

// fields calls each with every key of a struct, those of inlined ones included.
func (r *reference) fields(prefix string, v reflect.Value, each func(key, comment string, f reflect.Value)) {
	comments := r.comments(v.Type())
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case opts == "inline":
			r.fields(prefix, v.Field(i), each)
		default:
			each(strings.TrimPrefix(prefix+"."+name, "."), comments[f.Name], v.Field(i))
		}
	}
}

// comments reads what the source says of each field of a struct: behind it or before it. Fields without a blank line between them
// share the comment before the first.
func (r *reference) comments(typ reflect.Type) map[string]string {
	dir := filepath.Join(repoRoot, strings.TrimPrefix(strings.TrimPrefix(typ.PkgPath(), "tidegate"), "/"))
	if typ.PkgPath() == "main" || strings.HasSuffix(typ.PkgPath(), "cmd/tidegate") {
		dir = "."
	}
	if r.files[dir] == nil {
		r.files[dir] = structsOf(r.t, dir)
	}
	def := r.files[dir][typ.Name()]
	if def == nil {
		r.t.Fatalf("no struct %s in %s", typ.Name(), dir)
	}
	out := map[string]string{}
	shared := ""
	for _, f := range def.Fields.List {
		text := strings.TrimSpace(f.Comment.Text())
		if doc := strings.TrimSpace(f.Doc.Text()); doc != "" {
			text, shared = doc, doc
		} else if text == "" {
			text = shared
		}
		for _, n := range f.Names {
			out[n.Name] = strings.Join(strings.Fields(text), " ")
		}
	}
	return out
}

func structsOf(t *testing.T, dir string) map[string]*ast.StructType {
	t.Helper()
	out := map[string]*ast.StructType{}
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.TypeSpec); ok {
				if def, ok := s.Type.(*ast.StructType); ok {
					out[s.Name.Name] = def
				}
			}
			return true
		})
	}
	return out
}

// sentence is what sentences has for a key, or for its last word, else the comment made a sentence.
func (r *reference) sentence(key, comment string) string {
	last := key[strings.LastIndexByte(key, '.')+1:]
	for _, k := range []string{key, "*." + last} {
		if s := sentences[k]; s != "" && (k == key || comment == "" || comment == "or" || last == "token" || last == "secret") {
			r.used[k] = true
			return s
		}
	}
	if comment == "" {
		r.t.Errorf("%s has no comment in the source", key)
		return ""
	}
	s := goName.ReplaceAllString(comment, "") // "RingBytes is the size of each ring."
	if word, _, _ := strings.Cut(s, " "); !strings.ContainsAny(word, ".:/-_") {
		first, n := utf8.DecodeRuneInString(s)
		s = string(unicode.ToUpper(first)) + s[n:]
	}
	s = strings.TrimRight(strings.TrimSuffix(s, " or"), ",.") + "."
	return strings.ReplaceAll(s, "|", `\|`)
}

var goName = regexp.MustCompile(`^[A-Z][A-Za-z]* (is|are|says) `)

func kindOf(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "duration"
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Bool:
		return "true, false"
	case t.Kind() == reflect.Float64:
		return "number"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return "list, below"
	case t.Kind() == reflect.Slice:
		return "list"
	case t.Kind() == reflect.Map:
		return "map"
	}
	return "whole number"
}

func defaultOf(key string, v reflect.Value) string {
	switch {
	case v.Type() == reflect.TypeFor[time.Duration]():
		s := v.Interface().(time.Duration).String()
		s = strings.TrimSuffix(s, "0s")
		if strings.HasSuffix(s, "h0m") {
			s = strings.TrimSuffix(s, "0m")
		}
		if s == "" || !unicode.IsLetter(rune(s[len(s)-1])) {
			s += "0s"
		}
		return "`" + s + "`"
	case v.Kind() == reflect.String:
		if v.Len() == 0 {
			return `""`
		}
		return "`" + v.String() + "`"
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.String:
		return "`[" + strings.Join(v.Interface().([]string), ", ") + "]`"
	case v.Kind() == reflect.Slice:
		return "`[]`"
	case v.Kind() == reflect.Map:
		return "`{}`"
	case v.CanInt():
		return sized(key, v.Int())
	case v.CanUint():
		return sized(key, int64(v.Uint()))
	}
	return fmt.Sprintf("`%v`", v.Interface())
}

// ofBytes are the keys whose numbers are sizes.
var ofBytes = regexp.MustCompile(`bytes|buffer|memory|tail|detect|mid_stream|max_disk|max_log|ahead|line_max`)

func sized(key string, n int64) string {
	s := "`" + strconv.FormatInt(n, 10) + "`"
	if !ofBytes.MatchString(key) {
		return s
	}
	for _, u := range []struct {
		of   int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= 4<<10 && n%u.of == 0 {
			return fmt.Sprintf("%s (%d %s)", s, n/u.of, u.name)
		}
	}
	return s
}

// intros stand before the keys of a section.
var intros = map[string]string{
	"kafka": "Where `brokers` is empty the embedded broker is used, all partitions are this engine's, and the other keys do not count.",
	"clickhouse": "Where `addr` and `http_addr` are empty the embedded store is used; then only `ttl_days` and `alert_ttl_days` count.\n" +
		"`tidegate query` asks at `http_addr`, as `read_user` where there is one.",
	"embedded.broker": "The embedded Kafka-compatible broker. It listens on loopback, in the process of `run` or `run --only broker`.",
	"embedded.store":  "The embedded ClickHouse: libchdb in a process of its own, on loopback.",
	"capture":         "Packets, where this user may open packet sockets.",
	"sessions":        "Bounds are per worker; a worker has one table of sessions.",
	"logs":            "The json-file logs of dockerd.",
	"ship":            "From the collector to Kafka.",
	"rules":           "docs/RULES.md tells how to write one.",
	"feeds[]":         "docs/OPERATING.md tells the forms of a line.",
	"classifier":      "Generated domains, so far.",
	"engine.alerts":   "How verdicts are folded into alerts.",
}

// sentences are for keys whose comment in the source is not a sentence by itself, or is not there; *.word is for every such key.
var sentences = map[string]string{
	"state":                   "Folder of everything that outlives the process: identity, journal, spool, and the embedded broker's and store's data.",
	"kafka.topic":             "What the names of topics and consumer groups begin with.",
	"embedded.broker.dir":     "Set from `state`; what is written here does not count.",
	"embedded.store.dir":      "Set from `state`; what is written here does not count.",
	"embedded.store.tcp_port": "Native protocol, on 127.0.0.1; 0 is none: through it a client can abort the server ([ADR 7](adr/0007-no-native-port-on-the-embedded-store.md)).",
	"logs.enabled":            "Follow the logs of containers.",
	"classifier.enabled":      "Judge by the trained models.",
	"host":                    "`host.name` of every event; \"\" is the machine's name.",
	"cluster":                 "`orchestrator.cluster.name` of every event.",
	"kafka.assign":            "`group`: partitions are shared out by a consumer group. `static`: all are this engine's.",
	"clickhouse.protocol":     "`native` or `http`: what inserts and look-ups go by.",
	"clickhouse.database":     "Tidegate's alone; it is made when it is missing.",
	"clickhouse.username":     "A user who may create the database and its tables.",
	"clickhouse.read_user":    "A read-only user with limits, whom the engine makes at its start; \"\" makes none.",
	"embedded.store.library":  "libchdb.so; \"\" is where deploy/fetch-libchdb.sh puts it.",
	"embedded.store.program":  "tidegate-clickhouse, which loads it; \"\" is the one beside this program.",
	"embedded.store.max_log":  "Of its console, bytes; one older file of that size is kept.",
	"logs.start":              "`beginning`, or `end`: lines older than the collector's state are left out.",
	"sessions.session_buffer": "Bytes out of order that may wait in one session.",
	"sessions.buffer":         "Bytes out of order that may wait in all sessions of a worker.",
	"sessions.tcp_idle":       "Ends a connection that is silent.",
	"sessions.syn_timeout":    "Ends a connection that was never answered.",
	"sessions.udp_idle":       "Ends an exchange of datagrams that is silent.",
	"sessions.overlap":        "`first` or `last`: which bytes count where segments that wait overlap.",
	"ship.batch_events":       "A batch is cut at so many events.",
	"ship.batch_bytes":        "A batch is cut at so many encoded bytes.",
	"ship.linger":             "A batch is cut when its first event has waited so long.",
	"feeds[].confidence":      "0 to 100, of lines that say none; 0: 75.",
	"engine.group":            "Consumer group; \"\": `kafka.topic` and `-engine`.",
	"*.token":                 "Sent as `Authorization: Bearer`; or `token_file`.",
	"*.secret":                "Each request carries `X-Tidegate-Signature: sha256=` and the HMAC of its body; or `secret_file`.",
	"*.enabled":               "Encrypt.",
	"*.username":              "User name.",
	"*.password":              "The password; or `password_file`.",
	"*.read_password":         "Its password; or `read_password_file`.",
	"*.key_file":              "PEM: the key of `cert_file`.",
	"*.password_file":         "The file whose first line it is.",
	"*.token_file":            "The file whose first line it is.",
	"*.secret_file":           "The file whose first line it is.",
	"*.insecure_skip_verify":  "Believe every certificate: for tests only.",
	"*.url":                   "Where it is.",
	"*.headers":               "Added to each request.",
	"*.alertmanager":          "Alertmanagers that are told of alerts.",
	"*.webhooks":              "Addresses to which each alert is posted.",
	"feeds":                   "Lists of malicious domains and addresses.",
}

// documents are the texts that people read.
func documents(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/adr/*.md", "deploy/*.md", "bench/*.md"} {
		names, err := filepath.Glob(filepath.Join(repoRoot, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			out[name] = string(b)
		}
	}
	return out
}

// sources are the files and folders of the repository, by their paths in it; what is built or runs there is left out.
func sources(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(repoRoot, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, repoRoot+"/")
		if d.IsDir() && (rel == "bin" || rel == "state" || rel == ".git") {
			return fs.SkipDir
		}
		out = append(out, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var fence = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")

// TestConfigurationsInDocumentsLoad: the example file, and each configuration in a document, is decoded strictly and checked whole.
func TestConfigurationsInDocumentsLoad(t *testing.T) {
	rules := t.TempDir()
	load := func(name, text string) {
		t.Helper()
		c := defaultConfig()
		text = strings.ReplaceAll(text, "/etc/tidegate/rules", rules)
		if err := decodeStrict(name, []byte(text), &c); err != nil {
			t.Error(err)
			return
		}
		for _, err := range c.deriveAndCheck() {
			t.Errorf("%s: %v", name, err)
		}
	}
	name := filepath.Join(repoRoot, "deploy", "tidegate.example.yaml")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	load(name, string(b))
	n := 0
	for name, text := range documents(t) {
		if filepath.Base(name) != "OPERATING.md" && filepath.Dir(name) != filepath.Join(repoRoot, "deploy") {
			continue
		}
		for _, m := range fence.FindAllStringSubmatch(text, -1) {
			load(name, m[1])
			n++
		}
	}
	if n < 3 {
		t.Errorf("only %d configurations were found in documents", n)
	}
}

var (
	metricName = regexp.MustCompile(`\btidegate_[a-z_]+[a-z]\b`)
	literal    = regexp.MustCompile(`"([a-z_]+)"`)
	link       = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
)

// TestDocumentsNameMetricsThatExist: a metric in a document is one that the source registers, whole or as prefix and name.
func TestDocumentsNameMetricsThatExist(t *testing.T) {
	words := map[string]bool{}
	var prefixes []string
	for _, path := range sources(t) {
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, ".pb.go") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(repoRoot, path))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range literal.FindAllStringSubmatch(string(b), -1) {
			words[m[1]] = true
			if strings.HasPrefix(m[1], "tidegate_") && strings.HasSuffix(m[1], "_") {
				prefixes = append(prefixes, m[1])
			}
		}
	}
	for name, text := range documents(t) {
		for _, m := range metricName.FindAllString(text, -1) {
			known := words[m] || slices.ContainsFunc(prefixes, func(p string) bool {
				rest, ok := strings.CutPrefix(m, p)
				return ok && (words[rest] || words[strings.TrimSuffix(rest, "_total")])
			})
			if !known {
				t.Errorf("%s names %s, which no source registers", name, m)
			}
		}
	}
}

var codePath = regexp.MustCompile("`([a-z_/-]+[a-z_]\\.(?:go|proto)|[a-z_]+/[a-z_/-]*)`")

// TestDocumentsNameFilesThatExist: a file of code in a document is there, by its path or, where the folder was said before, its name.
func TestDocumentsNameFilesThatExist(t *testing.T) {
	files := sources(t)
	for name, text := range documents(t) {
		if filepath.Base(name) != "ARCHITECTURE.md" && filepath.Base(filepath.Dir(name)) != "adr" {
			continue // the others name files of a running system
		}
		for _, m := range codePath.FindAllStringSubmatch(text, -1) {
			end := "/" + strings.TrimSuffix(m[1], "/")
			if !slices.ContainsFunc(files, func(f string) bool { return strings.HasSuffix("/"+f, end) }) {
				t.Errorf("%s names %s, which is not there", name, m[1])
			}
		}
	}
}

// TestDocumentsLinkToWhatIsThere: a relative link leads to a file.
func TestDocumentsLinkToWhatIsThere(t *testing.T) {
	for name, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			}
		}
	}
}
