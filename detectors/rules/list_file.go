package rules

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"unicode/utf8"

	"tidegate/pipeline/config"
)

// A list may stand in a file of its own beside the rule file: one text a line, with lines of comments that begin with #. Read
// takes the files whose names a rule file mentions, and Compile reads those that a list refers to.

// yamlListFile is the YAML form of a list in a file of its own.
type yamlListFile struct {
	File config.Text `yaml:"file"`
}

// A listReference is a list whose texts are in another file.
type listReference struct {
	key  string // of the list in the rule file
	list *list
	file config.Text
}

// isListFile reports whether a file with this name may hold a list.
func isListFile(name string) bool { return strings.HasSuffix(name, ".txt") }

// isSourceFile reports whether a file with this name is a rule file or may hold a list.
func isSourceFile(name string) bool { return isRuleFile(name) || isListFile(name) }

// mentionedLists returns the names of files with lists that rule files have in them, without their folders, and perhaps other texts.
func mentionedLists(sources []Source) map[string]bool {
	const maxName = 255
	names := map[string]bool{}
	for _, source := range sources {
		for rest := source.Data; ; {
			at := bytes.Index(rest, []byte(".txt"))
			if at < 0 {
				break
			}
			end := at + len(".txt")
			name := rest[max(0, end-maxName):end]
			name = name[bytes.LastIndexAny(name, "\"':{/\n")+1:]
			names[string(bytes.TrimSpace(name))] = true
			rest = rest[end:]
		}
	}
	return names
}

// parseListFile returns the list of a mapping with the key file. Its texts are read by readLists.
func (f *ruleFile) parseListFile(node config.Node) *list {
	var form yamlListFile
	node.Decode(&form)
	reference := listReference{node.Key(), &list{}, form.File}
	switch name := form.File.Value; {
	case !form.File.IsSet():
		node.Errorf("a list is a list of texts or numbers, or a mapping with the key file")
	case !fs.ValidPath(name) || !isListFile(name):
		form.File.Errorf("%q is not the name of a file beside this one or below it that ends in .txt", name)
	default:
		f.listFiles = append(f.listFiles, reference)
	}
	return reference.list
}

// readLists reads the lists of a rule file that are in other files. files holds these by name. It returns the mistakes in them; a file
// that does not exist is a mistake of the rule file.
func (f *ruleFile) readLists(files map[string][]byte) (errs []*config.Error) {
	for _, reference := range f.listFiles {
		name := path.Join(path.Dir(f.doc.File), reference.file.Value)
		data, ok := files[name]
		if !ok {
			reference.file.Errorf("%s does not exist, or its name or that of its folder begins with a dot", name)
			continue
		}
		texts, line, err := parseListTexts(data)
		if err != nil {
			errs = append(errs, &config.Error{File: name, Position: config.Position{Line: line, Column: 1}, Key: reference.key, Err: err})
		}
		reference.list.texts = texts
	}
	return errs
}

// parseListTexts returns the texts of a list file, or the line of its first mistake.
func parseListTexts(data []byte) (texts []string, line int, err error) {
	if len(data) > config.MaxFileBytes {
		return nil, 1, fmt.Errorf("file of more than %d bytes", config.MaxFileBytes)
	}
	for written := range strings.Lines(strings.TrimPrefix(string(data), "\ufeff")) {
		line++
		text := strings.TrimSpace(written)
		switch {
		case text == "" || text[0] == '#':
			continue
		case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
			return nil, line, fmt.Errorf("the line is not text in UTF-8")
		case len(text) > maxText:
			return nil, line, fmt.Errorf("text of %d bytes, the limit is %d", len(text), maxText)
		case len(texts) == maxList:
			return nil, line, fmt.Errorf("more than %d texts: a longer list belongs in a feed", maxList)
		}
		texts = append(texts, text)
	}
	if len(texts) == 0 {
		return nil, 1, fmt.Errorf("the list has no text: one stands in each line, and a line that begins with # is a comment")
	}
	return texts, 0, nil
}
