package kafka

import (
	"errors"

	"github.com/segmentio/kafka-go"
)

// A ErrorClass is what an error of Produce means to who produced.
type ErrorClass int

const (
	// Passing errors go away by themselves: a broker that is away, a leader that moves, a time-out. The same again, later.
	Retriable ErrorClass = iota
	// Denied means that a permission, a password or a setting of the cluster must be changed by somebody; then the same will be
	// taken. Try again, slowly, and say so.
	Denied
	// Refused means that this content will never be taken: it is too large or not valid.
	Rejected
)

// String is the word for k in logs and metrics.
func (k ErrorClass) String() string { return [...]string{"retriable", "denied", "rejected"}[k] }

// Classify tells what err means. Everything that is not known to stay is believed to pass.
func Classify(err error) ErrorClass {
	var code kafka.Error
	if !errors.As(err, &code) {
		return Retriable
	}
	switch code {
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.UnsupportedForMessageFormat, kafka.PolicyViolation:
		return Rejected
	// A record has the time at which it is sent, and no key: it is the clock of this host, or a topic that was made a compacted one,
	// that is wrong, for every record that we have. Giving them up would lose all until somebody looks.
	case kafka.InvalidTimestamp, kafka.InvalidRecord:
		return Denied
	case kafka.TopicAuthorizationFailed, kafka.ClusterAuthorizationFailed, kafka.GroupAuthorizationFailed, kafka.SASLAuthenticationFailed,
		kafka.UnsupportedSASLMechanism, kafka.IllegalSASLState, kafka.InvalidTopic, kafka.InvalidRequiredAcks,
		kafka.UnsupportedCompressionType, kafka.UnsupportedVersion, kafka.SecurityDisabled, kafka.TransactionalIDAuthorizationFailed:
		return Denied
	}
	return Retriable
}
