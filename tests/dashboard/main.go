// Checks a dashboard by the types of Grafana's own schema: `go run . FILE`. No unknown key, no missing one, and the
// options of each panel are those of its type.
package main

import (
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

func main() {
	runtime := cog.NewRuntime()
	runtime.RegisterPanelcfgVariant(stat.VariantConfig())
	runtime.RegisterPanelcfgVariant(table.VariantConfig())
	runtime.RegisterPanelcfgVariant(timeseries.VariantConfig())
	runtime.RegisterDataqueryVariant(prometheus.VariantConfig())
	text, err := os.ReadFile(os.Args[1])
	failOn(err)
	var present dashboard.Dashboard
	failOn(present.UnmarshalJSONStrict(text))
	failOn(present.Validate())
	for _, panel := range present.Panels {
		if panel.Panel != nil && panel.Panel.Type != "stat" && panel.Panel.Type != "table" && panel.Panel.Type != "timeseries" {
			failOn(fmt.Errorf("the options of a panel of type %s are not checked", panel.Panel.Type))
		}
	}
	fmt.Printf("%d panels and rows\n", len(present.Panels))
}

// failOn ends the program on an error. The schema's checks return an empty list of errors for none.
func failOn(err error) {
	if err != nil && err.Error() != "" {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
