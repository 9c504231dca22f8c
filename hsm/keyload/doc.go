// Package keyload is the language between a Key Management Centre and a
// security module: records, the text blocks that carry them by e-mail, and the
// key agreement that protects vending keys on the way.
//
// The names, states and checks are those of STS 600-4-2. Its record layouts
// and its cryptography are not public; the ones here are this project's own,
// interoperate with this project's KMC only, and are kept in this package so
// that a licensee's can replace them.
//
// # Records
//
// A record is a type with its version and three-letter tags with values, each
// ended by a semicolon, then CRC and four hex digits of CRC-16/ARC over all of
// that:
//
//	record = type ";" *( TAG value ";" ) "CRC" 4HEX
//	type   = IDENT, 1 to 40 characters, letters digits _ - . ,
//	TAG    = three upper-case letters; value = x20 to x7E without ; and ~
//
// A record has exactly one text form; whatever a parser would not itself print
// is refused. Fields stand in the order given here; those in brackets may be
// missing:
//
//	KMC.PUBKEY.1  KMC KPN ACT EXP CRV QSV [SIG]
//	SM.PUBKEY.1   SMI SPN HWI FWI CRV QSU [SIG]
//	VKLOAD.REQ.1  SMI SPN KMC KPN TVP SCH HWI FWI [FWH] QEU
//	VKLOAD.RSP.1  SMI SPN KMC KPN TVP SCH KID CNT QEV MAC
//	VK.WRAP.1     ACT BDT [CLM] [CLU] DKG [EXP] IUT KCV KEN KID KRN KTC [SBM] SGC [SGN] [ULM] WVK MAC
//	KLF.HDR.1     KMC SMI TVP CNT
//	KLF.END.1     CNT SHA
//	CI.TXLIC.1    SMI NON CNT IVD
//	CI.SIG.1      SIG
//
// Points (QSV, QSU, QEU, QEV) are uncompressed, in hex. Signatures are r and s
// of ECDSA on P-384 with SHA-384, over the record up to the semicolon before
// SIG; that of a CI.SIG.1 covers the whole CI.TXLIC.1 with its CRC.
//
// # Blocks
//
// A text block has a line -----BEGIN STS <NAME>-----, one record a line, and a
// line -----END STS <NAME>-----. What is around it is ignored, so that it may
// be inside an e-mail. NAME is KMC PUBKEY, SM PUBKEY, VKLOADREQ, KLF, SM
// LICENSE or KMC APPROVAL LIST. A KLF block is KLF.HDR.1, VKLOAD.RSP.1, the
// VK.WRAP.1 records and KLF.END.1, whose SHA is SHA-384 over the lines before
// it, each ended by LF. Key load files of the standard's first edition (records
// 9500 and 9520) are recognised and refused.
//
// # Key agreement
//
// U is the module, V the KMC; each has a static and an ephemeral key on P-384
// (SP 800-56A, full unified model C(2e,2s), unilateral key confirmation by V).
//
//	Z       = Ze || Zs, the ephemeral and the static shared x coordinate
//	KDK     = HMAC-SHA-384(128 zero octets, Z)
//	block i = HMAC-SHA-384(KDK, i || "STS-KEK.1" || 00 || Context || L), 32-bit i and L = 576
//	Context = lp(ID_U) lp(ID_V) lp(TVP) lp(QEU) lp(QEV) lp(SHA-384 of the request record)
//	K_confirm || KEK || KAK = the first 72 octets; AES-192 each
//	MAC of the response = CMAC(K_confirm, "KC_1_V" lp(ID_V) lp(ID_U) lp(QEV) lp(QEU) lp(record before MAC))
//	MAC of a key record = CMAC(KAK, record before MAC); WVK = AES-192 KWP (RFC 5649) under KEK
//
// lp is a 16-bit length before the octets; ID_U is SMID;SMI...;SPN..., ID_V is
// KMCID;KMC...;KPN....
package keyload
