package main

import (
	"errors"
	"fmt"

	"nbd-dataplane/nbd"
)

// rememberedIn opens the file of --remember; without one there is nil, and what is offered is remembered by the process only.
func rememberedIn(path string, warn func(string)) (*nbd.Offers, error) {
	if path == "" {
		return nil, nil
	}
	offers, err := nbd.OpenOffers(path, func(err error) { warn("--remember " + err.Error()) })
	switch {
	case errors.Is(err, nbd.ErrOffersHeld):
		return nil, fmt.Errorf("--remember %s: another process uses it; stop that one or choose another file", path)
	case err != nil:
		return nil, fmt.Errorf("--remember %s: %w; mend the file, or remove it to forget what was offered", path, err)
	}
	return offers, nil
}
