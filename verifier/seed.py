"""The seed as a file, under a passphrase, and as words on paper (SPEC 2.1).

The plain file, in its only spelling; the last line is hex(tagged("seed-check", seed))[:8]:

    nextcloud-audit seed v1
    AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=
    58bf09e9

Under a passphrase: salt (16 bytes) and scrypt parameters (RFC 7914), then nonce (12) || ciphertext (32) || tag (16)
of ChaCha20-Poly1305 (RFC 8439), whose key is scrypt's 32 bytes and whose associated data are the first two lines
with their line ends:

    nextcloud-audit seed v1 scrypt
    oKGio6SlpqeoqaqrrK2urw== n=2^17 r=8 p=1
    BwcHBwcHBwcHBwcH89BsP+rj4nCEBqAV17xMp+24ypaU/BNjbc7dymZrjRzvsJJgFgiIUAaIZ/rDuIg1

(the same seed under "correct horse"). The passphrase is taken as NFKC in UTF-8, at most 1024 bytes. n is 2^14 to
2^18, r is 8, p is 1 to 4: a file cannot ask for more than 256 MiB.

On paper: 24 English words of BIP-39, whose entropy is the seed itself (no BIP-39 passphrase, no PBKDF2). Upper and
lower case and additional white space do not matter, all else does. **Their checksum is 8 bits**: of all wrong
words that are in the list, one in 256 passes. So the phrase goes on paper together with the fingerprint,
hex(tagged("seed-fingerprint", seed))[:16], which may be shown to anybody, and `verify_fingerprint` closes the gap.

Errors never hold the seed or the passphrase; the one exception, by intent, is a mistyped word of a phrase.
Not checked: whether a seed is random, or a passphrase strong. Random bytes come from the caller.
"""

from __future__ import annotations

from hashlib import scrypt

from verifier.encoding import decode_base64, decode_decimal, encode_base64, tagged
from verifier.errors import Malformed, Usage
from verifier.keys import SEED_SIZE, decode_secret
from verifier.record import NamedTuple

HEADER = "nextcloud-audit seed v1"
LOCKED_HEADER = "nextcloud-audit seed v1 scrypt"
MAX_SEED_FILE = 512  # bytes; the longest legal file has under 200
CHECK_DIGITS = 8  # SPEC 2.1: 32 bits, one damaged file in 2^32 goes unnoticed
FINGERPRINT_DIGITS = 16

SALT_SIZE = 16
NONCE_SIZE = 12  # RFC 8439 2.8
TAG_SIZE = 16
MIN_LOG_N, DEFAULT_LOG_N, MAX_LOG_N = 14, 17, 18  # scrypt cost, 16, 128 and 256 MiB at r = 8
SCRYPT_R = 8  # RFC 7914 2
MAX_P = 4
MAX_PASSPHRASE = 1024  # bytes, before and after normalisation

WORDS = 24  # BIP-39: 256 bits and 8 bits of checksum, 11 bits a word
MAX_PHRASE = 1024  # characters; 24 words of at most 8 letters and room for spaces
NAMED_WORDS = 3  # mistyped words that one message names
SHOWN_LETTERS = 20

_FILE = "seed file"
_PHRASE = "recovery phrase"


class _Lock(NamedTuple):
    """The second line of a seed file under a passphrase."""

    salt: bytes
    log_n: int
    p: int


def format_seed(seed: bytes) -> bytes:
    """The plain seed file."""
    return f"{HEADER}\n{encode_base64(_check_seed(seed))}\n{_check_line(seed)}\n".encode("ascii")


def parse_seed(data: bytes) -> bytes:
    """The seed of a plain file. Success means that its check line holds: it was not mistyped or cut short."""
    if is_locked(data):
        raise Usage("seed file is under a passphrase, which is needed to open it")
    _, line, check = _lines(data, HEADER)
    seed = decode_secret(line, _FILE, SEED_SIZE)
    if check != _check_line(seed):
        raise Malformed("check line does not match, the file is damaged or mistyped", _FILE)
    return seed


def is_locked(data: bytes) -> bool:
    """Whether this is a seed file that wants a passphrase, by its first line."""
    return data.startswith(LOCKED_HEADER.encode("ascii") + b"\n")


def format_locked(seed: bytes, passphrase: str, salt: bytes, nonce: bytes, log_n: int = DEFAULT_LOG_N) -> bytes:
    """The seed file under a passphrase. `salt` and `nonce` are fresh random bytes of the caller's."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    if len(salt) != SALT_SIZE or len(nonce) != NONCE_SIZE:
        raise Usage(f"salt and nonce: got {len(salt)} and {len(nonce)} bytes, want {SALT_SIZE} and {NONCE_SIZE}")
    lock = _check_lock(_Lock(salt, log_n, 1))
    header = _format_lock(lock)
    cipher = ChaCha20Poly1305(_stretch(passphrase, lock))
    return header + encode_base64(nonce + cipher.encrypt(nonce, _check_seed(seed), header)).encode("ascii") + b"\n"


def open_locked(data: bytes, passphrase: str) -> bytes:
    """The seed of a file under a passphrase. Success means that not one byte of the file was changed."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    _, second, third = _lines(data, LOCKED_HEADER)
    lock = _parse_lock(second)
    box = decode_secret(third, _FILE, NONCE_SIZE + SEED_SIZE + TAG_SIZE)
    cipher = ChaCha20Poly1305(_stretch(passphrase, lock))
    try:
        # What was parsed, encoded again: a second spelling of the parameters would not open.
        return cipher.decrypt(box[:NONCE_SIZE], box[NONCE_SIZE:], _format_lock(lock))
    except InvalidTag:
        raise Usage("passphrase does not open this seed file: it is another one, or the file is damaged") from None


