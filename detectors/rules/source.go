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
	maxSigma = 20000 // files of Sigma; SigmaHQ has 3,500
	maxRules = 50000
	maxTests = 200  // of one rule
	maxTexts = 100  // entries of tags, references and exceptions
	maxText  = 4096 // bytes
	maxGroup = 8    // fields
)

// A Source is one rule file, or a file with a list.
type Source struct {
	Name string // path, as errors show it
	Data []byte
}

// Read returns the rule files of fsys (*.yaml and *.yml), sorted by path, and behind them the files with lists (*.txt) whose names they mention. It skips files and folders whose
// name begins with a dot, such as the inner folders of a ConfigMap. Source.Name is the path with prefix in
// front. A link to a folder is not followed, because links may form a loop; warnings names it.
func Read(fsys fs.FS, prefix string) (out []Source, warnings []string, err error) {
	return readFiles(fsys, prefix, maxFiles)
}

// readFiles is Read with a limit of files.
func readFiles(fsys fs.FS, prefix string, limit int) (out []Source, warnings []string, err error) {
	var lists []string
	err = fs.WalkDir(fsys, ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		// Skip hidden files, and everything below hidden folders. The root is named ".".
		name := entry.Name()
		if name != "." && strings.HasPrefix(name, ".") {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if entry.Type()&fs.ModeSymlink != 0 && isFolder(fsys, file) {
			warnings = append(warnings, path.Join(prefix, file)+" is a link to a folder, which is not read: "+
				"move the folder here, or make rules.dir the link")
			return nil
		}
		if entry.IsDir() || !isRuleFile(name) {
			if !entry.IsDir() && isListFile(name) {
				lists = append(lists, file)
			}
			return nil
		}

		// The path is the one in fsys: symlinks are followed by Open, not by the walk.
		if len(out) >= limit {
			return fmt.Errorf("more than %d rule files", limit)
		}
		data, err := readFile(fsys, file)
		if err != nil {
			return err
		}
		out = append(out, Source{Name: path.Join(prefix, file), Data: data})
		return nil
	})
	ruleFiles, mentioned := len(out), mentionedLists(out)
	for _, file := range lists {
		if err != nil || !mentioned[path.Base(file)] {
			continue
		}
		var data []byte
		if len(out)-ruleFiles >= maxFiles {
			err = fmt.Errorf("more than %d files with lists", maxFiles)
		} else if data, err = readFile(fsys, file); err == nil {
			out = append(out, Source{Name: path.Join(prefix, file), Data: data})
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read rules in %s: %w", prefix, err)
	}
	return out, warnings, nil
}

// isFolder reports whether a link leads to a folder.
func isFolder(fsys fs.FS, link string) bool {
	info, err := fs.Stat(fsys, link)
	return err == nil && info.IsDir()
}

// isRuleFile reports whether a file with this name is a rule file.
func isRuleFile(name string) bool {
	return strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml")
}

// readFile reads a regular file. It reads at most one byte more than the limit, with which the parser rejects
// the file.
func readFile(fsys fs.FS, name string) ([]byte, error) {
	file, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	return io.ReadAll(io.LimitReader(file, config.MaxFileBytes+1))
}
