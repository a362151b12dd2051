package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"tidegate/detectors/rules"
	"tidegate/pipeline"
)

// newCommand returns the command `tidegate rules new`.
func newCommand() *cobra.Command {
	var flags configFlags
	cmd := &cobra.Command{
		Use:   "new EVENT-ID|FILE",
		Short: "print a rule made of an event",
		Long: `new prints a rule that matches an event, with a case of the event and one of another event. The event is a stored one, by its
event.id, or the first one of a file, as replay -o jsonl or query -o jsonl 'SELECT * …' print them. The condition compares the
fields that say what the event is about with their values, so it is as narrow as the event: change it, its title and severity.

Needs:    for an EVENT-ID a running store, as query does.`,
		Example: `  tidegate rules new 741d3a3a-5324-66cf-e214-21504d9223b0 > my-rules/new.yaml
  tidegate replay -o jsonl shop.pcap | grep /etc/passwd > hit.jsonl; tidegate rules new hit.jsonl`,
		Args: oneArgument("the id of an event or a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			event, err := namedEvent(cmd.Context(), &flags, args[0])
			if err != nil {
				return err
			}
			text, err := rules.Draft(event)
			if err != nil {
				return err
			}
			_, err = (&stripControlWriter{out: cmd.OutOrStdout()}).Write(text)
			return err
		},
	}
	flags.addTo(cmd)
	return cmd
}

// namedEvent returns the stored event with an id, or the first one of a file.
func namedEvent(ctx context.Context, flags *configFlags, name string) (*pipeline.Event, error) {
	if id := strings.ToLower(name); eventID.MatchString(id) {
		return storedEvent(ctx, flags, id)
	}
	events, err := readEvents(name, 1)
	if err != nil {
		return nil, err
	}
	return events[0], nil
}
