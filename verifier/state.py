"""What a client remembers, as files: the log it trusts, the files it has verified, and which path is which file.

SPEC 10. The state is a directory beside the seed. Everything in it is one line of canonical JSON, as in proofs:

    <log>/log.json          {"format":"nextcloud-audit/state/1","log":"example.org/files+6f0c…",
                             "source":"folder:5d0…","user":"owner","policy":"log …\\n","auditors":"log …\\n",
                             "owner":"…","blinding":"…","checkpoint":"example.org/files\\n40\\n…"}
    <log>/files/<id>.json   {"format":…,"source":"…","file":"17","path":"notes.txt","proof":"…"}
    <log>/paths/<id>.json   {"format":…,"source":"…","path":"notes.txt","file":"17"}
    <log>/local/<id>.json   {"format":…,"local":"/home/ada/notes.txt","source":"…","path":"notes.txt"}

`policy` and `auditors` are the policy files verbatim, so that their fingerprints stay the same. `user`, `blinding`,
`checkpoint`, `path` and `proof` may be null: no enrolment of one's own; only an owner's public key was pinned; nothing
seen yet. `proof` is the last whole proof that was VERIFIED. A path that is not in UTF-8 has no place in a state.

    <log>   = hex(tagged("state-log", log name))[:16]
    <id>    = hex(tagged("state-file", text(source), u64(file id)))[:32], likewise "state-path" with text(source) and
              the path, "state-local" with the absolute local path

A file is bound to its name: `parse_` takes the name's parts from the content, and the caller compares. Whatever is not
exactly what `format_` writes is Malformed: a state that was damaged is never silently replaced, because it is what
keeps a server from showing an older past.

Not checked here: signatures. What is in the state was verified before it was written, and only its owner can write it.
"""

from __future__ import annotations

from verifier import ed25519
from verifier.canonical import format_object, members, parse_object
from verifier.encoding import check_text, decode_base64, decode_decimal, encode_base64, tagged, text, u64
from verifier.entry import encode_path
from verifier.errors import Malformed
from verifier.keys import KEY_SIZE, MAX_USER, check_source_id, decode_secret, parse_log_name
from verifier.note import MAX_NOTE_SIZE
from verifier.policy import MAX_POLICY_SIZE
from verifier.proof import MAX_PROOF_SIZE
from verifier.record import NamedTuple

FORMAT = "nextcloud-audit/state/1"
LOG_DIGITS = 16
FILE_DIGITS = 32
MAX_LOCAL = 32_768  # bytes of an absolute local path; Windows allows as many characters
MAX_LOG_STATE = 4 * MAX_POLICY_SIZE + 2 * MAX_NOTE_SIZE + 4_096  # bytes; JSON escapes may double a text
MAX_FILE_STATE = 2 * MAX_PROOF_SIZE + 65_536
MAX_NAME_STATE = 8 * MAX_LOCAL


class LogState(NamedTuple):
    """A log that this client trusts, by policies that came by file, and the newest checkpoint it has pinned."""

    log: str
    source: str
    user: str | None
    policy: bytes
    auditors: bytes
    owner: bytes
    blinding: bytes | None
    checkpoint: bytes | None

    def __repr__(self) -> str:
        return f"LogState(log={self.log!r}, source={self.source!r}, owner={self.owner.hex()})"


class FileState(NamedTuple):
    """The last whole proof of a file that was VERIFIED, as it was written, and the path it spoke of."""

    source: str
    file_id: int
    path: str | None
    proof: bytes | None


class PathState(NamedTuple):
    """Which file a path was, when it was last VERIFIED."""

    source: str
    path: str
    file_id: int


class LocalState(NamedTuple):
    """Which path of the source a local file is a copy of, by the user's own word (`--as`)."""

    local: str
    source: str
    path: str


# -- names ----------------------------------------------------------------------------------------------------


def log_directory(log_name: str) -> str:
    return tagged("state-log", log_name.encode("utf-8")).hex()[:LOG_DIGITS]


def file_name(source: str, file_id: int) -> str:
    return _name("state-file", text(source) + u64(file_id))


def path_name(source: str, path: str) -> str:
    return _name("state-path", text(source) + encode_path(path))


def local_name(local: str) -> str:
    return _name("state-local", check_local(local).encode("utf-8"))


def _name(kind: str, data: bytes) -> str:
    return tagged(kind, data).hex()[:FILE_DIGITS] + ".json"


# -- files ----------------------------------------------------------------------------------------------------


