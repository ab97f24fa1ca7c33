package main

import (
	"fmt"
	"slices"

	"nbd-dataplane/internal/keyval"
	"nbd-dataplane/nbd"
	"nbd-dataplane/qmp"
)

// object is one --object: credentials, or an authorization, that other options name by id.
type object struct {
	id     string
	creds  *tlsObject     // of tls-creds-x509
	authz  nbd.Authorizer // of authz-simple, authz-list, authz-list-file
	secret []byte         // of secret; nil = it is another object
}

// tlsObject is where TLS credentials are and how they are used.
type tlsObject struct {
	dir        string
	verifyPeer bool
	isClient   bool
	passwordID string // the secret with the password of the key; "" = it has none
}

// objectKinds are the types that can be made.
var objectKinds = map[string]func(*object, *keyval.Set) error{
	"tls-creds-x509":  (*object).readTLS,
	"authz-simple":    (*object).readSimple,
	"authz-list":      (*object).readList,
	"authz-list-file": (*object).readListFile,
}

// secretKinds are those that hold a secret, which may be encrypted with another one.
var secretKinds = map[string]func(*keyval.Set) ([]byte, error){
	"secret":         readSecretContent,
	"secret_keyring": readKeyring,
}

// objectsRefused are types of QEMU's that cannot be had here.
var objectsRefused = map[string]string{
	"tls-creds-anon": "", // nbd knows why
	"tls-creds-psk":  "",
	"authz-pam":      "authorization by PAM is not available; use authz-list with the names that may connect",
}

// parseObject reads the argument of --object, as key=value list or as JSON. Secrets are those that are there before.
func parseObject(text string, secrets findSecret) (object, error) {
	v, err := qmp.ParseOption(text, "qom-type")
	if err != nil {
		return object{}, objectError(err)
	}
	obj, err := readObject(keysOf(v), secrets)
	if err != nil {
		return object{}, objectError(err)
	}
	return obj, nil
}

// objectError says at our door which option is meant; QEMU does not.
func objectError(err error) error { return wrong("--object: "+err.Error(), qemuText(err)) }

func readObject(set *keyval.Set, secrets findSecret) (object, error) {
	kind, err := set.TakeNeeded("qom-type")
	if err != nil {
		return object{}, err
	}
	read, known := objectKinds[kind]
	readContent, holdsSecret := secretKinds[kind]
	reason, refused := objectsRefused[kind]
	switch {
	case refused && reason == "":
		return object{}, nbd.UnsupportedTLS(kind)
	case refused:
		return object{}, fmt.Errorf("%s: %s", kind, reason)
	case !known && !holdsSecret:
		return object{}, &keyval.Error{Parameter: "qom-type", Problem: fmt.Sprintf("does not accept value '%s'", kind)}
	}
	obj := object{}
	if obj.id, err = set.TakeNeeded("id"); err != nil {
		return obj, err
	}
	if holdsSecret {
		obj.secret, err = unsealed(set, readContent, secrets)
	} else {
		err = read(&obj, set)
	}
	if err != nil {
		return obj, err
	}
	return obj, nothingLeft(set)
}

func nothingLeft(set *keyval.Set) error {
	if set.Empty() {
		return nil
	}
	return &keyval.Error{Parameter: set.Keys()[0], Problem: "is unexpected"}
}

func (b *object) readTLS(set *keyval.Set) (err error) {
	c := &tlsObject{}
	if c.dir, err = set.TakeNeeded("dir"); err != nil {
		return wrong("tls-creds-x509: "+err.Error()+"; add dir=DIR", "Missing 'dir' property value")
	}
	if c.verifyPeer, err = set.TakeBool("verify-peer", true); err != nil {
		return err
	}
	switch endpoint := set.TakeOr("endpoint", "client"); endpoint {
	case "client":
		c.isClient = true
	case "server":
	default:
		return &keyval.Error{Parameter: "endpoint", Problem: fmt.Sprintf("does not accept value '%s'", endpoint)}
	}
	if _, found := set.Take("priority"); found {
		return fmt.Errorf("tls-creds-x509: priority is GnuTLS's; leave it out, TLS 1.2 and 1.3 are spoken with the ciphers that are safe")
	}
	c.passwordID = set.TakeOr("passwordid", "")
	_, err = set.TakeBool("sanity-check", true)
	b.creds = c
	return err
}

func (b *object) readSimple(set *keyval.Set) error {
	identity, err := set.TakeNeeded("identity")
	b.authz = nbd.AuthzSimple{Identity: identity}
	return err
}

// authzFile is what a file of authz-list-file says.
type authzFile struct {
	Policy string      `json:"policy"`
	Rules  []authzRule `json:"rules"`
}

type authzRule struct {
	Match  string `json:"match"`
	Policy string `json:"policy"`
	Format string `json:"format"`
}

func (b *object) readListFile(set *keyval.Set) error {
	path, err := set.TakeNeeded("filename")
	if err != nil {
		return err
	}
	refresh, err := set.TakeBool("refresh", true)
	if err != nil {
		return err
	}
	b.authz, err = openListFile(path, refresh)
	return err
}

func (b *object) readList(set *keyval.Set) (err error) {
	list := authzFile{Policy: set.TakeOr("policy", "")}
	for n := 0; ; n++ {
		rule := set.TakeGroup(fmt.Sprintf("rules.%d", n))
		if rule.Empty() {
			break
		}
		list.Rules = append(list.Rules, authzRule{Match: rule.TakeOr("match", ""), Policy: rule.TakeOr("policy", ""), Format: rule.TakeOr("format", "")})
		if err := nothingLeft(rule); err != nil {
			return err
		}
	}
	b.authz, err = list.authorizer()
	return err
}

func (l *authzFile) authorizer() (nbd.Authorizer, error) {
	list := nbd.AuthzList{}
	var err error
	if list.Policy, err = authzPolicy(l.Policy, "deny"); err != nil {
		return nil, err
	}
	for _, r := range l.Rules {
		rule := nbd.AuthzRule{Match: r.Match}
		if rule.Policy, err = authzPolicy(r.Policy, ""); err != nil {
			return nil, err
		}
		switch r.Format {
		case "", "exact":
		case "glob":
			rule.Format = nbd.AuthzGlob
		default:
			return nil, &keyval.Error{Parameter: "format", Problem: fmt.Sprintf("does not accept value '%s'", r.Format)}
		}
		list.Rules = append(list.Rules, rule)
	}
	return list, nil
}

func authzPolicy(v, otherwise string) (nbd.AuthzPolicy, error) {
	if v == "" {
		v = otherwise
	}
	switch v {
	case "allow":
		return nbd.AuthzAllow, nil
	case "deny":
		return nbd.AuthzDeny, nil
	case "":
		return nbd.AuthzDeny, &keyval.Error{Parameter: "policy", Problem: "is missing"}
	}
	return nbd.AuthzDeny, &keyval.Error{Parameter: "policy", Problem: fmt.Sprintf("does not accept value '%s'", v)}
}

// findObject returns the last object with an id.
func (o *options) findObject(id string) *object {
	for n := range slices.Backward(o.objects) {
		if o.objects[n].id == id {
			return &o.objects[n]
		}
	}
	return nil
}
