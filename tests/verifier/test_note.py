"""Notes, keys and cosignatures against published ones, and under every small change."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier import note as n
from verifier.errors import BadSignature, Malformed, NotProven
from verifier.note import COSIGNATURE, SIGNATURE, Note, Signature, SignerKey

# From the tests of Go's sumdb/note: the same bytes come out, since Ed25519 signatures are deterministic.
PETER_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PETER_TEXT = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_LINE = (
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
PETER_NOTE = PETER_TEXT + b"\n" + PETER_LINE
ENOCH_VKEY = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
ENOCH_LINE = (
    "\u2014 EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
).encode()

# The example of signed-note.md.
FOO_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
FOO_NOTE = (
    "This is an example message.\n\n\u2014 example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()

# Cosigned checkpoints of a public witness implementation's tests; the first has a line of type 05 as well.
WITNESS_VKEY = "witness.example.org+b8a2cf20+BFLN3yikSfFkVAJtrnh/CiY3Zozkoy7clp+P7XB28qUN"
WITNESS_NOTE = (
    "rome2026h1.example.org\n300\nlCkHUpkmVBEms2r2T1K6Og69+wUuuN3MIEW1/ezu2v0=\n\n\u2014 rome2026h1.example.org "
    "kVB1JgAAAZtxtEwABAMARzBFAiEAi+mTa2xjL1IdWpH82OeciGsGvwRAP+f1WkfKaSZCfFECIHoNPZ/Q3y6UNzvKOO9cuLr6V16vPNfhwhle9f6r5H/Z"
    "\n\u2014 witness.example.org "
    "uKLPIAAAAABpVGeAhm2bOvKc3LaB9PFN1ruG19Y5yqslmcAAbhftnn1Zznmo0LXFZq4LGvqKqLX8jWlwLKasxEGTLIqAVusneCBmBw==\n"
).encode()
MIRROR_VKEY = "mirror.example.org+3fb148ef+BAAjjch9GyYz0sJsJx7ALhbdAtz2ov0unbzSl1vMp94O"
MIRROR_NOTE = (
    "rome2026h1.example.org\n300\ngw31yQrqZZCcEOPrzX+bpy3nJ6QgngTKn8G1m0i62uU=\n\n\u2014 mirror.example.org "
    "P7FI7wAAAABpVGeAjA1S4pJm6MbcXjX7UUImu4azZtrfcVW2uyr/LXIYlwEJzXC0N0EiZkbqfLdXt/4gVEEuGmxJjAfXKMCISpsJAg==\n"
).encode()
WITNESS_TIME = 1767139200

LOG = SignerKey("log.example", SIGNATURE, b"\1" * 32)
W1 = SignerKey("w1.example/witness", COSIGNATURE, b"\2" * 32)
W2 = SignerKey("w2.example/witness", COSIGNATURE, b"\3" * 32)
TEXT = b"log.example\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"

names = st.text(st.characters(exclude_characters="+", exclude_categories=["Z", "C"]), min_size=1, max_size=40)
texts = st.text(st.one_of(st.just("\n"), st.characters(exclude_categories=["C"])), max_size=200).map(lambda t: t + "\n")
signatures = st.builds(Signature, names, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=80))


# Published notes


@pytest.mark.parametrize(
    ("vkey", "data"),
    [(PETER_VKEY, PETER_NOTE), (ENOCH_VKEY, PETER_NOTE + ENOCH_LINE), (FOO_VKEY, FOO_NOTE)],
    ids=["PeterNeumann", "EnochRoot", "example.com/foo"],
)
def test_published_notes_verify(vkey: str, data: bytes) -> None:
    """Notes of others verify under their vkeys, and are formatted to the same bytes."""
    note, key = n.parse_note(data), n.parse_vkey(vkey)
    assert n.verify_signature(note, key) == note.text == data[: data.rindex(b"\n\n") + 1]
    assert n.format_note(note) == data
    assert n.format_vkey(key) == vkey


@pytest.mark.parametrize(
    ("vkey", "data"), [(WITNESS_VKEY, WITNESS_NOTE), (MIRROR_VKEY, MIRROR_NOTE)], ids=["witness", "mirror"]
)
def test_published_cosignatures_verify(vkey: str, data: bytes) -> None:
    """Cosignatures of others verify, and give the time that they were made at."""
    note, key = n.parse_note(data), n.parse_vkey(vkey)
    assert n.verify_cosignature(note, key) == WITNESS_TIME
    both = {known: known for known in (key, n.parse_vkey(WITNESS_VKEY))}
    assert n.verify_cosignatures(note, both) == {key: WITNESS_TIME}
    assert n.format_note(note) == data


def test_published_private_key_signs_the_published_note() -> None:
    """The private key's text form is read and written, and signs to the byte what Go signed."""
    signer = n.parse_private_key(PETER_PRIVATE)
    assert n.format_vkey(signer.verifier_key) == PETER_VKEY
    assert n.format_private_key(signer) == PETER_PRIVATE
    assert n.format_signature_line(n.sign_note(PETER_TEXT, signer)) == PETER_LINE


