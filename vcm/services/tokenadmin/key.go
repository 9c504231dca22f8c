package tokenadmin

import (
	"context"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/vcm/keystore"
)

func kekSlot(c keystore.Centre) *prismadmin.KekSlot {
	return &prismadmin.KekSlot{
		Kmc: c.KMC, Kpn: int32(c.KPN), State: c.State, RequestOutstanding: c.Request, Tvp: c.TVP, KeyActivates: unix(c.Activates),
		KeyExpires: unix(c.Expires), Approved: c.Approved, RegistersLoaded: int32(c.Loaded), KeysInKlf: int32(c.InFile), InModule: c.InModule,
	}
}

// slot turns a centre or an error into the wire's.
func slot(c keystore.Centre, err error) (*prismadmin.KekSlot, error) {
	if err != nil {
		return nil, err
	}
	return kekSlot(c), nil
}

// KmcUploadKey stores a KMC's public key.
func (h *handler) KmcUploadKey(ctx context.Context, text string) (*prismadmin.KekSlot, error) {
	return slot(h.Keys.UploadPublicKey(ctx, h.actor, text))
}

// KmcList lists the KMCs.
func (h *handler) KmcList(ctx context.Context) ([]*prismadmin.KekSlot, error) {
	centres, err := h.Keys.Centres(ctx)
	out := []*prismadmin.KekSlot{}
	for _, c := range centres {
		out = append(out, kekSlot(c))
	}
	return out, err
}

// KmcGenerateRequest starts a key agreement.
func (h *handler) KmcGenerateRequest(ctx context.Context, kmc string) (string, error) {
	return h.Keys.GenerateRequest(ctx, h.actor, kmc)
}

// KmcFetchRequest shows the newest request again.
func (h *handler) KmcFetchRequest(ctx context.Context, kmc string) (string, error) {
	return h.Keys.FetchRequest(ctx, kmc)
}

// KmcUploadKlf takes a key load file.
func (h *handler) KmcUploadKlf(ctx context.Context, text string) (*prismadmin.KekSlot, error) {
	return slot(h.Keys.UploadKLF(ctx, h.actor, text))
}

// KmcLoad loads the next keys of a file.
func (h *handler) KmcLoad(ctx context.Context, kmc string, most int32) (*prismadmin.LoadProgress, error) {
	p, err := h.Keys.LoadAll(ctx, h.actor, kmc, int(most))
	if err != nil {
		return nil, err
	}
	return &prismadmin.LoadProgress{Loaded: int32(p.Loaded), Remaining: int32(p.Remaining), Failure: p.Failure}, nil
}

// KmcEndSession ends the key agreement session.
func (h *handler) KmcEndSession(ctx context.Context, kmc string) (*prismadmin.KekSlot, error) {
	return slot(h.Keys.EndSession(ctx, h.actor, kmc))
}

// KmcDeleteSlot removes a KMC.
func (h *handler) KmcDeleteSlot(ctx context.Context, kmc string) (int32, error) {
	n, err := h.Keys.DeleteSlot(ctx, h.actor, kmc)
	return int32(n), err
}

func vendingKey(k keystore.Key) *prismadmin.VendingKey {
	return &prismadmin.VendingKey{
		Sgc: int32(k.SGC), Krn: int32(k.KRN), Kmc: k.KMC, RegisterNumber: int32(k.Register), Attributes: k.Attributes, VendReason: k.Reason,
	}
}

// VkList lists vending keys.
func (h *handler) VkList(ctx context.Context, all bool) ([]*prismadmin.VendingKey, error) {
	keys, err := h.Keys.List(ctx, all)
	out := []*prismadmin.VendingKey{}
	for _, k := range keys {
		out = append(out, vendingKey(k))
	}
	return out, err
}

// VkShow shows one vending key.
func (h *handler) VkShow(ctx context.Context, sgc, krn int32) (*prismadmin.VendingKey, error) {
	k, err := h.Keys.Show(ctx, int(sgc), int(krn))
	if err != nil {
		return nil, err
	}
	return vendingKey(k), nil
}

// VkLoad loads one vending key.
func (h *handler) VkLoad(ctx context.Context, sgc, krn int32) (*prismadmin.VendingKey, error) {
	k, err := h.Keys.Load(ctx, h.actor, int(sgc), int(krn))
	if err != nil {
		return nil, err
	}
	return vendingKey(k), nil
}

// VkDelete erases one vending key from the module.
func (h *handler) VkDelete(ctx context.Context, sgc, krn int32) error {
	return h.Keys.Delete(ctx, h.actor, int(sgc), int(krn))
}
