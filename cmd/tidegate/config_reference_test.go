package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline/config"
)

// update is the flag with which the tests rewrite generated files: `make golden` sets it.
var update = flag.Bool("update", false, "rewrite the generated files")

// repoRoot is the root of the repository, from the folder of this package.
const repoRoot = "../.."

// TestConfigReferenceIsNotStale requires that docs/CONFIG.md is what a configReference writes, and that every
// key has a comment.
func TestConfigReferenceIsNotStale(t *testing.T) {
	t.Setenv(dataDirVariable, "")
	reference := &configReference{t: t, structs: map[string]map[string]*ast.StructType{}}
	want := reference.writeDocument()
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

// A configReference writes docs/CONFIG.md from the type Config, its defaults and the comments in the source.
type configReference struct {
	t       *testing.T
	out     bytes.Buffer
	structs map[string]map[string]*ast.StructType // by the folder of a package and the name of the struct
}

// referenceHead is the text before the first section.
const referenceHead = `# Configuration

Generated from the Config structs and their comments (` + "`make golden`" + `); a test fails when it is stale.

One YAML file, ` + "`/etc/tidegate/tidegate.yaml` or the one that `--config`" + ` names, is decoded over the defaults below. It is read strictly: a
key that is not listed here is an error that names file, line and the nearest key, and all errors are reported at once.
` + "`tidegate doctor --config FILE`" + ` checks it without starting anything. An empty file is valid;
[tidegate.example.yaml](../deploy/tidegate.example.yaml) is an example for a cluster.

Durations are written ` + "`150ms`, `10s` or `48h`, sizes `64KiB`, `8MiB` or `2GiB`" + ` (powers of 1024), or as a plain number of bytes. A key with
an empty value keeps its default.

` + "`TIDEGATE_DATA_DIR` in the environment replaces the default of `data_dir`; `--data-dir` and `--metrics-listen`" + ` replace the value in the file.
` + "`TIDEGATE_CACHE` is the folder in which `deploy/fetch-libchdb.sh`" + ` keeps the embedded ClickHouse.
`

// writeDocument returns the whole document.
func (r *configReference) writeDocument() []byte {
	r.out.WriteString(referenceHead)
	cfg := defaultConfig()
	r.writeSection("", reflect.ValueOf(cfg))
	return r.out.Bytes()
}

// writeSection writes a table of the plain keys of a struct, and then a section for each key whose value is a
// struct or a list of structs.
func (r *configReference) writeSection(prefix string, value reflect.Value) {
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

	type subsection struct {
		key   string
		value reflect.Value
	}
	var subsections []subsection
	headWritten := false
	r.eachField(prefix, value, func(key, comment string, field reflect.Value) {
		if field.Kind() == reflect.Struct {
			subsections = append(subsections, subsection{key, field})
			return
		}
		if !headWritten {
			headWritten = true
			r.out.WriteString("\n| key | type | default | meaning |\n|---|---|---|---|\n")
		}
		fmt.Fprintf(&r.out, "| `%s` | %s | %s | %s |\n",
			key, kindOf(field.Type()), defaultOf(field), r.meaningCell(key, comment))
		if field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.Struct {
			subsections = append(subsections, subsection{key + "[]", reflect.New(field.Type().Elem()).Elem()})
		}
	})
	for _, next := range subsections {
		r.writeSection(next.key, next.value)
	}
}

// eachField calls each with every key of a struct, the keys of inlined structs included.
func (r *configReference) eachField(
	prefix string, value reflect.Value, each func(key, comment string, field reflect.Value),
) {
	comments := r.fieldComments(value.Type())
	for i := range value.NumField() {
		field := value.Type().Field(i)
		name, opts, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		switch {
		case name == "-" || !field.IsExported():
		case opts == "inline":
			r.eachField(prefix, value.Field(i), each)
		default:
			each(strings.TrimPrefix(prefix+"."+name, "."), comments[field.Name], value.Field(i))
		}
	}
}

// fieldComments returns the comment of each field of a struct, which stands before the field or behind it. A
// field without a comment has the last comment that stands before a field.
func (r *configReference) fieldComments(typ reflect.Type) map[string]string {
	dir := filepath.Join(repoRoot, strings.TrimPrefix(strings.TrimPrefix(typ.PkgPath(), "tidegate"), "/"))
	if typ.PkgPath() == "main" || strings.HasSuffix(typ.PkgPath(), "cmd/tidegate") {
		dir = "."
	}
	if r.structs[dir] == nil {
		r.structs[dir] = structsOf(r.t, dir)
	}
	def := r.structs[dir][typ.Name()]
	if def == nil {
		r.t.Fatalf("no struct %s in %s", typ.Name(), dir)
	}
	comments := map[string]string{}
	shared := ""
	for _, field := range def.Fields.List {
		text := strings.TrimSpace(field.Comment.Text())
		if doc := strings.TrimSpace(field.Doc.Text()); doc != "" {
			text, shared = doc, doc
		} else if text == "" {
			text = shared
		}
		for _, name := range field.Names {
			comments[name.Name] = strings.Join(strings.Fields(text), " ")
		}
	}
	return comments
}

// structsOf parses the package in a folder and returns its structs by name, without those of tests.
func structsOf(t *testing.T, dir string) map[string]*ast.StructType {
	t.Helper()
	structs := map[string]*ast.StructType{}
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
		ast.Inspect(file, func(node ast.Node) bool {
			if spec, ok := node.(*ast.TypeSpec); ok {
				if def, ok := spec.Type.(*ast.StructType); ok {
					structs[spec.Name.Name] = def
				}
			}
			return true
		})
	}
	return structs
}

// meaningCell returns the comment of a key as a table cell. The test fails if the comment is not a sentence.
func (r *configReference) meaningCell(key, comment string) string {
	if comment == "" {
		r.t.Errorf("%s has no comment in the source", key)
		return ""
	}
	if !strings.HasSuffix(comment, ".") {
		r.t.Errorf("the comment of %s is not a sentence: %q", key, comment)
	}
	return strings.ReplaceAll(comment, "|", `\|`)
}

// kindOf returns the word for a type.
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

// defaultOf returns a default as a table cell.
func defaultOf(value reflect.Value) string {
	switch typed := value.Interface().(type) {
	case time.Duration:
		return "`" + config.FormatDuration(typed) + "`"
	case string:
		if typed == "" {
			return "empty"
		}
		return "`" + typed + "`"
	case []string:
		return "`[" + strings.Join(typed, ", ") + "]`"
	}
	switch value.Kind() {
	case reflect.Slice:
		return "`[]`"
	case reflect.Map:
		return "`{}`"
	}
	return fmt.Sprintf("`%v`", value.Interface())
}

// intros holds the text before the keys of a section.
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
