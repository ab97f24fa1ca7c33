# Structured reads: which parts come as data and which as holes. Run by nbdsh; uri and stock are set.
import nbd

MIB = 1 << 20

h = nbd.NBD()
h.connect_uri(uri)


def chunks(length, offset, flags=0):
    found = []

    def chunk(data, at, status, error):
        found.append((at, len(data), status))

    buffer = h.pread_structured(length, offset, chunk, flags)
    # libnbd calls back for the whole of a hole as for data: together they cover the request once.
    found.sort()
    position = offset
    for at, size, _ in found:
        assert at == position, (found, position)
        position += size
    assert position == offset + length
    return bytes(buffer), found


content, found = chunks(4 * MIB, 0)
assert content[MIB : MIB + 16] == b"0000000000000008"
assert content[:MIB] == bytes(MIB) and content[2 * MIB :] == bytes(2 * MIB)
kinds = {status for _, _, status in found}
assert kinds == {nbd.READ_DATA, nbd.READ_HOLE}, found
holes = sum(size for _, size, status in found if status == nbd.READ_HOLE)
assert holes == 3 * MIB, found

_, found = chunks(4 * MIB, 0, nbd.CMD_FLAG_DF)
assert len(found) == 1 and found[0][2] == nbd.READ_DATA, found
h.shutdown()
