"""`notify: desktop`: says on people's desktop when the project breaks, and when it is mended.

Owns what was shown last.  How a program is run is `errand`'s.
"""

import html
import os
from typing import Final

from assetd import words
from assetd.engine import Engine
from assetd.errand import Ending, Errands
from assetd.model import Batch, Committed

PROGRAM: Final = "notify-send"
LIMIT_SECONDS: Final = 10.0
FAULTS_SHOWN: Final = 3
LENGTH_SHOWN: Final = 200
"""Characters of one fault: a notification is small."""


class Desktop:
    """Notifies of the change from good to broken and back, one notification at a time."""

    def __init__(self, engine: Engine, errands: Errands) -> None:
        self._engine = engine
        self._errands = errands
        self._broken = bool(engine.standing.wrong)
        """As people know it: how the last daemon left it, or what was shown since."""
        self._running = False
        self._told = False
        """Whether the log has been told that nothing can be shown."""

    def hear(self, told: Committed | Batch) -> None:
        """Look whether the project is broken, whenever a batch has ended."""
        if isinstance(told, Batch):
            self._look()

    def _look(self) -> None:
        broken = bool(self._engine.standing.wrong)
        if self._running or broken == self._broken:
            return
        self._broken = broken
        config = self._engine.layout.project.config
        if config.notify != "desktop":
            return
        urgency = "critical" if broken else "normal"
        argv = [PROGRAM, "--app-name=assetd", f"--urgency={urgency}", "--", *self._text()]
        try:
            self._errands.run(
                argv,
                folder=config.project,
                given=b"",
                limit_seconds=LIMIT_SECONDS,
                on_line=lambda _line: None,
                on_end=self._end,
            )
        except OSError as error:
            cure = "install it (on Debian: libnotify-bin), or take `notify` out of assetd.yml"
            self._tell_once(f"{PROGRAM}: {error.strerror}: {cure}")
            return
        self._running = True

    def _text(self) -> tuple[str, str]:
        """The headline and the text below it."""
        name = words.printable(os.path.basename(self._engine.layout.root)) or "assetd"
        wrong = self._engine.standing.wrong
        if not wrong:
            return f"{name} is mended", "Everything builds again."
        lines = []
        for source in sorted(wrong)[:FAULTS_SHOWN]:
            place = self._engine.layout.place(source)
            messages = [fault.message for _, fault in wrong[source].diagnostics]
            first, *_ = "\n".join(messages).splitlines() or [wrong[source].state.value]
            lines.append(words.printable(f"{place}: {first}")[:LENGTH_SHOWN])
        if len(wrong) > FAULTS_SHOWN:
            lines.append(f"and {len(wrong) - FAULTS_SHOWN:,} more")
        # The text may have markup, so what looks like it is escaped; and notify-send undoes
        # backslashes (g_strcompress) before it is shown.
        body = html.escape("\n".join(lines), quote=False).replace("\\", "\\\\")
        return f"{name}: {words.count(len(wrong), 'source fails', 'sources fail')}", body

    def _end(self, ending: Ending) -> None:
        self._running = False
        if ending.cause is not None:
            said = f": {ending.last_words}" if ending.last_words else ""
            self._tell_once(f"{PROGRAM} {ending.cause}{said}")
        self._look()

    def _tell_once(self, cause: str) -> None:
        if not self._told:
            self._told = True
            self._engine.tell("notify_failed", level="warning", cause=cause)
