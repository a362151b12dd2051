// Package detectors answers one question: is this bad? Each of its sub-packages is a pipeline.Detector: it is handed a block of
// events by the engine's worker and writes its verdicts onto them.
//
// rules runs expressions that people write, feeds looks names and addresses up in lists of bad ones, classifier asks trained models.
// They share nothing but that contract: what is loaded is immutable and swapped as a whole between two blocks, nothing of an event is
// kept, and cost per event is bounded whatever the network sent.
package detectors
