package kafka

import (
	"errors"

	"github.com/segmentio/kafka-go"
)

// An ErrorClass is the consequence of an error of Produce for the records of the request.
type ErrorClass int

const (
	// Retriable errors pass by themselves: a broker that is down, a leader that moves, a timeout. The same
	// request is repeated.
	Retriable ErrorClass = iota
	// Denied errors last until somebody changes a permission, a password or a setting of the cluster. The
	// same request is repeated, slowly, and logged as an error.
	Denied
	// Rejected records will never be accepted: they are too large or not valid.
	Rejected
)

// String returns the name of the class in logs and metrics.
func (c ErrorClass) String() string { return [...]string{"retriable", "denied", "rejected"}[c] }

// Classify returns the class of err. An error that may pass by itself is Retriable.
func Classify(err error) ErrorClass {
	var code kafka.Error
	if !errors.As(err, &code) {
		return Retriable
	}
	switch code {
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.UnsupportedForMessageFormat, kafka.PolicyViolation:
		return Rejected
	// Our records carry the time of sending and no key. A wrong clock on this host or a compacted topic
	// therefore causes one of these two errors for every record. As Rejected, all records would be dropped
	// until an operator repairs the cause.
	case kafka.InvalidTimestamp, kafka.InvalidRecord:
		return Denied
	case kafka.TopicAuthorizationFailed, kafka.ClusterAuthorizationFailed, kafka.GroupAuthorizationFailed,
		kafka.TransactionalIDAuthorizationFailed, kafka.SASLAuthenticationFailed, kafka.UnsupportedSASLMechanism,
		kafka.IllegalSASLState, kafka.InvalidTopic, kafka.InvalidRequiredAcks, kafka.UnsupportedCompressionType,
		kafka.UnsupportedVersion, kafka.SecurityDisabled:
		return Denied
	}
	return Retriable
}
