"""Checkpoints against published logs, and everything that is nearly one."""

from __future__ import annotations

from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.checkpoint import Checkpoint, format_checkpoint, open_checkpoint, parse_checkpoint_unverified
from verifier.errors import BadSignature, Malformed, NotProven, RootMismatch
from verifier.merkle import EMPTY_ROOT, verify_consistency
from verifier.note import SIGNATURE, Note, SignerKey, format_note, make_key, parse_vkey, sign_note

# Go's checksum database: its key's name is not its origin.
SUMDB_KEY = parse_vkey("sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")
SUMDB_ORIGIN = "go.sum database tree"
SUMDB_NOTE = (
    "go.sum database tree\n35225469\nvt5T6GaLCXvyHFl9VUvvItR43XZxfLgftEcTyO3eJCQ=\n\n\u2014 sum.golang.org "
    "Az3grpukl5AXaVfYkLiDGORx/DN2nlcS5kZHR5uYOBV2KA2HgXpD+gu9HHONebHLAyaKbbTM75QTtPydhKCExixSfwQ=\n"
).encode()

# A sigsum log of a public witness's tests: sizes 1, 3 and 5, with proofs between them.
SIGSUM_ORIGIN = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562"
SIGSUM_KEY = make_key(
    SIGSUM_ORIGIN, SIGNATURE, bytes.fromhex("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f")
)


def sigsum_note(size: int, root: str, signature: str) -> bytes:
    return f"{SIGSUM_ORIGIN}\n{size}\n{root}\n\n\u2014 {SIGSUM_ORIGIN} {signature}\n".encode()


