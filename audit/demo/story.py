"""The demo from beginning to end: an honest history, a proof, and then the attacks.

One log and four nodes run as real processes (`deployment`). Each attack (`attacks`) changes something from outside
and says with which exit code and reason `nextcloud-audit verify` must answer; then the change is undone, and the same
command must say VERIFIED. Anything else ends the demo with exit 70 and an explanation.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from audit.demo.attacks import ATTACKS, Attack
from audit.demo.deployment import DemoFailed, Deployment, run, shown_command
from verifier.cli import Parser
from verifier.outcome import FAULT, USAGE

REPORT, LEDGER, MEMO = "report.txt", "ledger.csv", "memo.txt"


class Story:
    """What the demo has made so far: a folder that is recorded, a client with a seed, and a deployment."""

    def __init__(self, root: Path, folder: Path | None) -> None:
        self.root, self.folder = root, folder
        self.files = root / "files"
        self.proofs = root / "proofs"
        self.seed = root / "alice.seed"
        self.state = root / "alice.seed.state"
        self.deployment = Deployment(root / "servers", self.files)
        self.commands: list[str] = []
        self.began = time.monotonic()

    # -- telling --

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.began:5.1f} s] {text}", flush=True)

    def show(self, words: Sequence[str], output: str, exit_code: int) -> None:
        """A command and its answer, as a user would see them."""
        shown = shown_command(*words)
        self.commands.append(f"$ {shown}\n{output.rstrip()}\n(exit {exit_code})\n")
        print(f"\n  $ {shown}")
        print("".join(f"  {line}\n" for line in output.rstrip().splitlines()), flush=True)

    def client(self, *words: str, expect: int = 0) -> None:
        """Runs a client's command in the demo's directory, shows it, and insists on its exit code."""
        done = run(*words, expect=expect, cwd=self.root)
        self.show(words, done.stdout, done.returncode)

    # -- the honest part --

    def set_up(self) -> None:
        self.files.mkdir(parents=True)
        self.proofs.mkdir()
        self.say("one log and four nodes, each a process of its own with keys of its own")
        token = self.deployment.create()
        self.deployment.start()
        for name in ("policy", "auditors"):
            shutil.copy(self.deployment.directory / "log" / name, self.root / name)
        self.say("Alice makes a seed, which never leaves her device, and enrols")
        self.client("seed", "new", "alice.seed")
        words = ("--server", self.deployment.url, "--seed", "alice.seed", "--token", token)
        self.client("enrol", *words, "--policy", "policy", "--auditors", "auditors")

    def record_history(self) -> None:
        """Several scans with real edits, a rename and a deletion between them."""
        if self.folder is not None:
            self.say(f"copying {self.folder} (yours is never written to)")
            shutil.copytree(self.folder, self.files / self.folder.name, symlinks=True)
        self.say("files are written, edited, renamed and deleted; each scan records what changed")
        self._write(REPORT, "The minister met the supplier on 3 May.\n")
        self._write("copy of report.txt", "The minister met the supplier on 3 May, twice.\n")
        self._write(LEDGER, "pay;100;alice\n")
        self._write(MEMO, "first thoughts\n")
        self._write("notes/plan.md", "# Plan\n")
        self._write("draft.txt", "not for print\n")
        self.deployment.wait_scanned()
        self._write(REPORT, "The minister met the supplier on 3 May, twice.\n")
        self._write(MEMO, "second thoughts\n")
        (self.files / "notes/plan.md").rename(self.files / "notes/roadmap.md")
        (self.files / "draft.txt").rename(self.root / "draft.txt")  # deleted there; Alice has a copy
        self.deployment.wait_scanned()
        status = self.deployment.status()
        self.say(f"recorded, cosigned by 3 of 4, replayed by 3 of 4: a tree of {status['audited']['size']} leaves")

    def _write(self, name: str, text: str) -> None:
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def prove_and_verify(self) -> None:
        self.say("Alice seals the report: her device has seen these bytes; then anybody she chooses can check offline")
        common = ("--server", self.deployment.url, "--seed", "alice.seed")
        self.client("prove", REPORT, *common, "-o", f"proofs/{REPORT}.proof")
        self.client("verify", f"files/{REPORT}", *self.asked(REPORT))
        self.client("seal", f"files/{REPORT}", *common, "--as", REPORT)
        self.deployment.wait_published()
        self.prove(REPORT)
        self.client("verify", f"files/{REPORT}", *self.asked(REPORT), "--require-seal")
        self.say("the renamed file keeps its history, and a deleted one is never shown as there")
        for name, expect in (("notes/roadmap.md", 0), ("draft.txt", 2)):
            proof = name.replace("/", "-")
            run("prove", name, *common, "-o", f"proofs/{proof}.proof", cwd=self.root)
            local = f"files/{name}" if expect == 0 else name
            self.client("verify", local, *self.asked(name, proof), expect=expect)

    def prove(self, name: str) -> None:
        target = self.proofs / f"{name}.proof"
        target.unlink(missing_ok=True)
        run("prove", name, "--server", self.deployment.url, "--seed", "alice.seed", "-o", str(target), cwd=self.root)

    def asked(self, remote: str, proof: str | None = None) -> tuple[str, ...]:
        return ("--proof", f"proofs/{proof or remote}.proof", "--seed", "alice.seed", "--as", remote)

    # -- the attacks --

    def withstand(self, number: int, attack: Attack) -> None:
        """Does an attack, insists on the right answer, undoes it, and insists on VERIFIED."""
        self.say(f"attack {number} of {len(ATTACKS)}: {attack.title}")
        place = self.root / "attacks" / f"{number:02d}"
        place.mkdir(parents=True)
        shutil.copytree(self.state, place / "state")
        tried = attack.act(self, place)
        file, proof, state = (str(path.relative_to(self.root)) for path in (tried.file, tried.proof, place / "state"))
        trust = ("--seed", "alice.seed", "--state", state)
        words = ("verify", file, "--proof", proof, *trust, "--as", tried.remote)
        self._expect(words, attack.exit_code, attack.reason)
        tried.undo()
        if attack.fresh_state:
            shutil.rmtree(place / "state")
            shutil.copytree(self.state, place / "state")
        self.say(f"{attack.undone}, and the same command again")
        self._expect(words, 0, None)

    def _expect(self, words: tuple[str, ...], exit_code: int, reason: str | None) -> None:
        done = run(*words, expect=None, cwd=self.root)
        output = done.stdout or done.stderr
        self.show(words, output if exit_code else output.split("\n", 1)[0], done.returncode)
        data = json.loads(run(*words, "--json", expect=None, cwd=self.root).stdout)
        reasons = [finding["reason"] for finding in data["findings"]]
        if done.returncode != exit_code or (reason is not None and reason not in reasons):
            raise DemoFailed(f"got exit {done.returncode} and {reasons}, want {exit_code} and {reason}\n{done.stderr}")

    def finish(self) -> None:
        text = "\n".join(["# what the demo ran, in this directory, and what was answered\n", *self.commands])
        (self.root / "commands.txt").write_text(text)


def main(words: Sequence[str]) -> int:
    """`nextcloud-audit demo [--folder PATH] [--keep DIR]`."""
    folder, keep = parse_words(words)
    if keep is not None and keep.exists() and any(keep.iterdir()):
        print(f"demo: {keep} is not empty: choose another directory for --keep", file=sys.stderr)
        return USAGE
    with tempfile.TemporaryDirectory(prefix="nextcloud-audit-demo-") as temporary:
        root = (keep or Path(temporary) / "demo").resolve()
        root.mkdir(parents=True, exist_ok=True)
        story = Story(root, folder)
        try:
            tell(story)
        except DemoFailed as failure:
            print(f"demo failed: {failure}", file=sys.stderr)
            return FAULT
        finally:
            story.deployment.stop()
        kept = f"; everything is kept in {root}" if keep else ""
        story.say(f"done: {len(ATTACKS)} attacks, each answered as it has to be{kept}")
    return 0


def tell(story: Story) -> None:
    story.set_up()
    story.record_history()
    story.prove_and_verify()
    for number, attack in enumerate(ATTACKS, 1):
        story.withstand(number, attack)
    story.prove(REPORT)  # as fresh as can be, for whoever looks at the directory later
    story.client("verify", f"files/{REPORT}", *story.asked(REPORT), "--require-seal")
    story.finish()


def parse_words(words: Sequence[str]) -> tuple[Path | None, Path | None]:
    """The two options; anything else is a usage error."""
    parser = Parser(
        prog="nextcloud-audit demo",
        description=__doc__,
        epilog="examples:\n  nextcloud-audit demo\n  nextcloud-audit demo --folder ~/Documents --keep /tmp/demo",
    )
    parser.add_argument("--folder", type=Path, metavar="PATH", help="record a copy of this folder too")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave seed, policies, proofs and commands.txt there")
    args = parser.parse_args(list(words))
    if args.folder is not None and not args.folder.is_dir():
        parser.error(f"--folder: {args.folder} is not a directory")
    return args.folder and args.folder.resolve(), args.keep
