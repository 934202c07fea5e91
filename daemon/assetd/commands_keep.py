"""Commands that keep a project in order: verify, clean, doctor."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from assetd import command, words
from assetd.command import Commands
from assetd.errors import NotRunningError

if TYPE_CHECKING:  # what a command does is imported by that command
    from assetd.audit import Audit
    from assetd.config import Config

ROUNDS: Final = 3
"""Of repairing and looking again: others may edit meanwhile."""
ASKED_AT_ONCE: Final = 200
"""Outputs that a daemon is asked to repair in one request."""


def add(commands: Commands) -> None:
    """Add the commands of this family."""
    verify = commands.add("verify", _verify, "compare every output with what was made", json=True)
    verify.add_argument(
        "--repair", action="store_true", help="make again what is missing or edited"
    )
    clean = commands.add(
        "clean", _clean, "remove the outputs that assetd made, and all it knows", json=True
    )
    clean.add_argument("--dry-run", action="store_true", help="only say what would go")
    commands.add("doctor", _doctor, "what is wrong around it, and what to do about it", json=True)


# -- verify -------------------------------------------------------------------------------


def _verify(arguments: argparse.Namespace) -> int:
    messages: list[str] = []
    if arguments.repair:
        before, found, messages = _repaired(arguments)
    else:
        before = found = _audit(arguments)
    wrong = {flaw.output for flaw in found.flaws}
    right_again = [flaw for flaw in before.flaws if flaw.output not in wrong]
    if arguments.json:
        repaired = [flaw.facts() for flaw in right_again]
        more = {"repaired": repaired, "messages": messages} if arguments.repair else {}
        print(json.dumps({**found.facts(), **more}))
    else:
        for message in messages:
            command.say(message)
        for flaw in found.flaws:
            what = "" if flaw.what is None else f"  ({flaw.what})"
            print(words.printable(f"{flaw.fault.value:10}  {flaw.output}{what}"))
        for flaw in right_again:
            done = "made again" if flaw.fault == "missing" else "replaced"
            print(words.printable(f"{done:10}  {flaw.output}  (it was {flaw.fault.value})"))
        print(_verdict(found, repair=arguments.repair), file=sys.stderr)
    return command.SOMETHING_FAILS if found.flaws else command.OK


def _verdict(found: "Audit", *, repair: bool) -> str:
    outputs = words.count(found.outputs, "output")
    verdict = f"{outputs}: all right"
    if found.flaws:
        kinds = [flaw.fault.value for flaw in found.flaws]
        told = ", ".join(f"{kinds.count(kind):,} {kind}" for kind in dict.fromkeys(kinds))
        # What is blocked is somebody else's: its line says what to do about it.
        kinds_to_mend = [kind for kind in kinds if kind != "blocked"]
        mendable = bool(kinds_to_mend) and not repair
        cure = "; `assetd verify --repair` makes them again" if mendable else ""
        verdict = f"{outputs}: {told}{cure}"
    if found.foreign:
        verdict += f" ({words.count(found.foreign, 'other file')} beside them)"
    return verdict


def _audit(arguments: argparse.Namespace, also: Sequence[str] = ()) -> "Audit":
    from assetd import audit, client, history
    from assetd.errors import CorruptRecordError, OutdatedRecordError

    project, state_dir = command.folders(arguments)
    try:
        with history.opened(state_dir) as reader:
            in_use = client.holder(state_dir) is not None
            return audit.examine(reader, project, in_use=in_use, also=also)
    except OutdatedRecordError:
        raise
    except CorruptRecordError as error:
        raise CorruptRecordError(
            f"the record is damaged, so what was made is not known: {error}; "
            "`assetd build` sets it aside and begins a new one"
        ) from error


def _repaired(arguments: argparse.Namespace) -> tuple["Audit", "Audit", list[str]]:
    """What was wrong, what still is, and what there is to say of it."""
    before = found = _audit(arguments)
    concerned = [flaw.output for flaw in before.flaws]
    messages: list[str] = []
    for _ in range(ROUNDS):
        if not found.flaws:
            break
        messages += _repair(arguments, [flaw.output for flaw in found.flaws])
        found = _audit(arguments, concerned)
    return before, found, list(dict.fromkeys(messages))


def _repair(arguments: argparse.Namespace, outputs: Sequence[str]) -> list[str]:
    """Have *outputs* made again, by the daemon or here; returns what there is to say."""
    try:
        with contextlib.closing(command.connect(arguments)) as connection:
            for start in range(0, len(outputs), ASKED_AT_ONCE):
                connection.ask("repair", outputs=outputs[start : start + ASKED_AT_ONCE])
    except NotRunningError:
        from assetd import once
        from assetd.forkserver import ForkServer

        project = command.load(arguments)
        with contextlib.closing(ForkServer(project.config.state_dir)) as server:
            answer = once.build(
                project,
                server,
                repair=outputs,
                progress=sys.stderr if sys.stderr.isatty() and not arguments.json else None,
            )
        return list(answer["messages"])
    return []


# -- clean --------------------------------------------------------------------------------


def _clean(arguments: argparse.Namespace) -> int:
    from assetd import removal

    config = command.configuration(arguments)
    if arguments.dry_run:
        plan = removal.plan(config)
        facts = removal.facts(plan, None, config)
    elif not os.path.lexists(config.state_dir):
        facts = removal.facts(removal.Plan(config.out_dir), removal.Removed(), config)
    else:
        from assetd import lock

        with lock.held(config.state_dir):
            plan = removal.plan(config)
            facts = removal.facts(plan, removal.carry_out(plan, config), config)
    if arguments.json:
        print(json.dumps(facts))
    else:
        for line in _removal_lines(facts, config):
            print(words.printable(line))
        for remark in facts["remarks"]:
            command.say(remark)
        print(words.printable(_removal_verdict(facts, config)), file=sys.stderr)
    stays = facts["stuck"] or facts["kept"]
    return command.SOMETHING_FAILS if stays and not arguments.dry_run else command.OK


def _removal_lines(facts: dict[str, Any], config: "Config") -> Iterator[str]:
    from assetd import place

    def named(folder: str, path: str) -> str:
        return place.of(os.path.join(folder, path), config.project)

    if facts["dry_run"]:
        yield from (named(facts["out_dir"], path) for path in facts["outputs"])
        yield from (named(facts["out_dir"], path) + "/" for path in facts["folders"])
        yield from (named("", path) + "/" for path in facts["roots"])
        yield from (named(facts["state_dir"], path) for path in facts["state"])
    for each in facts["kept"]:
        yield f"kept  {named(facts['out_dir'], each['path'])}: {each['why']}"
    for each in facts["stuck"]:
        yield f"stuck  {named(facts['out_dir'], each['path'])}: {each['why']}"
    for name in facts["left"]:
        yield f"kept  {named(facts['state_dir'], name)}: it is not ours to remove"


def _removal_verdict(facts: dict[str, Any], config: "Config") -> str:
    from assetd import place

    parts = []
    if facts["outputs"]:
        parts.append(words.count(len(facts["outputs"]), "output"))
    if folders := len(facts["folders"]) + len(facts["roots"]):
        parts.append(words.count(folders, "folder"))
    if facts["state"]:
        parts.append(f"the state in {place.of(config.state_dir, config.project)}")
    verb = "would remove" if facts["dry_run"] else "removed"
    told = f"{verb} {', '.join(parts)}" if parts else "nothing to remove"
    if facts["stuck"]:
        told += "; the record stays: mend what is stuck and run `assetd clean` again"
    return told


# -- doctor -------------------------------------------------------------------------------


def _doctor(arguments: argparse.Namespace) -> int:
    from assetd import doctor

    found = doctor.examine(command.config_file(arguments))
    if arguments.json:
        print(json.dumps(found.facts()))
    else:
        print("\n".join(doctor.lines(found, color=command.color(sys.stdout))))
    return command.SOMETHING_FAILS if found.must_act else command.OK
