"""What is not in its format: MALFORMED, whatever else is right. All but the policies are one honest proof, bent."""

from __future__ import annotations

import json
from binascii import a2b_base64
from collections.abc import Callable
from hashlib import sha256

from tests.builder import World, secret
from tests.vector_cases import MALFORMED, Ask, case, small
from tests.verifier.worlds import a_file
from verifier.encoding import encode_base64
from verifier.note import SignerKey, format_vkey
from verifier.proof import Line, Proof, format_proof
from verifier.verdict import Memory


def bent(bend: Callable[[str], str], world: World | None = None) -> Ask:
    """An honest proof's text, changed."""
    world = world or small()
    text = format_proof(world.prove(1)).decode()
    assert bend(text) != text
    return Ask(world, bend(text))


def replaced(old: str, new: str) -> Ask:
    return bent(lambda text: text.replace(old, new, 1))


def changed_line(change: Callable[[Line], Line]) -> Ask:
    """The last entry, or one of its openings, is not in its format."""
    world = small()
    proof = world.prove(1)
    return Ask(world, proof._replace(entries=[proof.entries[0], change(proof.entries[1])]))


def member(text: str, name: str) -> str:
    """A member of the proof with its value, as it stands in the text."""
    value = json.loads(text)[name]
    return f'"{name}":' + json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# -- JSON -------------------------------------------------------------------------------------------------------


@case(MALFORMED)
def truncated() -> Ask:
    """The last 40 characters are missing."""
    return bent(lambda text: text[:-40])


@case(MALFORMED)
def without_line_feed() -> Ask:
    """The line feed at the end is missing."""
    return bent(lambda text: text[:-1])


@case(MALFORMED)
def trailing_bytes() -> Ask:
    """A second line feed follows."""
    return bent(lambda text: text + "\n")


@case(MALFORMED)
def two_proofs() -> Ask:
    """A second proof follows."""
    return bent(lambda text: text + text)


@case(MALFORMED)
def empty_proof() -> Ask:
    """The file is empty."""
    return bent(lambda text: "")


@case(MALFORMED)
def byte_order_mark() -> Ask:
    """A byte order mark stands before the proof."""
    return bent(lambda text: "\ufeff" + text)


