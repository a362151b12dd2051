package rules

import (
	"bytes"
	"fmt"
	"io/fs"
	"strings"

	"tidegate/pipeline/config"
	shipped "tidegate/rules"
)

// shippedPrefix stands before the names of shipped rule files.
const shippedPrefix = "shipped"

// IsShipped reports whether the rule comes with tidegate.
func (r *Rule) IsShipped() bool { return strings.HasPrefix(r.File, shippedPrefix+"/") && r.shipped }

// Text returns the rule as it is written in its file, without the rules around it.
// A Sigma rule is shown as it was converted.
func (r *Rule) Text() (string, error) {
	if r.converted != nil {
		return "# converted from Sigma\n" + string(r.converted.Text()), nil
	}
	read := config.ReadRegular
	name := r.File
	if r.IsShipped() {
		name = strings.TrimPrefix(name, shippedPrefix+"/")
		read = func(name string) ([]byte, error) { return fs.ReadFile(shipped.Files, name) }
	}
	content, err := read(name)
	if err != nil {
		return "", fmt.Errorf("read rule %s: %w", r.ID, err)
	}
	lines := bytes.SplitAfter(content, []byte("\n"))
	if r.Line < 1 || r.Line > len(lines) {
		return "", fmt.Errorf("read rule %s: %s has no line %d any more", r.ID, r.File, r.Line)
	}

	// An item of a list begins with a dash and ends before the next line that is not indented more. A file with
	// one rule has no dash.
	lines = lines[r.Line-1:]
	indent := indentOf(lines[0])
	if !bytes.HasPrefix(lines[0][indent:], []byte("-")) {
		return string(bytes.Join(lines, nil)), nil
	}
	end := 1
	for end < len(lines) && (len(bytes.TrimSpace(lines[end])) == 0 || indentOf(lines[end]) > indent) {
		end++
	}
	for end > 1 && len(bytes.TrimSpace(lines[end-1])) == 0 {
		end--
	}
	var out strings.Builder
	for _, line := range lines[:end] {
		out.Write(line[min(indent, indentOf(line)):])
	}
	return out.String(), nil
}

// indentOf returns the number of spaces at the beginning of a line.
func indentOf(line []byte) int { return len(line) - len(bytes.TrimLeft(line, " ")) }
