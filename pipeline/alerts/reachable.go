package alerts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"tidegate/pipeline/kafka"
)

// reachTimeout bounds one request of CheckDestinations.
const reachTimeout = 5 * time.Second

// A Reachability is the result of a request to one destination.
type Reachability struct {
	Name   string // of the destination
	Detail string // what the destination answered
	Err    error  // why alerts cannot be delivered; nil: they can
}

// CheckDestinations sends a request without an alert to each destination: Alertmanager is asked whether it is
// ready, and every other one gets a HEAD request.
func CheckDestinations(ctx context.Context, cfg Config) []Reachability {
	timeout := min(cfg.Timeout, reachTimeout)
	var list []Reachability
	for _, destination := range cfg.Alertmanager {
		list = append(list, checkDestination(ctx, destination.HTTP, http.MethodGet, "/-/ready", timeout))
	}
	for _, webhook := range cfg.Webhooks {
		result := checkDestination(ctx, webhook.HTTP, http.MethodHead, "", timeout)
		if result.Err == nil {
			_, result.Err = newWebhook(webhook, timeout) // its secret
		}
		list = append(list, result)
	}
	return list
}

// checkDestination sends one request to path below the URL of a destination.
func checkDestination(ctx context.Context, cfg HTTP, method, path string, timeout time.Duration) Reachability {
	result := Reachability{Name: cfg.Name}
	sender, err := newHTTPSender(cfg, path, timeout)
	if err != nil {
		result.Err = err
		return result
	}
	defer sender.client.CloseIdleConnections()

	request, err := http.NewRequestWithContext(ctx, method, sender.url, nil)
	if err != nil {
		result.Err = err
		return result
	}
	maps.Copy(request.Header, sender.header)
	if sender.username != "" {
		request.SetBasicAuth(sender.username, sender.password)
	}
	response, err := sender.client.Do(request)
	if err != nil {
		result.Err = err
		return result
	}
	_ = response.Body.Close()

	// A receiver of webhooks may answer HEAD with any 4xx. 401 and 403 also apply to the alerts.
	result.Detail = fmt.Sprintf("answers %s with %s", strings.TrimSpace(method+" "+path), response.Status)
	switch code := response.StatusCode; {
	case code == http.StatusUnauthorized, code == http.StatusForbidden, code/100 == 5, code/100 == 3,
		method == http.MethodGet && code/100 != 2:
		result.Err = errors.New(result.Detail)
	}
	return result
}

// GroupName returns the name of the consumer group of a destination.
func GroupName(cfg kafka.Config, destination string) string {
	return cfg.TopicPrefix + "-alerts-" + destination
}

// DestinationNames returns the names of all destinations of c.
func (c Config) DestinationNames() []string {
	var names []string
	for _, destination := range c.Alertmanager {
		names = append(names, destination.Name)
	}
	for _, webhook := range c.Webhooks {
		names = append(names, webhook.Name)
	}
	return names
}
