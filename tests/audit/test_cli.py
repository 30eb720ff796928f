"""The server's command line: exit codes, help, JSON, and what is refused before anything is touched."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from argparse import _SubParsersAction
from hashlib import sha3_256
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from audit.cli import COMMANDS, main
from audit.directory import LOCK_FILE, locked
from audit.errors import Fatal, PeerFailed, Refused
from audit.mirror import Finding
from audit.node import allow_log, create_node, open_node
from audit.recovery import naming
from audit.server import check_public, parse_listen
from audit.service import why_paused
from audit.witness import FINDING
from tests.fakes import NOW, FakeClock, FakeLog
from verifier.cli import WORDS, Parser
from verifier.errors import Usage
from verifier.note import format_vkey, parse_private_key
from verifier.policy import WITNESSES, parse_policy

ORIGIN = "log.example/files"


@pytest.fixture
def data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A new log."""
    assert main(["init", "--data", str(tmp_path / "log"), "--origin", ORIGIN]) == 0
    capsys.readouterr()
    return tmp_path / "log"


def run_json(capsys: pytest.CaptureFixture[str], *words: object, expect: int = 0) -> dict[str, Any]:
    assert main([*map(str, words), "--json"]) == expect
    value = json.loads(capsys.readouterr().out)
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("words", COMMANDS)
def test_help_has_an_example(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Every command explains itself, with an example of itself and --json."""
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert f"nextcloud-audit {' '.join(words)} --data" in shown
    assert "--json" in shown


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["node"],
        ["node", "nonsense"],
        ["init"],
        ["init", "--data", "x", "--origin", "a b"],
        ["serve", "--data", "missing"],
        ["record", "--data", "missing", "--source", "folder:/"],
        ["fsck", "--data", "missing"],
        ["serve", "--data", "x", "--listen", "0.0.0.0:8460"],
        ["serve", "--data", "x", "--scan-every", "0s"],
        ["node", "serve", "--data", "x", "--listen", "192.0.2.1:8461"],
        ["node", "allow", "--data", "missing", "vkey"],
        ["serve", "--data", "."],
        ["record", "--data", ".", "--source", "folder:/"],
        ["recover", "--data", ".", "--declare-loss", "--yes"],
        ["upgrade", "--data", "."],
        ["node", "serve", "--data", "."],
        ["audit", "--data", "."],
        ["demo", "--bogus"],
        ["demo", "--folder", "missing"],
    ],
)
def test_usage_errors_are_4(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mistakes in a command exit with 4, say why, and leave nothing behind."""
    monkeypatch.chdir(tmp_path)
    assert main(words) == 4
    assert capsys.readouterr().err.strip()
    assert list(tmp_path.iterdir()) == []


def test_a_group_lists_its_own_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """What is no command of `node` is answered with those that are."""
    assert main(["node", "bogus"]) == 4
    said = capsys.readouterr().err
    assert "node allow" in said
    assert "policy" not in said


def test_reader_that_goes_away_is_no_fault(data: Path) -> None:
    """A closed pipe is neither a finding nor a trace."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "audit", "fsck", "--data", str(data), "--json"]
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (141, b"")


def test_faults_are_70(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A fault of the program, and a state that is no longer known, exit with 70, as data on request."""
    for error in (RuntimeError("x"), Fatal("log.db")):

        def fail(args: object, error: Exception = error) -> int:
            raise error

        monkeypatch.setattr("audit.commands.fsck.run", fail)
        assert main(["fsck", "--data", "x", "--json"]) == 70
        assert json.loads(capsys.readouterr().out)["error"]["reason"] == "fault"


def test_init_makes_a_log_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Keys are 0600, policies name the log and `quorum none`; a second time nothing is touched."""
    made = run_json(capsys, "init", "--data", tmp_path / "log", "--origin", ORIGIN)
    assert list(made) == ["log", "vkey", "user", "token"]
    key = tmp_path / "log" / "log.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert format_vkey(parse_private_key(key.read_text().strip()).verifier_key) == made["vkey"]
    policy = (tmp_path / "log" / "policy").read_bytes()
    assert policy == f"log {made['vkey']}\nquorum none\n".encode()
    assert parse_policy(policy, WITNESSES).quorum == "none"
    assert made["token"].encode() not in b"".join(p.read_bytes() for p in (tmp_path / "log").iterdir())
    before = {p.name: p.read_bytes() for p in (tmp_path / "log").iterdir()}
    refused = run_json(capsys, "init", "--data", tmp_path / "log", "--origin", ORIGIN, expect=4)
    assert "holds a log already" in refused["error"]["message"]
    assert {p.name: p.read_bytes() for p in (tmp_path / "log").iterdir()} == before


def test_init_that_was_cut_short_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The key comes last: without it nothing was signed, and what to remove is named, whatever is tried next."""

    def killed(path: str, data: bytes) -> None:
        raise KeyboardInterrupt

    log, node = tmp_path / "log", tmp_path / "node"
    init = ["init", "--data", str(log), "--origin", ORIGIN]
    node_init = ["node", "init", "--data", str(node), "--name", "n.example"]
    with monkeypatch.context() as patch:
        patch.setattr("audit.directory.write_signer", killed)
        patch.setattr("audit.node.write_signer", killed)
        for words in (init, node_init):
            assert main(words) != 0
    for words in (init, ["serve", "--data", str(log), "--source", f"folder:{tmp_path}"]):
        assert main(words) == 4
        assert "remove log.db*, policy and auditors, and run it again" in capsys.readouterr().err
    for words in (node_init, ["node", "show", "--data", str(node)]):
        assert main(words) == 4
        assert "remove the directory, and run it again" in capsys.readouterr().err
    for path in (*log.glob("log.db*"), log / "policy", log / "auditors"):
        path.unlink()
    assert main(init) == 0


def test_damaged_key_is_named_and_not_shown(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A key file that is cut short is named with its path, and with what may be done; nothing of it is printed."""
    node = tmp_path / "node"
    create_node(node, "n.example")
    words = {
        data / "log.key": ["fsck", "--data", str(data)],
        node / "witness.key": ["node", "show", "--data", str(node)],
    }
    for path, command in words.items():
        whole = path.read_bytes()
        for part in (b"", whole[:-9], b"\xff"):
            path.write_bytes(part)
            assert main(command) == 4
            told = capsys.readouterr().err
            assert f"key: {path} is damaged" in told
            assert "Put a whole copy of it back" in told
            assert whole[-40:-10].decode() not in told
        path.write_bytes(whole)


def test_record_says_what_it_did(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One scan, its operations counted, its problems listed; fsck finds nothing wrong afterwards."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / name).write_text(name)
    (folder / "link").symlink_to("a")
    words = ("record", "--data", data, "--source", f"folder:{folder}")
    first = run_json(capsys, *words)
    assert (first["adopted"], first["created"]) == ("3", "0")
    assert first["problems"] == [{"path": "link", "reason": "symlink", "detail": "not followed"}]
    (folder / "a").write_text("other")
    os.rename(folder / "b", folder / "d")
    (folder / "c").unlink()
    (folder / "e").write_text("e")
    second = run_json(capsys, *words)
    assert {word: second[word] for word in ("adopted", "created", "written", "moved", "deleted")} == {
        "adopted": "0",
        "created": "1",
        "written": "1",
        "moved": "1",
        "deleted": "1",
    }
    assert second["source"] == first["source"]
    assert main([*map(str, words), "--full"]) == 0
    assert "nothing new" in capsys.readouterr().out
    assert main(["fsck", "--data", str(data), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["findings"] == []


def test_what_stops_publishing_says_what_to_do() -> None:
    """A new log's policy has no quorum: the way out is named with the reason."""
    why = why_paused(parse_policy(f"log {FakeLog().vkey}\nquorum none\n".encode(), WITNESSES))
    assert why is not None
    assert "`peer add`" in why


def test_failing_address_is_named_once() -> None:
    """Whether the error names it already or not."""
    for error in (PeerFailed("https://a/checkpoint: 404"), PeerFailed("404")):
        assert naming("https://a/checkpoint", error) == "https://a/checkpoint: 404"
    assert naming("https://a", PeerFailed("https://a/checkpoint: 404")) == "https://a/checkpoint: 404"


def test_erase_lists_erases_and_refuses(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a step says is gone from every file of the store, the log says so, and the current content stays."""
    folder = tmp_path / "files"
    folder.mkdir()
    words = ("record", "--data", data, "--source", f"folder:{folder}")
    for text in ("one", "two and more"):
        (folder / "to the doctor").write_text(text)
        run_json(capsys, *words)
    erase = ("erase", "to the doctor", "--data", data)
    listed = run_json(capsys, *erase)
    assert (listed["erased"], len(listed["steps"])) == ([], 2)
    assert "to the doctor; 3 bytes" in listed["steps"][0]
    digest = sha3_256(b"one").digest()
    assert digest in b"".join(path.read_bytes() for path in data.glob("log.db*"))

    done = run_json(capsys, *erase, "--step", "0", "--part", "content", "--part", "context")
    assert done["erased"] == ["2", "3"]
    assert "content not shown" in done["steps"][0]
    assert digest not in b"".join(path.read_bytes() for path in data.glob("log.db*"))
    assert run_json(capsys, "fsck", "--data", data)["findings"] == []

    for more, message in (
        (("--step", "1", "--part", "content"), "current content"),
        (("--step", "0", "--part", "content"), "to erase"),
        (("--step", "0"), "together"),
        (("--file", "1"), "which file"),
    ):
        assert message in run_json(capsys, *erase, *more, expect=4)["error"]["message"]
    assert "no such file" in run_json(capsys, "erase", "other", "--data", data, expect=4)["error"]["message"]
    assert main(["erase", "--data", str(data), "--file", "1"]) == 0
    assert "file 1, generation 0: nothing was erased" in capsys.readouterr().out


def test_record_does_not_record_its_own_directory(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log that lives inside the folder that it records leaves itself out."""
    (tmp_path / "a").write_text("a")
    assert run_json(capsys, "record", "--data", data, "--source", f"folder:{tmp_path}")["adopted"] == "1"


@pytest.mark.parametrize("source", ["folder:", "folder:/nowhere/at/all", "ftp:/x", "x"])
def test_record_wants_a_folder(data: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Anything but an existing folder is a mistake in the command, and no source of the log."""
    assert run_json(capsys, "record", "--data", data, "--source", source, expect=4)["error"]["reason"] == "usage"


CLIENT = [f"verifier.commands.{word}" for word in WORDS]


@pytest.mark.parametrize("name", [*CLIENT, *COMMANDS.values()])
def test_every_option_is_explained(name: str) -> None:
    """Each command, and each action of one, takes --json and says of every option what it is for."""
    parser = Parser(prog=name)
    import_module(name).add_arguments(parser)
    groups = [action.choices for action in parser._actions if isinstance(action, _SubParsersAction)]
    for one in [action for group in groups for action in group.values()] or [parser]:
        assert "--json" in one._option_string_actions
        assert [option.option_strings for option in one._actions if option.option_strings and not option.help] == []


@pytest.mark.parametrize(
    "words", [["fsck"], ["token", "--user", "ada"], ["coverage"], ["node", "show"], ["policy", "show"]]
)
def test_directory_that_is_not_there(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever names a wrong directory is told that nothing lives there, and what makes it."""
    for path in (tmp_path / "nowhere", tmp_path):
        assert main([*words, "--data", str(path)]) == 4
        said = capsys.readouterr().err
        assert f"{path}: holds no " in said
        assert f"init --data {path}` makes one" in said


def test_directory_belongs_to_one_process(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second process is refused and told which one works there; the lock goes with its holder."""
    with locked(str(data)):
        answer = run_json(capsys, "record", "--data", data, "--source", f"folder:{data}", expect=4)
        assert f"process {os.getpid()} works in it" in answer["error"]["message"]
    with locked(str(data)):
        pass
    with pytest.raises(Refused, match="no such directory"), locked(str(data / "no")):
        pass
    assert (data / LOCK_FILE).stat().st_mode & 0o777 == 0o600


def test_open_log_refuses_what_does_not_belong_together(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another log's key or policy, an open key file, a broken policy: nothing is served with these."""
    other = tmp_path / "other"
    assert main(["init", "--data", str(other), "--origin", ORIGIN]) == 0
    capsys.readouterr()

    def refused() -> str:
        return str(run_json(capsys, "fsck", "--data", data, expect=4)["error"]["message"])

    key, policy = data / "log.key", data / "policy"
    text, secret = policy.read_text(), key.read_text()
    policy.write_text(text + "quorum none\n")
    assert "policy line 3: want one quorum line" in refused()
    policy.write_text((other / "policy").read_text())
    assert "want the same log in both" in refused()
    policy.write_text(text)
    key.write_text((other / "log.key").read_text())
    assert "want a line for this log" in refused()
    for file in ("policy", "auditors"):
        (data / file).write_text((other / file).read_text())
    assert "is not the key of the log" in refused()
    key.write_text(secret)
    key.chmod(0o644)
    assert "mode 0644, want 0600" in refused()


def test_node_commands_make_a_node_once(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A node has two keys; a log is allowed twice with one key, never with another."""
    node = tmp_path / "node"
    made = run_json(capsys, "node", "init", "--data", node, "--name", "ada.example")
    assert made["witness"].startswith("ada.example+")
    assert made["auditor"].startswith("ada.example/auditor+")
    assert main(["node", "init", "--data", str(node), "--name", "ada.example"]) == 4
    vkey = (data / "policy").read_text().split()[1]
    for _ in range(2):
        assert main(["node", "allow", "--data", str(node), vkey, "http://127.0.0.1:8460"]) == 0
    run_json(capsys_clear(capsys), "init", "--data", tmp_path / "other", "--origin", ORIGIN)
    other = (tmp_path / "other" / "policy").read_text().split()[1]
    assert main(["node", "allow", "--data", str(node), other]) == 4


def test_node_halts_until_an_operator_decides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A finding is listed with its reason and time; --resume ends it once and keeps the evidence."""
    data, log = tmp_path / "node", FakeLog().grow(3)
    create_node(data, "ada.example")
    allow_log(data, log.vkey, log.url)
    assert run_json(capsys, "node", "halts", "--data", data) == {"halts": []}
    log.add_map(bytes(32))
    node = open_node(data, log.fetch)
    with pytest.raises(Finding):
        asyncio.run(node.auditor.audit(log.checkpoint(), FakeClock()))
    node.close()
    (halt,) = run_json(capsys, "node", "halts", "--data", data)["halts"]
    assert (halt["origin"], halt["time"]) == (log.origin, str(NOW))
    assert halt["reason"].startswith("leaf 4: map root")
    assert main(["node", "halts", "--data", str(data), "--resume", "other.example/log"]) == 4
    assert run_json(capsys_clear(capsys), "node", "halts", "--data", data, "--resume", log.origin)
    assert run_json(capsys, "node", "halts", "--data", data) == {"halts": []}
    assert main(["node", "halts", "--data", str(data), "--resume", log.origin]) == 4
    node = open_node(data, log.fetch)
    assert [item.kind for item in node.store.evidence()] == [FINDING]
    node.close()


def capsys_clear(capsys: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    capsys.readouterr()
    return capsys


@pytest.mark.parametrize(
    ("text", "want"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:8460", ("::1", 8460)), ("localhost:80", ("localhost", 80))],
)
def test_listen_is_host_and_port(text: str, want: tuple[str, int]) -> None:
    """An address and a port, an IPv6 one in brackets; these are of this machine."""
    assert parse_listen(text) == want
    check_public(want[0], False)


@pytest.mark.parametrize("text", ["", "8460", ":8460", "host:", "host:x", "host:65536", "::1:80", "host:080"])
def test_listen_has_one_spelling(text: str) -> None:
    """Anything else is a mistake in the command."""
    with pytest.raises(Usage, match="want HOST:PORT"):
        parse_listen(text)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_listen_elsewhere_needs_tls_in_front(host: str) -> None:
    """Plain HTTP leaves this machine only if somebody says that TLS is spoken in front of it."""
    with pytest.raises(Usage, match="--behind-tls"):
        check_public(host, False)
    check_public(host, True)


@pytest.mark.parametrize("kind", ["serve", "node"])
def test_served_process_says_where_and_ends_on_sigterm(
    kind: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Port 0 takes a free port and names it; the process answers there, and SIGTERM ends it with 0."""
    words = ["serve", "--data", str(data)]
    if kind == "node":
        assert main(["node", "init", "--data", str(tmp_path / "node"), "--name", "ada.example"]) == 0
        words = ["node", "serve", "--data", str(tmp_path / "node"), "--no-audit"]
    command = [sys.executable, "-m", "audit", *words, "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:")
        url, role = re.fullmatch(r"listening on (\S+)(.*)\n", line).groups()  # type: ignore[union-attr]
        assert role == (" (a witness only)" if kind == "node" else "")
        with urllib.request.urlopen(url + "/healthz", timeout=10) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
