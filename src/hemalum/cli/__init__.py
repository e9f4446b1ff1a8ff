"""The verbs as sub-commands: arguments → API call → printed result.

Imports stand inside the commands, so that `hemalum --help` loads neither torch nor NumPy.
"""

import shlex
import sys
from collections.abc import Callable, Sequence

import typer

from hemalum.arguments import global_options_first
from hemalum.cli import data, figures, review, segmenting, studies, training
from hemalum.cli.app import Shell, app
from hemalum.errors import HemalumError, ToldElsewhereError

# in the order of --help
_VERBS: dict[str, Callable[..., None]] = {
    "segment": segmenting.segment,
    "import": data.import_,
    "check": data.check,
    "train": training.train,
    "report": training.report,
    "refine": review.refine,
    "evaluate": studies.evaluate,
    "compare": studies.compare,
    "reproduce": studies.reproduce,
    "info": training.info,
    "export": training.export,
    "demo": segmenting.demo,
}
for _name, _verb in _VERBS.items():
    app.command(_name)(_verb)
app.add_typer(figures.figure, name="figure")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code.

    0 done, 1 done in part (files failed, problems found), 2 the user's mistake in one line, 130 interrupted.
    Exceptions that nobody foresaw keep their traceback.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    shell = Shell(shlex.join(["hemalum", *given]))
    given = global_options_first(given)
    try:
        return app(given, prog_name="hemalum", standalone_mode=False, obj=shell) or 0
    except HemalumError as error:
        if "--debug" in given[:2]:
            raise
        if isinstance(error, ToldElsewhereError):
            return 2
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        # a mistake in the arguments: typer's own errors, whose class depends on its version
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "hemalum"
        print(f"error: {error.format_message()} (see {command} --help)", file=sys.stderr)
        return 2
