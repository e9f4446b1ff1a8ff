"""The verbs as sub-commands: arguments → API call → printed result.

Imports stand inside the commands, so that `hemalum --help` loads neither torch nor NumPy.
"""

import shlex
import sys
from collections.abc import Callable, Sequence

import typer

from hemalum.cli import (
    calibrate,
    check,
    compare,
    demo,
    enhance,
    evaluate,
    export,
    figure,
    import_dataset,
    info,
    quantize,
    refine,
    report,
    reproduce,
    review,
    segment,
    train,
)
from hemalum.cli.app import CliContext, app
from hemalum.cli.options import global_options_first
from hemalum.errors import HemalumError, PeerFailedError, printable, speaking_of_options

# in the order of --help
_VERBS: dict[str, Callable[..., None]] = {
    "segment": segment.segment,
    "import": import_dataset.import_,
    "check": check.check,
    "train": train.train,
    "report": report.report,
    "review": review.review,
    "refine": refine.refine,
    "enhance": enhance.enhance,
    "evaluate": evaluate.evaluate,
    "compare": compare.compare,
    "reproduce": reproduce.reproduce,
    "info": info.info,
    "calibrate": calibrate.calibrate,
    "quantize": quantize.quantize,
    "export": export.export,
    "demo": demo.demo,
}
for _name, _verb in _VERBS.items():
    app.command(_name)(_verb)
app.add_typer(figure.figure, name="figure")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code.

    0 done, 1 done in part (files failed, problems found), 2 the user's mistake in one line, 3 a refined model that
    got worse somewhere, 130 interrupted.
    Exceptions that nobody foresaw keep their traceback.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    cli = CliContext(shlex.join(["hemalum", *words]))
    words = global_options_first(words)
    if "" in words:
        # an empty path would be the folder that the program was started in
        before = words[words.index("") - 1] if words.index("") else "hemalum"
        print(
            f"error: the argument after {printable(before)} is empty (an unset variable of a script?)",
            file=sys.stderr,
        )
        return 2
    with speaking_of_options(cli.command):
        return _run(words, cli)


def _run(words: list[str], cli: CliContext) -> int:
    try:
        return app(words, prog_name="hemalum", standalone_mode=False, obj=cli) or 0
    except HemalumError as error:
        if "--debug" in words[:2]:
            raise
        if isinstance(error, PeerFailedError):
            return 2
        print(f"error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        # a mistake in the arguments: typer's own errors, whose class depends on its version
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "hemalum"
        print(f"error: {printable(error.format_message())} (see {command} --help)", file=sys.stderr)
        return 2
