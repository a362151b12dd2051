package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline/config"
)

// documents returns the texts of the Markdown documents by path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/adr/*.md", "deploy/*.md", "bench/*.md"} {
		names, err := filepath.Glob(filepath.Join(repoRoot, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			texts[name] = string(text)
		}
	}
	return texts
}

// sources returns the paths of all files and folders in the repository, without those that programs write
// there.
func sources(t *testing.T) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(repoRoot, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, repoRoot+"/")
		if entry.IsDir() && (rel == "bin" || rel == "state" || rel == ".git") {
			return fs.SkipDir
		}
		paths = append(paths, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// yamlBlock matches a YAML block of a Markdown file.
var yamlBlock = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")

// etcFile matches a file that a configuration names.
var etcFile = regexp.MustCompile(`/etc/tidegate/[a-z/]+\.[a-z]+`)

// TestConfigurationsInDocumentsLoad requires that the example file and each configuration in a document are
// decoded strictly and pass all checks.
func TestConfigurationsInDocumentsLoad(t *testing.T) {
	etc := t.TempDir()
	if err := os.MkdirAll(filepath.Join(etc, "rules"), 0o700); err != nil {
		t.Fatal(err)
	}
	// load decodes a configuration. The files that it names exist.
	load := func(name, text string) {
		t.Helper()
		cfg := defaultConfig()
		for _, path := range etcFile.FindAllString(text, -1) {
			path = strings.Replace(path, "/etc/tidegate", etc, 1)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		text = strings.ReplaceAll(text, "/etc/tidegate", etc)
		doc := config.Parse(name, []byte(text))
		doc.Decode(&cfg)
		doc.AddProblems(cfg.deriveAndCheck(roleSet{all: roleAll}))
		if err := doc.Err(); err != nil {
			t.Error(err)
		}
	}
	name := filepath.Join(repoRoot, "deploy", "tidegate.example.yaml")
	example, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	load(name, string(example))

	loaded := 0
	for name, text := range documents(t) {
		if filepath.Base(name) != "OPERATING.md" && filepath.Dir(name) != filepath.Join(repoRoot, "deploy") {
			continue
		}
		for _, block := range yamlBlock.FindAllStringSubmatch(text, -1) {
			load(name, block[1])
			loaded++
		}
	}
	if loaded < 3 {
		t.Errorf("only %d configurations were found in documents", loaded)
	}
}

var (
	metricName  = regexp.MustCompile(`\btidegate_[a-z_]+[a-z]\b`)
	wordLiteral = regexp.MustCompile(`"([a-z_]+)"`) // in Go
	codePath    = regexp.MustCompile("`([a-z_/-]+[a-z_]\\.(?:go|proto)|[a-z_]+/[a-z_/-]*)`")
	link        = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`) // relative, in Markdown
)

// TestReadmeListsEveryCommand requires that the table of commands in the README has each command.
func TestReadmeListsEveryCommand(t *testing.T) {
	readme := documents(t)[filepath.Join(repoRoot, "README.md")]
	_, table, _ := strings.Cut(readme, "\n## Commands\n")
	table, _, _ = strings.Cut(table, "\n## ")
	for _, cmd := range rootCommand().Commands() {
		if !strings.Contains(table, "`tidegate "+cmd.Name()) {
			t.Errorf("the README does not list tidegate %s", cmd.Name())
		}
		for _, sub := range cmd.Commands() {
			if cmd.Name() != "completion" && !strings.Contains(table, "`"+sub.Name()) && !strings.Contains(table, " "+sub.Name()+"`") {
				t.Errorf("the README does not list tidegate %s %s", cmd.Name(), sub.Name())
			}
		}
	}
}

