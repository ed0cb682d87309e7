package soak

import (
	"os"
	"testing"

	"pixel-ping/internal/rig"
)

func TestMain(m *testing.M) {
	rig.NeedTarget("make soak")
	os.Exit(m.Run())
}
