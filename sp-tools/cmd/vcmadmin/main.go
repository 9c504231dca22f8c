// Command vcmadmin manages the VCMs of a service provider's units.
package main

import (
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/sp-tools/vcmadmin"
)

func main() { console.Main(vcmadmin.App) }
