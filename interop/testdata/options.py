# What can be asked before an export is chosen. Run by nbdsh; uri and stock are set.
import nbd

h = nbd.NBD()
h.set_opt_mode(True)
h.connect_uri(uri)

names = []
assert h.opt_list(lambda name, description: names.append((name, description))) == 1
assert names == [("disk", "what it is")], names

# An export that is not there is refused, and the connection goes on.
h.set_export_name("nowhere")
try:
    h.opt_info()
except nbd.Error as e:
    assert e.errno == "ENOENT", e
else:
    raise AssertionError("opt_info of an unknown export")
try:
    h.opt_go()
except nbd.Error as e:
    assert e.errno == "ENOENT", e
else:
    raise AssertionError("opt_go to an unknown export")

h.set_export_name("disk")
h.set_full_info(True)
h.opt_info()
assert h.get_size() == 1 << 20
assert h.get_canonical_export_name() == "disk"
assert h.get_export_description() == "what it is"
# Some servers ask for 512 when they had to guess the format; with the format given it is one byte.
assert h.get_block_size(nbd.SIZE_MINIMUM) == 1
assert h.get_block_size(nbd.SIZE_MAXIMUM) >= 32 << 20

contexts = []
h.opt_list_meta_context(lambda name: contexts.append(name))
assert set(contexts) >= {"base:allocation", "qemu:allocation-depth"}, contexts
contexts.clear()
h.add_meta_context("qemu:allocation-depth")
h.add_meta_context("other:unknown")
h.opt_list_meta_context(lambda name: contexts.append(name))
assert contexts == ["qemu:allocation-depth"], contexts

h.opt_go()
assert h.can_meta_context("qemu:allocation-depth")
assert not h.can_meta_context("base:allocation")
depths = []
h.block_status(1 << 20, 0, lambda c, o, e, err: depths.extend(e))
assert len(depths) >= 2 and len(depths) % 2 == 0, depths
h.shutdown()

h = nbd.NBD()
h.set_opt_mode(True)
h.connect_uri(uri)
h.opt_abort()
assert h.aio_is_closed()
