"""Plugins that tests share: jobs that last until the test lets them go."""

from typing import Final

SLOW: Final = '''
"""Says that it has begun, and then waits until it is let go."""

import time
from assetd.processor import FIRST, Processor, same_name, suffix


def wait(step):
    (step.project / "begun").touch()
    while not (step.project / "go").exists():
        time.sleep(0.01)
    step.copy()


slow = Processor(
    name="slow", version="1", matches=suffix(".slow"), outputs=same_name, process=wait,
    priority=FIRST,
)
'''
"""It takes `.slow` files, makes the file `begun` of the project, and waits for one named `go`."""

HELD: Final = """
import time
from pathlib import Path

from assetd.processor import Processor, same_name, suffix


def hold(step):
    while not Path("release").exists():
        time.sleep(0.01)
    step.write(step.path, step.input.read_text())


held = Processor(
    name="held", version="1", matches=suffix(".held"), outputs=same_name, process=hold, cheap=True
)
"""
"""It takes `.held` files, writes nothing outside staging, and waits for a file named `release`."""
