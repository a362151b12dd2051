package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"tidegate/pipeline"
)

// eventID matches the id of an event.
var eventID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// eventCommand returns the command `tidegate event`.
func eventCommand() *cobra.Command {
	var flags configFlags
	cmd := &cobra.Command{
		Use:   "event ID",
		Short: "print a stored event",
		Long: `event prints the fields of an event that are set. ID is its event.id, as alerts have it in event_id.

Needs:    a running store, as query does.`,
		Example: `  tidegate event 741d3a3a-5324-66cf-e214-21504d9223b0`,
		Args:    oneArgument("the event.id of an event"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id := strings.ToLower(args[0])
			if !eventID.MatchString(id) {
				return fmt.Errorf("%q is not the id of an event, such as 741d3a3a-5324-66cf-e214-21504d9223b0", args[0])
			}
			cfg, err := flags.loadConfig(roleSet{all: roleStore})
			if err != nil {
				return err
			}
			var names []string
			for i := range pipeline.Fields {
				names = append(names, "`"+pipeline.Fields[i].Name+"`")
			}
			rows, err := queryRows(cmd.Context(), &cfg,
				"SELECT "+strings.Join(names, ", ")+" FROM events WHERE `event.id` = '"+id+"' LIMIT 1")
			if err != nil {
				return err
			}
			if len(rows.values) == 0 {
				return fmt.Errorf("no event has the id %s; events are kept for clickhouse.ttl_days", id)
			}
			rows.printSet(&stripControlWriter{out: cmd.OutOrStdout()}, rows.values[0])
			return nil
		},
	}
	flags.addTo(cmd)
	return cmd
}
