package conductor

import "context"

func keyAgreement(ctx context.Context, c *session, f *fields, out *payload) error {
	m := c.server.cfg.Module
	agree := m.KeyAgreement
	if allow := c.server.cfg.AllowUnapproved; allow != nil {
		agree = m.KeyAgreementApproved
		if allow(ctx) {
			agree = m.KeyAgreementUnapproved
		}
	}
	request, err := agree(ctx, f.texts[0])
	if err != nil {
		return err
	}
	out.text(request)
	return nil
}

func processResponse(ctx context.Context, c *session, f *fields, out *payload) error {
	kmc, announced, err := c.server.cfg.Module.ProcessResponse(ctx, f.texts[0])
	if err != nil {
		return err
	}
	out.text(kmc).number(uint64(announced))
	return nil
}

func loadKey(ctx context.Context, c *session, f *fields, out *payload) error {
	n := 0 // the module chooses
	if f.count == 3 {
		n = register(f.numbers[2])
	}
	a, err := c.server.cfg.Module.LoadKey(ctx, f.texts[0], f.texts[1], n)
	if err != nil {
		return err
	}
	out.number(uint64(a.Register)).text(a.KCV)
	return nil
}

func finish(ctx context.Context, c *session, f *fields, out *payload) error {
	loaded, err := c.server.cfg.Module.Finish(ctx, f.texts[0])
	if err != nil {
		return err
	}
	out.number(uint64(loaded))
	return nil
}

func deleteSlot(ctx context.Context, c *session, f *fields, out *payload) error {
	erased, err := c.server.cfg.Module.DeleteSlot(ctx, f.texts[0])
	if err != nil {
		return err
	}
	out.number(uint64(erased))
	return nil
}

func deleteKey(ctx context.Context, c *session, f *fields, out *payload) error {
	kcv, err := c.server.cfg.Module.DeleteKey(ctx, register(f.numbers[0]))
	if err != nil {
		return err
	}
	out.text(kcv)
	return nil
}
