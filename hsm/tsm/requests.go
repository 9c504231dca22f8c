package tsm

// Request is what every token request carries besides its own fields.
type Request struct {
	// Actor and Note go into the audit entry: who asked, and a name and its
	// value, for example the message id of the call.
	Actor string
	Note  [2]string
}

// CreditInput asks for a class 0 token: SM?VC.
type CreditInput struct {
	Request
	Register int    // 1 to the number of registers
	PAN      string // 18 digits
	TI       int    // tariff index, 0 to 99
	EA       int    // 7 or 11
	TCT      int    // token carrier type, 0 to 99
	SubClass int    // 0 to 3 units, 4 to 7 currency
	Amount   uint32 // STS-encoded: 16 bits, or 20 bits for currency
	TID      uint32 // 24 bits, relative to the key's base date
}

// ManagementInput asks for a class 2 token that is no key change: SM?VM.
type ManagementInput struct {
	Request
	Register int
	PAN      string
	TI       int
	EA       int
	TCT      int
	SubClass int
	Value    uint16 // the token's 16-bit field
	TID      uint32
}

// KeyChangeInput asks for a set of key-change tokens: SM?VK.
type KeyChangeInput struct {
	Request
	RegisterOld int
	RegisterNew int
	PAN         string
	TIOld       int
	EA          int
	TCT         int
	TINew       int
	NumTokens   int // 2 or 3 for EA07, 4 for EA11
}

// VerifyInput asks what a token says: SM?VT.
type VerifyInput struct {
	Register int
	PAN      string
	TI       int
	EA       int
	Token    string // 20 decimal digits, or 17 hex digits
}

// Issued is a token and the facts a host keeps about it.
type Issued struct {
	Hex string // 17 hex digits
	Dec string // 20 decimal digits
	Key Attributes
	// Units is the decoded value of a credit token: STS transfer units, or
	// 10^-5 of the base currency, negative for a refund. Zero otherwise.
	Units int64
}

// KeySet is a set of key-change tokens, in the order they are entered.
type KeySet struct {
	Rollover bool
	Tokens   []Issued
	Old, New Attributes
}

// Verified is what a token says. Result is CodeOK, CodeTokenCRC,
// CodeKeyExpired, CodeKeyIssueExpired or CodeDDTKCredit; the other fields are zero unless it is CodeOK.
type Verified struct {
	Result   Code
	Class    int
	SubClass int
	Amount   uint32 // the token's 16-bit field, or 20 bits for currency
	Units    int64  // a credit amount decoded, as in Issued
	TID      uint32
	// KeyChange is set for a section of a key change, which has neither amount nor TID.
	KeyChange bool
	Key       Attributes
}
