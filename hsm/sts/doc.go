// Package sts implements the token algorithms of the Standard Transfer
// Specification (IEC 62055-41, STS 202-1, STS 202-5) as pure functions.
package sts
