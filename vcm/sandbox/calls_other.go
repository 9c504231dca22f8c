//go:build !amd64 && !arm64

package sandbox

// architecture is none: where the calls are not listed there is no filter, and
// the report says so.
const (
	architecture = uint32(0)
	secondABI    = uint32(0)
)

func allowedHere() []uint32 { return nil }

func deadlyHere() []uint32 { return nil }

func guardedHere() []rule { return nil }
