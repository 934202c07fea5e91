"""One configuration in force and all that is kept warm for it.  Knows no record and no loop.

It begins with the `start` hooks of its processors and ends with their `end` hooks, here as in
each of its workers.  A changed configuration ends it: the next one opens everything anew.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from assetd import confinement, publish
from assetd.confinement import Bounds
from assetd.model import Tell
from assetd.pool import Jobs
from assetd.processor import Context
from assetd.registry import Opened, Project
from assetd.runner import MountSetting, Runner
from assetd.store import Store
from assetd.survey import Layout


class Generation:
    """What one configuration has opened."""

    runner: Runner
    """For what only has to be carried over, which costs less than telling a worker of it."""
    pool: Jobs

    def __init__(self, project: Project, number: int, tell: Tell, *, dry: bool = False) -> None:
        """Make the folders that it needs; nothing of the project's runs before `start`.

        Args:
            project: Configuration and processors.
            number: One more than that of the generation before.
            tell: Hears of hooks that fail.
            dry: Have no worker, and make nothing but the state folder.
        """
        config = project.config
        self.number = number
        self.layout = Layout(project)
        os.makedirs(config.state_dir, mode=0o700, exist_ok=True)
        self.store = Store(self._store_folder)
        self.staging = (
            os.path.join(config.state_dir, "staging")
            if dry
            else publish.staging_folder(config.out_dir, config.state_dir)
        )
        self.sandbox = ""
        """What confines the workers, in words."""
        self.bounds: Bounds | None = None
        """What workers may touch; None for everything."""
        self._tell = tell
        self._dry = dry

    @property
    def _store_folder(self) -> str:
        return os.path.join(self.layout.project.config.state_dir, "store")

    def start(self) -> None:
        """Run the `start` hooks here; what they ignore is none of our business."""
        more = tuple(self._run_hooks("start"))
        if more:
            self.layout = Layout(self.layout.project, more)

    def open(
        self,
        make_pool: Callable[..., Jobs],
        record_path: str,
        *arguments: Any,
        workers: int | None,
        **more: Any,
    ) -> None:
        """Open the runner and the pool.

        Args:
            make_pool: Makes the pool: see `Pool`.
            record_path: Where workers look up what is in place.
            arguments: What the pool is made with behind its opening.
            workers: How many; None for what the configuration says.
            more: What else it is made with.
        """
        config = self.layout.project.config
        own = os.path.join(self.staging, "owner")
        if not self._dry:
            for folder in (own, self._store_folder):
                # Where that fails the workers carry things over, and say why they cannot;
                # without a store nothing is kept.
                with contextlib.suppress(OSError):
                    os.makedirs(folder, exist_ok=True)
        abi = 0 if config.sandbox == "off" else confinement.abi()
        self.sandbox = "off" if config.sandbox == "off" else confinement.level(abi)
        self.bounds = self._bounds() if abi else None
        sync_files = config.durability == "full"
        self.runner = Runner(
            config.project,
            {m.name: MountSetting(m.folder, self.layout.takers(m.name)) for m in config.mounts},
            own,
            self.store,
            {},
            sync_files=sync_files,
        )
        opening = {
            "recipe": self.layout.project.recipe(),
            "store": self._store_folder,
            "record": record_path,
            "sync_files": sync_files,
        }
        if self.bounds is not None:
            opening["bounds"] = self.bounds.row()
        self.pool = make_pool(
            0 if self._dry else (workers or config.workers),
            opening,
            *arguments,
            generation=self.number,
            staging=self.staging,
            **more,
        )

    def end(self) -> None:
        """End the workers and run the `end` hooks here; jobs without an outcome are forgotten."""
        self.pool.stop()
        for _ in self._run_hooks("end"):
            pass

    def _bounds(self) -> Bounds:
        config = self.layout.project.config
        reads = (*confinement.surroundings(), *self.layout.project.reads())
        return Bounds(
            config.project,
            confinement.reduced(reads),
            (self._store_folder,),
            config.sandbox_write,
        )

    def _run_hooks(self, which: str) -> Iterator[str]:
        """Run one hook of each processor; gives what they ignore."""
        for opened in self.layout.project.processors:
            function = getattr(opened.processor, which)
            if function is not None:
                yield from self._run_hook(opened, which, function)

    def _run_hook(
        self, opened: Opened, which: str, function: Callable[[Context], object]
    ) -> list[str]:
        config = self.layout.project.config
        context = Context("main", None, Path(config.project), Path(config.out_dir), opened.options)
        try:
            function(context)
        except Exception as error:  # noqa: BLE001 - a plugin's bug must not end the daemon
            name = opened.processor.name
            self._tell("hook_failed", level="error", processor=name, hook=which, cause=str(error))
        return context.ignored
