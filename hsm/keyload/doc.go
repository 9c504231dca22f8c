// Package keyload is the language between a Key Management Centre and a
// security module: records, the text blocks that carry them by e-mail, and the
// key agreement that protects vending keys on the way.
//
// # Records
//
// A record is a type with its version and three-letter tags with values, each
// ended by a semicolon, then a CRC: "VKLOAD.REQ.1;SMI89051616;...;CRCE212". A
// record has exactly one text form; whatever a parser would not itself print is
// refused. Fields stand in the order that each record type lists here.
//
// # Key agreement
//
// The scheme is the full unified model C(2e,2s) of SP 800-56A on P-384, with
// key confirmation by the KMC. Keys are derived with HMAC-SHA-384 (SP 800-56C,
// SP 800-108), vending keys wrapped with AES-192 KWP (RFC 5649) and records
// authenticated with AES-192-CMAC.
//
// The names, states and checks are those of STS 600-4-2. Its record layouts
// and its cryptography are not public; the ones here are this project's own,
// interoperate with this project's KMC only, and are kept in this package so
// that a licensee's can replace them.
package keyload
