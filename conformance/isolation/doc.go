// Package isolation is the hostile suite: it runs VCMs that an attacker has taken
// over on a real platform and tries, from inside them, everything that an
// attacker would.
//
// The VCMs and their orchestrator are the product's, built with the tag hostile:
// a VCM then obeys whoever connects to its port of the security-module API, and
// single layers of its isolation can be left out by a file in its data directory.
// Neither is in a program built without the tag.
//
// Each row of the table is a platform with some of the layers: none of them (the
// positive control: there every attempt succeeds, or it would prove nothing), one
// alone, all but one, all. A row's victim has the same layers as its attacker. A
// row fails if something happens that its layers should have prevented, or if a
// VCM's own report claims a layer that was left out.
package isolation
