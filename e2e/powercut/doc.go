// Command powercut is what runs in the guest of the power cut test: "write" is a client that writes random pages for ever, with a
// FLUSH now and then, and says on its output which of them was acknowledged last; "verify" reads the image behind the
// server's back after the cut and checks that nothing is lost that a FLUSH had covered.
//
// Both know what was written from a seed alone, so nothing has to survive the cut but the image.
package main
