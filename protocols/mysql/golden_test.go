package mysql

import (
	"testing"

	"tidegate/protocols/protocoltest"
)

func TestLossesMatchTheirGoldens(t *testing.T) { protocoltest.CheckLossGoldens(t, list, "mysql") }

func TestCapturesMatchTheirGoldens(t *testing.T) { protocoltest.CheckCaptureGoldens(t, list) }
