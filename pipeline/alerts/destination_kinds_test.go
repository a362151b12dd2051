package alerts

import (
	"testing"

	"tidegate/pipeline"
)

// TestDestinationsDifferInWhatTheyKeep: Alertmanager has one alert for each set of labels, which expires unless it is sent
// again, and takes many at a time. Others get each alert by its id, alone and once.
func TestDestinationsDifferInWhatTheyKeep(t *testing.T) {
	alert := &pipeline.Alert{ID: "id", Fingerprint: "fingerprint"}
	for name, c := range map[string]struct {
		destination
		key     string
		batch   int
		resends bool
	}{
		"alertmanager": {&alertmanager{}, "fingerprint", 64, true},
		"webhook":      {&webhook{}, "id", 1, false},
		"callback":     {&callbackDestination{}, "id", 1, false},
	} {
		if key := c.alertKey(alert); key != c.key || c.maxBatch() != c.batch || c.needsResend() != c.resends {
			t.Errorf("%s: key %s, %d at a time, resends %t", name, key, c.maxBatch(), c.needsResend())
		}
	}
}
