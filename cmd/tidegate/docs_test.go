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
	"strings"
	"testing"
	"time"

	"tidegate/pipeline/config"
)

var update = flag.Bool("update", false, "rewrite the generated files")

const repoRoot = "../.."

// TestConfigReferenceIsNotStale compares docs/CONFIG.md with the Config structs and their comments. Every key
// has a sentence.
func TestConfigReferenceIsNotStale(t *testing.T) {
	t.Setenv(dataDirVariable, "")
	r := &reference{t: t, files: map[string]map[string]*ast.StructType{}}
	want := r.write()
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
}

const referenceHead = `# Configuration

Generated from the Config structs and their comments (` + "`make golden`" + `); a test fails when it is stale.

One YAML file, ` + "`/etc/tidegate/tidegate.yaml` or the one that `--config`" + ` names, is decoded over the defaults below. It is read strictly: a
key that is not listed here is an error that names file, line and the nearest key, and all errors are reported at once.
` + "`tidegate doctor --config FILE`" + ` checks it without starting anything. An empty file is valid;
[tidegate.example.yaml](../deploy/tidegate.example.yaml) is an example for a cluster.

Durations are written ` + "`150ms`, `10s` or `48h`, sizes `64KiB`, `8MiB` or `2GiB`" + ` (powers of 1024), or as a plain number of bytes. A key with
an empty value keeps its default.

` + "`TIDEGATE_DATA_DIR` in the environment replaces the default of `data_dir`; `--data-dir` and `--metrics-listen`" + ` replace what the file says.
` + "`TIDEGATE_CACHE` is the folder in which `deploy/fetch-libchdb.sh`" + ` keeps the embedded ClickHouse.
`

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
		fmt.Fprintf(&r.out, "| `%s` | %s | %s | %s |\n", key, kindOf(f.Type()), defaultOf(f), r.sentence(key, comment))
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

// comments reads what the source says of each field of a struct: behind it or before it. Fields without a
// blank line between them share the comment before the first.
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

// sentence returns the comment of a key as a table cell.
func (r *reference) sentence(key, comment string) string {
	if comment == "" {
		r.t.Errorf("%s has no comment in the source", key)
		return ""
	}
	if !strings.HasSuffix(comment, ".") {
		r.t.Errorf("the comment of %s is not a sentence: %q", key, comment)
	}
	return strings.ReplaceAll(comment, "|", `\|`)
}

func kindOf(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "duration"
	case t == reflect.TypeFor[config.Size]():
		return "size"
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

func defaultOf(v reflect.Value) string {
	switch value := v.Interface().(type) {
	case time.Duration:
		return "`" + config.FormatDuration(value) + "`"
	case string:
		if value == "" {
			return "empty"
		}
		return "`" + value + "`"
	case []string:
		return "`[" + strings.Join(value, ", ") + "]`"
	}
	switch v.Kind() {
	case reflect.Slice:
		return "`[]`"
	case reflect.Map:
		return "`{}`"
	}
	return fmt.Sprintf("`%v`", v.Interface())
}

// intros stand before the keys of a section.
var intros = map[string]string{
	"metrics": "Each process serves its own metrics.",
	"kafka": "Without `brokers` the embedded broker is used. Then all partitions belong to this engine, and the other keys of the section\n" +
		"have no effect.",
	"clickhouse": "Without `addr` and `http_addr` the embedded store is used. Then only `ttl_days` and `alert_ttl_days` have an effect.\n" +
		"`tidegate query` connects to `http_addr`, as `read_user` if there is one.",
	"embedded.broker": "The embedded Kafka-compatible broker, on loopback, in the process `run` or `run --only broker`.",
	"embedded.store":  "The embedded ClickHouse: libchdb in a process of its own, on loopback.",
	"capture":         "Packets, if this user may open packet sockets.",
	"sessions":        "The limits are per worker; each worker has one session table.",
	"protocols":       "The limits are per connection.",
	"containers":      "Metadata of containers, from the Docker API.",
	"logs":            "The json-file logs of Docker.",
	"shipper":         "From the collector to Kafka.",
	"rules":           "[RULES.md](RULES.md) describes how to write a rule.",
	"feeds[]":         "[OPERATING.md](OPERATING.md) describes the forms of a line.",
	"classifier":      "The classifier detects generated domain names.",
	"engine":          "From Kafka to the store.",
	"engine.grouping": "How verdicts are grouped into alerts.",
	"alerts":          "From the alerts topic to Alertmanager and webhooks.",
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

// sources are the files and folders of the repository, by their paths in it; what is built or runs there is
// left out.
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

// TestConfigurationsInDocumentsLoad: the example file, and each configuration in a document, is decoded
// strictly and checked whole.
func TestConfigurationsInDocumentsLoad(t *testing.T) {
	rules := t.TempDir()
	load := func(name, text string) {
		t.Helper()
		c := defaultConfig()
		text = strings.ReplaceAll(text, "/etc/tidegate/rules", rules)
		doc := config.Parse(name, []byte(text))
		doc.Decode(&c)
		doc.AddProblems(c.deriveAndCheck())
		if err := doc.Err(); err != nil {
			t.Error(err)
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

// TestDocumentsNameMetricsThatExist: a metric in a document is one that the source registers, whole or as
// prefix and name.
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

// TestDocumentsNameFilesThatExist: a file of code in a document is there, by its path or, where the folder
// was said before, its name.
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
