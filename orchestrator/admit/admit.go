// Package admit answers one question: may this request happen? It is pure: what
// is known about the unit, its VCMs and both clocks comes in as values, and a
// refusal comes out as an error whose kind and text say what to do.
package admit
