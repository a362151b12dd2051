package dns

import (
	"testing"

	"tidegate/protocols/protocoltest"
)

func TestLossesMatchTheirGoldens(t *testing.T) { protocoltest.CheckLossGoldens(t, list, "dns") }

func TestCapturesMatchTheirGoldens(t *testing.T) { protocoltest.CheckCaptureGoldens(t, list) }
