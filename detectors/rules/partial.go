package rules

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"

	"tidegate/pipeline/config"
)

// ReadFrom sets Dir, or, if path is a file, Files to that file alone and the lists that it refers to. Rules are not watched
// there.
func (c *Config) ReadFrom(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("read rules: %w", err)
	}
	c.Dir, c.Files, c.FilesName = file, nil, ""
	if info.IsDir() {
		return nil
	}
	name := filepath.Base(file)
	if !info.Mode().IsRegular() {
		return fmt.Errorf("read rules: %s is neither a folder nor a file", file)
	}
	if !isRuleFile(name) || name[0] == '.' {
		return fmt.Errorf("read rules: %s is not a rule file: the name of one ends in .yaml or .yml and does not begin with a dot", file)
	}
	folder := config.RegularFS(filepath.Dir(file))
	data, err := readFile(folder, name)
	if err != nil {
		return fmt.Errorf("read rules: %w", err)
	}
	hasLists := len(mentionedLists([]Source{{Name: name, Data: data}})) > 0
	c.Dir, c.FilesName = "", filepath.Dir(file)
	c.Files = filteredFS{folder, func(at string, entry fs.DirEntry) bool {
		return at == name || hasLists && (entry.IsDir() || isListFile(at))
	}}
	return nil
}

// LoadValid is Load without the files that have errors, and those that need them. broken lists their errors; a file of which others
// need something makes these have errors, too.
func LoadValid(cfg Config, log *slog.Logger, metrics *Metrics) (set *Set, broken Errors, err error) {
	files, prefix := cfg.files()
	inside := path.Join(prefix, "x") // of a file of the folder
	inside = inside[:len(inside)-1]
	left := map[string]bool{}
	for {
		set, err = Load(cfg, log, metrics)
		list, ok := errors.AsType[Errors](err)
		if !ok {
			return set, broken, err
		}
		found := false
		for _, problem := range list {
			name, isInside := strings.CutPrefix(problem.File, inside)
			if files != nil && isInside && !left[name] {
				left[name], found = true, true
			}
		}
		if !found { // of the configuration, or of a Sigma rule
			return nil, nil, err
		}
		broken = append(broken, list...)
		cfg.Files, cfg.FilesName = filteredFS{files, func(at string, _ fs.DirEntry) bool { return !left[at] }}, prefix
	}
}

// A filteredFS is a file system whose folders show only the entries for which keep returns true.
type filteredFS struct {
	fs.FS
	keep func(at string, entry fs.DirEntry) bool
}

// ReadDir returns the entries of a folder that are kept.
func (f filteredFS) ReadDir(folder string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(f.FS, folder)
	kept := entries[:0]
	for _, entry := range entries {
		if f.keep(path.Join(folder, entry.Name()), entry) {
			kept = append(kept, entry)
		}
	}
	return kept, err
}
