"""The processor `svgo`: SVG made smaller, by SVGO, kept warm."""

import os
from typing import Any

from assetd.processor import Option, Processor, Step, same_name, suffix
from assetd_processors import tool_server, tools


def _svgo(step: Step) -> None:
    made = tool_server.ask(
        step,
        "svgo",
        path=os.fspath(step.origin),
        text=tool_server.text(step),
        config=step.options["config"],
    )
    step.write(step.path, made["svg"])


svgo = Processor(
    name="svgo",
    version="1",
    matches=suffix(".svg"),
    suffixes=(".svg",),
    outputs=same_name,
    process=_svgo,
    options=(
        Option(
            "config",
            dict[str, Any],
            {},
            "What would stand in svgo.config.js: multipass, floatPrecision, js2svg, plugins.",
        ),
    ),
    default=False,
    tool=tools.tool("svgo"),
    warm=tool_server.shared,
)
