package bundles

import (
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// MaxMessage bounds a signed and compressed bundle. A message is one record of Kafka: bundles are not split.
const MaxMessage = kafka.MaxBundle

const (
	// magic begins each message; its last byte is the version of the format.
	magic = "tidegate bundle\x01"
	// domain separates the signatures of bundles from all other uses of a key.
	domain = "tidegate bundle v1\x00"

	headerSize  = len(magic) + ed25519.SignatureSize
	maxManifest = 16 << 10
	maxComment  = 500
)

// A Manifest describes a bundle. It is signed.
type Manifest struct {
	// Topic is the full name of the topic that the bundle is for: one that is copied to another topic is refused.
	Topic string `json:"topic"`
	// Sequence orders bundles. An engine runs no bundle with a lower one than it has run. It is about the time of the
	// push, in milliseconds since 1970, so that it also grows when the topic was lost.
	Sequence int64     `json:"sequence"`
	Pushed   time.Time `json:"pushed"`
	By       string    `json:"by"` // user and host
	Comment  string    `json:"comment,omitempty"`
	Program  string    `json:"program"` // version of tidegate that packed it
	// Contents is the SHA-256 of the contents in hex.
	Contents string `json:"contents"`
	// RollbackOf is the sequence of the earlier bundle whose contents these are, or 0.
	RollbackOf int64 `json:"rollback_of,omitempty"`
}

// Name returns the name of the contents.
func (m Manifest) Name() string { return m.Contents[:nameLength] }

// A Bundle is a message that a key has signed.
type Bundle struct {
	Manifest
	*Contents
	Message []byte            // as it was signed
	Key     ed25519.PublicKey // that has signed it
}

// Name returns the name of the contents.
func (b *Bundle) Name() string { return b.Manifest.Name() }

// Seal returns the signed message of a bundle. It sets Contents of the manifest.
//
// A message is: magic, signature, length of the manifest (uint32, big endian), manifest (JSON), contents (a zip archive,
// compressed with gzip). The signature is that of PureEdDSA (RFC 8032) over the domain and the SHA-512 of what follows it.
func Seal(key ed25519.PrivateKey, manifest Manifest, contents *Contents) ([]byte, error) {
	manifest.Contents = contents.sum()
	if len(manifest.Comment) > maxComment {
		return nil, fmt.Errorf("the comment has more than %d bytes", maxComment)
	}
	text, err := json.Marshal(manifest)
	if err != nil {
		return nil, err
	}
	var signed bytes.Buffer
	signed.Write(binary.BigEndian.AppendUint32(nil, uint32(len(text))))
	signed.Write(text)
	compressor, err := gzip.NewWriterLevel(&signed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err = compressor.Write(contents.data); err == nil {
		err = compressor.Close()
	}
	if err != nil {
		return nil, err
	}
	message := append([]byte(magic), ed25519.Sign(key, toSign(signed.Bytes()))...)
	message = append(message, signed.Bytes()...)
	if len(message) > MaxMessage {
		return nil, refuse(ReasonTooLarge, "the bundle has %d bytes compressed, at most %d are sent: give engines large lists as feeds of their own",
			len(message), MaxMessage)
	}
	return message, nil
}

// toSign returns what is signed instead of data.
func toSign(data []byte) []byte {
	sum := sha512.Sum512(data)
	return append([]byte(domain), sum[:]...)
}

// Open verifies a message from the topic with this full name, and reads it. The error is a Refusal. Nothing behind the
// signature is read unless one of the keys has made it.
func Open(message []byte, keys []ed25519.PublicKey, topic string) (*Bundle, error) {
	bundle, compressed, err := openManifest(message, keys, topic)
	if err != nil {
		return nil, err
	}
	data, err := inflate(compressed)
	if err != nil {
		return nil, err
	}
	if bundle.Contents, err = parseContents(data); err != nil {
		return nil, err
	}
	if sum := bundle.sum(); sum != bundle.Manifest.Contents {
		return nil, refuse(ReasonContents, "the contents have the SHA-256 %s, and the manifest says %.64s", sum, bundle.Manifest.Contents)
	}
	return bundle, nil
}

// openManifest verifies a message and reads its manifest. The bundle that it returns has no contents yet.
func openManifest(message []byte, keys []ed25519.PublicKey, topic string) (bundle *Bundle, compressed []byte, err error) {
	key, err := verify(message, keys)
	if err != nil {
		return nil, nil, err
	}
	bundle = &Bundle{Message: message, Key: key}
	rest := message[headerSize:]
	if len(rest) < 4 {
		return nil, nil, refuse(ReasonContents, "the message ends before its manifest")
	}
	length := binary.BigEndian.Uint32(rest)
	if rest = rest[4:]; length > maxManifest || int(length) > len(rest) {
		return nil, nil, refuse(ReasonContents, "the manifest has %d bytes", length)
	}
	if err := json.Unmarshal(rest[:length], &bundle.Manifest); err != nil {
		return nil, nil, refuse(ReasonContents, "read the manifest: %w", err)
	}
	if bundle.Topic != topic {
		return nil, nil, refuse(ReasonSignature, "it is signed for the topic %q", bundle.Topic)
	}
	if len(bundle.Manifest.Contents) != 64 || bundle.Sequence <= 0 || bundle.Sequence > maxSequence {
		return nil, nil, refuse(ReasonContents, "the manifest lacks a sequence, of at most 2^53, or the sum of the contents")
	}
	return bundle, rest[length:], nil
}

// verify returns the key that has signed a message.
func verify(message []byte, keys []ed25519.PublicKey) (ed25519.PublicKey, error) {
	switch {
	case len(message) > MaxMessage:
		return nil, refuse(ReasonTooLarge, "it has %d bytes, at most %d are read", len(message), MaxMessage)
	case len(message) < headerSize || !bytes.HasPrefix(message, []byte(magic)):
		return nil, refuse(ReasonFormat, "it is no bundle, or one of another version of the format")
	}
	signature, digest := message[len(magic):headerSize], toSign(message[headerSize:])
	for _, key := range keys {
		if ed25519.Verify(key, digest, signature) {
			return key, nil
		}
	}
	return nil, refuse(ReasonSignature, "none of the keys has signed it")
}

// inflate decompresses contents up to their bound.
func inflate(data []byte) ([]byte, error) {
	reader, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, refuse(ReasonContents, "decompress the contents: %w", err)
	}
	out, err := io.ReadAll(io.LimitReader(reader, maxContents+1))
	switch {
	case len(out) > maxContents:
		return nil, refuse(ReasonTooLarge, "the contents have more than %d bytes", maxContents)
	case err != nil:
		return nil, refuse(ReasonContents, "decompress the contents: %w", err)
	}
	return out, nil
}

// keyPrefix begins the keys of the records of bundles. Each bundle has a key of its own, so that compaction keeps them.
const keyPrefix = "bundle/"

// recordKey returns the key of the record of a bundle.
func recordKey(sequence int64) []byte { return strconv.AppendInt([]byte(keyPrefix), sequence, 10) }

// topicName returns the full name of the topic of bundles.
func topicName(client *kafka.Client) string { return client.Topic(pipeline.TopicBundles) }