def format_log(state: LogState) -> bytes:
    return _format(
        log=state.log,
        source=state.source,
        user=state.user,
        policy=_utf8(state.policy, "policy"),
        auditors=_utf8(state.auditors, "auditors"),
        owner=encode_base64(state.owner),
        blinding=None if state.blinding is None else encode_base64(state.blinding),
        checkpoint=None if state.checkpoint is None else _utf8(state.checkpoint, "checkpoint"),
    )


def parse_log(data: bytes) -> LogState:
    """The state of a log: sound fields in their one spelling. The policies are parsed by who uses them."""
    names = ("log", "source", "user", "policy", "auditors", "owner", "blinding", "checkpoint")
    log, source, user, policy, auditors, owner, blinding, checkpoint = _parse(data, MAX_LOG_STATE, *names)
    parse_log_name(log, "state log")
    state = LogState(
        str(log),
        check_source_id(source, "state source"),
        None if user is None else check_text(user, "state user", MAX_USER),
        _octets(policy, "state policy", MAX_POLICY_SIZE),
        _octets(auditors, "state auditors", MAX_POLICY_SIZE),
        ed25519.check_public_key(decode_base64(owner, "state owner", size=KEY_SIZE), "state owner"),
        None if blinding is None else decode_secret(blinding, "state blinding", KEY_SIZE),
        None if checkpoint is None else _octets(checkpoint, "state checkpoint", MAX_NOTE_SIZE),
    )
    _check_same(format_log(state), data)
    return state


def format_file(state: FileState) -> bytes:
    return _format(
        source=state.source,
        file=str(state.file_id),
        path=state.path,
        proof=None if state.proof is None else _utf8(state.proof, "proof"),
    )


def parse_file(data: bytes) -> FileState:
    """The state of a file. The proof in it is parsed by who uses it."""
    source, file_id, path, proof = _parse(data, MAX_FILE_STATE, "source", "file", "path", "proof")
    state = FileState(
        check_source_id(source, "state source"),
        decode_decimal(file_id, "state file"),
        None if path is None else check_path(path),
        None if proof is None else _octets(proof, "state proof", MAX_PROOF_SIZE),
    )
    _check_same(format_file(state), data)
    return state


def format_path(state: PathState) -> bytes:
    return _format(source=state.source, path=state.path, file=str(state.file_id))


def parse_path(data: bytes) -> PathState:
    source, path, file_id = _parse(data, MAX_NAME_STATE, "source", "path", "file")
    state = PathState(check_source_id(source, "state source"), check_path(path), decode_decimal(file_id, "state file"))
    _check_same(format_path(state), data)
    return state


def format_local(state: LocalState) -> bytes:
    return _format(local=state.local, source=state.source, path=state.path)


def parse_local(data: bytes) -> LocalState:
    local, source, path = _parse(data, MAX_NAME_STATE, "local", "source", "path")
    state = LocalState(check_local(local), check_source_id(source, "state source"), check_path(path))
    _check_same(format_local(state), data)
    return state


# -- pieces ---------------------------------------------------------------------------------------------------


def check_path(value: object, where: str = "path") -> str:
    """A path below the source's root, as entries have it (SPEC 3.5)."""
    if type(value) is not str or not value:
        raise Malformed("want a path below the source's root", where, value)
    encode_path(value)
    return value


def check_local(value: object) -> str:
    """An absolute local path in UTF-8; whether it is absolute depends on the system and is the caller's business."""
    try:
        size = len(value.encode("utf-8")) if type(value) is str else 0
    except UnicodeEncodeError:
        size = 0
    if type(value) is not str or not 1 <= size <= MAX_LOCAL or "\0" in value:
        raise Malformed(f"want a path of 1 to {MAX_LOCAL} bytes of UTF-8", "local path", value)
    return value


def _format(**fields: str | None) -> bytes:
    return format_object({"format": FORMAT, **fields}, "state")


def _parse(data: bytes, limit: int, *names: str) -> list[object]:
    if len(data) > limit:
        raise Malformed(f"want at most {limit} bytes", "state", len(data))
    value = parse_object(data, "state")
    if value.get("format") != FORMAT:
        raise Malformed(f"want {FORMAT}", "state format", value.get("format"))
    return members(value, "state", "format", *names)[1:]


def _octets(value: object, where: str, limit: int) -> bytes:
    if type(value) is not str:
        raise Malformed("want a string", where, value)
    try:
        data = value.encode("utf-8")
    except UnicodeEncodeError:
        raise Malformed("not UTF-8", where) from None
    if len(data) > limit:
        raise Malformed(f"want at most {limit} bytes", where, len(data))
    return data


def _utf8(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("not UTF-8, which a state needs", where) from None


def _check_same(formatted: bytes, data: bytes) -> None:
    if formatted != data:
        raise Malformed("not the canonical spelling: was the file edited or damaged?", "state")
