"""Peers: what is pinned and what is refused, the policies that follow, and files that nobody's hand is lost from."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from hashlib import sha3_256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from audit.cli import main
from audit.commands.peer_common import policy_words
from audit.errors import Refused
from audit.node import create_node
from audit.peers import (
    MAX_DESCRIPTION_SIZE,
    NOBODY,
    Description,
    Peer,
    Peers,
    add_peer,
    check_address,
    check_fingerprint,
    format_peers,
    is_generated,
    make_policy,
    parse_description,
    parse_peers,
    peer_fingerprint,
    remove_peer,
    render,
    spaced,
)
from verifier.commands.common import parse_policies
from verifier.commands.enrol import _by_whom
from verifier.errors import Error, Malformed, Usage
from verifier.lint import lint
from verifier.note import COSIGNATURE, SIGNATURE, SignerKey, VerifierKey, format_vkey
from verifier.policy import AUDITORS, WITNESSES, Log, fingerprint, parse_policy

ORIGIN = "log.example/files"
LOG_URL = "https://audit.log.example"


def key(name: str, number: int, algorithm: int = COSIGNATURE) -> VerifierKey:
    return SignerKey(name, algorithm, bytes([number]) * 32).verifier_key


LOG = key(ORIGIN, 250, SIGNATURE)
LOGS = (Log(LOG, ""),)


def node(number: int, name: str | None = None) -> Description:
    name = name or f"n{number}.example"
    return Description(key(name, number), key(f"{name}/auditor", 100 + number))


def peer(number: int, operator: str | None = "", name: str | None = None) -> Peer:
    """A node; its operator is of the same number unless named; None makes it public."""
    return Peer(f"o{number}" if operator == "" else operator, f"https://n{number}.example", node(number, name))


def peers_of(*listed: Peer, quorum: int | None = None) -> Peers:
    return Peers(LOG_URL, quorum, listed)


def public(number: int) -> Peer:
    """A witness that is no node, and nobody's that we know."""
    return Peer(None, f"https://p{number}.example", Description(key(f"p{number}.example", number), None))


def described(keys: Description) -> dict[str, Any]:
    assert keys.auditor is not None
    said = {"witness": keys.witness, "auditor": keys.auditor}
    return {role: {"name": k.name, "vkey": format_vkey(k)} for role, k in said.items()} | {"logs": []}


# What a node says of itself


def test_description_is_what_a_node_serves(tmp_path: Path) -> None:
    """The keys of a real node's self-description are those that it was made with; later members change nothing."""
    witness, auditor = create_node(tmp_path / "node", "n.example/node")
    from audit.node import fetch_nothing, open_node

    opened = open_node(tmp_path / "node", fetch=fetch_nothing)
    said = opened.describe()
    opened.close()
    for value in (said, {**said, "later": ["x"]}):
        keys = parse_description(json.dumps(value).encode())
        assert keys.auditor is not None
        assert (format_vkey(keys.witness), format_vkey(keys.auditor)) == (witness, auditor)


def lie(what: str) -> bytes:
    """A self-description that is none, for one reason."""
    honest = described(node(1))
    match what:
        case "html":
            return b"<!doctype html><title>It works!</title>"
        case "signer's key as witness":
            honest["witness"] = {"name": "n1.example", "vkey": format_vkey(key("n1.example", 1, SIGNATURE))}
        case "signer's key as auditor":
            vkey = format_vkey(key("n1.example/auditor", 101, SIGNATURE))
            honest["auditor"] = {"name": "n1.example/auditor", "vkey": vkey}
        case "one key in both roles":
            honest["auditor"]["vkey"] = format_vkey(key("n1.example/auditor", 1))
        case "auditor of another name":
            honest["auditor"] = {"name": "x.example/auditor", "vkey": format_vkey(key("x.example/auditor", 101))}
        case "roles swapped":
            honest["witness"], honest["auditor"] = honest["auditor"], honest["witness"]
        case "name beside another key":
            honest["witness"]["name"] = "ada.example"
        case "key id of another name":
            honest["witness"]["vkey"] = honest["witness"]["vkey"].replace("n1.example", "ada.example")
            honest["witness"]["name"] = "ada.example"
        case "small-order key":
            honest["witness"]["vkey"] = "n1.example+00000000+BAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        case "no auditor":
            del honest["auditor"]
        case "more in a key":
            honest["witness"]["url"] = "https://elsewhere.example"
        case "a number":
            honest["witness"]["vkey"] = 1
        case "null":
            honest["witness"]["vkey"] = None
        case "list":
            return b"[]"
        case "not UTF-8":
            return b"\xff\xfe"
        case "a member twice":
            return json.dumps(honest).replace('{"witness"', '{"witness":{},"witness"').encode()
    return json.dumps(honest).encode()


