// Command mutate tests the tests: it changes one place of a package at a time, runs the quick tests of the package
// and then of the packages that import it, and lists the changes that no test noticed. The tests that execute the
// changed line run first.
//
//	go run ./bench/mutate ./pipeline/alerts                     30 mutants, seed 1
//	go run ./bench/mutate -n 150 -seed 7 ./collector/ship ./protocols
//	go run ./bench/mutate -list ./collector/ship                print the mutants of this seed, run nothing
//	go run ./bench/mutate -only survived.txt ./collector/ship   the mutants that an earlier report names
//
// The sample is spread over functions: each function contributes one mutant before any contributes a second one.
// The same commit, packages, seed and number give the same mutants. The files of the module are never touched: a
// package is compiled once with all its mutants, in an overlay of the go command. A mutant that does not compile is
// replaced by another one of the same function. Generated files, functions that call recover, packages that only
// tests import, log calls and texts of errors are left out.
//
// A mutant that survives is either equivalent, which a person has to decide, or a hole in the tests.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// maxTestMemory is RLIMIT_DATA of each test process, in bytes: a mutant may allocate without end.
const maxTestMemory = 6 << 30

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	count := flag.Int("n", 30, "test this many mutants")
	seed := flag.Uint64("seed", 1, "choose the mutants by this seed")
	jobs := flag.Int("jobs", 2, "test this many mutants at a time")
	least := flag.Float64("least", 0, "end with an error if fewer than this percentage is killed")
	list := flag.Bool("list", false, "print the mutants and run nothing")
	importers := flag.Bool("importers", true, "run the tests of the importing packages on what survives")
	longest := flag.Duration("longest", 0, "leave out importing packages whose tests take longer than this; 0: none")
	only := flag.String("only", "", "test only the mutants that this file names, as a report or -list prints them; their lines may differ")
	rest := flag.Bool("rest", true,
		"run also the tests that do not execute the line, although their child processes may")
	verbose := flag.Bool("v", false, "print every mutant with the tests that noticed it: a flaky test notices what it does not test")
	flag.Parse()
	if flag.NArg() == 0 {
		return fmt.Errorf("name at least one package, such as ./pipeline/alerts")
	}
	packages, err := loadPackages(ctx, flag.Args())
	if err != nil {
		return err
	}
	if *only != "" {
		if err := keepNamed(packages, *only); err != nil {
			return err
		}
	}
	sampler := newSampler(packages, *seed)
	if *list {
		for range *count {
			mutant, ok := sampler.nextMutant()
			if !ok {
				break
			}
			fmt.Println(mutant.describe())
		}
		return nil
	}

	limit := syscall.Rlimit{Cur: maxTestMemory, Max: maxTestMemory}
	if err := syscall.Setrlimit(syscall.RLIMIT_DATA, &limit); err != nil {
		return fmt.Errorf("limit the memory of the tests: %w", err)
	}
	runner, err := newRunner(ctx, packages, *importers)
	if err != nil {
		return err
	}
	defer runner.close()
	runner.verbose, runner.rest, runner.longest = *verbose, *rest, *longest
	began := time.Now()
	report, err := runner.testAll(ctx, sampler, *count, *jobs)
	if err != nil {
		return err
	}
	report.print(os.Stdout, time.Since(began))
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted")
	case report.score() < *least:
		return fmt.Errorf("%.0f %% killed, fewer than %.0f %%", report.score(), *least)
	}
	return nil
}
