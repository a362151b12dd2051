package config

import (
	"errors"
	"strings"
)

// Secret returns value, or the first line of file where value is empty. Both empty: "".
func Secret(value, file string) (string, error) {
	if value != "" || file == "" {
		return value, nil
	}
	data, err := ReadRegular(file)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	if line = strings.TrimRight(line, "\r"); line == "" {
		return "", errors.New(file + " begins with an empty line")
	}
	return line, nil
}