LIES = (
    "html",
    "signer's key as witness",
    "signer's key as auditor",
    "one key in both roles",
    "auditor of another name",
    "roles swapped",
    "name beside another key",
    "key id of another name",
    "small-order key",
    "no auditor",
    "more in a key",
    "a number",
    "null",
    "list",
    "not UTF-8",
    "a member twice",
)


@pytest.mark.parametrize("what", LIES)
def test_description_lies_are_refused(what: str) -> None:
    """Nothing but two sound cosigner's keys, with the names of one node, is a self-description."""
    assert parse_description(lie("nothing")) == node(1)
    with pytest.raises(Malformed):
        parse_description(lie(what))


def test_fingerprint_is_of_names_and_keys() -> None:
    """Any other key or name has another fingerprint; a part of it is not enough, spaces and capitals are no matter."""
    keys = node(1)
    digits = peer_fingerprint(keys)
    texts = [format_vkey(k).encode() for k in keys.keys]
    fields = b"".join([len(one).to_bytes(4, "big") + one for one in texts])
    assert digits == sha3_256(b"nextcloud-audit/1/peer\0" + fields).hexdigest()[:32], "SPEC 8.5"
    others = [node(2), node(1, "n9.example"), keys._replace(auditor=key("n1.example/auditor", 77))]
    others += [keys._replace(auditor=None), keys._replace(witness=key("n1.example", 78))]
    assert len({digits, *map(peer_fingerprint, others)}) == 6
    for same in (digits, digits.upper(), f"{digits[:4]} {digits[4:]}"):
        check_fingerprint(keys, same)
    for other in others:
        with pytest.raises(Refused, match="nothing was pinned"):
            check_fingerprint(other, digits)
    for part in (digits[:8], digits + "00", "", "x" * 32):
        with pytest.raises(Usage, match="want 32 hexadecimal digits"):
            check_fingerprint(keys, part)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://a.example",
        "a.example",
        "http://",
        "http://user@a.example",
        "http://a.example/?x",
        "http://a.example/#x",
        "http://a.example/ x",
        "http://a.example:0",
        "http://a.example:x",
        "http://a.example\nquorum none",
        "http://\u00e4.example",
        "http://" + "a" * 1024,
    ],
)
def test_address_cannot_say_more_than_an_address(url: str) -> None:
    """What would not stay one word of a policy, or hides where it leads, is refused."""
    with pytest.raises(Error):
        check_address(url, "peer url")
    assert check_address("https://a.example:1/x/", "peer url") == "https://a.example:1/x"


# Pinning


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (Peer("o1", "https://n1.example", node(2, "n1.example")), "pinned with other keys"),
        (Peer("o2", "https://n1.example", node(2)), "is pinned as n1.example"),
        (Peer("o2", "https://n2.example", Description(key("x.example", 1), None)), "one key counts once"),
        (Peer("o2", "https://n2.example", Description(key("x.example", 101), None)), "one key counts once"),
        (Peer("o2", "https://n1.example", node(1)), "is pinned already"),
        (Peer("o1", "https://n2.example", node(1)), "is pinned already"),
        (Peer("o2", "https://n2.example", Description(key("x.example", 250), None)), "key or the name of the log"),
        (Peer("o2", "https://n2.example", Description(key(ORIGIN, 3), None)), "key or the name of the log"),
    ],
)
def test_a_pinned_key_stays(new: Peer, why: str) -> None:
    """Another key of a name or an address, a key under two names, and the log's own key are refused."""
    before = peers_of(peer(1))
    with pytest.raises(Refused, match=why):
        add_peer(before, new, (LOG,))
    assert add_peer(before, peer(1), (LOG,)) == before, "the same again changes nothing"
    assert add_peer(before, peer(2), (LOG,)).peers == (peer(1), peer(2))


