"""The seed as a file, under a passphrase and on paper: round trips, and no damage goes unnoticed."""

from __future__ import annotations

import random
from base64 import b64decode, b64encode
from hashlib import sha3_256, sha256

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from hypothesis import given, settings
from hypothesis import strategies as st
from mnemonic import Mnemonic

import verifier.seed as module
from verifier.errors import Error, Malformed, Usage
from verifier.seed import (
    MAX_LOG_N,
    MIN_LOG_N,
    fingerprint,
    format_locked,
    format_seed,
    is_locked,
    open_locked,
    parse_seed,
    phrase_from_seed,
    seed_from_phrase,
    verify_fingerprint,
)

SEED = bytes(range(32))
SALT, NONCE = bytes(range(0xA0, 0xB0)), b"\x07" * 12
SEEDS = st.binary(min_size=32, max_size=32)
PLAIN = b"nextcloud-audit seed v1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n58bf09e9\n"
WORDS = Mnemonic("english").wordlist


@pytest.fixture(scope="module")
def locked() -> bytes:
    """A file under a passphrase, at the lowest cost that is allowed."""
    return format_locked(SEED, "correct horse", SALT, NONCE, MIN_LOG_N)


def test_seed_known_answer() -> None:
    """The plain file and the fingerprint have exactly these bytes, by the definition of SPEC 2.1."""
    assert format_seed(SEED) == PLAIN
    assert sha3_256(b"nextcloud-audit/1/seed-check\0" + SEED).hexdigest()[:8] == "58bf09e9"
    assert fingerprint(SEED) == "cf91d12d31c56300"
    assert sha3_256(b"nextcloud-audit/1/seed-fingerprint\0" + SEED).hexdigest()[:16] == "cf91d12d31c56300"


def test_seed_documentation_shows_files_that_open() -> None:
    """The examples in the module's docstring are real files."""
    lines = [line.strip() for line in (module.__doc__ or "").splitlines()]
    plain, secret = lines.index(module.HEADER), lines.index(module.LOCKED_HEADER)
    assert parse_seed("".join(f"{line}\n" for line in lines[plain : plain + 3]).encode()) == SEED
    assert open_locked("".join(f"{line}\n" for line in lines[secret : secret + 3]).encode(), "correct horse") == SEED


@given(SEEDS)
def test_seed_round_trip(seed: bytes) -> None:
    """Any seed survives its plain file, which does not look like one under a passphrase."""
    data = format_seed(seed)
    assert parse_seed(data) == seed
    assert not is_locked(data)


def test_seed_changed_byte_is_refused() -> None:
    """No change of one byte of a plain file is read as a seed: every byte, every value."""
    for at in range(len(PLAIN)):
        for value in range(256):
            if value != PLAIN[at]:
                with pytest.raises(Error):
                    parse_seed(PLAIN[:at] + bytes([value]) + PLAIN[at + 1 :])


def test_seed_cut_or_longer_file_is_refused() -> None:
    """No part of a plain file, no lost, doubled or exchanged byte is read as a seed."""
    size = len(PLAIN)
    parts = [PLAIN[i:j] for i in range(size) for j in range(i, size + 1)]
    lost = [PLAIN[:i] + PLAIN[i + 1 :] for i in range(size)]
    doubled = [PLAIN[: i + 1] + PLAIN[i:] for i in range(size)]
    exchanged = [PLAIN[:i] + PLAIN[i + 1 : i + 2] + PLAIN[i : i + 1] + PLAIN[i + 2 :] for i in range(size - 1)]
    others = [PLAIN + b"x", PLAIN * 2, PLAIN.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + PLAIN, PLAIN + b"\n" * 600]
    for data in parts + lost + doubled + exchanged + others:
        if data != PLAIN:
            with pytest.raises(Error):
                parse_seed(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "first line"),
        (PLAIN[24:], "first line"),
        (PLAIN.replace(b"v1", b"v2"), "first line"),
        (PLAIN[:-10], "three lines"),
        (PLAIN[:-1], "three lines"),
        (PLAIN.replace(b"Hh8=", b"Hh9="), "not canonical base64"),
        (PLAIN.replace(b"Hh8=", b""), "want 32 bytes"),
        (PLAIN.replace(b"AAEC", b"AAED"), "check line does not match"),
        (PLAIN.replace(b"58bf09e9", b"58BF09E9"), "check line does not match"),
        (PLAIN + b"x" * 600, "at most 512 bytes"),
        (PLAIN[:-1] + b"\xff", "ASCII"),
    ],
)
def test_seed_errors_say_what_and_show_no_secret(data: bytes, message: str) -> None:
    """Each kind of damage has its own words, and none shows a part of the seed."""
    with pytest.raises(Malformed, match=message) as caught:
        parse_seed(data)
    assert "AECAwQ" not in str(caught.value)
    assert "58bf09e9" not in str(caught.value)
    assert caught.value.got is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("size", [0, 31, 33])