def test_cosigned_message_is_that_of_the_spec() -> None:
    """Header line, time line, and the whole text, extension lines included (tlog-cosignature)."""
    text = b"example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\nextension\n"
    assert n.cosignature_message(text, 1679315147) == b"cosignature/v1\ntime 1679315147\n" + text
    blob = n.cosign(text, W1, 1679315147).blob
    assert (len(blob), blob[:8]) == (8 + 64, (1679315147).to_bytes(8, "big"))


# Every small change


def substrings(text: str) -> list[str]:
    return [text[i:j] for i in range(len(text) + 1) for j in range(i, len(text) + 1) if (i, j) != (0, len(text))]


def one_byte_changes(data: bytes, places: range | None = None) -> list[bytes]:
    """The data with one byte changed: one bit flipped, one added, and in turn each byte that has a meaning here."""
    changed = []
    for i in places or range(len(data)):
        others = {(data[i] + 1) % 256, *(data[i] ^ 1 << bit for bit in range(8)), *b"\0\n\r +/=Az09\x85\xa0"} - {
            data[i]
        }
        changed += [data[:i] + bytes([other]) + data[i + 1 :] for other in others]
    return changed


@pytest.mark.parametrize("vkey", [PETER_VKEY, FOO_VKEY, WITNESS_VKEY])
def test_vkey_refuses_every_substring_and_changed_byte(vkey: str) -> None:
    """Nothing in a vkey is ignored."""
    for wrong in substrings(vkey):
        with pytest.raises(Malformed):
            n.parse_vkey(wrong)
    for i in range(len(vkey)):
        for other in range(256):
            if chr(other) != vkey[i]:
                with pytest.raises(Malformed):
                    n.parse_vkey(vkey[:i] + chr(other) + vkey[i + 1 :])


