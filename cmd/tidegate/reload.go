package main

import (
	"os"
	"os/signal"
	"reflect"
	"strings"
	"syscall"
)

// hangups returns a channel that receives SIGHUP. It receives nothing where SIGHUP is ignored, as under nohup.
func hangups() (signals chan os.Signal, stop func()) {
	signals = make(chan os.Signal, 1)
	if signal.Ignored(syscall.SIGHUP) {
		return signals, func() {}
	}
	signal.Notify(signals, syscall.SIGHUP)
	return signals, func() { signal.Stop(signals) }
}

// A controllingTerminal is the standard streams that were a terminal at the start.
type controllingTerminal []*os.File

func newControllingTerminal() controllingTerminal {
	var streams controllingTerminal
	for _, stream := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if isTerminal(stream) {
			streams = append(streams, stream)
		}
	}
	return streams
}

// isClosed reports whether the terminal is gone: then SIGHUP means that and no request to reload.
func (c controllingTerminal) isClosed() bool {
	for _, stream := range c {
		if !isTerminal(stream) {
			return true
		}
	}
	return false
}

// watchHangups handles SIGHUP during the start, which may wait for a dependency: it calls stop if the terminal was closed.
// Otherwise end, which ends the watch, puts the signal back into hup, so that it reloads once the start is complete.
func (p *process) watchHangups(hup chan os.Signal, terminal controllingTerminal, stop func()) (end func()) {
	started, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for reload := false; ; {
			select {
			case <-hup:
				if terminal.isClosed() {
					p.log.Warn("terminal closed, stopping")
					stop()
					continue
				}
				if !reload {
					p.log.Warn("the configuration is read again when the start is complete")
				}
				reload = true
			case <-started:
				if !reload {
					return
				}
				select {
				case hup <- syscall.SIGHUP:
				default: // another one has come
				}
				return
			}
		}
	}()
	return func() {
		close(started)
		<-ended
	}
}

// reload reads the configuration again and applies the settings of rules and feeds. What else has changed is
// logged: it takes effect at the next start. A configuration with errors changes nothing.
func (p *process) reload() {
	cfg, err := p.flags.loadConfig(p.roles)
	if err == nil && p.detectors != nil {
		feedConfigs := cfg.Feeds
		if p.demo {
			feedConfigs = append(feedConfigs, demoFeed(&cfg))
		}
		err = p.detectors.Reconfigure(cfg.Rules, feedConfigs)
	}
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			p.log.Error("configuration not reloaded, nothing has changed", "err", line)
		}
		return
	}

	restart := changedSections(p.loaded, cfg, p.detectors != nil)
	switch {
	case len(restart) > 0:
		p.log.Warn("configuration reloaded; the changes of some sections take effect at the next start",
			"sections", strings.Join(restart, ", "))
	default:
		p.log.Info("configuration reloaded")
	}
	if p.detectors != nil {
		p.printLine("configuration reloaded: %s", p.detectors.Summary())
		p.log.Info("detectors reloaded", "content", p.detectors.Summary())
	}
}

// changedSections returns the names of the top-level keys whose values differ. Those of rules and feeds are left
// out if this process has detectors, which have them already.
func changedSections(before, after Config, hasDetectors bool) []string {
	var names []string
	old, current := reflect.ValueOf(before), reflect.ValueOf(after)
	for i := range old.NumField() {
		name := old.Type().Field(i).Tag.Get("yaml")
		isApplied := hasDetectors && (name == "rules" || name == "feeds")
		if !isApplied && !reflect.DeepEqual(old.Field(i).Interface(), current.Field(i).Interface()) {
			names = append(names, name)
		}
	}
	return names
}
