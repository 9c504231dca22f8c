package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
)

func answerCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "answer",
		Usage: "answer a module's VKLOADREQ with a key load file",
		Flags: []cli.Flag{dirFlag(), outFlag("the key load file"),
			&cli.StringFlag{Name: "request", Required: true, Usage: "`FILE` with the VKLOADREQ"}},
		Action: func(c *cli.Context) error {
			k, err := open(c)
			if err != nil {
				return err
			}
			text, err := readInput(c.String("request"))
			if err != nil {
				return err
			}
			answer, err := k.Answer(text, env.Clock.Now())
			if err != nil {
				return err
			}
			if err := output(env, c, answer.Text); err != nil {
				return err
			}
			for _, w := range answer.Withheld {
				fmt.Fprintf(env.Stderr, "withheld: %s\n", w)
			}
			if c.String("out") == "" {
				return nil
			}
			_, err = fmt.Fprintf(env.Stdout, "module %s: %d keys\n", answer.Module, len(answer.Issued))
			return err
		},
	}
}
