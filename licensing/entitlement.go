package licensing

// Entitlement is what a unit may do.
type Entitlement struct {
	// Features are the platform's, with exactly one speed bit.
	Features Features
	// MaxActive is how many VCMs may be active at once.
	MaxActive int
	// MaxCreated is how many VCMs may exist.
	MaxCreated int
}

// Effective returns what the factory's features and the licences entitle to.
// The licences are in the order in which they were applied: of those for active
// VCMs the last one counts, also if it is for fewer; features add up; a speed
// licence raises the rating and never lowers it.
func Effective(factory Features, licences []Licence) Entitlement {
	e := Entitlement{MaxActive: 1, MaxCreated: 1}
	rating := factory.Rating()
	features := factory &^ SpeedBits
	bought := false
	for _, l := range licences {
		switch l.Type {
		case MaxActiveVCMs:
			e.MaxActive, bought = l.Active, true
		case Feature:
			features |= l.Features &^ SpeedBits
		case SpeedUpgrade:
			rating = max(rating, l.Features.Rating())
		}
	}
	e.Features = features | BuiltIn | rating.Bit()
	if bought {
		e.MaxCreated = MaxVCMs
		if rating == Base {
			e.MaxCreated = maxVCMsBase
		}
	}
	return e
}
