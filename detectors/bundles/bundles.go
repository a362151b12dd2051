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
// changes nothing either: an engine keeps the bundle that it has, and reports that somebody removed it (removals.go). What
// is refused is logged, counted and reported. A signed bundle that does not load for a cause that may pass, such as a full
// disk, is tried again; one that does not compile is refused.
package bundles

import (
	"errors"
	"fmt"

	"tidegate/detectors/rules"
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
	ReasonCompile   Reason = "compile"   // its rules do not compile
	ReasonDamaged   Reason = "damaged"   // the record batch that has it cannot be read
	ReasonRemoved   Reason = "removed"   // it removes a bundle from the topic
)

var reasons = []string{
	string(ReasonFormat), string(ReasonSignature), string(ReasonReplayed), string(ReasonTooLarge), string(ReasonContents),
	string(ReasonCompile), string(ReasonDamaged), string(ReasonRemoved),
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

// refusalOf returns why an engine refuses a bundle for good. ok is false for an error whose cause may pass.
func refusalOf(err error) (reason Reason, ok bool) {
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		return refusal.Reason, true
	}
	if _, ok := errors.AsType[rules.Errors](err); ok && !errors.Is(err, rules.ErrDatabase) {
		return ReasonCompile, true
	}
	return "", false
}
