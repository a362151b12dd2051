package all

import (
	"path/filepath"
	"strings"
	"testing"

	"tidegate/protocols/protocoltest"
)

// TestEveryTranscriptHoldsTheProperties plays every transcript of testdata to all protocols together. Each
// folder of testdata belongs to a protocol.
func TestEveryTranscriptHoldsTheProperties(t *testing.T) {
	for _, name := range protocoltest.Names(Protocols) {
		files, err := filepath.Glob("../testdata/" + name + "/*.txt")
		if err != nil || len(files) == 0 {
			t.Errorf("%s has no transcript in protocols/testdata/%s", name, name)
		}
		for _, path := range files {
			t.Run(name+"/"+strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
				conversation, err := protocoltest.ReadTranscript(path)
				if err != nil {
					t.Fatal(err)
				}
				protocoltest.CheckProperties(t, Protocols, conversation, name)
			})
		}
	}
}
