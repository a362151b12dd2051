package main

import (
	"errors"

	"tidegate/pipeline"
	"tidegate/pipeline/alerts"
	"tidegate/pipeline/kafka"
)

// checkDestinations returns an error where a publisher of its own process would have nowhere to deliver to.
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
			// Alerts that an earlier process left over are printed below the lines of the start.
			<-p.welcomePrinted
			p.terminal.Printf("%s", alertLine(alert))
		}
	}
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
