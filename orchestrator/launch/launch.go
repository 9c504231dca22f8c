// Package launch starts a VCM's process with as much isolation as the kernel
// grants, hands it exactly the declared descriptors, and supervises it.
package launch
