package pos

// Amendment is the configuration a meter is to be moved to.
type Amendment struct {
	SGC int
	KRN int
	TI  int
}

// MeterConfig is what a client says of a meter.
type MeterConfig struct {
	DRN            string // 11 or 13 digits, or an 18-digit PAN
	EA             int
	TCT            int
	SGC            int
	KRN            int
	TI             int
	New            *Amendment
	AllowKRNUpdate bool
	KEN            int
	DOE            string // YYMM, "0000" or empty: no expiry
	Allow3KCT      bool
	AllowKENUpdate bool
}

// Advice is the configuration to put on a meter card after a key change.
type Advice struct {
	SGC, KRN, TI, KEN int
	IDRecord          string
	Record2           string
	Rollover          bool
	VKKCV             string
}

// Token is an issued or verified token, in a client's terms.
type Token struct {
	DRN, PAN       string
	EA, TCT        int
	SGC, KRN, TI   int
	Class          int
	Subclass       int
	TID            int
	Amount         float64
	ReservedTID    bool
	New            *Advice // on the first token of a key-change set
	Description    string
	STSUnitName    string
	ScaledAmount   string
	ScaledUnitName string
	Dec            string // 20 digits
	Hex            string // 17 hex digits
	IDSM           string
	VKKCV          string
}

// MeterTestToken is a class 1 token, which is not encrypted.
type MeterTestToken struct {
	DRN, PAN     string
	Class        int
	Subclass     int
	Control      int64
	Manufacturer int
	Description  string
	Dec, Hex     string
}

// Verification is what a token turned out to be. With Result VerifyOk exactly
// one of Token and Test is set.
type Verification struct {
	Result Key
	Token  *Token
	Test   *MeterTestToken
}
