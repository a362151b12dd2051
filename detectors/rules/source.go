package rules

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"tidegate/pipeline/config"
)

// The bounds of a set of rules.
const (
	maxFiles = 2000
	maxRules = 50000
	maxTests = 200  // of one rule
	maxTexts = 100  // entries of tags, references and exceptions
	maxText  = 4096 // bytes
	maxGroup = 8    // fields
)

// A Source is one rule file.
type Source struct {
	Name string // as errors call it
	Data []byte
}

// Read returns the rule files under fsys, sorted by path: *.yaml and *.yml, but nothing whose name begins
// with a dot, such as the inner folders of a ConfigMap. prefix goes before their names in errors.
func Read(fsys fs.FS, prefix string) ([]Source, error) {
	var out []Source
	err := fs.WalkDir(fsys, ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		// Nothing below a hidden folder either.
		name := entry.Name()
		if name != "." && strings.HasPrefix(name, ".") {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if entry.IsDir() || !isRuleFile(name) {
			return nil
		}
		if len(out) >= maxFiles {
			return fmt.Errorf("more than %d rule files", maxFiles)
		}
		data, err := readFile(fsys, file)
		if err != nil {
			return err
		}
		out = append(out, Source{Name: path.Join(prefix, file), Data: data})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read rules in %s: %w", prefix, err)
	}
	return out, nil
}

func isRuleFile(name string) bool {
	return strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml")
}

// readFile reads at most one byte more than is allowed: enough for the parser to refuse the file.
func readFile(fsys fs.FS, p string) ([]byte, error) {
	file, err := fsys.Open(p)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if st, err := file.Stat(); err != nil {
		return nil, err
	} else if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", p)
	}
	return io.ReadAll(io.LimitReader(file, config.MaxFileBytes+1))
}
