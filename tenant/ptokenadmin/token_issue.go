package ptokenadmin

import (
	"context"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

type issueFunc func(p *prismadmin.PrismAdminClient, ctx context.Context, r *prismadmin.TokenRequest) ([]*prismadmin.Token, error)

func (t tool) issue(name, usage, what string, subclass int, issue issueFunc) *cli.Command {
	flags := slices.Concat(meterFlags(), amendmentFlags(), timeFlags(), []cli.Flag{
		&cli.IntFlag{Name: "subclass", Usage: "subclass of the token", Value: subclass},
		&cli.Float64Flag{Name: "amount", Usage: "amount in the subclass's unit, as in the TokenApi: electricity in 0.1 kWh"},
		messageFlag(),
	})
	return command(name, usage, nil, flags, func(c *cli.Context, _ []string) error {
		r, err := issueOf(c)
		if err != nil {
			return err
		}
		return t.session(c, what, func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			tokens, err := issue(p, ctx, r)
			if err != nil {
				return err
			}
			return t.printTokens(c, r.MessageId, tokens)
		})
	})
}

func (t tool) tokenCredit() *cli.Command {
	return t.issue("credit", "issue a credit token", "issue the token", 0,
		func(p *prismadmin.PrismAdminClient, ctx context.Context, r *prismadmin.TokenRequest) ([]*prismadmin.Token, error) {
			return p.TokenCredit(ctx, r)
		})
}

func (t tool) tokenMSE() *cli.Command {
	return t.issue("mse", "issue a meter-specific engineering token", "issue the token", 1,
		func(p *prismadmin.PrismAdminClient, ctx context.Context, r *prismadmin.TokenRequest) ([]*prismadmin.Token, error) {
			return p.TokenManagement(ctx, r)
		})
}

func (t tool) tokenKCT() *cli.Command {
	flags := slices.Concat(meterFlags(), amendmentFlags(), []cli.Flag{messageFlag()})
	return command("kct", "issue a set of key change tokens", nil, flags, func(c *cli.Context, _ []string) error {
		m, err := meterOf(c)
		if err != nil {
			return err
		}
		to, err := amendmentOf(c)
		if err != nil {
			return err
		}
		if to == nil {
			return console.Usagef("%s needs --to-sgc, --to-krn and --to-ti", c.Command.HelpName)
		}
		id := messageID(c)
		return t.session(c, "issue the key change tokens", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			tokens, err := p.TokenKeyChange(ctx, id, m, to)
			if err != nil {
				return err
			}
			return t.printTokens(c, id, tokens)
		})
	})
}

func (t tool) tokenFetch() *cli.Command {
	return command("fetch", "print tokens that were issued before under a message id", []string{"MESSAGE_ID"}, nil, func(c *cli.Context, args []string) error {
		return t.session(c, "fetch the tokens", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			tokens, err := p.TokenFetch(ctx, args[0])
			if err != nil {
				return err
			}
			return t.printTokens(c, args[0], tokens)
		})
	})
}
