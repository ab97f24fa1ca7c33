// Command pause measures how long a client stands still while what is under it is changed: the longest time between two of its
// answers around the change, beyond what it sees without one. Our daemon and qemu-storage-daemon take turns with the same operation,
// under the same load. docs/performance.md says how to read what it prints.
package main
