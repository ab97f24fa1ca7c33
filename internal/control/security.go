package control

import (
	"nbd-dataplane/nbd"
	"nbd-dataplane/qmp"
)

// SecurityRequest asks for an object that has to do with who may come in.
type SecurityRequest struct {
	Kind    string
	ID      string
	Options []byte // JSON, whose types are checked
	// Secret returns the content of a secret that is there already.
	Secret func(id string) ([]byte, error)
}

// Security is such an object: one of these.
type Security struct {
	Credentials *nbd.TLSCredentials // of tls-creds-x509
	Authorizer  nbd.Authorizer      // of authz-*
	Secret      []byte              // of secret and secret_keyring; nobody gets to see it who asks for the object
}

// securityOptions are the options of each kind, to check their types: what they mean the program knows.
var securityOptions = map[string]func() any{
	"tls-creds-x509": func() any {
		return new(struct {
			Dir         *string `qmp:"dir"`
			Endpoint    string  `qmp:"endpoint,optional,enum=client|server"`
			VerifyPeer  *bool   `qmp:"verify-peer"`
			Priority    *string `qmp:"priority"`
			PasswordID  *string `qmp:"passwordid"`
			SanityCheck *bool   `qmp:"sanity-check"`
			Loaded      *bool   `qmp:"loaded"`
		})
	},
	"authz-simple": func() any {
		return new(struct {
			Identity string `qmp:"identity"`
		})
	},
	"authz-list": func() any {
		return new(struct {
			Policy string `qmp:"policy,optional,enum=allow|deny"`
			Rules  []struct {
				Match  string `qmp:"match"`
				Policy string `qmp:"policy,enum=allow|deny"`
				Format string `qmp:"format,optional,enum=exact|glob"`
			} `qmp:"rules,optional"`
		})
	},
	"authz-list-file": func() any {
		return new(struct {
			Filename string `qmp:"filename"`
			Refresh  *bool  `qmp:"refresh"`
		})
	},
	"secret": func() any {
		return new(struct {
			Data   *string `qmp:"data"`
			File   *string `qmp:"file"`
			Format string  `qmp:"format,optional,enum=raw|base64"`
			KeyID  *string `qmp:"keyid"`
			IV     *string `qmp:"iv"`
			Loaded *bool   `qmp:"loaded"`
		})
	},
	"secret_keyring": func() any {
		return new(struct {
			Serial int32   `qmp:"serial"`
			Format string  `qmp:"format,optional,enum=raw|base64"`
			KeyID  *string `qmp:"keyid"`
			IV     *string `qmp:"iv"`
			Loaded *bool   `qmp:"loaded"`
		})
	},
}

// makeSecurity has the program make the object: the command line of 'serve' has the same ones.
func (p *Plane) makeSecurity(o *object, v qmp.Value) error {
	if err := v.Decode(securityOptions[o.kind]()); err != nil {
		return err
	}
	s, err := p.options.Security(SecurityRequest{Kind: o.kind, ID: o.id, Options: v.Raw(), Secret: p.secret})
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	o.Security = s
	return nil
}

// secret returns what a secret has. Who has read it keeps it when the object goes.
func (p *Plane) secret(id string) ([]byte, error) {
	switch o := p.object(id); {
	case o == nil:
		return nil, qmp.Errorf("No secret with id '%s'", id)
	case o.kind != "secret" && o.kind != "secret_keyring":
		return nil, qmp.Errorf("Object with id '%s' is not a secret", id)
	default:
		return o.Secret, nil
	}
}
