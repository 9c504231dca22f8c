// Command hsmadmin manages HSMs, and as a tenant VCMs.
package main

import (
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/sp-tools/hsmadmin"
)

func main() { console.Main(hsmadmin.App) }
