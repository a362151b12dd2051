package rules

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

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
	found, _, err := Read(config.RegularFS(path), path)
	return sigmaSources(found), err
}

func sigmaSources(found []Source) (out []sigma.Source) {
	for _, source := range found {
		out = append(out, sigma.Source{Name: source.Name, Data: source.Data})
	}
	return out
}

// ConvertSigma converts Sigma rules. Those that do not compile, such as one with a regular expression that is too large,
// are refused too, at the rule in its file.
func ConvertSigma(sources []sigma.Source) (loaded, refused []*sigma.Conversion) {
	ids := map[string]*sigma.Conversion{}
	for _, c := range sigma.Convert(sources) {
		if other := ids[c.ID]; c.Err == nil && other != nil {
			c.Err = sigmaError(c, fmt.Errorf("has the id %s of the rule at %s:%d", c.ID, other.File, other.Line))
		}
		if c.Err == nil {
			if _, err := Compile(Default(), []Source{{Name: c.File, Data: c.Text()}}, nil, nil); err != nil {
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

func sigmaError(c *sigma.Conversion, err error) *config.Error {
	return &config.Error{File: c.File, Position: config.Position{Line: c.Line, Column: 1}, Err: err}
}

// compileProblem returns the first error of a converted rule, without its place in the text that was converted.
func compileProblem(err error) error {
	var list Errors
	if errors.As(err, &list) && len(list) > 0 {
		return list[0].Err
	}
	return err
}
