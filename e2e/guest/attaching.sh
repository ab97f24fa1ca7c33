# The kernel's nbd device $disk, attached by nbd-client to the export e2e over TCP. Sourced behind common.sh.

address=10.0.2.2

attached() { [ "$(cat /sys/block/nbd0/size)" != 0 ]; }
detached() { [ ! -e /sys/block/nbd0/pid ]; }

# attach [OPTION...]
attach() {
  nbd-client "$@" -N e2e "$address" "$E2E_port" "$disk"
  until_true 60 attached
}

# detach [OPTION...]
detach() {
  nbd-client "$@" -d "$disk"
  until_true 60 detached
}