def test_seed_of_another_size_is_refused(size: int) -> None:
    """Everything that takes a seed takes 32 bytes."""
    for function in (format_seed, phrase_from_seed, fingerprint):
        with pytest.raises(Malformed, match=f"^seed: want 32 bytes, got {size}$"):
            function(bytes(size))
    with pytest.raises(Malformed, match="^seed: want 32 bytes"):
        format_locked(bytes(size), "x", SALT, NONCE, MIN_LOG_N)


def test_locked_known_answer() -> None:
    """The file is ChaCha20-Poly1305 under scrypt as SPEC 2.1 writes it, made here with another implementation."""
    header = b"nextcloud-audit seed v1 scrypt\noKGio6SlpqeoqaqrrK2urw== n=2^14 r=8 p=1\n"
    key = Scrypt(salt=SALT, length=32, n=2**14, r=8, p=1).derive("correct horse ﬁ".replace("ﬁ", "fi").encode())
    box = NONCE + ChaCha20Poly1305(key).encrypt(NONCE, SEED, header)
    data = header + b64encode(box) + b"\n"
    assert format_locked(SEED, "correct horse ﬁ", SALT, NONCE, MIN_LOG_N) == data
    assert open_locked(data, "correct horse fi") == SEED


def test_locked_uses_the_default_cost() -> None:
    """Without a word about cost a file takes n = 2^17, and says so."""
    data = format_locked(SEED, "x", SALT, NONCE)
    assert b" n=2^17 r=8 p=1\n" in data


@settings(max_examples=5)
@given(SEEDS, st.text(min_size=1, max_size=50).filter(lambda s: s.strip()), st.binary(min_size=16, max_size=16))
def test_locked_round_trip(seed: bytes, passphrase: str, salt: bytes) -> None:
    """Any seed under any passphrase comes back, and never lies open in the file."""
    data = format_locked(seed, passphrase, salt, NONCE, MIN_LOG_N)
    assert is_locked(data)
    assert open_locked(data, passphrase) == seed
    assert b64encode(seed)[:40] not in data
    assert seed not in b64decode(data.split(b"\n")[2])


@pytest.mark.parametrize("passphrase", ["correct hors", "correct horse ", "Correct horse", "x"])
def test_locked_wrong_passphrase_is_a_clear_error(locked: bytes, passphrase: str) -> None:
    """A wrong passphrase is a usage error in plain words that does not repeat it."""
    with pytest.raises(Usage, match="^passphrase does not open this seed file") as caught:
        open_locked(locked, passphrase)
    assert "hors" not in str(caught.value)


@pytest.mark.parametrize("passphrase", ["", "x" * 1025, "é" * 513, "\ufdfa" * 60, "a\ud800"])
def test_locked_refuses_what_is_no_passphrase(locked: bytes, passphrase: str) -> None:
    """Nothing, more than 1024 bytes before or after normalisation, or broken text is no passphrase."""
    with pytest.raises(Usage, match="^passphrase: want 1 to 1024 bytes of UTF-8$"):
        open_locked(locked, passphrase)
    with pytest.raises(Usage, match="^passphrase: want"):
        format_locked(SEED, passphrase, SALT, NONCE, MIN_LOG_N)


def test_locked_changed_byte_is_refused(locked: bytes) -> None:
    """No changed byte of the file opens with the right passphrase: header, salt, cost, nonce, ciphertext, tag."""
    for at in range(len(locked)):
        data = bytearray(locked)
        data[at] ^= 1 if at % 2 else 4
        with pytest.raises(Error):
            open_locked(bytes(data), "correct horse")