def test_declaration_has_one_spelling() -> None:
    """What is written is read back; any other spelling, and what `peer add` would refuse, is no declaration."""
    peers = peers_of(peer(1), peer(2, None), public(3), quorum=2)
    data = format_peers(peers)
    assert parse_peers(data) == peers
    assert parse_peers(format_peers(NOBODY)) == NOBODY
    value = json.loads(data)
    twice = {**value, "peers": [*value["peers"], value["peers"][0]]}
    renamed = {**value, "peers": [{**value["peers"][0], "name": "other.example"}]}
    odd = {**value, "peers": [{**value["peers"][0], "operator": "two words"}]}
    wrong = [data + b"\n", data.replace(b",", b", ", 1), data.replace(b'"2"', b'"02"'), data.replace(b"/1", b"/2", 1)]
    wrong += [(json.dumps(v, separators=(",", ":")) + "\n").encode() for v in (twice, renamed, odd)]
    for other in wrong:
        with pytest.raises(Malformed):
            parse_peers(other)


# The policies


@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 4), (6, 4), (7, 5), (10, 7)])
def test_quorum_is_the_safest_that_lives(n: int, k: int) -> None:
    """Of n operators k; f = (n - 1) // 3 liars can't let two histories pass, and f that are down stop nothing."""
    made = peers_of(*map(peer, range(1, n + 1)))
    f = (n - 1) // 3
    for kind in (WITNESSES, AUDITORS):
        policy = make_policy(made, kind, LOGS)
        assert (policy.q, policy.groups["operators"].threshold) == (k, k)
        assert policy.stoppers >= f + 1
        assert kind == AUDITORS or policy.ov >= f + 1
        assert n < 4 or lint(policy) == []


def test_an_operator_counts_once() -> None:
    """Several nodes of one operator are one member: they neither fill a quorum nor let two histories pass."""
    made = peers_of(peer(1), *[peer(n, "big", f"b{n}.example") for n in (2, 3, 4)], peer(5), peer(6))
    policy = make_policy(made, WITNESSES, LOGS)
    assert policy.groups["operators"].members == ("n1.example", "operator:big", "n5.example", "n6.example")
    assert (policy.groups["operators"].threshold, policy.groups["operator:big"].threshold) == (3, 2)
    assert make_policy(made, AUDITORS, LOGS).groups["operator:big"].threshold == 1
    assert lint(policy, {p.name: str(p.operator) for p in made.peers}) == []


def test_public_witnesses_are_needed_beside_ours() -> None:
    """They are a group of their own: all of our operators together are no quorum, nor are all public ones."""
    made = peers_of(*map(peer, (1, 2, 3, 4)), *map(public, (5, 6, 7)))
    policy = make_policy(made, WITNESSES, LOGS)
    assert policy.groups["public"].threshold == 2
    assert policy.groups["quorum"].threshold == 2
    assert (policy.q, policy.ov) == (5, 3)
    assert make_policy(made, AUDITORS, LOGS).quorum == "operators"
    alone = make_policy(peers_of(public(5)), WITNESSES, LOGS)
    assert (alone.quorum, alone.q) == ("public", 1)
    assert make_policy(peers_of(public(5)), AUDITORS, LOGS).quorum == "none"


def test_quorum_of_ones_own_is_not_a_weak_one() -> None:
    """K overrides the number, but half of the operators or less is refused, and more than there are."""
    four = tuple(map(peer, (1, 2, 3, 4)))
    assert make_policy(peers_of(*four, quorum=4), WITNESSES, LOGS).q == 4
    for k in (1, 2, 5):
        with pytest.raises(Refused, match="want 3 to 4"):
            render(peers_of(*four, quorum=k), LOGS)
    made = peers_of(*four[:3], quorum=3)
    with pytest.raises(Refused, match="--quorum auto takes 2"):
        render(remove_peer(made, four[0]), LOGS)


