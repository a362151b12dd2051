package main

import (
	"errors"

	"tidegate/pipeline"
	"tidegate/pipeline/alerts"
	"tidegate/pipeline/kafka"
)

// checkDestinations returns an error if no destination of alerts is configured: a process that is only a
// publisher would have nothing to do.
func (c *Config) checkDestinations() error {
	if len(c.Alerts.Alertmanager)+len(c.Alerts.Webhooks) == 0 {
		return errors.New("publish: no destination is configured: set alerts.alertmanager or alerts.webhooks")
	}
	return nil
}

// startPublisher starts the delivery of alerts: alerts topic → Alertmanager, webhooks and, in `run`, the
// terminal.
func (p *process) startPublisher() error {
	var onAlert func(*pipeline.Alert)
	if p.terminal != nil {
		onAlert = func(alert *pipeline.Alert) {
			// Alerts that an earlier process has not delivered are printed below the welcome.
			<-p.welcomePrinted
			p.terminal.printLine("%s", alertLine(alert))
		}
	}

	// Static assignment has no consumer group that keeps a second publisher away from the partitions.
	if p.cfg.Kafka.Assign == kafka.AssignStatic {
		if err := p.lockDataDir("publisher"); err != nil {
			return err
		}
	}

	publisher, err := alerts.NewPublisher(p.cfg.Alerts, p.kafka, onAlert, p.log, p.reg)
	if err != nil {
		return err
	}
	p.lifecycle.startComponent("publisher", publisher.Run)
	return nil
}
