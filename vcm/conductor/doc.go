// Package conductor is the low-level face of a virtual module: the commands of
// the STS6 security-module API, over TCP (port 5100) and as the SSH service
// "conductor".
//
// # Message line
//
// A request is AA?CC, parameters, CRC-16/ARC in four hex digits and CR; the
// response AA!CC, a status of two characters, a payload, CRC and CR. A request
// that cannot be attributed to a command is answered GL!ER and a code (20 wrong
// CRC, 21 unknown header or command, 58 error state). Nothing is left to answer
// 57: a tamper event ends every VCM. An extended error has the status EE and one
// P field with its text.
//
// # Frame
//
// On TCP and SSH a line travels in a frame: a 16-bit big-endian length of all
// that follows, six bytes, the line with its CR.
//
// # Parameters
//
// SM commands use PTVD fields: a type letter, a value, a tilde. Errors are
// judged in stages, each over all fields from left to right: 60 number of
// fields, 61 types, 62 values, 63 ranges.
//
// # Commands
//
// Fields by type; what is in brackets may be missing:
//
//	SM?DI -                                   P module, P firmware
//	SM?QI -                                   P public key id, P hardware, P firmware, H firmware hash
//	SM?QD -                                   D clock, N window in minutes
//	SM?GA N register                          P attributes
//	SM?CQ -                                   N transactions left, P module, H nonce, D clock
//	SM?VC N register, P PAN, N TI, N EA, N TCT, N subclass, H amount, H TID
//	                                          P hex token, P decimal token
//	SM?VM as VC, with H value                 P hex token, P decimal token
//	SM?VK N old, N new register, P PAN, N old TI, N EA, N TCT, N new TI, N tokens
//	                                          N rollover, N tokens, P hex tokens, P decimal tokens
//	SM?VT N register, P PAN, N TI, N EA, [N TCT], P token
//	                                          N result, N class, N subclass, H amount, H TID
//	SM?KC P KMC.PUBKEY.1                      P VKLOAD.REQ.1
//	SM?KR P VKLOAD.RSP.1                      P KMC, N keys announced
//	SM?KL P KMC, P VK.WRAP.1, [N register]    N register, P KCV
//	SM?KF P KMC                               N keys in the module
//	SM?KX P KMC                               N registers erased
//	SM?KD N register                          P KCV
//	SM?QK N index                             P KMC, state, request, TVP, number of keys
//	SM?CI P instruction, H signature          -
//	SM?QL N index                             N index, D time, P text
//	GL?EC two-digit time-out, three-digit length, data
//	GL?RR repeats the socket's last response, GL?RS resets the socket
//
// # Settings
//
// The number of sockets (64) and the trace level (Default, Verbose, Debug) are
// preferences of the VCM, conductor.maxSockets and conductor.traceLevel, and
// apply to the next connection and the next command. A restart ends the sockets
// and SSH sessions, lets a command under way be answered, and does not touch the
// module. The TCP port (5100) is a property of the VCM, conductor_port, because
// the orchestrator binds it before the VCM starts.
//
// # Choices
//
// The text of the standard is not public. What follows is this project's
// choice; each is made in one place, named here, so that a licensee's document
// can replace it:
//
//   - the length has 16 bits and the six bytes are echoed (frame.go);
//   - GL!ER is framed like any response, or bare with the preference conductor.errorFraming (frame.go);
//   - D fields are UTC, N fields have 32 bits, P fields up to 8192 characters
//     without a tilde (ptvd.go);
//   - the layouts of CQ, KC, KR, KL, KF, KX, KD, QK, CI and QL, the window's
//     unit of minutes, and the types of QI (commands.go);
//   - VT takes 20 decimal or 17 hex digits, with or without TCT, and answers
//     class, subclass, amount and TID as 0 and empty where the token is not
//     valid (vending.go);
//   - GL?RR with nothing to repeat is answered 02; GL?RS forgets the last
//     response and answers 00; the echo's time-out is not waited for (general.go);
//   - DKGA01 is not built: such keys are kept and shown, and what is to be made
//     with them is answered 40 (hsm/tsm);
//   - QL cuts an entry's text where the response would need more than the low
//     octet of the length (commands.go);
//   - a CRC may have lower-case digits; ours never do (line.go).
package conductor