@case(MALFORMED)
def pretty_printed() -> Ask:
    """The same value, indented."""
    return bent(lambda text: json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n")


@case(MALFORMED)
def duplicated_member() -> Ask:
    """`file` is there twice, with the same value."""
    return replaced('"file":"1",', '"file":"1","file":"1",')


@case(MALFORMED)
def reordered_members() -> Ask:
    """`generation` stands before `file`."""
    return replaced('"file":"1","generation":"0",', '"generation":"0","file":"1",')


@case(MALFORMED)
def unknown_member() -> Ask:
    """A member that no proof has."""
    return replaced('"file":"1",', '"file":"1","note":null,')


@case(MALFORMED)
def missing_member() -> Ask:
    """`pinned` is left out; an absent value is `null`."""
    return replaced('"pinned":null,', "")


@case(MALFORMED)
def unknown_version() -> Ask:
    """The format is one of tomorrow."""
    return replaced("proof/1", "proof/2")


@case(MALFORMED)
def json_number() -> Ask:
    """A number that is not written as text."""
    return replaced('"file":"1"', '"file":1')


@case(MALFORMED)
def leading_zero() -> Ask:
    """A decimal with a leading zero."""
    return replaced('"file":"1"', '"file":"01"')


@case(MALFORMED)
def number_too_big() -> Ask:
    """2^63, one above the bound."""
    return replaced('"file":"1"', f'"file":"{2**63}"')


@case(MALFORMED)
def other_digits() -> Ask:
    """A digit that is not one of ASCII's."""
    return replaced('"file":"1"', '"file":"١"')


@case(MALFORMED)
def other_escape() -> Ask:
    """A line feed that is escaped as \\u000a."""
    return replaced("\\n", "\\u000a")


@case(MALFORMED)
def escaped_slash() -> Ask:
    """A slash that is escaped."""
    return replaced("log.example/files", "log.example\\/files")


@case(MALFORMED)
def lone_surrogate() -> Ask:
    """An escape that is one half of a character."""
    return replaced("\\n— n0", "\\n— \\ud800n0")


@case(MALFORMED)
def control_character_in_the_source() -> Ask:
    """A source id has lower-case letters, digits and four signs."""
    return replaced("folder:test", "folder:\\ntest")


# -- base64 and hashes ------------------------------------------------------------------------------------------


def bend_root(bend: Callable[[str], str]) -> Ask:
    """The base64 of `root` is changed."""

    def bend_text(text: str) -> str:
        root: str = json.loads(text)["root"]
        return text.replace(root, bend(root), 1)

    return bent(bend_text)


@case(MALFORMED)
def base64_with_unused_bits() -> Ask:
    """The unused bits of the last character are not zero: the same bytes in another spelling."""
    return bend_root(_next_last)


def _next_last(root: str) -> str:
    """The last character before the padding, one further in the alphabet."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return root[:-2] + alphabet[alphabet.index(root[-2]) + 1] + "="


@case(MALFORMED)
def base64_without_padding() -> Ask:
    """The padding is missing."""
    return bend_root(lambda root: root[:-1])


@case(MALFORMED)
def base64_with_a_space() -> Ask:
    """A space within."""
    return bend_root(lambda root: root[:8] + " " + root[8:])


@case(MALFORMED)
def base64_of_the_other_alphabet() -> Ask:
    """A minus sign for a plus sign, as in URLs."""
    return bend_root(lambda root: "-" + root[1:])


@case(MALFORMED)
def hash_of_31_bytes() -> Ask:
    """`root` is one byte short."""
    return bend_root(lambda root: encode_base64(a2b_base64(root)[:31]))


@case(MALFORMED)
def hashes_of_33_bytes() -> Ask:
    """A list of hashes that is no multiple of 32 bytes."""

    def bend(text: str) -> str:
        old = member(text, "commitment")
        data = a2b_base64(json.loads(text)["commitment"])
        return text.replace(old, f'"commitment":"{encode_base64(data + bytes(1))}"', 1)

    return bent(bend)


@case(MALFORMED)
def too_many_hashes() -> Ask:
    """64 hashes on the way through a tree."""
    world = small()
    return Ask(world, world.prove(1)._replace(last=[secret(str(n)) for n in range(64)]))


@case(MALFORMED)
def one_hash_too_many() -> Ask:
    """A hash more than leads from the last leaf to the root: it fits no tree of this size."""
    world = small()
    proof = world.prove(1)
    return Ask(world, proof._replace(last=[*proof.last, secret("more")]))


@case(MALFORMED)
def one_hash_too_few_since_the_tree_seen() -> Ask:
    """A hash less than a consistency proof of these sizes has."""
    world = small()
    proof = world.prove(1, pinned=2)
    assert proof.pinned is not None
    pinned = proof.pinned._replace(hashes=proof.pinned.hashes[:-1])
    return Ask(world, proof._replace(pinned=pinned), memory=Memory(world.notes[2]))


@case(MALFORMED)
def form_broken_behind_another_log() -> Ask:
    """`sealed` is no object, and the log is not the user's: the form of the whole file comes first."""
    world = small()
    text = format_proof(world.prove(1)._replace(log="other.example/files+" + "0" * 64)).decode()
    return Ask(world, text.replace('"sealed":null', '"sealed":[]'))


@case(MALFORMED)
def log_name_with_a_digit_too_many() -> Ask:
    """What stands after the last + of a log name is not a hash."""
    world = small()
    return Ask(world, format_proof(world.prove(1)).decode().replace(world.log_name, world.log_name + "0", 1))


@case(MALFORMED)
def too_many_siblings() -> Ask:
    """257 siblings on the way through the map."""
    world = small()
    proof = world.prove(1)
    return Ask(world, proof._replace(map=proof.map._replace(siblings=[secret(str(n)) for n in range(257)])))


# -- entries ----------------------------------------------------------------------------------------------------


def bent_entry(bend: Callable[[bytes], bytes]) -> Ask:
    return changed_line(lambda line: line._replace(entry=bend(line.entry)))


@case(MALFORMED)
def entry_of_another_format() -> Ask:
    """The first byte of an entry is 2."""
    return bent_entry(lambda entry: b"\x02" + entry[1:])


@case(MALFORMED)
def unknown_operation() -> Ask:
    """The operation of an entry is 16."""
    return bent_entry(lambda entry: entry[:1] + b"\x10" + entry[2:])


@case(MALFORMED)
def entry_with_trailing_bytes() -> Ask:
    """A `written` has no argument, and something follows."""
    return bent_entry(lambda entry: entry + b"\x00")


@case(MALFORMED)
def entry_truncated() -> Ask:
    """An entry has 122 bytes at least."""
    return bent_entry(lambda entry: entry[:-1])


@case(MALFORMED)
def entry_with_a_seq_too_big() -> Ask:
    """A seq of 16,384."""
    return bent_entry(lambda entry: entry[:2] + (16_384).to_bytes(8, "big") + entry[10:])


@case(MALFORMED)
def opening_shorter_than_its_salt() -> Ask:
    """31 bytes can't hold a salt."""
    return changed_line(lambda line: line._replace(context=bytes(31)))


@case(MALFORMED)
def three_parts_in_a_line() -> Ask:
    """An entry comes with three openings, shown or null."""
    return bent(_without_context)


def _without_context(text: str) -> str:
    value = json.loads(text)
    value["entries"][0].pop()
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


@case(MALFORMED)
def current_leaf_shown_twice() -> Ask:
    """`current` is null if the last leaf set the current content (7.2)."""
    world, other = small(), a_file()
    current = other.prove(1).current
    assert current is not None
    proof: Proof = world.prove(1)._replace(current=current)
    return Ask(world, proof)


# -- what the user brings -----------------------------------------------------------------------------------------


@case(MALFORMED)
def auditor_among_the_witnesses() -> Ask:
    """[R] A key name in the witnesses' policy ends in /auditor."""
    world = small()
    world.policy_text = world.auditors_text
    return Ask(world, world.prove(1))


@case(MALFORMED)
def one_key_in_both_policies() -> Ask:
    """[R] A node's witness key is its auditor key as well."""
    world = small()
    twin = SignerKey("n0.example/auditor", 4, secret("witness n0.example"))
    world.auditors_text = world.policy_file([twin], 1)
    return Ask(world, world.prove(1))


@case(MALFORMED)
def policy_with_a_control_character_in_a_name() -> Ask:
    """[R] U+0081, which most screens do not show, is in a witness's name."""
    world = small()
    key = world.witnesses[0].verifier_key
    typed, name = bytes([key.algorithm]) + key.public_key, f"{key.name[:2]}\x81{key.name[2:]}"
    key_id = sha256(name.encode() + b"\n" + typed).hexdigest()[:8]
    vkey = f"{name}+{key_id}+{encode_base64(typed)}"
    world.policy_text = world.policy_text.replace(format_vkey(key).encode(), vkey.encode())
    return Ask(world, world.prove(1))


@case(MALFORMED)
def policy_with_one_key_twice() -> Ask:
    """[R] One witness under two names."""
    world = small()
    twin = SignerKey("n1.example", 4, secret("witness n0.example"))
    world.policy_text = world.policy_file([world.witnesses[0], twin], 2)
    return Ask(world, world.prove(1))
