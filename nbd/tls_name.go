package nbd

import (
	"encoding/asn1"
	"encoding/hex"
	"strings"
	"unicode/utf16"
)

// attributeNames are the attribute types that GnuTLS spells by name, and its spelling.
var attributeNames = map[string]string{
	"2.5.4.3":                    "CN",
	"2.5.4.4":                    "surName",
	"2.5.4.5":                    "serialNumber",
	"2.5.4.6":                    "C",
	"2.5.4.7":                    "L",
	"2.5.4.8":                    "ST",
	"2.5.4.9":                    "street",
	"2.5.4.10":                   "O",
	"2.5.4.11":                   "OU",
	"2.5.4.12":                   "title",
	"2.5.4.13":                   "description",
	"2.5.4.15":                   "businessCategory",
	"2.5.4.17":                   "postalCode",
	"2.5.4.20":                   "telephoneNumber",
	"2.5.4.41":                   "name",
	"2.5.4.42":                   "givenName",
	"2.5.4.43":                   "initials",
	"2.5.4.44":                   "generationQualifier",
	"2.5.4.46":                   "dnQualifier",
	"2.5.4.65":                   "pseudonym",
	"0.9.2342.19200300.100.1.1":  "UID",
	"0.9.2342.19200300.100.1.25": "DC",
	"1.2.840.113549.1.9.1":       "EMAIL",
}

// attribute is one part of a name. Its value stays encoded: only the tag says how to show it.
type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// relativeName is the set of attributes on one level of a name. The asn1 package takes the suffix SET of
// the type's name as the order to expect a set.
type relativeNameSET []attribute

// distinguishedName writes a certificate's subject as QEMU's authorization compares it, which is how
// GnuTLS prints it by default: RFC 4514, but in the order of the certificate and not in reverse. Rules
// written for QEMU so keep their meaning here. It is "" for a subject that is empty or broken, which no
// rule can match.
func distinguishedName(subject []byte) string {
	var levels []relativeNameSET
	if rest, err := asn1.Unmarshal(subject, &levels); err != nil || len(rest) > 0 {
		return ""
	}
	var parts []string
	for _, level := range levels {
		var attributes []string
		for _, a := range level {
			attributes = append(attributes, a.String())
		}
		parts = append(parts, strings.Join(attributes, "+"))
	}
	return strings.Join(parts, ",")
}

// String writes "type=value"; a type without a name or a value that is no string is shown in hexadecimal.
// RFC 4514 2.4.
func (a attribute) String() string {
	oid := a.Type.String()
	if name, ok := attributeNames[oid]; ok {
		if s, ok := stringValue(a.Value); ok {
			return name + "=" + escapeValue(s)
		}
		oid = name
	}
	return oid + "=#" + hex.EncodeToString(a.Value.FullBytes)
}

// stringValue decodes the string types of X.520.
func stringValue(v asn1.RawValue) (string, bool) {
	if v.Class != asn1.ClassUniversal || v.IsCompound {
		return "", false
	}
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagT61String, asn1.TagNumericString:
		return string(v.Bytes), true
	case asn1.TagBMPString:
		return bmpString(v.Bytes)
	}
	return "", false
}

func bmpString(b []byte) (string, bool) {
	if len(b)%2 != 0 {
		return "", false
	}
	units := make([]uint16, 0, len(b)/2)
	for ; len(b) > 0; b = b[2:] {
		units = append(units, uint16(b[0])<<8|uint16(b[1]))
	}
	return string(utf16.Decode(units)), true
}

// escapeValue escapes as RFC 4514 2.4 asks, no more.
func escapeValue(s string) string {
	var b strings.Builder
	for i := range len(s) {
		edge := s[i] == ' ' && (i == 0 || i == len(s)-1) || s[i] == '#' && i == 0
		if edge || strings.IndexByte(`,+"\<>;`, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
