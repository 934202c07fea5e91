"""The processor `copy`: every file that nobody else takes, as it is."""

from assetd.processor import LAST, Options, Processor, Step, same_name


def _everything(_path: str, _options: Options) -> bool:
    return True


def _copy(step: Step) -> None:
    step.copy()


copy = Processor(
    name="copy",
    version="1",
    matches=_everything,
    outputs=same_name,
    process=_copy,
    priority=LAST,
    cheap=True,
    ends=True,
    verbatim=True,
)