def test_rendered_files_are_policies_that_know_themselves() -> None:
    """Both files parse, name log and url, and are recognised until a single byte of them is changed."""
    for data, kind in zip(render(peers_of(*map(peer, (1, 2, 3, 4))), LOGS), (WITNESSES, AUDITORS), strict=True):
        policy = parse_policy(data, kind)
        assert policy.logs == (Log(LOG, LOG_URL),)
        assert is_generated(data)
        for i in range(0, len(data), 7):
            assert not is_generated(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        assert not is_generated(data.partition(b"\n")[2])
    bare = f"log {format_vkey(LOG)}\nquorum none\n".encode()
    assert is_generated(bare), "as `init` makes it"
    assert not is_generated(b"# mine\n" + bare)


def test_names_in_a_policy_draw_nothing_on_a_terminal() -> None:
    """A quorum may be called anything without a space; what prints it escapes it."""
    made = [
        f"log {format_vkey(LOG)}\nwitness w {format_vkey(key(f'n1.example{end}', 9 + len(end)))}\n"
        "group \u202eq 1 w\nquorum \u202eq\n".encode()
        for end in ("", "/auditor")
    ]
    for text in (policy_words(peers_of(), (made[0], made[1])), _by_whom(parse_policies(*made))):
        assert "\u202e" not in text
        assert text.count("\\u202eq") == 2


def test_names_that_would_be_groups_are_refused() -> None:
    """A node that calls itself `operators`, `quorum` or `none` gets into no policy."""
    for name in ("operators", "quorum", "none"):
        made = peers_of(*map(peer, (1, 2)), peer(3, name=name), public(4))
        with pytest.raises(Malformed):
            render(made, LOGS)


# The commands, against nodes that lie


class Liar:
    """A web server that answers every GET as a test tells it to."""

    def __init__(self) -> None:
        self.status, self.headers, self.body = 200, {"content-type": "application/json"}, b""
        self.asked: list[str] = []
        liar = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                liar.asked.append(self.path)
                self.send_response(liar.status)
                for name, value in liar.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(liar.body)
                except ConnectionError:
                    pass  # the client has had enough

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def say(self, keys: Description) -> None:
        self.body = json.dumps(described(keys)).encode()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def liar() -> Iterator[Liar]:
    made = Liar()
    yield made
    made.close()


class Shell:
    """The command line on one log's directory."""

    def __init__(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.data, self._capsys = data, capsys

    def run(self, *words: object, expect: int = 0) -> dict[str, Any]:
        self._capsys.readouterr()
        assert main([*map(str, words), "--json"]) == expect
        value = json.loads(self._capsys.readouterr().out)
        assert isinstance(value, dict)
        return value

    def add(self, url: str, *more: object, expect: int = 0) -> dict[str, Any]:
        return self.run("peer", "add", "--data", self.data, url, "--url", LOG_URL, *more, expect=expect)

    def refused(self, *words: object) -> str:
        """What the refusal says, once it has changed no file."""
        before = self.files()
        message = str(self.run(*words, expect=4)["error"]["message"])
        assert self.files() == before
        return message

    def refused_add(self, url: str, *more: object) -> str:
        return self.refused("peer", "add", "--data", self.data, url, "--url", LOG_URL, *more)

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.data.iterdir() if path.name != "peers.lock"}

    def text(self, *words: object) -> str:
        self._capsys.readouterr()
        assert main([*map(str, words)]) == 0
        return self._capsys.readouterr().out


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    assert main(["init", "--data", str(tmp_path / "log"), "--origin", ORIGIN]) == 0
    return Shell(tmp_path / "log", capsys)


def test_peer_add_pins_what_was_compared(shell: Shell, liar: Liar) -> None:
    """With the right fingerprint both policies name the node, and the line for its operator has our key and address."""
    liar.say(node(1))
    done = shell.add(liar.url, "--fingerprint", peer_fingerprint(node(1)))
    assert (done["name"], done["operator"]) == ("n1.example", "n1.example")
    vkey = shell.files()["policy"].split()[shell.files()["policy"].split().index(b"log") + 1].decode()
    assert done["allow"] == [f"nextcloud-audit node allow {vkey} {LOG_URL} --data DIR"]
    assert done["policy"] == fingerprint(shell.files()["policy"])
    policy = parse_policy(shell.files()["policy"], WITNESSES)
    assert policy.witnesses["n1.example"].key == node(1).witness
    assert parse_policy(shell.files()["auditors"], AUDITORS).witnesses["n1.example"].key == node(1).auditor
    assert liar.asked == ["/"]
    assert {path.stat().st_mode & 0o777 for path in map(shell.data.joinpath, ("peers.json", "policy", "auditors"))} == {
        0o644
    }
    before = shell.files()
    shell.add(liar.url)
    assert shell.files() == before, "the same keys again need no comparison, and change nothing"


def test_peer_add_wants_the_logs_address_once(shell: Shell, liar: Liar) -> None:
    """Without --url nobody could be told where the log is; it is remembered, and can be changed."""
    liar.say(node(1))
    right = ("--fingerprint", peer_fingerprint(node(1)))
    words = ("peer", "add", "--data", shell.data, liar.url)
    assert "want --url URL" in shell.refused(*words, *right)
    shell.add(liar.url, *right)
    assert LOG_URL in shell.run(*words)["allow"][0]
    assert "https://new.example " in shell.run(*words, "--url", "https://new.example/")["allow"][0]
    assert parse_policy(shell.files()["policy"], WITNESSES).logs[0].url == "https://new.example"


def test_peer_add_pins_nothing_unconfirmed(shell: Shell, liar: Liar) -> None:
    """Without a terminal, and with another fingerprint than the keys have, nothing is written."""
    liar.say(node(1))
    assert "run this again with --fingerprint" in shell.refused_add(liar.url)
    assert "nothing was pinned" in shell.refused_add(liar.url, "--fingerprint", peer_fingerprint(node(2)))
    assert "peers.json" not in shell.files()


@pytest.mark.parametrize(("typed", "pinned"), [("yes\n", True), ("y\n", False), ("\n", False), ("", False)])
def test_peer_add_asks_on_a_terminal(
    typed: str,
    pinned: bool,
    shell: Shell,
    liar: Liar,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the whole word `yes` confirms; keys and fingerprint were shown before."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    liar.say(node(1))
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    said: list[str] = []
    monkeypatch.setattr("audit.commands.common.say", said.append)
    if pinned:
        assert shell.add(liar.url)["name"] == "n1.example"
    else:
        assert "not confirmed" in shell.refused_add(liar.url)
    shown = " ".join(said)
    assert all(format_vkey(one) in shown for one in node(1).keys)
    assert spaced(peer_fingerprint(node(1))) in shown
    assert "\n" not in shown, "it would be escaped"


@pytest.mark.parametrize("what", LIES)
def test_peer_add_refuses_lies(what: str, shell: Shell, liar: Liar) -> None:
    """A node that describes itself wrongly is not pinned, even with a fingerprint, and the message says what it is."""
    liar.body = lie(what)
    message = shell.refused_add(liar.url, "--fingerprint", peer_fingerprint(node(1)))
    assert "no node as nextcloud-audit knows it" in message


def test_peer_add_follows_nobody_elsewhere(shell: Shell, liar: Liar) -> None:
    """Redirects, refusals, encodings and endless answers are no self-description; nothing else is asked for."""
    liar.say(node(1))
    right = peer_fingerprint(node(1))
    liar.status, liar.headers = 302, {"location": f"{liar.url}/elsewhere"}
    assert "got status 302" in shell.refused_add(liar.url, "--fingerprint", right)
    liar.status, liar.headers = 404, {}
    assert "got status 404" in shell.refused_add(liar.url, "--fingerprint", right)
    liar.status, liar.headers = 200, {"content-encoding": "gzip"}
    assert "no encoding" in shell.refused_add(liar.url, "--fingerprint", right)
    liar.headers = {}
    liar.body += b" " * MAX_DESCRIPTION_SIZE
    assert f"at most {MAX_DESCRIPTION_SIZE} bytes" in shell.refused_add(liar.url, "--fingerprint", right)
    assert set(liar.asked) == {"/"}


def test_peer_add_never_replaces_a_key(shell: Shell, liar: Liar) -> None:
    """The node that shows other keys some day, under its name or at its address, is refused, fingerprint or not."""
    liar.say(node(1))
    shell.add(liar.url, "--fingerprint", peer_fingerprint(node(1)))
    for other in (node(2, "n1.example"), node(2)):
        liar.say(other)
        message = shell.refused_add(liar.url, "--fingerprint", peer_fingerprint(other))
        assert "`peer remove n1.example` comes first" in message
    reused = Description(key("x.example", 1), key("x.example/auditor", 102))
    liar.say(reused)
    message = shell.refused_add(liar.url + "/x", "--fingerprint", peer_fingerprint(reused))
    assert "one key counts once" in message


def test_peer_add_refuses_the_logs_own_key(shell: Shell, liar: Liar) -> None:
    """A log does not cosign itself: neither its key under another name nor its name with another key."""
    public_key = parse_policy(shell.files()["policy"], WITNESSES).logs[0].key.public_key
    from verifier.note import make_key

    own = make_key("x.example", COSIGNATURE, public_key)
    for keys in (
        Description(own, key("x.example/auditor", 102)),
        Description(key(ORIGIN, 3), key(f"{ORIGIN}/auditor", 103)),
    ):
        liar.say(keys)
        message = shell.refused_add(liar.url, "--fingerprint", peer_fingerprint(keys))
        assert "the key or the name of the log" in message


def test_hand_written_policies_are_left_alone(shell: Shell, liar: Liar) -> None:
    """A policy that somebody edited is not replaced, neither by adding nor by removing."""
    liar.say(node(1))
    right = ("--fingerprint", peer_fingerprint(node(1)))
    for name in ("policy", "auditors"):
        original = (shell.data / name).read_bytes()
        (shell.data / name).write_bytes(b"# mine\n" + original)
        assert "by hand" in shell.refused_add(liar.url, *right)
        (shell.data / name).write_bytes(original)
    shell.add(liar.url, *right)
    edited = (shell.data / "policy").read_bytes() + b"# more\n"
    (shell.data / "policy").write_bytes(edited)
    assert "by hand" in shell.refused("peer", "remove", "--data", shell.data, "n1.example")
    assert (shell.data / "policy").read_bytes() == edited


def test_a_crash_between_the_files_is_made_whole(shell: Shell, liar: Liar) -> None:
    """With the new declaration and old policies the linter says so, and adding the same peer again mends it."""
    old = {name: (shell.data / name).read_bytes() for name in ("policy", "auditors")}
    liar.say(node(1))
    shell.add(liar.url, "--fingerprint", peer_fingerprint(node(1)))
    whole = shell.files()
    for crashed_before in (("policy", "auditors"), ("auditors",)):
        for name in crashed_before:
            (shell.data / name).write_bytes(old[name])
        found = shell.run("policy", "lint", "--data", shell.data, expect=1)
        assert any("declared peers" in one["warning"] for one in found["warnings"])
        shell.add(liar.url)
        assert shell.files() == whole


def test_peer_remove_leaves_the_rest(shell: Shell, liar: Liar) -> None:
    """A removed node is in no policy any more, and the words say that its memory of the log stays."""
    for number in (1, 2):
        liar.say(node(number))
        shell.add(f"{liar.url}/{number}", "--fingerprint", peer_fingerprint(node(number)))
    assert shell.run("peer", "show", "--data", shell.data, "n2.example")["url"] == f"{liar.url}/2"
    text = shell.text("peer", "remove", "--data", shell.data, "n1.example")
    assert "no command removes that" in text
    for name, kind in (("policy", WITNESSES), ("auditors", AUDITORS)):
        assert list(parse_policy(shell.files()[name], kind).witnesses) == ["n2.example"]
    assert "there is no 'n1.example'" in shell.refused("peer", "remove", "--data", shell.data, "n1.example")
    shell.run("peer", "remove", "--data", shell.data, "n2.example")
    assert parse_policy(shell.files()["policy"], WITNESSES).quorum == "none"


def test_public_witness_comes_by_its_key(shell: Shell, liar: Liar) -> None:
    """A C2SP witness's key is given, not fetched; it witnesses, audits nothing, and belongs to nobody of us."""
    done = shell.add("https://p5.example", "--witness", format_vkey(public(5).keys.witness))
    assert (done["operator"], done["auditor"]) == (None, None)
    assert parse_policy(shell.files()["policy"], WITNESSES).quorum == "public"
    assert parse_policy(shell.files()["auditors"], AUDITORS).quorum == "none"
    wrong = format_vkey(key("p6.example", 6, SIGNATURE))
    assert "want a cosigner's key" in shell.refused_add("https://p6.example", "--witness", wrong)


def test_peer_list_shows_health_of_this_log_alone(shell: Shell, liar: Liar) -> None:
    """Failures come from the running log's status; a status of another log, or junk, is as good as none."""
    liar.say(node(1))
    shell.add(liar.url, "--fingerprint", peer_fingerprint(node(1)))
    vkey = format_vkey(parse_policy(shell.files()["policy"], WITNESSES).logs[0].key)
    never = {"last_success": None, "failing_since": None, "last_error": None}
    cosigners: list[Any] = [
        {"role": "witness", "name": "n1.example", "failures": "0", **never, "last_success": "1800000000"},
        {"role": "auditor", "name": "n1.example", "failures": "3", **never, "last_error": "status 503\x1b"},
        {"role": "auditor", "name": "n2.example", "failures": "x", **never},
        {"role": "auditor", "name": None, "failures": "0"},
        None,
    ]
    words = ("peer", "list", "--data", shell.data, "--status", liar.url)
    liar.body = json.dumps({"vkey": vkey, "cosigners": cosigners}).encode()
    shown = shell.run(*words)
    assert shown["reachable"] is True
    assert [(one["role"], one["failures"]) for one in shown["peers"][0]["health"]] == [
        ("witness", "0"),
        ("auditor", "3"),
    ]
    text = (
        "witness answered 2027-01-15 08:00:00 UTC; auditor fails, 3 times in this run (status 503\\x1b); never answered"
    )
    assert text in shell.text(*words)
    liar.body = json.dumps({"vkey": vkey, "cosigners": [{**cosigners[0], "last_success": None}]}).encode()
    assert "witness not asked yet" in shell.text(*words)
    liar.body = json.dumps({"vkey": vkey, "cosigners": []}).encode()
    assert "started before this peer was added" in shell.text(*words)
    for body in (b"<html>", b"{}", json.dumps({"vkey": format_vkey(LOG), "cosigners": cosigners[:2]}).encode()):
        liar.body = body
        assert shell.run(*words)["reachable"] is False
    assert "/status" in liar.asked


# policy


def test_serve_judges_with_the_declared_operators(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    """What `serve` says of its policies knows who runs what; a broken declaration is said, and stops nothing."""
    from audit.commands.serve import say_weaknesses

    policy = parse_policy(
        b"".join([f"witness w{n} {format_vkey(node(n).witness)}\n".encode() for n in (1, 2, 3, 4)])
        + b"group g 3 w1 w2 w3 w4\nquorum g\n",
        WITNESSES,
    )._replace(logs=LOGS)
    say_weaknesses(str(shell.data), policy)
    assert capsys.readouterr().err == ""
    declared = [Peer("big", f"https://w{n}.example", Description(key(f"w{n}", n), None)) for n in (1, 2)]
    (shell.data / "peers.json").write_bytes(format_peers(peers_of(*declared)))
    say_weaknesses(str(shell.data), policy)
    assert "policy: operator big can let two histories pass alone (w1, w2)" in capsys.readouterr().err
    (shell.data / "peers.json").write_bytes(b"{}")
    say_weaknesses(str(shell.data), policy)
    assert capsys.readouterr().err.startswith("peers: peers.json: ")


def test_policy_commands_show_judge_and_hand_out(shell: Shell, liar: Liar, tmp_path: Path) -> None:
    """Four peers make a policy that lint passes; show names it in words; export copies it to the byte, over nothing."""
    assert len(shell.run("policy", "lint", "--data", shell.data, expect=1)["warnings"]) >= 2
    for number in (1, 2, 3, 4):
        liar.say(node(number))
        shell.add(f"{liar.url}/{number}", "--fingerprint", peer_fingerprint(node(number)))
    assert shell.run("policy", "lint", "--data", shell.data)["warnings"] == []
    shown = shell.run("policy", "show", "--data", shell.data)["policies"]
    assert [(one["q"], one["ov"], one["quorum"]) for one in shown] == [("3", "2", "operators")] * 2
    assert "operators: 3 of 4" in shell.text("policy", "show", "--data", shell.data)
    out = tmp_path / "for-alice"
    made = shell.run("policy", "export", "--data", shell.data, "-o", out)
    for name in ("policy", "auditors"):
        assert (out / name).read_bytes() == shell.files()[name]
        assert made[name] == fingerprint(shell.files()[name])
    shell.run("policy", "export", "--data", shell.data, "-o", out)
    (out / "auditors").write_bytes(b"mine\n")
    assert "is another policy" in shell.refused("policy", "export", "--data", shell.data, "-o", out)
    assert (out / "auditors").read_bytes() == b"mine\n"


def test_policy_lint_reads_anybodys_files(shell: Shell, tmp_path: Path) -> None:
    """A plain C2SP policy is judged by file, the kind told by its keys; a key in both files is a finding."""
    log = format_vkey(LOG)
    good, bad, auditors = (tmp_path / name for name in ("good", "bad", "auditors"))
    witnesses = "".join([f"witness w{n} {format_vkey(node(n).witness)}\n" for n in (1, 2, 3, 4)])
    good.write_text(f"log {log}\n{witnesses}group g 3 w1 w2 w3 w4\nquorum g\n")
    bad.write_text(f"log {log}\n{witnesses}group g 2 w1 w2 w3 w4\nquorum g\n")
    lines = "".join([f"witness w{n} {format_vkey(key(f'n{n}.example/auditor', n))}\n" for n in (1, 2, 3, 4)])
    auditors.write_text(f"log {log}\n{lines}group g 3 w1 w2 w3 w4\nquorum g\n")
    assert shell.run("policy", "lint", good)["warnings"] == []
    assert "better: 3 of 4" in shell.run("policy", "lint", bad, expect=1)["warnings"][0]["warning"]
    assert shell.run("policy", "lint", auditors)["policies"][0]["kind"] == "auditors"
    found = shell.run("policy", "lint", good, auditors, expect=1)["warnings"]
    assert "is a witness's as well" in found[0]["warning"]
    mixed = tmp_path / "mixed"
    mixed.write_text(good.read_text().replace(format_vkey(node(1).witness), format_vkey(key("x/auditor", 9))))
    for words in ([mixed], [good, bad], [], [good, "--data", shell.data], [tmp_path / "absent"]):
        shell.refused("policy", "lint", *words)


def test_node_show_is_what_peers_compare(shell: Shell, tmp_path: Path) -> None:
    """The fingerprint that a node's operator reads out is that of the keys which the node serves."""
    made = shell.run("node", "init", "--data", tmp_path / "node", "--name", "n.example")
    shown = shell.run("node", "show", "--data", tmp_path / "node")
    assert shown["fingerprint"] == made["fingerprint"]
    alone = shell.text("node", "show", "--data", tmp_path / "node", "--fingerprint").strip()
    assert alone == made["fingerprint"]
    keys = parse_description(json.dumps({role: shown[role] for role in ("witness", "auditor")}).encode())
    check_fingerprint(keys, alone)
