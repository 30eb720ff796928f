"""`nextcloud-audit prove`: fetch the proof of a file. What it proves, `verify` says, offline and later.

What is written is always a whole proof: a short one is joined to the stored one first (SPEC 10.3).
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from verifier.client import Credentials, Server, Signer, Unauthorised
from verifier.commands import common
from verifier.commands.verify import tree_of
from verifier.errors import NotProven, Usage
from verifier.files import write_atomic
from verifier.home import Home
from verifier.proof import Proof, format_proof, parse_proof
from verifier.seen import join
from verifier.state import LogState
from verifier.words import count, escape, parse_remote, when

DESCRIPTION = "Fetch the proof of REMOTE: its path in the source, or its file id (a path of digits: ./17)."
EXAMPLES = """examples:
  nextcloud-audit prove Board/minutes.txt --server https://audit.example.org --seed seed.txt -o minutes.txt.proof
  nextcloud-audit prove Shared/plan.odt --server https://audit.example.org --login login.json -o plan.odt.proof
  nextcloud-audit prove plan.odt --server https://audit.example.org --link https://cloud.example.org/s/Ld3Xq9 -o p.proof
  nextcloud-audit verify minutes.txt --seed seed.txt --as Board/minutes.txt

With --link, REMOTE is a path below the folder that the link shows; where it shows one file, that file's name."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("remote", metavar="REMOTE", help="the path in the source, or the file id")
    parser.add_argument("--server", metavar="URL", required=True, help="the log's address")
    common.add_seed(parser, required=False)
    parser.add_argument("--login", metavar="FILE", help="ask as a Nextcloud user (`login` makes it), without a seed")
    parser.add_argument("--link", metavar="LINK", help="ask as whoever has this public link: its address, or its token")
    parser.add_argument("--link-password-file", metavar="FILE", help="read the link's password from its first line")
    parser.add_argument(
        "--reader", metavar="FILE", help="of no use here: the owner alone can ask, and hands you the proof file"
    )
    parser.add_argument("-o", "--output", metavar="FILE.proof", required=True, help="the proof file to write")
    parser.add_argument("--full", action="store_true", help="all of it, even what the state holds already")
    common.add_state(parser)
    common.add_json(parser)


def run(args: Namespace) -> int:
    server = Server(args.server)
    try:
        proof = _fetch(args, server)
    except NotProven as error:
        if error.reason != "unreachable":
            _warn_if_degraded(server)
        raise
    degraded_since = _warn_if_degraded(server)
    data = format_proof(proof)
    write_atomic(args.output, data)
    size = tree_of(proof.checkpoint).size
    text = (
        f"{escape(args.output)}: {count(len(proof.entries), 'step')} of file {proof.file_id}, "
        f"from a tree of size {size}. Nothing is verified yet: run `nextcloud-audit verify`."
    )
    common.emit(
        args,
        {
            "proof": args.output,
            "file": str(proof.file_id),
            "generation": str(proof.generation),
            "steps": str(len(proof.entries)),
            "tree_size": str(size),
            "bytes": str(len(data)),
            "degraded_since": None if degraded_since is None else str(degraded_since),
        },
        text,
    )
    return 0


def _warn_if_degraded(server: Server) -> int | None:
    """Says what a proof will lack: the log goes on without its cosigners, and serves the tree that they saw last."""
    since = server.degraded_since()
    if since is not None:
        common.warn(
            f"the log says that its cosigners' quorum is out of reach since {when(since)}: what was recorded later "
            "is in no proof yet, and this one grows stale"
        )
    return since


def _fetch(args: Namespace, server: Server) -> Proof:
    """As the owner, as a Nextcloud user, or as whoever has a public link."""
    if args.link is None:
        if args.link_password_file:
            raise Usage("link password: want --link too")
        return _fetch_as_user(args, server) if args.login and not args.seed else _fetch_as_owner(args, server)
    if args.seed or args.login:
        raise Usage("link: want one of --seed, --login and --link")
    from verifier.link import parse_link

    password = common.first_line(args.link_password_file, "link password file") if args.link_password_file else ""
    try:
        return _fetch_with(args, server, parse_link(args.link, password))
    except Unauthorised:
        raise Usage(
            "link: Nextcloud does not accept it: it was withdrawn, has expired, or has a password, which "
            "--link-password-file says"
        ) from None


def _fetch_as_owner(args: Namespace, server: Server) -> Proof:
    """Asks with the owner's signature, starting from what the state has pinned."""
    if not args.seed:
        raise Usage(
            "seed: want --seed FILE, --login FILE or --link LINK; a request for a proof is signed by the owner, which "
            "a reader key cannot do: ask the owner for the proof file"
        )
    path, file_id = parse_remote(args.remote)
    home = common.home_of(args, args.seed)
    log = common.enrolled_log(home, args.log)
    signer = signer_of(log, common.read_seed(args, args.seed))
    return fetch(server, signer, home, log, path, file_id, full=args.full)


def _fetch_as_user(args: Namespace, server: Server) -> Proof:
    """Asks as a Nextcloud user: the log gives what that user may read there. A state, where given, is continued."""
    from verifier.login import read_login

    return _fetch_with(args, server, read_login(args.login))


def _fetch_with(args: Namespace, server: Server, who: Credentials) -> Proof:
    path, file_id = parse_remote(args.remote)
    if args.state:
        home = common.home_of(args)
        log = common.choose_log(home, args.log)
        if log is not None:
            return fetch(server, who, home, log, path, file_id, full=args.full)
    return _ask(server, who, path, file_id, {})


def signer_of(log: LogState, seed: bytes) -> Signer:
    keys = common.keys_of(log, seed)
    return Signer(log.log, keys.public, keys.private)


def fetch(
    server: Server, who: Credentials, home: Home, log: LogState, path: str | None, file_id: int | None, *, full: bool
) -> Proof:
    """A whole proof that starts from what the state has pinned; well formed, and not verified."""
    known = home.read_path(log, path) if path is not None else None
    likely = file_id if file_id is not None else known.file_id if known else None
    stored = _stored(home, log, likely)
    asked: dict[str, str | list[str]] = {"source": log.source}
    if log.checkpoint is not None:
        asked["size"] = str(tree_of(log.checkpoint).size)
    if stored is not None and stored.map.seq > 0 and not full:
        # The last step again, so that a proof has at least one, even when nothing is new.
        proof = _ask(server, who, path, file_id, asked | {"from": str(stored.map.seq)})
        # Under another origin steps that are stored may be lost.
        moved = tree_of(proof.checkpoint).origin != tree_of(stored.checkpoint).origin
        if proof.first_seq and (moved or (proof.chain_id, proof.root) != (stored.chain_id, stored.root)):
            proof = _ask(server, who, path, file_id, asked)  # another generation, or another file by now
    else:
        proof = _ask(server, who, path, file_id, asked)
    if known is not None and proof.file_id != known.file_id:
        # [R] Another file under a known path: verify wants to see that the old one has left.
        stored = _stored(home, log, proof.file_id)
        proof = _ask(server, who, path, file_id, asked | {"replaces": [str(known.file_id)]})
    return join(proof, stored)


def _ask(
    server: Server, who: Credentials, path: str | None, file_id: int | None, asked: dict[str, str | list[str]]
) -> Proof:
    return parse_proof(server.proof(who, path, file_id, **asked))


def _stored(home: Home, log: LogState, file_id: int | None) -> Proof | None:
    file = home.read_file(log, file_id) if file_id is not None else None
    return parse_proof(file.proof) if file is not None and file.proof is not None else None
