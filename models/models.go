// Package models holds the trained artefacts that tidegate ships: for each a file and, inside it, a card that says what it was
// trained on and how good it was on what it had not seen. train makes them again, to the byte, from the labelled data; `make models`
// runs it. detectors/classifier judges by them.
package models

import _ "embed" // for the files

// GeneratedDomains is the model of domains that algorithms make.
//
//go:embed generated-domains.model
var GeneratedDomains []byte
