package all

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

// TestEveryProtocol plays every transcript of testdata to all protocols together. Each folder there is a
// protocol.
func TestEveryProtocol(t *testing.T) {
	for _, name := range protocoltest.Names(Protocols) {
		files, err := filepath.Glob("../testdata/" + name + "/*.txt")
		if err != nil || len(files) == 0 {
			t.Errorf("%s has no transcript in protocols/testdata/%s", name, name)
		}
		for _, path := range files {
			t.Run(name+"/"+strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
				c, err := protocoltest.ReadTranscript(path)
				if err != nil {
					t.Fatal(err)
				}
				protocoltest.CheckProperties(t, Protocols, c, name)
			})
		}
	}
}

// TestContentDecidesNotThePort: the same transcripts are recognised on a port of no protocol.
func TestContentDecidesNotThePort(t *testing.T) {
	for _, name := range protocoltest.Names(Protocols) {
		files, _ := filepath.Glob("../testdata/" + name + "/*.txt")
		for _, path := range files {
			c, err := protocoltest.ReadTranscript(path)
			if err != nil {
				t.Fatal(err)
			}
			c.Port = 40404
			if _, got := c.Play(Protocols); got != name {
				t.Errorf("%s on port %d is %q", path, c.Port, got)
			}
		}
	}
}

// TestOtherProtocolsAreNotRecognised plays look-alike protocols on their own ports and on a port of each
// protocol of the list.
func TestOtherProtocolsAreNotRecognised(t *testing.T) {
	files, err := filepath.Glob("../testdata/negative/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts")
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			c, err := protocoltest.ReadTranscript(path)
			if err != nil {
				t.Fatal(err)
			}
			others := without(Protocols, strings.TrimSuffix(filepath.Base(path), ".txt"))
			protocoltest.CheckNegative(t, others, c)
			for _, p := range others {
				c.Port = p.Ports[0]
				protocoltest.CheckNegative(t, others, c)
			}
		})
	}
}

// without returns list without the protocol of that name. A transcript of negative that is named after one of
// our protocols looks like another of them: no other may recognise it.
func without(list []protocols.Protocol, name string) []protocols.Protocol {
	return slices.DeleteFunc(slices.Clone(list), func(p protocols.Protocol) bool { return p.Name == name })
}
