package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// # One build for all mutants
//
// A mutant is a copy of its function: (*Grouper).add has the copies (*Grouper).add__mutant3 and so on, and begins
// with a jump to the copy whose number the environment names (activeVariable). A package of a hundred mutants is
// compiled and linked once. A copy that does not compile is left out, and another mutant of the function is drawn.

// activeVariable names the environment variable with the number of the mutant that a test binary and its child
// processes run; without it they run none.
const activeVariable = "TIDEGATE_MUTANT"

// activeFile is added to each package that is changed.
const activeFile = `package %s

import (
	"os"
	"strconv"
)

var activeMutant, _ = strconv.Atoi(os.Getenv("` + activeVariable + `"))
`

// edit replaces source[begin:end] by text.
type edit struct {
	begin, end int
	text       string
}

// applyEdits returns source[begin:end] with the edits that lie within. They do not overlap.
func applyEdits(source []byte, begin, end int, edits []edit) string {
	edits = slices.Clone(edits)
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Compare(a.begin, b.begin) })
	var text strings.Builder
	for _, change := range edits {
		if change.begin < begin || change.end > end {
			continue
		}
		text.Write(source[begin:change.begin])
		text.WriteString(change.text)
		begin = change.end
	}
	text.Write(source[begin:end])
	return text.String()
}

// offset returns the offset of a node in the file.
func (f *function) offset(node ast.Node) int { return f.files.Position(node.Pos()).Offset }

// nameFields returns the edits that give each parameter or receiver a name, and the names as arguments of a call.
func (f *function) nameFields(fields *ast.FieldList, prefix string) (edits []edit, arguments []string) {
	if fields == nil {
		return nil, nil
	}
	for _, field := range fields.List {
		dots := ""
		if _, ok := field.Type.(*ast.Ellipsis); ok {
			dots = "..."
		}
		if len(field.Names) == 0 {
			name := prefix + strconv.Itoa(len(arguments))
			edits = append(edits, edit{f.offset(field.Type), f.offset(field.Type), name + " "})
			arguments = append(arguments, name+dots)
		}
		for _, declared := range field.Names {
			name := declared.Name
			if name == "_" {
				name = prefix + strconv.Itoa(len(arguments))
				edits = append(edits, edit{f.offset(declared), f.offset(declared) + 1, name})
			}
			arguments = append(arguments, name+dots)
		}
	}
	return edits, arguments
}

// copies returns the edits that make a function jump to its mutants, and the text of each mutant's function.
func (f *function) copies(mutants []*mutant) (jump []edit, texts []string) {
	declared := f.declared
	head, arguments := f.nameFields(declared.Type.Params, "mutantArgument")
	receiver, receivers := f.nameFields(declared.Recv, "mutantReceiver")
	head = append(head, receiver...)
	call := declared.Name.Name
	if len(receivers) == 1 {
		call = receivers[0] + "." + call
	}
	types := ""
	if declared.Type.TypeParams != nil {
		_, names := f.nameFields(declared.Type.TypeParams, "")
		types = "[" + strings.Join(names, ", ") + "]"
	}

	body := f.offset(declared.Body)
	end := f.files.Position(declared.Body.End()).Offset
	nameEnd := f.files.Position(declared.Name.End()).Offset
	var cases strings.Builder
	for _, m := range mutants {
		suffix := "__mutant" + strconv.Itoa(m.number)
		called := call + suffix + types + "(" + strings.Join(arguments, ", ") + ")"
		if declared.Type.Results != nil && len(declared.Type.Results.List) > 0 {
			fmt.Fprintf(&cases, " case %d: return %s;", m.number, called)
		} else {
			fmt.Fprintf(&cases, " case %d: %s; return;", m.number, called)
		}
		changes := append(slices.Clone(head), edit{nameEnd, nameEnd, suffix}, edit{m.begin, m.end, m.text})
		texts = append(texts, applyEdits(f.source, f.offset(declared), end, changes))
	}
	dispatch := " if activeMutant != 0 { switch activeMutant {" + cases.String() + " } };"
	jump = append(head, edit{body + 1, body + 1, dispatch})
	return jump, texts
}

// mutatedFile returns the text of a file with the functions of mutants, all of this file, and the first and last
// line of each.
func mutatedFile(mutants []*mutant) (text string, lines map[*mutant][2]int) {
	source := mutants[0].function.source
	byFunction := map[*function][]*mutant{}
	var functions []*function
	for _, m := range mutants {
		if byFunction[m.function] == nil {
			functions = append(functions, m.function)
		}
		byFunction[m.function] = append(byFunction[m.function], m)
	}
	var edits []edit
	var added strings.Builder
	lines = map[*mutant][2]int{}
	line := 2 + bytes.Count(source, []byte("\n"))
	for _, fn := range functions {
		jump, texts := fn.copies(byFunction[fn])
		edits = append(edits, jump...)
		for i, m := range byFunction[fn] {
			last := line + strings.Count(texts[i], "\n")
			lines[m] = [2]int{line, last}
			added.WriteString("\n" + texts[i])
			line = last + 1
		}
	}
	return applyEdits(source, 0, len(source), edits) + added.String() + "\n", lines
}

