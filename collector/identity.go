package collector

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"tidegate/pipeline"
)

// idFile is the file of the state folder that holds the collector's id.
const idFile = "collector-id"

// LoadID returns the id of the collector whose state is in stateDir. The first call generates a random id
// and stores it in the folder. A machine-id would not do, because cloned machines share it. Processes that
// start at the same time get the same id.
func LoadID(stateDir string) (pipeline.ID, error) {
	var id pipeline.ID
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return id, fmt.Errorf("make state folder: %w", err)
	}

	// If the file does not exist, this process or another one creates it; the file then holds the id of both.
	name := filepath.Join(stateDir, idFile)
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createID(stateDir, name); err != nil {
			return id, fmt.Errorf("write %s: %w", name, err)
		}
		text, err = os.ReadFile(name)
	}
	if err != nil {
		return id, fmt.Errorf("read collector id: %w", err)
	}

	text = bytes.TrimSpace(text)
	if len(text) == hex.EncodedLen(len(id)) {
		if _, err := hex.Decode(id[:], text); err == nil {
			return id, nil
		}
	}
	const expected = "does not hold 32 hexadecimal digits; delete it to draw a new id"
	return pipeline.ID{}, fmt.Errorf("read collector id: %s %s", name, expected)
}

// IDDrawn returns the time at which the id of stateDir was generated.
func IDDrawn(stateDir string) (time.Time, error) {
	info, err := os.Stat(filepath.Join(stateDir, idFile))
	if err != nil {
		return time.Time{}, fmt.Errorf("read collector id: %w", err)
	}
	return info.ModTime(), nil
}

// createID writes a new id to the file name in dir, completely or not at all. It leaves an existing file as
// it is: the id of the process that linked the file first counts.
func createID(dir, name string) error {
	var id pipeline.ID
	_, _ = rand.Read(id[:]) // never fails, by its documentation
	file, err := os.CreateTemp(dir, idFile+".")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.WriteString(hex.EncodeToString(id[:]) + "\n")
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}

	// Unlike a rename, a link fails if the name exists.
	if err = os.Link(file.Name(), name); errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}
