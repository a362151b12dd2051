package rules

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"tidegate/detectors/sigma"
	"tidegate/pipeline/config"
)

// ReadSigma returns the Sigma file at a path, or those below the folder at it.
func ReadSigma(path string) ([]sigma.Source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read Sigma rules: %w", err)
	}
	if !info.IsDir() {
		data, err := readFile(config.RegularFS(filepath.Dir(path)), filepath.Base(path))
		if err != nil {
			return nil, fmt.Errorf("read Sigma rules: %w", err)
		}
		return []sigma.Source{{Name: path, Data: data}}, nil
	}
	found, _, err := readFiles(config.RegularFS(path), path, maxSigma)
	return sigmaSources(found), err
}

func sigmaSources(found []Source) (out []sigma.Source) {
	for _, source := range found {
		if isListFile(source.Name) { // it is mentioned by a rule, as a name that the rule looks for
			continue
		}
		out = append(out, sigma.Source{Name: source.Name, Data: source.Data})
	}
	return out
}

// ConvertSigma converts Sigma rules. Those that do not compile, such as one with a regular expression that is
// too large, are refused too, at the rule in its file.
func ConvertSigma(sources []sigma.Source) (loaded, refused []*sigma.Conversion) {
	ids := map[string]*sigma.Conversion{}
	for _, c := range sigma.Convert(sources) {
		if other := ids[c.ID]; c.Err == nil && other != nil {
			c.Err = sigmaError(c, fmt.Errorf("has the id %s of the rule at %s:%d", c.ID, other.File, other.Line))
		}
		if c.Err == nil {
			err := compileSigma(c)
			if err != nil && c.Examples {
				c.DropExamples()
				err = compileSigma(c)
			}
			if err != nil {
				c.Err = sigmaError(c, compileProblem(err))
			}
		}
		if c.Err != nil {
			refused = append(refused, c)
			continue
		}
		ids[c.ID] = c
		loaded = append(loaded, c)
	}
	return loaded, refused
}

// A sigmaFolder has the Sigma rules of a folder. It is immutable.
type sigmaFolder struct {
	dir             string
	files           int
	loaded, refused []*sigma.Conversion
	warnings        []string
}

// readSigma reads and converts the Sigma rules of a folder with this name.
func readSigma(files fs.FS, dir string) (sigmaFolder, error) {
	found, warnings, err := readFiles(files, dir, maxSigma)
	if err != nil {
		return sigmaFolder{}, err
	}
	loaded, refused := ConvertSigma(sigmaSources(found))
	return sigmaFolder{dir, len(found), loaded, refused, warnings}, nil
}

// sigmaRules are the rules of a sigmaFolder in a set.
type sigmaRules struct {
	folder          sigmaFolder
	sources         []Source // the converted rules, a file each
	loaded, refused []*sigma.Conversion
	warnings        []string
}

// beside returns the rules of the folder beside others. One with the id of a rule of others is refused.
func (f sigmaFolder) beside(others []Source) sigmaRules {
	out := sigmaRules{folder: f, refused: slices.Clone(f.refused), warnings: slices.Clone(f.warnings)}
	taken := map[string]*parsedRule{}
	for _, source := range others {
		for _, rule := range parseFile(source).rules {
			taken[rule.ID] = rule
		}
	}
	for _, c := range f.loaded {
		if other := taken[c.ID]; other != nil {
			refused := *c
			refused.Err = sigmaError(c, fmt.Errorf("has the id %s of the rule at %s:%d", c.ID, other.File, other.Line))
			out.refused = append(out.refused, &refused)
			continue
		}
		out.loaded = append(out.loaded, c)
		out.sources = append(out.sources, Source{Name: c.File, Data: c.Text()})
	}
	switch refused, all := len(out.refused), len(out.refused)+len(out.loaded); {
	case f.files == 0:
		out.warnings = append(out.warnings, fmt.Sprintf("rules.sigma %s has no Sigma rule: they are in files that end in .yml or .yaml", f.dir))
	case refused == 1:
		out.warnings = append(out.warnings, fmt.Sprintf("rules.sigma: 1 of %d Sigma rules is refused: %v", all, out.refused[0].Err))
	case refused > 1:
		out.warnings = append(out.warnings, fmt.Sprintf("rules.sigma: %d of %d Sigma rules are refused, such as %v; tidegate rules list shows each",
			refused, all, out.refused[0].Err))
	}
	return out
}

// addTo adds what set, which was compiled with the rules, cannot know of them.
func (s *sigmaRules) addTo(set *Set) {
	set.warnings = append(set.warnings, s.warnings...)
	set.fromSigma, set.refused, set.sigma = len(s.loaded), s.refused, s.folder
	byID := map[string]*sigma.Conversion{}
	for _, c := range s.loaded {
		byID[c.ID] = c
	}
	for _, rule := range set.rules {
		if c := byID[rule.ID]; c != nil {
			rule.converted, rule.Line = c, c.Line
		}
	}
}

// Refused returns the Sigma rules that are not loaded; the Err of each is why.
func (s *Set) Refused() []*sigma.Conversion { return s.refused }

// FromSigma returns the number of Sigma rules that are loaded.
func (s *Set) FromSigma() int { return s.fromSigma }

// compileSigma compiles a converted rule alone.
func compileSigma(c *sigma.Conversion) error {
	_, err := Compile(Default(), []Source{{Name: c.File, Data: c.Text()}}, nil, nil)
	return err
}

func sigmaError(c *sigma.Conversion, err error) *config.Error {
	return &config.Error{File: c.File, Position: config.Position{Line: c.Line, Column: 1}, Err: err}
}

// compileProblem returns the first error of a converted rule, without its place in the text that was
// converted.
func compileProblem(err error) error {
	var list Errors
	if errors.As(err, &list) && len(list) > 0 {
		return list[0].Err
	}
	return err
}
