package nbd

import (
	"fmt"
)

// Authorizer decides whether a peer may use a server or an export. The reason, when it may not, is for
// the server's log; the peer is not told.
//
// A name counts only if a certificate proves it. A peer without one is denied whatever the policy says:
// otherwise connecting without a certificate would get past a rule that denies a name.
type Authorizer interface {
	Authorize(p *Peer) error
}

// AuthzSimple admits one name. Analogous to QEMU's authz-simple.
type AuthzSimple struct {
	Identity string
}

// Authorize implements Authorizer.
func (a AuthzSimple) Authorize(p *Peer) error {
	if err := needName(p); err != nil {
		return err
	}
	if p.DN != a.Identity {
		return fmt.Errorf("%w: %q is not %q", ErrDenied, p.DN, a.Identity)
	}
	return nil
}

// AuthzPolicy is what a rule, or the absence of one, decides.
type AuthzPolicy int

// Policies. The zero value denies.
const (
	AuthzDeny AuthzPolicy = iota
	AuthzAllow
)

// AuthzFormat says how a rule's Match is to be read.
type AuthzFormat int

// Formats.
const (
	AuthzExact AuthzFormat = iota
	AuthzGlob              // as fnmatch(3) without flags: * and ? match any character
)

// AuthzRule is one line of an AuthzList.
type AuthzRule struct {
	Match  string
	Policy AuthzPolicy
	Format AuthzFormat
}

// AuthzList decides by the first rule that matches, and by Policy if none does. Analogous to QEMU's
// authz-list.
type AuthzList struct {
	Policy AuthzPolicy
	Rules  []AuthzRule
}

// Authorize implements Authorizer.
func (a AuthzList) Authorize(p *Peer) error {
	if err := needName(p); err != nil {
		return err
	}
	for i, r := range a.Rules {
		if !r.matches(p.DN) {
			continue
		}
		if r.Policy != AuthzAllow {
			return fmt.Errorf("%w: rule %d (%q) denies %q", ErrDenied, i, r.Match, p.DN)
		}
		return nil
	}
	if a.Policy != AuthzAllow {
		return fmt.Errorf("%w: no rule allows %q", ErrDenied, p.DN)
	}
	return nil
}

func (r *AuthzRule) matches(name string) bool {
	if r.Format == AuthzGlob {
		return globMatch(r.Match, name)
	}
	return r.Match == name
}

// needName denies a peer that has not proved who it is.
func needName(p *Peer) error {
	if p.DN != "" {
		return nil
	}
	if !p.TLS {
		return fmt.Errorf("%w: no TLS, so no certificate names the peer", ErrDenied)
	}
	return fmt.Errorf("%w: no certificate names the peer (with verify-peer off none is asked for)", ErrDenied)
}

// authorized is a catalog behind a server's Authorizer: a peer that is denied sees an empty server.
type authorized struct {
	catalog
	authorizer Authorizer
}

func (a authorized) list(p *Peer) []exportInfo {
	if a.authorizer.Authorize(p) != nil {
		return nil
	}
	return a.catalog.list(p)
}

func (a authorized) find(name string, p *Peer) (exportInfo, bool) {
	if a.authorizer.Authorize(p) != nil {
		return exportInfo{}, false
	}
	return a.catalog.find(name, p)
}
