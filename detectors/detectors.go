// Package detectors determines which events of a block are malicious.
//
// Each sub-package but watch, sigma and bundles holds one pipeline.Detector. A worker of the engine passes a block of events to
// each detector, which appends its verdicts to them:
//
//	rules        evaluates expressions that people write
//	feeds        looks names and addresses up in lists of malicious ones
//	classifier   scores domains with a trained model
//	sigma        converts Sigma rules, for rules
//	watch        polls files for changes, for rules and feeds
//	bundles      takes signed bundles of rules and feeds from Kafka
//
// All detectors keep the same contract: their loaded state is immutable and replaced as a whole between two
// blocks, they keep no reference into an event, and the cost of an event is bounded whatever the network
// sent.
//
// A Loader reads a Config and files and builds a pipeline.Bundle of all detectors. It builds a new one when a
// file changes. `tidegate run` and `tidegate analyze` pass Loader.Bundle to the engine; `tidegate doctor`
// only loads.
package detectors
