package tls

import (
	"testing"

	"tidegate/protocols/protocoltest"
)

func TestLossesMatchTheirGoldens(t *testing.T) { protocoltest.CheckLossGoldens(t, list, "tls") }

func TestCapturesMatchTheirGoldens(t *testing.T) { protocoltest.CheckCaptureGoldens(t, list) }