def test_locked_cut_file_is_refused(locked: bytes) -> None:
    """A file that lost its end, or one byte anywhere, does not open; neither kind is read as the other."""
    cut = [locked[:i] for i in range(len(locked))] + [locked[i:] for i in range(1, len(locked), 7)]
    for data in [*cut, locked + b"\n", locked.replace(b"\n", b"\r\n")]:
        with pytest.raises(Error):
            open_locked(data, "correct horse")
    with pytest.raises(Usage, match="under a passphrase"):
        parse_seed(locked)
    with pytest.raises(Malformed, match="first line"):
        open_locked(PLAIN, "correct horse")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("n=2^40 r=8 p=1", "seed file n: want 2^14 to 2^18, got 40"),
        ("n=2^19 r=8 p=1", "seed file n: want 2^14 to 2^18, got 19"),
        ("n=2^13 r=8 p=1", "seed file n: want 2^14 to 2^18, got 13"),
        ("n=2^9999999999999999999999 r=8 p=1", "seed file n"),
        ("n=2^14 r=8 p=0", "seed file p: want 1 to 4, got 0"),
        ("n=2^14 r=8 p=5", "seed file p: want 1 to 4, got 5"),
        ("n=2^14 r=8 p=1000000", "seed file p: want 1 to 4"),
        ("n=2^14 r=1000 p=1", "second line like"),
        ("n=2^14 r=80 p=1", "second line like"),
        ("n=2^14 r=9 p=1", "second line like"),
        ("n=2^014 r=8 p=1", "leading zero"),
        ("n=2^+14 r=8 p=1", "seed file n"),
        ("n=2^1_4 r=8 p=1", "seed file n"),
        ("n=16384 r=8 p=1", "second line like"),
        ("n=2^14 p=1 r=8", "second line like"),
        ("n=2^14  r=8 p=1", "second line like"),
        ("n=2^14 r=8 p=1 ", "second line like"),
        ("n=2^14 r=8", "second line like"),
    ],
)
def test_locked_refuses_absurd_parameters(
    locked: bytes, line: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile file is refused before any memory or time is spent on its passphrase."""

    def spent(*_: object) -> bytes:
        raise AssertionError("memory was spent")

    monkeypatch.setattr(module, "_stretch", spent)
    with pytest.raises(Malformed) as caught:
        open_locked(locked.replace(b"n=2^14 r=8 p=1", line.encode()), "correct horse")
    assert message in str(caught.value)


@pytest.mark.parametrize(("salt", "nonce"), [(b"", NONCE), (SALT[1:], NONCE), (SALT, b""), (SALT, NONCE + b"x")])
def test_locked_wants_full_randomness(salt: bytes, nonce: bytes) -> None:
    """Salt and nonce have their one size each."""
    with pytest.raises(Usage, match="^salt and nonce"):
        format_locked(SEED, "x", salt, nonce, MIN_LOG_N)


@pytest.mark.parametrize("log_n", [MIN_LOG_N - 1, MAX_LOG_N + 1])
def test_locked_writes_only_what_it_reads(log_n: int) -> None:
    """No file is made at a cost that opening would refuse."""
    with pytest.raises(Malformed, match="^seed file n"):
        format_locked(SEED, "x", SALT, NONCE, log_n)


def test_phrase_word_list_is_that_of_bip39() -> None:
    """The library's list is the published one, so that phrases work everywhere."""
    text = "".join(f"{word}\n" for word in WORDS)
    assert sha256(text.encode()).hexdigest() == "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"


@pytest.mark.parametrize(
    ("seed", "phrase"),
    [
        ("00" * 32, "abandon " * 23 + "art"),
        (
            "7f" * 32,
            "legal winner thank year wave sausage worth useful " * 2
            + "legal winner thank year wave sausage worth title",
        ),
        (
            "80" * 32,
            "letter advice cage absurd amount doctor acoustic avoid " * 2
            + "letter advice cage absurd amount doctor acoustic bless",
        ),
        ("ff" * 32, "zoo " * 23 + "vote"),
    ],
)
def test_phrase_known_answer(seed: str, phrase: str) -> None:
    """The vectors that BIP-39 publishes for 256 bits."""
    assert phrase_from_seed(bytes.fromhex(seed)) == phrase
    assert seed_from_phrase(phrase).hex() == seed


@given(SEEDS, st.randoms())
def test_phrase_round_trip(seed: bytes, chance: random.Random) -> None:
    """Any seed survives its words, in any case and with any white space between them."""
    words = phrase_from_seed(seed).split(" ")
    assert len(words) == 24
    sloppy = [chance.choice([word, word.upper(), word.title()]) for word in words]
    spaced = "".join(word + chance.choice([" ", "  ", "\n", "\t "]) for word in sloppy)
    assert seed_from_phrase(" " + spaced) == seed


def test_phrase_mistyped_word_is_named() -> None:
    """A word that is not in the list is named with its place and what it was probably meant to be."""
    words = phrase_from_seed(SEED).split(" ")
    meant, typo = words[2], words[2][:-1] + "q"
    words[2] = typo
    with pytest.raises(Malformed, match=f"^recovery phrase: word 3 is '{typo}', not in the list .*{meant}"):
        seed_from_phrase(" ".join(words))


def test_phrase_names_several_mistyped_words_and_no_more_than_three() -> None:
    """One message helps with several words, and stays short when all are wrong or one is a book."""
    with pytest.raises(Malformed) as caught:
        seed_from_phrase("zzzzqqqq " * 23 + "x" * 200)
    assert "word 1 is 'zzzzqqqq', not in the list (nothing is close); word 2" in str(caught.value)
    assert "word 4" not in str(caught.value)
    with pytest.raises(Malformed) as caught:
        seed_from_phrase("abandon " * 23 + "x" * 200)
    assert f"word 24 is '{'x' * 20}'" in str(caught.value)


@pytest.mark.parametrize(
    "phrase", ["", "abandon " * 23, "abandon " * 24 + "art", "abandon " * 11 + "about", "AAECAwQF="]
)
def test_phrase_wants_24_words(phrase: str) -> None:
    """Another number of words is refused, also a shorter phrase that BIP-39 would take, and is not repeated."""
    with pytest.raises(Malformed, match=r"^recovery phrase: want 24 words, got \d+$"):
        seed_from_phrase(phrase)


def test_phrase_length_is_bounded() -> None:
    """A phrase of more than 1024 characters is refused at once."""
    with pytest.raises(Malformed, match="at most 1024 characters"):
        seed_from_phrase("abandon " * 23 + "art" + " " * 1000)


@pytest.mark.parametrize(
    "phrase", ["abandon, " * 23 + "art", "1. abandon " * 12, "aban " * 23 + "art", "abandon " * 23 + "árt"]
)
def test_phrase_tolerates_nothing_else(phrase: str) -> None:
    """Punctuation, numbers, abbreviations and accents are not guessed away."""
    with pytest.raises(Malformed, match="not in the list"):
        seed_from_phrase(phrase)


def test_phrase_wrong_checksum_says_so() -> None:
    """Words of the list that do not belong together are refused as such."""
    with pytest.raises(Malformed, match="^recovery phrase: checksum does not match"):
        seed_from_phrase("abandon " * 24)


def test_phrase_changed_letter_is_refused() -> None:
    """No changed, lost or doubled letter of this phrase, and no two exchanged neighbours, give another seed."""
    phrase = phrase_from_seed(sha256(b"a fixed seed").digest())
    words = phrase.split(" ")
    swapped = [words[:i] + [words[i + 1], words[i]] + words[i + 2 :] for i in range(23)]
    candidates = {" ".join(swap) for swap in swapped}
    for at in range(len(phrase)):
        candidates |= {phrase[:at] + phrase[at + 1 :], phrase[:at] + phrase[at] + phrase[at:]}
        candidates |= {phrase[:at] + letter + phrase[at + 1 :] for letter in "abcdefghijklmnopqrstuvwxyz"}
    known = set(WORDS)
    others = [c for c in candidates if c.split() != words]
    # Only phrases of 24 known words can come near a seed; the rest is refused by name, which a few stand for.
    near = [c for c in others if len(c.split()) == 24 and known.issuperset(c.split())]
    assert len(near) > 20
    for candidate in near + others[:20]:
        with pytest.raises(Malformed):
            seed_from_phrase(candidate)


def test_phrase_checksum_lets_one_in_256_pass_and_the_fingerprint_none() -> None:
    """The limit of BIP-39, stated: of 2047 wrong last words 7 pass, and each has another fingerprint."""
    start, right = phrase_from_seed(SEED).rsplit(" ", 1)
    passed = []
    for word in WORDS:
        try:
            passed.append((word, seed_from_phrase(f"{start} {word}")))
        except Malformed:
            continue
    assert len(passed) == 8
    assert dict(passed)[right] == SEED
    for word, seed in passed:
        if word != right:
            with pytest.raises(Usage, match="^fingerprint of the seed: got [0-9a-f]{16}, want 'cf91d12d31c56300'$"):
                verify_fingerprint(seed, fingerprint(SEED))


def test_fingerprint_verifies_and_is_no_part_of_other_hashes() -> None:
    """The right seed comes back, another spelling does not pass, and the check line is not the fingerprint's start."""
    assert verify_fingerprint(SEED, "cf91d12d31c56300") == SEED
    for wrong in ("CF91D12D31C56300", "cf91d12d31c5630", "", "cf91d12d31c56300 "):
        with pytest.raises(Usage, match="^fingerprint"):
            verify_fingerprint(SEED, wrong)
    assert not fingerprint(SEED).startswith("58bf")
