// Package detectors answers one question: is this bad?
//
// Each sub-package is a pipeline.Detector: it is handed a block of events by an engine's worker and writes
// its verdicts onto them. rules evaluates expressions that people write, feeds looks names and addresses up
// in lists of bad ones, classifier scores names with a trained model. They share only that contract: what is
// loaded is immutable and replaced as a whole between two blocks, nothing of an event is kept, and the cost
// of an event is bounded whatever the network sent. watch notices changed files.
//
// Loader puts them together: in go a Config and files, out comes a pipeline.Bundle, again for every change of
// the files. `tidegate run` and `tidegate analyze` hand Loader.Bundle to the engine, `tidegate doctor` only
// loads.
package detectors
