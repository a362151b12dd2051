package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tidegate/detectors/bundles"
	"tidegate/detectors/feeds"
	"tidegate/detectors/rules"
	"tidegate/pipeline/config"
	"tidegate/pipeline/kafka"
	"tidegate/pipeline/retry"
)

// pushFlags are the flags of the commands that sign a bundle.
type pushFlags struct {
	configFlags
	key, comment string
	noWait       bool
	timeout      time.Duration
	after        int64
}

func (f *pushFlags) addTo(cmd *cobra.Command) {
	f.configFlags.addTo(cmd)
	cmd.Flags().StringVar(&f.key, "key", "", "PEM file of the ed25519 private key that signs the bundle; required")
	cmd.Flags().StringVar(&f.comment, "comment", "", "why it is pushed; rules status shows it")
	cmd.Flags().BoolVar(&f.noWait, "no-wait", false, "do not wait for the engines")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 2*time.Minute, "how long to wait for the engines")
	cmd.Flags().Int64Var(&f.after, "after", 0, "make the sequence of the bundle higher than this one, which an engine has reported")
}

// pushRulesCommand returns the command `tidegate rules push`.
func pushRulesCommand() *cobra.Command {
	var flags pushFlags
	var selection pushSelection
	cmd := &cobra.Command{
		Use:   "push [DIR]",
		Short: "send a signed bundle of rules to all engines",
		Long: `push compiles the rules of DIR, or of rules.dir, and runs their cases. If all pass, it packs the files of the folder,
signs them and writes them to the topic of bundles, from which every engine with the public key in rules.bundle_keys
loads them. It waits until each engine that runs has loaded the bundle. The Sigma rules of --sigma, or without DIR those of
rules.sigma, are part of the bundle. With --feeds the configured feeds are, too; those with a url are downloaded by each
engine, but with --downloaded-feeds they are as this host has downloaded them. --dry-run prints the files of the bundle, and
which rules it adds, changes and removes in comparison with the newest bundle on the topic, and sends nothing.

Needs:    Kafka, and the private key (rules keygen, or openssl genpkey -algorithm ed25519); --dry-run needs no key.
Ends:     with 1 if a rule does not compile, a case fails, an engine refuses the bundle or does not answer in time, or no
          engine reports; with 2 if the bundle could not be sent.`,
		Example: `  tidegate rules push --key rules.key my-rules
  tidegate rules push --key rules.key --feeds --comment "new list of miners"
  tidegate rules push --dry-run my-rules`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("rules push takes at most one argument, a folder of rules; got %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			push, err := newPush(&flags, selection.dryRun)
			if err != nil {
				return err
			}
			defer push.client.Close()
			selected, dir, err := selection.choose(&push.cfg, args)
			if err != nil {
				return err
			}
			contents, err := bundles.Pack(selected)
			if err != nil {
				return err
			}
			if selection.dryRun {
				return push.printDryRun(cmd.Context(), dir, contents)
			}
			return push.send(cmd.Context(), dir, bundles.Manifest{}, contents)
		},
	}
	flags.addTo(cmd)
	cmd.Flags().StringVar(&selection.sigma, "sigma", "", "folder of Sigma rules that are part of the bundle")
	cmd.Flags().BoolVar(&selection.feeds, "feeds", false, "the configured feeds that have no url are part of the bundle")
	cmd.Flags().BoolVar(&selection.downloaded, "downloaded-feeds", false, "those with a url, too, as this host has downloaded them")
	cmd.Flags().BoolVar(&selection.dryRun, "dry-run", false, "print what the bundle would have, and send nothing")
	return cmd
}

// A pushSelection is what the flags of `rules push` select.
type pushSelection struct {
	sigma                     string
	feeds, downloaded, dryRun bool
}

// choose returns what is packed, and the folder of rules.
func (s *pushSelection) choose(cfg *Config, args []string) (selected bundles.Selection, dir string, err error) {
	dir, sigmaDir := cfg.Rules.Dir, s.sigma
	if len(args) > 0 {
		dir = args[0]
	} else if sigmaDir == "" {
		sigmaDir = cfg.Rules.Sigma
	}
	if dir == "" {
		return selected, "", errors.New("rules push takes a folder of rules, since rules.dir is empty")
	}
	if err := checkRuleFolder(dir); err != nil {
		return selected, "", err
	}
	selected.Rules = config.RegularFS(dir)
	if sigmaDir != "" {
		if err := checkRuleFolder(sigmaDir); err != nil {
			return selected, "", err
		}
		selected.Sigma = config.RegularFS(sigmaDir)
	}
	for _, feed := range cfg.Feeds {
		if isDownloaded := feed.URL != ""; isDownloaded && s.downloaded || !isDownloaded && s.feeds {
			selected.Feeds = append(selected.Feeds, feed)
		}
	}
	return selected, dir, nil
}