def phrase_from_seed(seed: bytes) -> str:
    """The 24 words of BIP-39 that stand for this seed."""
    from mnemonic import Mnemonic

    return Mnemonic("english").to_mnemonic(_check_seed(seed))


def seed_from_phrase(phrase: str) -> bytes:
    """The seed of 24 words. Their checksum lets one wrong phrase in 256 pass: compare the fingerprint."""
    from mnemonic import Mnemonic

    if len(phrase) > MAX_PHRASE:
        raise Malformed(f"want at most {MAX_PHRASE} characters", _PHRASE, len(phrase))
    words = phrase.lower().split()
    if len(words) != WORDS:
        raise Malformed(f"want {WORDS} words", _PHRASE, len(words))
    book = Mnemonic("english")
    _check_words(words, book.wordlist)
    try:
        return bytes(book.to_entropy(words))
    except ValueError:
        pass
    raise Malformed("checksum does not match: a word is wrong or two changed places", _PHRASE)


def fingerprint(seed: bytes) -> str:
    """16 hex digits by which to tell seeds apart. They may be shown: the way back is as hard as guessing the seed."""
    return tagged("seed-fingerprint", _check_seed(seed)).hex()[:FINGERPRINT_DIGITS]


def verify_fingerprint(seed: bytes, expected: str) -> bytes:
    """Return the seed if it has this fingerprint: then it is the one that was written down."""
    got = fingerprint(seed)
    if got != expected:
        raise Usage(f"fingerprint of the seed: got {got}, want {expected[:FINGERPRINT_DIGITS]!r}")
    return seed


def _check_seed(seed: bytes) -> bytes:
    if len(seed) != SEED_SIZE:
        raise Malformed(f"want {SEED_SIZE} bytes", "seed", len(seed))
    return seed


def _check_line(seed: bytes) -> str:
    return tagged("seed-check", seed).hex()[:CHECK_DIGITS]


def _lines(data: bytes, header: str) -> list[str]:
    """The three lines of a seed file. No error shows one: any of them could be the seed."""
    if len(data) > MAX_SEED_FILE or not data.isascii():
        raise Malformed(f"want at most {MAX_SEED_FILE} bytes of ASCII", _FILE)
    lines = data.decode("ascii").split("\n")
    if lines[0] != header:
        raise Malformed(f"want the first line {header!r}", _FILE)
    if len(lines) != 4 or lines[3]:
        raise Malformed("want three lines, each with its line end", _FILE)
    return lines[:3]


def _format_lock(lock: _Lock) -> bytes:
    parameters = f"n=2^{lock.log_n} r={SCRYPT_R} p={lock.p}"
    return f"{LOCKED_HEADER}\n{encode_base64(lock.salt)} {parameters}\n".encode("ascii")


def _parse_lock(line: str) -> _Lock:
    parts = line.split(" ")
    wanted = ("", "n=2^", f"r={SCRYPT_R}", "p=")
    if len(parts) != 4 or not all(map(str.startswith, parts, wanted)) or parts[2] != wanted[2]:
        raise Malformed("want a second line like 'SALT n=2^17 r=8 p=1'", _FILE)
    salt = decode_base64(parts[0], "seed file salt", size=SALT_SIZE)
    log_n = decode_decimal(parts[1][4:], "seed file n")
    return _check_lock(_Lock(salt, log_n, decode_decimal(parts[3][2:], "seed file p")))


def _check_lock(lock: _Lock) -> _Lock:
    """Refuse what would cost too much before anything is spent on it."""
    if not MIN_LOG_N <= lock.log_n <= MAX_LOG_N:
        raise Malformed(f"want 2^{MIN_LOG_N} to 2^{MAX_LOG_N}", "seed file n", lock.log_n)
    if not 1 <= lock.p <= MAX_P:
        raise Malformed(f"want 1 to {MAX_P}", "seed file p", lock.p)
    return lock


def _stretch(passphrase: str, lock: _Lock) -> bytes:
    n = 2**lock.log_n
    memory = 128 * SCRYPT_R * (n + lock.p + 2)  # RFC 7914 2 and 5: V, B and the working blocks
    secret = _normalise(passphrase)
    try:
        return scrypt(secret, salt=lock.salt, n=n, r=SCRYPT_R, p=lock.p, maxmem=memory, dklen=32)
    except (MemoryError, ValueError):
        pass
    raise Usage(f"seed file: its passphrase needs {memory >> 20} MiB of memory, which are not there")


def _normalise(passphrase: str) -> bytes:
    from unicodedata import normalize

    # UTF-8 may fail on lone surrogates, which is what undecodable terminal input becomes.
    try:
        if len(passphrase) <= MAX_PASSPHRASE:
            data = normalize("NFKC", passphrase).encode("utf-8")
            if 1 <= len(data) <= MAX_PASSPHRASE:
                return data
    except UnicodeEncodeError:
        pass
    raise Usage(f"passphrase: want 1 to {MAX_PASSPHRASE} bytes of UTF-8")


def _check_words(words: list[str], known: list[str]) -> None:
    from difflib import get_close_matches

    wrong = [(i, word) for i, word in enumerate(words, 1) if word not in known]
    named = []
    for position, word in wrong[:NAMED_WORDS]:
        close = ", ".join(get_close_matches(word[:SHOWN_LETTERS], known)) or "nothing is close"
        named.append(f"word {position} is {word[:SHOWN_LETTERS]!r}, not in the list ({close})")
    if named:
        raise Malformed("; ".join(named), _PHRASE)
