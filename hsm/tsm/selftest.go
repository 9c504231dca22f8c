package tsm

import "github.com/tesserae-hsm/tesserae/hsm/sts"

func runSelfTests(broken string, variant sts.Variant) error { return nil }
