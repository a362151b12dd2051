package pipeline

import "encoding/base64"

// Name returns the value of network.transport for t, or "" if it is unknown.
func (t Transport) Name() string {
	switch t {
	case Transport_TCP:
		return "tcp"
	case Transport_UDP:
		return "udp"
	}
	return ""
}

// Name returns the value of event.outcome for o, or "" if it is unknown.
func (o Outcome) Name() string {
	switch o {
	case Outcome_SUCCESS:
		return "success"
	case Outcome_FAILURE:
		return "failure"
	}
	return ""
}

// Name returns the name of s in rules, verdicts and alerts.
func (s Severity) Name() string {
	if s < 0 || int(s) >= len(severityNames) {
		return ""
	}
	return severityNames[s]
}

var severityNames = [...]string{"", "info", "low", "medium", "high", "critical"}

// SeverityByName returns the severity of that name, or SEVERITY_NONE if there is none.
func SeverityByName(name string) Severity {
	for s, n := range severityNames {
		if n == name {
			return Severity(s)
		}
	}
	return Severity_SEVERITY_NONE
}

// CommunityIDText returns the standard text form of a Community ID, "1:" and base64, or "" for no bytes.
func CommunityIDText(raw []byte) string {
	if len(raw) == 0 {
		return ""
	}
	return "1:" + base64.StdEncoding.EncodeToString(raw)
}