SIGSUM_1 = sigsum_note(
    1,
    "KgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "UgIom7fPZTqpxWWhyjWduBvTvGVqsokMbqTArsQilegKoFBJQjUFAmQ0+YeSPM3wfUQMFSzVnnNuWRTYrajXpNUbIQY=",
)
SIGSUM_3_ROOT = "RcCI1Nk56ZcSmIEfIn0SleqtV7uvrlXNccFx595Iwl0="
SIGSUM_3 = sigsum_note(
    3, SIGSUM_3_ROOT, "UgIom2VbtIcdFbwFAy1n7s6IkAxIY6J/GQOTuZF2ORV39d75cbAj2aQYwyJre36kezNobZs4SUUdrcawfAB8WVrx6go="
)
SIGSUM_3_NOT_CANONICAL = SIGSUM_3.replace(b"6go=\n", b"6gx=\n")
SIGSUM_5 = sigsum_note(
    5,
    "QrtXrQZCCvpIgsSmOsah7HdICzMLLyDfxToMql9WTjY=",
    "UgIomw/EOJmWi0i1FQsOj+etB7F8IccFam/jgd6wzRns4QPVmyEZtdvl1U2KEmLOZ/ASRcWJi0tW90dJWAShei7sDww=",
)
PROOFS = {
    (1, 3): ["KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "KgIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="],
    (1, 5): [
        "KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "+fUDV+k970B4I3uKrqJM4aP1lloPZP8mvr2Z4wRw2LI=",
        "KgQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    ],
    (3, 5): [
        "KgIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "KgMAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "wgiIFdZfYNv6WU1OllBKsWnLYIS/DBMqt8Uh/S4OukE=",
        "KgQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    ],
}

LOG = SignerKey("log.example/a", SIGNATURE, b"\1" * 32)
NEXT_KEY = SignerKey("log.example/a", SIGNATURE, b"\2" * 32)
HEAD = Checkpoint("log.example/a", 7, b"\7" * 32)


def signed(checkpoint: Checkpoint, *signers: SignerKey) -> bytes:
    text = format_checkpoint(checkpoint)
    return format_note(Note(text, tuple([sign_note(text, signer) for signer in signers])))


def test_published_checkpoints_open_and_are_consistent() -> None:
    """A sigsum log's checkpoints verify, and the proofs between their trees hold, and no other does."""
    heads = {}
    for data in (SIGSUM_1, SIGSUM_3, SIGSUM_5):
        note, checkpoint = open_checkpoint(data, SIGSUM_KEY)
        heads[checkpoint.size] = checkpoint
        assert (checkpoint.origin, format_note(note), format_checkpoint(checkpoint)) == (SIGSUM_ORIGIN, data, note.text)
    for (old, new), lines in PROOFS.items():
        proof = [b64decode(line) for line in lines]
        assert verify_consistency(old, heads[old].root, new, heads[new].root, proof) == heads[new].root
        with pytest.raises(RootMismatch):
            verify_consistency(old, heads[old].root, new, heads[new].root, [*proof[:-1], proof[-1][::-1]])


def test_second_spelling_of_a_signature_is_malformed() -> None:
    """A published signature whose unused bits are set decodes to the same bytes elsewhere; here it is no note."""
    with pytest.raises(Malformed, match="not canonical base64"):
        open_checkpoint(SIGSUM_3_NOT_CANONICAL, SIGSUM_KEY)


def test_key_of_another_name_needs_the_origin() -> None:
    """A key speaks for the origin that it is named after, or for the one that the caller names; for no third."""
    _, checkpoint = open_checkpoint(SUMDB_NOTE, SUMDB_KEY, origin=SUMDB_ORIGIN)
    assert (checkpoint.origin, checkpoint.size) == (SUMDB_ORIGIN, 35225469)
    with pytest.raises(NotProven, match="no key of 'go.sum database tree' is known") as caught:
        open_checkpoint(SUMDB_NOTE, SUMDB_KEY)
    assert caught.value.reason == "unknown-log"
    with pytest.raises(NotProven, match="got 'go.sum database tree', want 'sum.golang.org'"):
        open_checkpoint(SUMDB_NOTE, SUMDB_KEY, origin="sum.golang.org")
    with pytest.raises(NotProven, match="no key of 'go.sum database tree' is known"):
        open_checkpoint(SUMDB_NOTE, origin=SUMDB_ORIGIN)


def test_example_line_of_the_specification_is_of_another_log() -> None:
    """The line that C2SP prints under `behind-the-sofa` is the sum database's, over its own name: it never verifies."""
    tree = "20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\u2014 {} "
    tree += "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    printed = "example.com/behind-the-sofa\n" + tree.format("example.com/behind-the-sofa")
    real = f"{SUMDB_ORIGIN}\n" + tree.format(SUMDB_KEY.name)
    assert open_checkpoint(real.encode(), SUMDB_KEY, origin=SUMDB_ORIGIN)[1].size == 20852163
    key = make_key("example.com/behind-the-sofa", SIGNATURE, SUMDB_KEY.public_key)
    for claimed in (key, key._replace(key_id=SUMDB_KEY.key_id)):
        with pytest.raises(NotProven):
            open_checkpoint(printed.encode(), claimed)


def test_checkpoint_needs_a_signature_of_its_log() -> None:
    """Another log's valid signature does not open a checkpoint, nor does none, and one that fails refuses it."""
    other = SignerKey("other.example", SIGNATURE, b"\3" * 32)
    keys = [LOG.verifier_key, other.verifier_key]
    assert open_checkpoint(signed(HEAD, LOG, other), *keys)[1] == HEAD
    with pytest.raises(NotProven, match="no signature of 'log.example/a'") as caught:
        open_checkpoint(signed(HEAD, other), *keys)
    assert caught.value.reason == "unsigned"
    with pytest.raises(BadSignature, match="log.example/a"):
        open_checkpoint(signed(HEAD, LOG).replace(b"\n7\n", b"\n8\n"), *keys)


def test_two_keys_of_a_log_while_it_changes_them() -> None:
    """During a key change either key's signature is enough, and both have to hold where both are known."""
    keys = [LOG.verifier_key, NEXT_KEY.verifier_key]
    for signers in ([LOG], [NEXT_KEY], [LOG, NEXT_KEY]):
        assert open_checkpoint(signed(HEAD, *signers), *keys)[1] == HEAD
    text = format_checkpoint(HEAD)
    forged = sign_note(text, NEXT_KEY)._replace(blob=bytes(64))
    data = format_note(Note(text, (sign_note(text, LOG), forged)))
    assert open_checkpoint(data, LOG.verifier_key)[1] == HEAD
    with pytest.raises(BadSignature):
        open_checkpoint(data, *keys)


def test_extension_lines_are_for_those_who_ask() -> None:
    """No extension lines unless the caller wants them; then they are there to see, signed with the rest."""
    head = HEAD._replace(extensions=("one", "and \u00e4nother"))
    data = signed(head, LOG)
    assert open_checkpoint(data, LOG.verifier_key, extensions=True)[1] == head
    with pytest.raises(Malformed, match="checkpoint: want no extension lines, got 'one'"):
        open_checkpoint(data, LOG.verifier_key)


@given(
    st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=60),
    st.integers(0, 2**63 - 1),
    st.binary(min_size=32, max_size=32),
    st.lists(st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20), max_size=3),
)
def test_checkpoints_round_trip(origin: str, size: int, root: bytes, extensions: list[str]) -> None:
    """Every checkpoint has one text, and the text leads back to it."""
    checkpoint = Checkpoint(origin, size, root, tuple(extensions))
    text = format_checkpoint(checkpoint)
    assert parse_checkpoint_unverified(text, extensions=True) == checkpoint
    assert format_checkpoint(parse_checkpoint_unverified(text, extensions=True)) == text


ROOT = b"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "three lines"),
        (b"log\n7\n", "three lines"),
        (b"log\n7\n" + ROOT, "three lines"),
        (b"log\n7\n" + ROOT + b"\n\n", "checkpoint extension"),
        (b"\nlog\n7\n" + ROOT + b"\n", "checkpoint origin"),
        (b"\n7\n" + ROOT + b"\n", "checkpoint origin"),
        (b"l\tog\n7\n" + ROOT + b"\n", "checkpoint origin: control character"),
        (b"l\xff\n7\n" + ROOT + b"\n", "checkpoint: not UTF-8"),
        (b"l" * 256 + b"\n7\n" + ROOT + b"\n", "checkpoint origin: want at most 255 bytes, got 256"),
        *[
            (b"log\n" + size + b"\n" + ROOT + b"\n", "checkpoint size")
            for size in (b"", b"07", b"00", b"+7", b"-7", b" 7", b"7 ", b"7_0", b"0x7", b"7.0", b"\xd9\xa7", b"7\r")
        ],
        (b"log\n9223372036854775808\n" + ROOT + b"\n", "checkpoint size: want at most 9223372036854775807"),
        (b"log\n" + b"9" * 5000 + b"\n" + ROOT + b"\n", "checkpoint size"),
        (b"log\n7\n" + ROOT[:-1] + b"\n", "checkpoint root: not canonical base64"),
        (b"log\n7\n" + ROOT.replace(b"FU=", b"FV=") + b"\n", "checkpoint root: not canonical base64"),
        (b"log\n7\n " + ROOT + b"\n", "checkpoint root: not canonical base64"),
        (b"log\n7\n" + ROOT[:40] + b"\n", "checkpoint root: want 32 bytes, got 30"),
        (b"log\n7\n\n", "checkpoint root: want 32 bytes, got 0"),
        (b"log\r\n7\r\n" + ROOT + b"\r\n", "control character"),
    ],
)
def test_parse_refuses_with_a_reason(text: bytes, why: str) -> None:
    """Sizes have one spelling, roots 32 bytes, and no line is empty."""
    with pytest.raises(Malformed, match=why):
        parse_checkpoint_unverified(text, extensions=True)


@pytest.mark.parametrize(
    "wrong",
    [
        HEAD._replace(origin=""),
        HEAD._replace(origin="a\nb"),
        HEAD._replace(origin="\udc80"),
        HEAD._replace(size=-1),
        HEAD._replace(size=2**63),
        HEAD._replace(root=b"\7" * 31),
        HEAD._replace(extensions=("",)),
        HEAD._replace(extensions=("a\nb",)),
        HEAD._replace(extensions=("\udc80",)),
    ],
)
def test_format_refuses_what_would_not_parse(wrong: Checkpoint) -> None:
    """No text is made that says something else, or nothing."""
    with pytest.raises(Malformed, match="checkpoint"):
        format_checkpoint(wrong)


def test_empty_tree_is_left_to_the_caller() -> None:
    """A size of 0 with a root of the signer's choice parses; the consistency check from size 0 refuses it."""
    text = b"log\n0\n" + SIGSUM_3_ROOT.encode() + b"\n"
    checkpoint = parse_checkpoint_unverified(text)
    with pytest.raises(RootMismatch):
        verify_consistency(0, EMPTY_ROOT, checkpoint.size, checkpoint.root, [])
