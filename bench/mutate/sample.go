package main

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// sampler hands out mutants in an order that the seed decides. It is safe for concurrent use: the order of the
// functions and the order within each function are drawn apart, so that neither depends on which test ends first.
type sampler struct {
	mu     sync.Mutex
	seed   uint64
	random *rand.Rand // orders the functions
	// round holds the functions in the order of this round; those without mutants left have been taken out.
	round []*function
	turn  int
}

// kindWeights makes changes of logic likelier than changes of constants, which are more often equivalent.
var kindWeights = map[string]int{"negate": 3, "operator": 3, "delete": 3, "return": 3, "boundary": 2, "constant": 1}

func newSampler(packages []*mutablePackage, seed uint64) *sampler {
	s := &sampler{seed: seed, random: rand.New(rand.NewPCG(seed, 0))}
	for _, pkg := range packages {
		s.round = append(s.round, pkg.functions...)
	}
	s.shuffle()
	return s
}

// lineNumber is the number of a line in the description of a mutant.
var lineNumber = regexp.MustCompile(`\.go:\d+: `)

// keepNamed keeps the mutants that the lines of a file describe, whatever the numbers of their lines are.
func keepNamed(packages []*mutablePackage, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the mutants to test: %w", err)
	}
	named := lineNumber.ReplaceAllString(string(text), ".go: ") + "\n"
	count := 0
	for _, pkg := range packages {
		for _, fn := range pkg.functions {
			fn.mutants = slices.DeleteFunc(fn.mutants, func(m *mutant) bool {
				description := lineNumber.ReplaceAllString(m.describe(), ".go: ") // ends the line, or what killed it follows
				return !strings.Contains(named, description+"\n") && !strings.Contains(named, description+"  (")
			})
			count += len(fn.mutants)
		}
		pkg.functions = slices.DeleteFunc(pkg.functions, func(fn *function) bool { return len(fn.mutants) == 0 })
	}
	if count == 0 {
		return fmt.Errorf("%s names no mutant of these packages", file)
	}
	return nil
}

func (s *sampler) shuffle() {
	s.random.Shuffle(len(s.round), func(i, j int) { s.round[i], s.round[j] = s.round[j], s.round[i] })
	s.turn = 0
}

// nextMutant returns the next mutant; ok is false when there is none left.
func (s *sampler) nextMutant() (*mutant, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.round) > 0 {
		for s.turn < len(s.round) {
			fn := s.round[s.turn]
			s.turn++
			if chosen := s.takeMutant(fn); chosen != nil {
				return chosen, true
			}
		}
		s.round = slices.DeleteFunc(s.round, func(fn *function) bool { return len(fn.mutants) == 0 })
		s.shuffle()
	}
	return nil, false
}

// replace returns another mutant of the function of a mutant that did not compile.
func (s *sampler) replace(failed *mutant) (*mutant, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	chosen := s.takeMutant(failed.function)
	return chosen, chosen != nil
}

// takeMutant draws a mutant of a function by weight and removes it. It returns nil if the function has none.
func (s *sampler) takeMutant(fn *function) *mutant {
	sum := 0
	for _, candidate := range fn.mutants {
		sum += kindWeights[candidate.kind]
	}
	if sum == 0 {
		return nil
	}
	digest := fnv.New64a()
	fmt.Fprint(digest, fn.pkg.path, fn.name, len(fn.mutants))
	drawn := rand.New(rand.NewPCG(s.seed, digest.Sum64())).IntN(sum)
	for i, candidate := range fn.mutants {
		if drawn -= kindWeights[candidate.kind]; drawn < 0 {
			fn.mutants = slices.Delete(fn.mutants, i, i+1)
			return candidate
		}
	}
	return nil
}
