// Command ptokenadmin administers the token service of a VCM.
package main

import (
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/tenant/ptokenadmin"
)

func main() { console.Main(ptokenadmin.App) }
