// Package bundles distributes rules and feeds to engines: bundles that an author has signed, on a topic of Kafka.
//
// `tidegate rules push` packs the files of a folder and feeds into Contents (contents.go), signs them with an ed25519
// key (message.go, keys.go) and writes the message to the topic bundles (topic.go). Each engine that is configured with
// public keys runs a Follower (follower.go). It reads the topic, verifies each message, loads the newest bundle into the
// detectors, and stores it in a Store (store.go), so that it runs that bundle after a restart, too. It writes what it runs
// to the topic engines (report.go), which `tidegate rules push` and `rules status` read.
//
// Whoever may write to the topic but has no key can make no engine run anything: a message is verified before any part
// of it is parsed. An older message, written again, is refused by its sequence. The topic being unreadable or empty
// changes nothing either: an engine keeps the bundle that it has. What is refused is logged, counted and reported.
package bundles

import (
	"errors"
	"fmt"
)

// A Reason is why an engine refuses a message, as its label in metrics.
type Reason string

// The reasons.
const (
	ReasonFormat    Reason = "format"    // it is no bundle
	ReasonSignature Reason = "signature" // no configured key has signed it
	ReasonReplayed  Reason = "replayed"  // it is not newer than another message before it
	ReasonTooLarge  Reason = "too_large" // it exceeds a bound
	ReasonContents  Reason = "contents"  // it is signed, and its contents are not valid
	ReasonCompile   Reason = "compile"   // its rules or feeds do not load
)

var reasons = []string{
	string(ReasonFormat), string(ReasonSignature), string(ReasonReplayed), string(ReasonTooLarge), string(ReasonContents),
	string(ReasonCompile),
}

// A Refusal is the error of a message that is not a bundle for this engine.
type Refusal struct {
	Reason Reason
	Err    error
}

func (r *Refusal) Error() string { return r.Err.Error() }

// Unwrap returns the cause.
func (r *Refusal) Unwrap() error { return r.Err }

// refuse returns a Refusal.
func refuse(reason Reason, format string, args ...any) error {
	return &Refusal{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// reasonOf returns the reason of an error; one that is no Refusal is one of loading the rules.
func reasonOf(err error) Reason {
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		return refusal.Reason
	}
	return ReasonCompile
}
