package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"unicode/utf8"

	"nbd-dataplane/internal/keyval"
	"nbd-dataplane/nbd"
)

// secretBytesMax bounds a secret: a file that is named by mistake is not read whole.
const secretBytesMax = 64 << 10

// findSecret returns the content of the secret of that id; nil = there is none.
type findSecret func(id string) (content []byte, err error)

// readSecretContent reads the object of kind secret: a password, in the option itself or in a file.
func readSecretContent(set *keyval.Set) ([]byte, error) {
	data, inline := set.Take("data")
	path, inFile := set.Take("file")
	if err := notLoaded(set, "secret"); err != nil {
		return nil, err
	}
	switch {
	case inline && inFile:
		return nil, wrong("secret: data and file are two secrets; leave one out", "'file' and 'data' are mutually exclusive")
	case inFile:
		var err error
		if data, err = secretIn(path); err != nil {
			return nil, err
		}
	case !inline:
		return nil, wrong("secret: there is none; add file=PATH (or data=TEXT, which everybody sees in the list of processes)", "Either 'file' or 'data' must be provided")
	}
	return inFormat(set, data)
}

// notLoaded refuses a property that QEMU has, to be read.
func notLoaded(set *keyval.Set, kind string) error {
	if _, found := set.Take("loaded"); found {
		return fmt.Errorf("Property '%s.loaded' is not writable", kind)
	}
	return nil
}

// inFormat turns what was read into what it stands for.
func inFormat(set *keyval.Set, data string) ([]byte, error) {
	switch format := set.TakeOr("format", "raw"); format {
	case "raw":
		return []byte(data), nil
	case "base64":
		return fromBase64(data)
	default:
		return nil, &keyval.Error{Parameter: "format", Problem: fmt.Sprintf("does not accept value '%s'", format)}
	}
}

// secretIn reads a file: all of it, as QEMU does, a newline at its end too.
func secretIn(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", secretFileError(path, "Failed to open file", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, secretBytesMax+1))
	switch {
	case err != nil:
		return "", secretFileError(path, "Error reading file", err)
	case len(data) > secretBytesMax:
		return "", fmt.Errorf("secret: %s has more than %d bytes", path, secretBytesMax)
	}
	return string(data), nil
}

func secretFileError(path, doing string, err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("secret: %w", err)
	}
	return wrong(fmt.Sprintf("secret: %v", err), fmt.Sprintf("Unable to read %s: %s \u201c%s\u201d: %s", path, doing, path, strerror(errno)))
}

// fromBase64 takes lines, and what lacks the padding, as QEMU does.
func fromBase64(text string) ([]byte, error) {
	text = strings.TrimRight(strings.NewReplacer("\n", "", "\r", "").Replace(text), "=")
	content, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return nil, wrong("secret: the content is not base64", "Base64 data contains invalid characters")
	}
	return content, nil
}

// tlsFiles says where credentials are, and with which password.
func (c *tlsObject) tlsFiles(secrets findSecret) (nbd.TLSFiles, error) {
	files := nbd.TLSFiles{Dir: c.dir, VerifyPeer: c.verifyPeer}
	if c.passwordID == "" {
		return files, nil
	}
	var err error
	if files.Password, err = secrets(c.passwordID); err != nil {
		return files, err
	}
	if !utf8.Valid(files.Password) {
		return files, fmt.Errorf("Data from secret %s is not valid UTF-8", c.passwordID)
	}
	return files, nil
}

// secret is findSecret among the objects of the command line.
func (o *options) secret(id string) ([]byte, error) {
	switch b := o.findObject(id); {
	case b == nil:
		return nil, wrong(fmt.Sprintf("secret %s: there is none of this id; define it with --object secret,id=%s,file=PATH", id, id),
			fmt.Sprintf("No secret with id '%s'", id))
	case b.secret == nil:
		return nil, fmt.Errorf("Object with id '%s' is not a secret", id)
	default:
		return b.secret, nil
	}
}
