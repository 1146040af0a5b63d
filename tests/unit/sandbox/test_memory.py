"""Mappings of the zygote that are put behind a file, and those that are joined."""

from sandbox_image.codedance_interpreter.memory import constants_beside_code, parse, private_mappings

SMAPS = """\
55d000000000-55d000010000 rw-p 00000000 00:00 0                          [heap]
Size:                 64 kB
Anonymous:            60 kB
7f0000000000-7f0000002000 r--p 00000000 fe:01 77                         /lib/one.so
Anonymous:             0 kB
7f0000002000-7f0000006000 r-xp 00002000 fe:01 77                         /lib/one.so
Anonymous:             0 kB
7f0000006000-7f0000007000 r--p 00006000 fe:01 77                         /lib/one.so
Anonymous:             0 kB
7f0000007000-7f0000008000 r--p 00006000 fe:01 77                         /lib/one.so
Anonymous:             4 kB
7f0000008000-7f0000009000 rw-p 00007000 fe:01 77                         /lib/one.so
Anonymous:             4 kB
7f0000009000-7f000000b000 r--p 0000b000 fe:01 77                         /lib/one.so
Anonymous:             0 kB
7f000000b000-7f000000c000 r--p 0000c000 fe:01 78                         /lib/a file.dat
Anonymous:             0 kB
7f000000c000-7f000000d000 rw-p 00000000 00:00 0 
Anonymous:             0 kB
7f000000d000-7f000000e000 rw-s 00000000 00:01 5                          /dev/zero (deleted)
Anonymous:             4 kB
7f000000e000-7f000000f000 r-xp 00000000 fe:01 79                         /lib/patched.so
Anonymous:             4 kB
7ffe00000000-7ffe00021000 rw-p 00000000 00:00 0                          [stack]
Anonymous:            16 kB
"""  # noqa: W291  the kernel ends a mapping without a name with a blank


def starts(name: str) -> list[int]:
    return [mapping.start for mapping in parse(SMAPS.splitlines(keepends=True)) if mapping.name == name]


def test_every_mapping_is_read() -> None:
    mappings = parse(SMAPS.splitlines(keepends=True))
    assert len(mappings) == 12
    assert [mapping.name for mapping in mappings if mapping.private] == [
        *("[heap]", "/lib/one.so", "/lib/one.so", "/dev/zero (deleted)", "/lib/patched.so", "[stack]")
    ]


def test_private_data_is_moved_but_not_code_the_stack_or_what_is_shared() -> None:
    moved = private_mappings(parse(SMAPS.splitlines(keepends=True)))
    assert [mapping.start for mapping in moved] == [*starts("[heap]"), 0x7F0000007000, 0x7F0000008000]


def test_only_what_goes_on_in_the_file_beside_code_is_joined_to_it() -> None:
    joined = constants_beside_code(parse(SMAPS.splitlines(keepends=True)))
    assert joined == [(0x7F0000000000, 0x7F0000002000), (0x7F0000006000, 0x7F0000007000)]