def test_private_key_refuses_every_substring_and_changed_byte() -> None:
    """Nothing in a private key is ignored, and no error shows its secret part."""
    secret = PETER_PRIVATE[-44:]
    for wrong in substrings(PETER_PRIVATE) + [w.decode("latin-1") for w in one_byte_changes(PETER_PRIVATE.encode())]:
        with pytest.raises(Malformed) as caught:
            n.parse_private_key(wrong)
        assert secret[1:11] not in str(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(("vkey", "data"), [(PETER_VKEY, PETER_NOTE), (FOO_VKEY, FOO_NOTE)])
def test_note_refuses_every_changed_byte(vkey: str, data: bytes) -> None:
    """In a note with one signature every byte counts: changed ones, dropped ones, and every prefix and suffix."""
    key = n.parse_vkey(vkey)
    dropped = [data[:i] + data[i + 1 :] for i in range(len(data))]
    cut = [data[:i] for i in range(len(data))] + [data[i:] for i in range(1, len(data))]
    for wrong in one_byte_changes(data) + dropped + cut:
        with pytest.raises((Malformed, NotProven)):
            n.verify_signature(n.parse_note(wrong), key)


def test_cosigned_note_refuses_every_changed_byte() -> None:
    """The same of a cosignature, its timestamp included."""
    key = n.parse_vkey(MIRROR_VKEY)
    for wrong in one_byte_changes(MIRROR_NOTE):
        with pytest.raises((Malformed, NotProven)):
            n.verify_cosignature(n.parse_note(wrong), key)


# Keys


@pytest.mark.parametrize(
    ("vkey", "why"),
    [
        ("PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==", "not canonical base64"),
        (
            "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "signature type 0x65 is not supported yet",
        ),
        ("PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "want key id c74f20a3"),
        ("PeterNeuman+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "want key id "),
        ("PeterNeumann+c74f20a3+", "want a signature type"),
        ("+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "non-empty"),
        ("Peter\u2003Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "without spaces"),
        ("Peter\x81Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "without control characters"),
        ("Peter\udc80+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "not UTF-8"),
        ("test+5893dc2c+" + b64encode(b"\6" + bytes(1312)).decode(), "ML-DSA-44 cosignature"),
        ("n" * 2049, "want NAME"),
    ],
)
def test_vkey_refuses_with_a_reason(vkey: str, why: str) -> None:
    """Wrong id, length, type, spelling and name are told apart."""
    with pytest.raises(Malformed, match=why):
        n.parse_vkey(vkey)


@pytest.mark.parametrize(("algorithm", "name"), [(2, "ECDSA"), (5, "RFC 6962 tree head"), (6, "ML-DSA-44 cosignature")])
def test_known_types_are_not_supported_yet(algorithm: int, name: str) -> None:
    """A key of a type that exists elsewhere is refused by name."""
    with pytest.raises(Malformed, match=rf"0x0{algorithm} \({name}\) is not supported yet"):
        n.make_key("a", algorithm, bytes(32))


@pytest.mark.parametrize("key", [b"\1" + bytes(31), b"\xee" + b"\xff" * 30 + b"\x7f", bytes(33)])
def test_vkey_with_right_id_and_unsound_key_is_refused(key: bytes) -> None:
    """A correct key id does not make a small-order, non-canonical or over-long key good."""
    key_id = sha256(b"a\n\1" + key).hexdigest()[:8]
    with pytest.raises(Malformed, match="vkey: (key is|want a key of 32)"):
        n.parse_vkey(f"a+{key_id}+{b64encode(bytes([1]) + key).decode()}")


def test_key_ids_of_one_key_differ_by_type_and_name() -> None:
    """One public key under two types or names is two keys to a note."""
    public = LOG.verifier_key.public_key
    ids = {n.make_key(name, t, public).key_id for name in ("a", "b") for t in (SIGNATURE, COSIGNATURE)}
    assert len(ids) == 4


@given(names, st.sampled_from([SIGNATURE, COSIGNATURE]), st.binary(min_size=32, max_size=32))
def test_keys_round_trip(name: str, algorithm: int, secret: bytes) -> None:
    """Both text forms lead back to the same key; printing a signer shows no secret."""
    signer = SignerKey(name, algorithm, secret)
    assert n.parse_vkey(n.format_vkey(signer.verifier_key)) == signer.verifier_key
    again = n.parse_private_key(n.format_private_key(signer))
    assert again.verifier_key == signer.verifier_key
    assert again.secret_bytes() == secret
    assert n.format_private_key(signer)[-44:-1] not in repr(signer)


def test_name_has_a_limit() -> None:
    """A key's name has at most 255 bytes, the most that a cosigned message can hold."""
    public = LOG.verifier_key.public_key
    assert n.parse_vkey(n.format_vkey(n.make_key("n" * 255, SIGNATURE, public)))
    with pytest.raises(Malformed, match="want at most 255 bytes, got 256"):
        n.make_key("\u00fc" * 128, SIGNATURE, public)


# Notes


@given(texts, st.lists(signatures, min_size=1, max_size=5))
def test_notes_round_trip(text: str, lines: list[Signature]) -> None:
    """Any text and signatures come back, even if the text has empty lines or lines like a signature's."""
    for body in (text, text + n.format_signature_line(lines[0]).decode(), "\n\n" + text):
        note = Note(body.encode(), tuple(lines))
        assert n.parse_note(n.format_note(note)) == note


@given(st.binary(max_size=200), st.integers(0, len(PETER_NOTE)))
def test_parse_note_raises_our_errors_only(data: bytes, place: int) -> None:
    """What parses is formatted to the same bytes; what does not raises Malformed."""
    for wild in (data, PETER_NOTE[:place] + data + PETER_NOTE[place:], PETER_TEXT + b"\n" + data):
        try:
            assert n.format_note(n.parse_note(wild)) == wild
        except Malformed:
            pass


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty line"),
        (PETER_TEXT + PETER_LINE, "empty line"),
        (PETER_TEXT + b"\n", "want lines that end in a newline"),
        (PETER_NOTE[:-1], "want lines that end in a newline"),
        (PETER_NOTE + b"\n", "want lines that end in a newline"),
        (PETER_NOTE + PETER_LINE[:-1], "want lines that end in a newline"),
        (PETER_NOTE.replace(b"\n", b"\r\n"), "empty line"),
        (b"\t" + PETER_NOTE, "control character"),
        (b"\xff" + PETER_NOTE, "note text: not UTF-8"),
        (PETER_NOTE + b"\xff\n", "signature line: not UTF-8"),
        (PETER_NOTE.replace(b"\xe2\x80\x94 ", b"- "), "em dash"),
        (PETER_NOTE.replace(b"\xe2\x80\x94 ", b"\xe2\x80\x94  "), "em dash"),
        (PETER_NOTE.replace(b" PeterN", b" Peter\xc2\xa0N"), "without spaces"),
        (PETER_NOTE.replace(b" PeterN", b" Peter+N"), "without spaces and plus"),
        (PETER_NOTE.replace(b" PeterN", b" Peter\x00N"), "without spaces"),
        (PETER_NOTE.replace(b"JnAM=", b"JnAM= "), "em dash"),
        (PETER_NOTE.replace(b"JnAM=", b"JnAM"), "base64"),
        (PETER_NOTE.replace(b"JnAM=", b"JnAN="), "base64"),
        (PETER_NOTE.replace(b"JnAM=", b"JnAM=="), "base64"),
        (PETER_TEXT + b"\n\xe2\x80\x94 a AAAAAA==\n", "want a key id and a signature"),
        (b"x" * (n.MAX_NOTE_SIZE - len(PETER_NOTE) + 1) + PETER_NOTE, "want at most 131072 bytes, got 131073"),
        (PETER_TEXT + b"\n" + b"\xe2\x80\x94 a AAAAAAA=\n" * 1025, "want at most 1024 signature lines, got 1025"),
    ],
)
def test_parse_note_refuses_with_a_reason(data: bytes, why: str) -> None:
    """Each fault of the form is Malformed and says what it is."""
    with pytest.raises(Malformed, match=why):
        n.parse_note(data)


def test_parse_note_takes_what_is_within_the_limits() -> None:
    """A note of exactly 128 KiB and one of 1,024 lines parse; the spec asks for 16 lines at least."""
    n.parse_note(b"x" * (n.MAX_NOTE_SIZE - len(PETER_NOTE)) + PETER_NOTE)
    assert len(n.parse_note(PETER_TEXT + b"\n" + b"\xe2\x80\x94 a AAAAAAA=\n" * 1024).signatures) == 1024


@pytest.mark.parametrize("text", [b"", b"no newline", b"tab\t\n", b"\x1f\n", b"\xff\n", b"surrogate \xed\xa0\x80\n"])
def test_texts_that_cannot_be_signed(text: bytes) -> None:
    """Nothing is signed or formatted that would not parse again."""
    for make in (lambda: n.sign_note(text, LOG), lambda: n.cosign(text, W1, 1), lambda: n.format_note(Note(text, ()))):
        with pytest.raises(Malformed, match="note text"):
            make()


# Known and unknown keys


def test_unknown_lines_are_ignored() -> None:
    """Lines that share a name or an id with a known key, but not both, are nobody's."""
    key = LOG.verifier_key
    good = n.sign_note(TEXT, LOG)
    other_id, other_name = good._replace(key_id=b"\0\0\0\0"), good._replace(name="else.example")
    note = Note(TEXT, (other_id, good, other_name, other_id))
    assert n.verify_signature(note, key) == TEXT
    for lines in ((other_id,), (other_name,), (other_id, other_name)):
        with pytest.raises(NotProven, match="no signature of log.example") as caught:
            n.verify_signature(Note(TEXT, lines), key)
        assert caught.value.reason == "unsigned"


def test_known_line_that_fails_refuses_the_note() -> None:
    """One forged line of a known cosigner spoils the others, and the error names whose it was."""
    good, forged = n.cosign(TEXT, W1, 5), n.cosign(b"other\n", W2, 5)
    keys = {"w1": W1.verifier_key, "w2": W2.verifier_key}
    assert n.verify_cosignatures(Note(TEXT, (good, n.cosign(TEXT, W2, 7))), keys) == {"w1": 5, "w2": 7}
    with pytest.raises(BadSignature, match="w2.example") as caught:
        n.verify_cosignatures(Note(TEXT, (good, forged)), keys)
    assert (caught.value.name, caught.value.key_id) == (W2.verifier_key.name, W2.verifier_key.key_id)
    assert n.verify_cosignatures(Note(TEXT, (good, forged)), {"w1": W1.verifier_key}) == {"w1": 5}


def test_two_lines_of_one_key_are_refused() -> None:
    """A known key has one line, even if both hold: no choice of times is left to whoever made the note."""
    for pair in ((n.cosign(TEXT, W1, 5), n.cosign(TEXT, W1, 6)), (n.cosign(TEXT, W1, 5),) * 2):
        with pytest.raises(Malformed, match=r"want one signature line of w1.example/witness \([0-9a-f]{8}\), got 2"):
            n.verify_cosignatures(Note(TEXT, pair), {"w1": W1.verifier_key})


def cosigned_at(timestamp: int) -> Note:
    """A note whose cosignature truly holds for any u64, also those that `cosign` refuses to make."""
    signature = W1.sign(n.cosignature_message(TEXT, timestamp))
    blob = timestamp.to_bytes(8, "big") + signature
    return Note(TEXT, (Signature(W1.verifier_key.name, W1.verifier_key.key_id, blob),))


def test_time_has_bounds() -> None:
    """A time of 0 says nothing and one above 2^63-1 is none: neither counts, however well signed."""
    for timestamp in (1, 2**63 - 1):
        assert n.verify_cosignature(cosigned_at(timestamp), W1.verifier_key) == timestamp
        assert Note(TEXT, (n.cosign(TEXT, W1, timestamp),)) == cosigned_at(timestamp)
    for timestamp in (0, 2**63, 2**64 - 1):
        with pytest.raises(BadSignature, match=f"has time {timestamp}, want 1 to"):
            n.verify_cosignature(cosigned_at(timestamp), W1.verifier_key)
    for timestamp in (0, -1, 2**63):
        with pytest.raises(Malformed, match="cosignature time"):
            n.cosign(TEXT, W1, timestamp)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 63, 71, 73, 8 + 2420])
def test_blobs_of_another_length_do_not_hold(size: int) -> None:
    """A known key's line with a blob of any other length is a bad signature, not a crash."""
    for signer, verify in ((LOG, n.verify_signature), (W1, n.verify_cosignature)):
        key = signer.verifier_key
        with pytest.raises(BadSignature):
            verify(Note(TEXT, (Signature(key.name, key.key_id, b"\1" * size),)), key)


def test_types_do_not_stand_in_for_each_other() -> None:
    """A note signature is no cosignature and the other way round, for keys of one secret and name too."""
    as_log, as_witness = SignerKey("x", SIGNATURE, b"\5" * 32), SignerKey("x", COSIGNATURE, b"\5" * 32)
    with pytest.raises(Malformed, match="key x: want a key of type 0x01, got '0x04'"):
        n.sign_note(TEXT, as_witness)
    with pytest.raises(Malformed, match="want a key of type 0x04"):
        n.cosign(TEXT, as_log, 1)
    note = Note(TEXT, (n.sign_note(TEXT, as_log),))
    with pytest.raises(Malformed, match="want a key of type 0x04"):
        n.verify_cosignature(note, as_log.verifier_key)
    with pytest.raises(NotProven, match="no signature of x"):
        n.verify_cosignature(note, as_witness.verifier_key)
    with pytest.raises(Malformed, match="want a key of type 0x01"):
        n.verify_signature(Note(TEXT, (n.cosign(TEXT, as_witness, 1),)), as_witness.verifier_key)


def test_witness_answer_is_strict_and_adds_to_the_note() -> None:
    """Lines of an add-checkpoint answer are parsed like a note's; those of unknown keys are ignored."""
    body = n.format_signature_line(n.cosign(TEXT, W2, 9)) + n.format_signature_line(n.cosign(TEXT, W1, 8))
    lines = n.parse_signature_lines(body)
    assert n.verify_cosignatures(Note(TEXT, lines), {"w1": W1.verifier_key}) == {"w1": 8}
    for wrong in (b"", b"\n", body[:-1], body + b"\n", b"\n" + body, body.replace(b"\n", b"\r\n"), TEXT + b"\n" + body):
        with pytest.raises(Malformed, match="signature line"):
            n.parse_signature_lines(wrong)


@given(st.binary(max_size=120))
def test_texts_of_keys_raise_our_errors_only(data: bytes) -> None:
    """No text, however wild, makes a key parser raise anything but Malformed."""
    text = data.decode("utf-8", "surrogateescape")
    for parse, start in ((n.parse_vkey, "a+"), (n.parse_private_key, "PRIVATE+KEY+a+")):
        for wild in (text, start + text, f"{start}00000000+{text}", f"{start}00000000+{b64encode(data).decode()}"):
            try:
                parse(wild)
            except Malformed:
                pass