// place is where the copy of a function stands.
type place struct {
	file        string // name of the mutated file, without its folder
	first, last int    // lines
}

// writeOverlay writes the mutated files of mutants and the overlay that names them.
func (r *runner) writeOverlay(mutants []*mutant) (overlay string, places map[*mutant]place, err error) {
	folder, err := os.MkdirTemp(r.folder, "overlay")
	if err != nil {
		return "", nil, err
	}
	replace := map[string]string{}
	write := func(replaced, text string) error {
		written := filepath.Join(folder, strconv.Itoa(len(replace))+".go")
		replace[replaced] = written
		return os.WriteFile(written, []byte(text), 0o600)
	}
	byFile := map[string][]*mutant{}
	for _, m := range mutants {
		byFile[m.function.file] = append(byFile[m.function.file], m)
	}
	places = map[*mutant]place{}
	for file, own := range byFile {
		text, lines := mutatedFile(own)
		for m, pair := range lines {
			places[m] = place{fmt.Sprintf("%d.go", len(replace)), pair[0], pair[1]}
		}
		err = errors.Join(err, write(file, text))
		active := filepath.Join(filepath.Dir(file), "active_mutant.go")
		if replace[active] == "" {
			err = errors.Join(err, write(active, fmt.Sprintf(activeFile, own[0].function.packageName)))
		}
	}
	encoded, encodeErr := json.Marshal(map[string]map[string]string{"Replace": replace})
	overlay = filepath.Join(folder, "overlay.json")
	return overlay, places, errors.Join(err, encodeErr, os.WriteFile(overlay, encoded, 0o600))
}

var compileError = regexp.MustCompile(`(?m)^\s*(?:\S*/)?([^/\s:]+\.go):(\d+):\d+: `)

// drawMutants draws count mutants that compile, and reports those that do not.
func (r *runner) drawMutants(ctx context.Context, s *sampler, count int, result *report) ([]*mutant, error) {
	byPackage := map[string][]*mutant{}
	number := 0
	add := func(m *mutant) {
		number++
		m.number = number
		path := m.function.pkg.path
		byPackage[path] = append(byPackage[path], m)
	}
	for range count {
		m, ok := s.nextMutant()
		if !ok {
			break
		}
		add(m)
	}
	var drawn []*mutant
	paths := make([]string, 0, len(byPackage))
	for path := range byPackage {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		for {
			failed, err := r.findUncompiled(ctx, path, byPackage[path])
			if err != nil {
				return nil, err
			}
			if len(failed) == 0 {
				break
			}
			byPackage[path] = slices.DeleteFunc(byPackage[path], func(m *mutant) bool {
				return slices.Contains(failed, m)
			})
			for _, m := range failed {
				result.add(m, notBuilt, "")
				if other, ok := s.replace(m); ok {
					add(other)
				}
			}
		}
		drawn = append(drawn, byPackage[path]...)
	}
	slices.SortFunc(drawn, func(a, b *mutant) int { return cmp.Compare(a.number, b.number) })
	return drawn, nil
}

// findUncompiled compiles a package with mutants and returns those that have errors.
func (r *runner) findUncompiled(ctx context.Context, path string, mutants []*mutant) (failed []*mutant, err error) {
	if len(mutants) == 0 {
		return nil, nil
	}
	overlay, places, err := r.writeOverlay(mutants)
	if err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, "go", "build", "-o", os.DevNull, "-gcflags=-e", "-overlay", overlay, path).
		CombinedOutput()
	if err == nil {
		return nil, nil
	}
	for _, match := range compileError.FindAllSubmatch(out, -1) {
		line, _ := strconv.Atoi(string(match[2]))
		for _, m := range mutants {
			at := places[m]
			if at.file == string(match[1]) && at.first <= line && line <= at.last && !slices.Contains(failed, m) {
				failed = append(failed, m)
			}
		}
	}
	if len(failed) == 0 {
		return nil, fmt.Errorf("build %s with mutants: %w\n%s", path, err, out)
	}
	return failed, nil
}

// buildTests builds the tests of a package with all mutants; "": it has none.
func (r *runner) buildTests(ctx context.Context, path string) (binary string, err error) {
	r.building.Lock()
	defer r.building.Unlock()
	if binary, ok := r.binaries[path]; ok {
		return binary, nil
	}
	binary = filepath.Join(r.folder, strconv.Itoa(len(r.binaries))+".test")
	out, err := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", r.overlay, "-o", binary, path).
		CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the tests of %s with mutants: %w\n%s", path, err, out)
	}
	if _, err := os.Stat(binary); err != nil {
		binary = "" // no test files
	}
	r.binaries[path] = binary
	return binary, nil
}
