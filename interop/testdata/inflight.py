# Many requests in flight, and a client that leaves behind them. Run by nbdsh; uri and stock are set.
import nbd

COUNT, LENGTH = 64, 256 << 10


def content(n):
    return bytes([n + 1]) * LENGTH


h = nbd.NBD()
h.connect_uri(uri)
answered = []
for n in range(COUNT):
    data = nbd.Buffer.from_bytearray(bytearray(content(n)))
    h.aio_pwrite(data, n * LENGTH, lambda error, n=n: answered.append((n, error.value)) or 1)
# DISC goes out behind the writes; the server closes when it has answered them. qemu-nbd may close earlier.
if stock:
    while h.aio_in_flight() > 0:
        h.poll(-1)
h.aio_disconnect(0)
while not (h.aio_is_closed() or h.aio_is_dead()):
    h.poll(-1)
assert sorted(answered) == [(n, 0) for n in range(COUNT)], sorted(answered)

h = nbd.NBD()
h.connect_uri(uri)
buffers, wrong = [], []
for n in range(COUNT):
    buffer = nbd.Buffer(LENGTH)
    buffers.append(buffer)
    h.aio_pread(buffer, n * LENGTH, lambda error, n=n: wrong.append(n) if error.value else 1)
while h.aio_in_flight() > 0:
    h.poll(-1)
assert not wrong, wrong
for n, buffer in enumerate(buffers):
    assert bytes(buffer.to_bytearray()) == content(n), "piece %d" % n
h.shutdown()