// rollbackRulesCommand returns the command `tidegate rules rollback`.
func rollbackRulesCommand() *cobra.Command {
	var flags pushFlags
	cmd := &cobra.Command{
		Use:   "rollback [BUNDLE]",
		Short: "send an earlier bundle again",
		Long: `rollback signs the contents of an earlier bundle, which is still on the topic, as a new bundle and sends it. BUNDLE is
its name as rules status shows it; without it, the bundle before the newest one with other contents is sent.

Needs:    Kafka, and the private key.
Ends:     as rules push does.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("rules rollback takes at most one argument, the name of a bundle; got %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			push, err := newPush(&flags, false)
			if err != nil {
				return err
			}
			defer push.client.Close()
			earlier, err := push.findEarlier(cmd.Context(), args)
			if err != nil {
				return err
			}
			opened, err := bundles.Open(earlier.Message, push.keys, earlier.Topic)
			if err != nil {
				return err
			}
			return push.send(cmd.Context(), "bundle "+earlier.Name(), bundles.Manifest{RollbackOf: earlier.Sequence}, opened.Contents)
		},
	}
	flags.addTo(cmd)
	return cmd
}

// keygenCommand returns the command `tidegate rules keygen`.
func keygenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen FILE",
		Short: "make a key pair for signed bundles",
		Long: `keygen writes a new ed25519 private key to FILE, which only you may read, and its public key to FILE.pub, as PEM. Files that
exist are not replaced. Engines get FILE.pub in rules.bundle_keys; FILE stays with whoever pushes rules.`,
		Example: `  tidegate rules keygen rules.key`,
		Args:    oneArgument("the file of the private key"),
		RunE: func(_ *cobra.Command, args []string) error {
			private, public, err := bundles.NewKeyPair()
			if err != nil {
				return fmt.Errorf("make a key pair: %w", err)
			}
			if err := writeNewFile(args[0], private, 0o600); err != nil {
				return err
			}
			if err := writeNewFile(args[0]+".pub", public, 0o644); err != nil {
				return errors.Join(err, os.Remove(args[0]))
			}
			fmt.Printf("%s      the private key: keep it where rules are pushed\n", args[0])
			fmt.Printf("%s.pub  the public key: name it in rules.bundle_keys of every engine\n", args[0])
			return nil
		},
	}
}

// writeNewFile creates a file and fails if there is one.
func writeNewFile(path string, data []byte, mode os.FileMode) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Sync(), file.Close())
}

// A rulesPush is a push of one bundle.
type rulesPush struct {
	flags  *pushFlags
	cfg    Config
	key    ed25519.PrivateKey
	keys   []ed25519.PublicKey // that of key and those of the configuration
	client *kafka.Client
}

// newPush reads the configuration and the keys. A dry run needs no private key.
func newPush(flags *pushFlags, isDryRun bool) (*rulesPush, error) {
	if flags.key == "" && !isDryRun {
		return nil, errors.New("--key is missing: the file of the private key; `tidegate rules keygen FILE` makes one")
	}
	cfg, err := flags.loadConfig(roleSet{all: roleEngine})
	if err != nil {
		return nil, err
	}
	push := &rulesPush{flags: flags, cfg: cfg}
	if push.keys, err = cfg.bundleKeys(); err != nil {
		return nil, err
	}
	if flags.key == "" {
		push.client, err = cfg.openKafka()
		return push, err
	}
	if push.key, err = bundles.ReadPrivateKey(flags.key); err != nil {
		return nil, err
	}
	own := bundles.PublicKey(push.key)
	isOwn := func(key ed25519.PublicKey) bool { return key.Equal(own) }
	if len(push.keys) > 0 && !slices.ContainsFunc(push.keys, isOwn) {
		return nil, fmt.Errorf("%s: its public key %s is not in rules.bundle_keys, so the engines would refuse the bundle",
			flags.key, bundles.Fingerprint(own))
	}
	push.keys = append(push.keys, own)
	push.client, err = cfg.openKafka()
	return push, err
}

// findEarlier returns the bundle that a rollback sends again.
func (p *rulesPush) findEarlier(ctx context.Context, args []string) (*bundles.Bundle, error) {
	topic, err := bundles.ReadWhole(ctx, p.client, p.keys)
	if err != nil {
		return nil, err
	}
	list := topic.Bundles
	switch {
	case len(list) == 0 && topic.Refused > 0:
		return nil, fmt.Errorf("there is no bundle on the topic that --key or a key of rules.bundle_keys has signed, but %s that they have not",
			countOf(topic.Refused, "message"))
	case len(list) == 0:
		return nil, errors.New("there is no bundle on the topic")
	}
	var names []string
	for _, earlier := range list {
		if len(args) == 0 && earlier.Name() != list[0].Name() || len(args) == 1 && earlier.Name() == args[0] {
			return earlier, nil
		}
		if !slices.Contains(names, earlier.Name()) {
			names = append(names, earlier.Name())
		}
	}
	if len(args) == 0 {
		return nil, fmt.Errorf("there is no bundle on the topic with other contents than %s", list[0].Name())
	}
	return nil, fmt.Errorf("no bundle on the topic has the name %q; there are %s", args[0], strings.Join(names, ", "))
}

// send checks, signs and sends contents, and waits for the engines. name is that of the folder of the rules, for errors.
func (p *rulesPush) send(ctx context.Context, name string, manifest bundles.Manifest, contents *bundles.Contents) error {
	if err := p.validate(ctx, name, contents); err != nil {
		return err
	}
	reports := bundles.NewReports(p.client)
	if err := bundles.EnsureTopics(ctx, p.client); err != nil {
		return err
	}
	engines, err := reports.Read(ctx)
	if err != nil {
		return err
	}

	manifest.By, manifest.Comment, manifest.Program = author(), p.flags.comment, version
	bundle, offset, err := bundles.Push(ctx, p.client, bundles.PushRequest{
		Key: p.key, Keys: p.keys, Manifest: manifest, Contents: contents, After: p.flags.after, Engines: engines,
	})
	if behind, ok := errors.AsType[*bundles.BehindError](err); ok {
		return fmt.Errorf("nothing is sent: %w. If that is true, since another key or a host whose clock is ahead has pushed it, name the key in "+
			"rules.bundle_keys here, or push with --after %d; if it is not, see who else writes to the topic of engines", err, behind.Engine.Sequence)
	}
	if bundle == nil {
		return fmt.Errorf("push the bundle: %w", err)
	}
	if err != nil {
		fmt.Fprintln(&stripControlWriter{out: os.Stderr}, "warning:", err)
	}
	fmt.Printf("bundle %s sent: %s, %s; signed with the key %s\n", bundle.Name(), describeContents(contents),
		countOf(len(bundle.Message), "byte"), bundles.Fingerprint(bundle.Key))
	if p.flags.noWait {
		return nil
	}
	wait := pushWait{bundle: bundle, offset: offset, reports: reports}
	return wait.run(ctx, engines, p.flags.timeout)
}

// describeContents counts what a bundle has.
func describeContents(contents *bundles.Contents) string {
	text := countOf(contents.RuleFiles(), "file") + " of rules, "
	if count := contents.SigmaFiles(); count > 0 {
		text += countOf(count, "file") + " of Sigma rules, "
	}
	return text + countOf(len(contents.Feeds), "feed")
}

// author returns the user and the host that push a bundle.
func author() string {
	name := "unknown"
	if current, err := user.Current(); err == nil {
		name = current.Username
	}
	host, _ := os.Hostname()
	return name + "@" + host
}

// validate compiles the rules as the configuration loads them, runs their cases, and loads the feeds.
func (p *rulesPush) validate(ctx context.Context, name string, contents *bundles.Contents) error {
	set, err := p.compile(name, contents, p.cfg.Rules.Shipped)
	if err == nil {
		configured := p.cfg.Rules
		configured.Dir, configured.Files, configured.FilesName = "", contents.Rules(), name
		if configured.SigmaFiles = contents.Sigma(); configured.SigmaFiles != nil {
			configured.Sigma = ""
		}
		_, err = rules.Load(configured, discardLog(), nil)
	}
	if err != nil {
		if _, ok := errors.AsType[rules.Errors](err); ok {
			err = errors.Join(err, errFindings)
		}
		return err
	}
	if set.Own() == 0 {
		return fmt.Errorf("%s holds no rule: rules are in files that end in .yaml or .yml", name)
	}
	warnOfRefused(os.Stderr, set)
	failed, err := rules.RunTests(&stripControlWriter{out: os.Stdout}, set, false)
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	if failed > 0 {
		return errFindings
	}
	return p.validateFeeds(ctx, contents)
}

// compile compiles the rules of contents.
func (p *rulesPush) compile(name string, contents *bundles.Contents, withShipped bool) (*rules.Set, error) {
	cfg := defaultRules()
	cfg.Files, cfg.SigmaFiles, cfg.FilesName, cfg.Shipped = contents.Rules(), contents.Sigma(), name, withShipped
	cfg.GeoDatabase, cfg.ASNDatabase = p.cfg.Rules.GeoDatabase, p.cfg.Rules.ASNDatabase
	return rules.Load(cfg, discardLog(), nil)
}

// validateFeeds loads the feeds of contents.
func (p *rulesPush) validateFeeds(ctx context.Context, contents *bundles.Contents) error {
	if len(contents.Feeds) == 0 {
		return nil
	}
	dir, err := os.MkdirTemp("", "tidegate-push-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	list, err := contents.WriteFeeds(dir)
	if err != nil {
		return err
	}
	set, skipped, err := feeds.Load(ctx, list)
	if err != nil {
		return err
	}
	fmt.Printf("%s, %s skipped\n", countOf(set.Len(), "indicator"), countOf(skipped.Count, "invalid line"))
	return nil
}

// A pushWait waits until the engines have loaded a bundle.
type pushWait struct {
	bundle  *bundles.Bundle
	offset  int64 // of its record
	reports *bundles.Reports
}

// An answer is what became of a bundle at an engine.
type answer struct {
	state  string // "" : none yet
	detail string
}

// The states of an answer.
const (
	stateLoaded     = "loaded"
	stateRefused    = "refused"
	stateSuperseded = "superseded" // it runs a newer bundle
	statePending    = "pending"    // it could not load the bundle yet, and tries again
)

// answerOf returns what the report of an engine says about the bundle.
func (w *pushWait) answerOf(report *bundles.Report) answer {
	rejected := report.LastRejected
	switch {
	case report.Sequence == w.bundle.Sequence && report.Bundle == w.bundle.Name():
		return answer{stateLoaded, report.Problem}
	case report.Refused != nil && report.Refused.Sequence == w.bundle.Sequence:
		return answer{stateRefused, report.Refused.Error}
	case rejected != nil && rejected.Offset == w.offset:
		return answer{stateRefused, rejected.Error}
	case report.Pending != nil && report.Pending.Sequence == w.bundle.Sequence:
		return answer{statePending, report.Pending.Error}
	case report.Sequence >= w.bundle.Sequence:
		return answer{stateSuperseded, "it runs the newer bundle " + report.Bundle}
	}
	return answer{}
}

// run waits until each engine that runs has answered, and prints the answers.
func (w *pushWait) run(ctx context.Context, engines []bundles.Report, timeout time.Duration) error {
	progress := newTerminal(os.Stderr)
	deadline := time.Now().Add(timeout)
	for {
		var live []bundles.Report
		var waiting []string
		for _, report := range engines {
			if !report.IsLive(time.Now()) {
				continue
			}
			live = append(live, report)
			if state := w.answerOf(&report).state; state == "" || state == statePending {
				waiting = append(waiting, report.Engine)
			}
		}
		if len(live) == 0 {
			fmt.Fprintln(os.Stderr, "no engine has reported in the last minutes: is the public key in rules.bundle_keys of the engines? "+
				"They load the bundle when they start; --no-wait does not wait for them")
			return errFindings
		}
		if progress.interactive {
			progress.showStatus(stripControl(fmt.Sprintf("%s %d of %s · waiting for %s",
				drawBar(1-float64(len(waiting))/float64(len(live)), 20), len(live)-len(waiting), countOf(len(live), "engine"),
				strings.Join(waiting, ", "))))
		}
		if len(waiting) == 0 || time.Now().After(deadline) {
			progress.removeStatus()
			return w.printAnswers(live)
		}
		if err := retry.Sleep(ctx, 300*time.Millisecond); err != nil {
			progress.removeStatus()
			return err
		}
		updated, err := w.reports.Read(ctx)
		if err != nil { // Kafka may be away for a moment
			continue
		}
		engines = updated
	}
}

// printAnswers prints the answers of the engines. It returns errFindings unless all have loaded the bundle.
func (w *pushWait) printAnswers(engines []bundles.Report) error {
	var failed error
	out := &stripControlWriter{out: os.Stdout}
	for _, report := range engines {
		got := w.answerOf(&report)
		if got.state == "" {
			got = answer{"no answer", "it has not loaded the bundle in time"}
		}
		line := fmt.Sprintf("%-10s %s", got.state, report.Engine)
		if got.detail != "" {
			line += ": " + oneLineText(got.detail, 2000)
		}
		_, _ = fmt.Fprintln(out, line)
		if got.state != stateLoaded {
			failed = errFindings
		}
	}
	return failed
}
