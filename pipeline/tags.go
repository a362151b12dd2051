package pipeline

import (
	"slices"
	"strings"
)

// The values of the field tags, by which the collector marks what is special about an observation. A rule tests
// them as `"truncated" in tags`. A new value needs a constant and a row in Tags.
const (
	TagTruncated       = "truncated"
	TagParsingStopped  = "parsing_stopped"
	TagTooManyErrors   = "too_many_errors"
	TagParserPanic     = "parser_panic"
	TagUnsupported     = "unsupported"
	TagOverlapConflict = "overlap_conflict"
	TagUrgentData      = "urgent_data"
	TagBadChecksum     = "bad_checksum"
	TagSourceSpoofed   = "source_spoofed"
	TagRefusedHeaders  = "refused_headers"
	TagMACMoved        = "mac_moved"
	TagMemoryLimit     = "memory_limit"
	TagLogExcluded     = "log_excluded"
	TagTunnelUnopened  = "tunnel_unopened"
	TagAmbiguous       = "ambiguous"
	TagUndecoded       = "undecoded"
	TagUnacknowledged  = "unacknowledged"
	TagCopiesDiffer    = "copies_differ"
)

// A Tag is a value of the field tags.
type Tag struct {
	Name string
	Doc  string // what it says of the event, for docs/FIELDS.md
}

// Tags are the values of the field tags.
var Tags = []Tag{
	{TagTruncated, "a text or a list of the event was cut; its head and its tail are kept"},
	{TagParsingStopped, "the rest of the connection is not parsed for now; another tag has the reason"},
	{TagTooManyErrors, "the bytes of the connection were not of its protocol too often"},
	{TagParserPanic, "the parser failed, or the text of a log line could not be handled and is left out"},
	{TagUnsupported, "the two sides use a variant of the protocol that is not read, such as compression"},
	{TagOverlapConflict, "bytes were sent twice with different values, or the first ones were no longer kept, and the receiver may have others; both messages are events, unless the receiver had acknowledged the first or they overtook each other"},
	{TagUrgentData, "bytes of TCP urgent data lie among those of the event"},
	{TagBadChecksum, "packets of the connection had wrong checksums and were left out, as the receiver leaves them out"},
	{TagRefusedHeaders, "packets had headers for which Linux drops a packet (options or extension headers of IP, signatures of TCP, the Ethernet address of another); the receiver may not have taken them"},
	{TagSourceSpoofed, "the source address is not the sender's"},
	{TagMACMoved, "two ports of a bridge sent with the MAC address of an end, or one sent with that of the bridge; either may have sent the packets"},
	{TagTunnelUnopened, "the datagrams have the form of a tunnel that does not end on this host; what is inside was not read"},
	{TagAmbiguous, "where this request begins or ends, servers read differently: it may not be one, and others may be missing"},
	{TagUndecoded, "the packets, on a bridge, had headers that are damaged, cut or nested too deep, and were not read"},
	{TagUnacknowledged, "the receiver went on to send and never acknowledged bytes of the connection, perhaps those of the event: it may not have got them"},
	{TagCopiesDiffer, "another interface shows a connection with these addresses, and other bytes: one of the two is forged, or a part of it"},
	{TagLogExcluded, "the log of the container is not read, because the configuration excludes the container or a label of it"},
	{TagMemoryLimit, "the event was completed early, or without its reply, because memory ran out"},
}

// maxTags is the number of tags of one event.
const maxTags = 8

// AddTag adds tag, one of the constants above, to the tags of e, once. It does not add more than maxTags.
func (e *Event) AddTag(tag string) {
	if len(e.Tags) < maxTags && !slices.Contains(e.Tags, tag) {
		e.Tags = append(e.Tags, tag)
	}
}

// tagList returns the names of Tags with what they say.
func tagList() string {
	texts := make([]string, len(Tags))
	for i, tag := range Tags {
		texts[i] = tag.Name + " (" + tag.Doc + ")"
	}
	return strings.Join(texts, ", ")
}