// TestDocumentsNameMetricsThatExist requires that the source has the name of each metric in a document as a
// literal, whole or as a prefix and the rest. The literal of a counter may lack the suffix _total.
func TestDocumentsNameMetricsThatExist(t *testing.T) {
	words := map[string]bool{}
	var prefixes []string
	for _, path := range sources(t) {
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, ".pb.go") {
			continue
		}
		source, err := os.ReadFile(filepath.Join(repoRoot, path))
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range wordLiteral.FindAllStringSubmatch(string(source), -1) {
			word := match[1]
			words[word] = true
			if strings.HasPrefix(word, "tidegate_") && strings.HasSuffix(word, "_") {
				prefixes = append(prefixes, word)
			}
		}
	}

	for name, text := range documents(t) {
		for _, metric := range metricName.FindAllString(text, -1) {
			known := words[metric] || slices.ContainsFunc(prefixes, func(prefix string) bool {
				rest, ok := strings.CutPrefix(metric, prefix)
				return ok && (words[rest] || words[strings.TrimSuffix(rest, "_total")])
			})
			if !known {
				t.Errorf("%s names %s, which no source registers", name, metric)
			}
		}
	}
}

// TestDocumentsNameFilesThatExist requires that each file of code in a document exists. The document may
// leave out the folders at the start of its path.
func TestDocumentsNameFilesThatExist(t *testing.T) {
	files := sources(t)
	for name, text := range documents(t) {
		if filepath.Base(name) != "ARCHITECTURE.md" && filepath.Base(filepath.Dir(name)) != "adr" {
			continue // other documents name files of a running system
		}
		for _, match := range codePath.FindAllStringSubmatch(text, -1) {
			end := "/" + strings.TrimSuffix(match[1], "/")
			if !slices.ContainsFunc(files, func(file string) bool { return strings.HasSuffix("/"+file, end) }) {
				t.Errorf("%s names %s, which does not exist", name, match[1])
			}
		}
	}
}

// TestLinksInDocumentsLeadToFiles requires that the target of each relative link exists.
func TestLinksInDocumentsLeadToFiles(t *testing.T) {
	for name, text := range documents(t) {
		for _, match := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), match[1])); err != nil {
				t.Errorf("%s links to %s: %v", name, match[1], err)
			}
		}
	}
}

var dockerRun = regexp.MustCompile(`(?s)docker run (?:[^\n]*\\\n)+\s+(\S+) (\S+)`)

// TestImageInDocumentsIsBuilt requires that `make image` gives the image the name that each documented
// `docker run` has, and that the argument behind it is a command.
func TestImageInDocumentsIsBuilt(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(repoRoot, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for name, text := range documents(t) {
		for _, match := range dockerRun.FindAllStringSubmatch(text, -1) {
			found++
			image, command := match[1], match[2]
			if !strings.Contains(image, ":") {
				image += ":latest"
			}
			if !regexp.MustCompile(`docker build .* -t ` + regexp.QuoteMeta(image) + ` `).Match(makefile) {
				t.Errorf("%s runs the image %s, which `make image` does not build", name, image)
			}
			if _, _, err := rootCommand().Find([]string{command}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if found == 0 {
		t.Error("no `docker run` was found in a document")
	}
}

// labelValue matches the use of a constant value of a label.
var labelValue = regexp.MustCompile(
	`(?:countDropped\(|addLabelled\(m\.\w+, t\.\w+, |withRetry\(ctx, )"([^"]+)"|WithLabelValues\("([^"]+)"\)\.(?:Inc|Add)`)

// TestCountersAreInitialised requires that each constant value of a label occurs twice in its package: where it is
// counted, and in the list of values that start at 0.
func TestCountersAreInitialised(t *testing.T) {
	texts := map[string]string{} // by folder
	for _, path := range sources(t) {
		if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			text, err := os.ReadFile(filepath.Join(repoRoot, path))
			if err != nil {
				t.Fatal(err)
			}
			texts[filepath.Dir(path)] += string(text)
		}
	}
	found := 0
	for folder, text := range texts {
		for _, match := range labelValue.FindAllStringSubmatch(text, -1) {
			found++
			list := labelValue.ReplaceAllString(text, "")
			if value := match[1] + match[2]; !strings.Contains(list, `"`+value+`"`) {
				t.Errorf("%s: the counter of %q does not start at 0", folder, value)
			}
		}
	}
	if found < 30 {
		t.Errorf("only %d values were found", found)
	}
}
