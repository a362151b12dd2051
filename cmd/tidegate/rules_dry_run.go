package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/detectors/bundles"
)

// printDryRun checks contents as a push does, and prints what they have and how they differ from the newest bundle on the topic.
func (p *rulesPush) printDryRun(ctx context.Context, name string, contents *bundles.Contents) error {
	if err := p.validate(ctx, name, contents); err != nil {
		return err
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	message, err := bundles.Seal(key, bundles.Manifest{By: author(), Comment: p.flags.comment, Program: version}, contents)
	if err != nil {
		return err
	}
	newest, err := p.newestBundle(ctx)
	if err != nil {
		return err
	}
	out := &stripControlWriter{out: os.Stdout}
	if err := p.printFiles(out, contents, newest); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "\nbundle %s: %s, about %s with its signature; nothing is sent\n", contents.Name(), describeContents(contents),
		countOf(len(message), "byte"))
	return p.printRuleChanges(out, name, contents, newest)
}

// newestBundle returns the newest bundle on the topic that a key has signed; nil: there is none.
func (p *rulesPush) newestBundle(ctx context.Context) (*bundles.Bundle, error) {
	if len(p.keys) == 0 {
		return nil, errors.New("rules.bundle_keys is empty: without a key the bundle on the topic cannot be verified; name one, or give --key")
	}
	topic, err := bundles.ReadWhole(ctx, p.client, p.keys)
	if errors.Is(err, kafkago.UnknownTopicOrPartition) {
		return nil, nil
	}
	if err != nil || len(topic.Bundles) == 0 {
		return nil, err
	}
	return bundles.Open(topic.Bundles[0].Message, p.keys, topic.Bundles[0].Topic)
}

// The changes that a dry run prints.
const (
	changeAdded   = "added"
	changeChanged = "changed"
	changeRemoved = "removed"
)

// changeOf returns how a value has changed, where "" stands for none.
func changeOf(before, now string) string {
	switch {
	case before == now:
		return ""
	case before == "":
		return changeAdded
	case now == "":
		return changeRemoved
	}
	return changeChanged
}

// printFiles prints the files of contents, and those that they lack of the newest bundle.
func (p *rulesPush) printFiles(out io.Writer, contents *bundles.Contents, newest *bundles.Bundle) error {
	files, err := contents.Files()
	if err != nil {
		return err
	}
	var before []bundles.File
	if newest != nil {
		if before, err = newest.Files(); err != nil {
			return err
		}
	}
	sums, current := map[string]string{}, map[string]bool{}
	for _, file := range before {
		sums[file.Name] = file.SHA256
	}
	writer := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(writer, "FILE\tBYTES\tSHA-256\tCHANGE")
	for _, file := range files {
		current[file.Name] = true
		_, _ = fmt.Fprintf(writer, "%s\t%s\t%s\t%s\n", file.Name, formatCount(file.Size), file.SHA256, changeOf(sums[file.Name], file.SHA256))
	}
	for _, file := range before {
		if !current[file.Name] {
			_, _ = fmt.Fprintf(writer, "%s\t-\t-\t%s\n", file.Name, changeRemoved)
		}
	}
	return writer.Flush()
}

// printRuleChanges prints the rules that contents add, change and remove.
func (p *rulesPush) printRuleChanges(out io.Writer, name string, contents *bundles.Contents, newest *bundles.Bundle) error {
	if newest == nil {
		_, err := fmt.Fprintln(out, "there is no bundle on the topic yet to compare the rules with")
		return err
	}
	now, err := p.hashes(name, contents)
	if err != nil {
		return err
	}
	before, err := p.hashes("bundle "+newest.Name(), newest.Contents)
	if err != nil {
		_, err = fmt.Fprintf(out, "the rules cannot be compared, since those of the newest bundle do not compile here: %v\n", err)
		return err
	}
	all := maps.Clone(before)
	maps.Copy(all, now)
	writer := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	changes := 0
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if change := changeOf(before[id], now[id]); change != "" {
			if changes++; changes == 1 {
				_, _ = fmt.Fprintln(writer, "\nRULE\tCHANGE")
			}
			_, _ = fmt.Fprintf(writer, "%s\t%s\n", id, change)
		}
	}
	pushed := newest.Pushed.UTC().Format(time.DateTime)
	if changes == 0 {
		_, _ = fmt.Fprintf(writer, "no rule differs from the newest bundle, %s of %s\n", newest.Name(), pushed)
	} else {
		_, _ = fmt.Fprintf(writer, "%s in comparison with the newest bundle, %s of %s\n", countOf(changes, "change"), newest.Name(), pushed)
	}
	return writer.Flush()
}

// hashes returns the hashes of the rules of contents by their ids.
func (p *rulesPush) hashes(name string, contents *bundles.Contents) (map[string]string, error) {
	set, err := p.compile(name, contents, false)
	if err != nil {
		return nil, err
	}
	hashes := map[string]string{}
	for _, rule := range set.Rules() {
		hashes[rule.ID] = rule.Hash
	}
	return hashes, nil
}
