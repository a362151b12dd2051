// Package alerts groups verdicts into alerts and delivers alerts to Alertmanager (API v2), webhooks and a
// callback.
//
// The package has two halves with the alerts topic between them. The engine's foldWorker owns a Grouper: matches
// of its partition go in, revisions of alerts come out, and the engine stores those and writes them to the
// topic. cmd/tidegate runs a Publisher, which reads the topic once for each destination, in a consumer group
// of the destination's own, with a deliverer for each partition.
//
// # Delivery of an alert
//
// A deliverer keeps each open alert in one of two states:
//
//	pending    a revision was read and not delivered yet; openAlert.undelivered is the offset of its message
//	delivered  the destination accepted or rejected the newest revision
//
// A new alert is pending. Delivery makes it delivered; a further revision makes it pending again. A delivered
// alert is removed when it was not updated for resolve_after, and the least recently updated ones when
// max_open is reached.
//
// A new alert is sent at once. Later revisions are sent at most once per throttle interval, and only the
// newest. Alertmanager expires alerts that are not repeated, so it receives open alerts again every resend
// interval, and a notification of their end.
//
// # Delivery that fails
//
// A failed attempt postpones that alert only, by a pause that grows to a minute; all others go first. If the
// destination fails twice in succession, all its notifications pause: shortly while it answers with errors,
// because it may accept the next alert, and up to 5 s while it cannot be reached. An attempt that fails while
// the destination accepts other alerts is a refusal of this alert; after max_attempts of them the alert
// counts as rejected. While the destination accepts nothing, no alert is given up. An alert that is rejected,
// so or by a 4xx response about its content, becomes a dead letter. It is not sent again until it has a newer
// revision.
//
// # What is durable
//
// A deliverer commits the offset of the oldest pending message and, as metadata, which messages behind it are
// delivered, and a mark of the newest of them. The mark shows whether the topic was created anew while no
// publisher ran: then all its messages are delivered. Delivery is at least once: a destination that is down
// or a publisher that is killed delays and repeats deliveries, but loses none. The open alerts are in memory
// only. At its start a deliverer restores them: it reads the messages of the last resolve_after again, and
// does not send those that were delivered. While max_open alerts are pending it reads no further: the
// messages stay in Kafka.
package alerts
