package protocols_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tidegate/protocols"
	"tidegate/protocols/all"
	"tidegate/protocols/protocoltest"
)

// TestTranscriptsHoldTheirProperties plays the transcripts of every protocol to all protocols together.
func TestTranscriptsHoldTheirProperties(t *testing.T) {
	for _, name := range protocoltest.Names(all.Protocols) {
		protocoltest.CheckTranscripts(t, all.Protocols, "testdata", name)
	}
}

// TestContentDecidesNotThePort plays the same transcripts on a port of no protocol.
func TestContentDecidesNotThePort(t *testing.T) {
	for _, name := range protocoltest.Names(all.Protocols) {
		files, _ := filepath.Glob("testdata/" + name + "/*.txt")
		for _, path := range files {
			conversation, err := protocoltest.ReadTranscript(path)
			if err != nil {
				t.Fatal(err)
			}
			conversation.Port = 40404
			if _, got := conversation.Play(all.Protocols); got != name {
				t.Errorf("%s on port %d is %q", path, conversation.Port, got)
			}
		}
	}
}

// TestOtherProtocolsAreNotRecognised plays look-alike protocols on their own ports and on a port of each
// protocol of the list.
func TestOtherProtocolsAreNotRecognised(t *testing.T) {
	files, err := filepath.Glob("testdata/negative/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts")
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			conversation, err := protocoltest.ReadTranscript(path)
			if err != nil {
				t.Fatal(err)
			}
			others := without(all.Protocols, strings.TrimSuffix(filepath.Base(path), ".txt"))
			protocoltest.CheckNegative(t, others, conversation)
			for _, other := range others {
				conversation.Port = other.Ports[0]
				protocoltest.CheckNegative(t, others, conversation)
			}
		})
	}
}

// without returns list without the protocol of the given name. A transcript of the folder negative that is
// named after one of our protocols belongs to that protocol and resembles another one, which must not
// recognise it.
func without(list []protocols.Protocol, name string) []protocols.Protocol {
	return slices.DeleteFunc(slices.Clone(list), func(protocol protocols.Protocol) bool { return protocol.Name == name })
}
