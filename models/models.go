// Package models holds the trained models that tidegate ships. Each is a file; a card inside it says what the
// model was trained on and how good it was on data that it had not seen. models/train makes them again, to
// the byte, from the labelled data (`make models`); detectors/classifier evaluates events with them.
package models

import _ "embed" // for the files

// GeneratedDomains is the file of the model that finds domains which algorithms generate.
//
//go:embed generated-domains.model
var GeneratedDomains []byte
