package protocoltest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tidegate/protocols"
)

// CheckGoldens plays every transcript of a protocol and compares all fields of its events with the golden of the
// same name in testdata of the calling test. GOLDEN=1 in the environment rewrites the goldens.
func CheckGoldens(t *testing.T, list []protocols.Protocol, protocol string) {
	t.Helper()
	files, err := filepath.Glob("../testdata/" + protocol + "/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts")
	}
	for _, path := range files {
		conversation, err := ReadTranscript(path)
		if err != nil {
			t.Fatal(err)
		}
		events, _ := conversation.Play(list)
		got := strings.Join(events, "\n") + "\n"
		golden := filepath.Join("testdata", strings.TrimSuffix(filepath.Base(path), ".txt")+".golden")
		if os.Getenv("GOLDEN") != "" {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if want, err := os.ReadFile(golden); err != nil || string(want) != got {
			t.Errorf("%s differs (GOLDEN=1 go test ./protocols/... -run Goldens rewrites it): %v\ngot:\n%s\nwant:\n%s",
				golden, err, got, want)
		}
	}
}
