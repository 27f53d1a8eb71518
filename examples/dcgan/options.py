"""The command line: an option for each field of the configuration, and what concerns a single run only."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from dcgan.experiment import WANG, Experiment
from dcgan.fields import check_field, field_type


@dataclass(frozen=True)
class Run:
    """What a user chooses for one run, beside the configuration."""

    out: Path
    """Where everything is left."""
    resume: str | None
    """`"auto"`, or the path of a checkpoint; None starts anew."""
    force: bool
    """Resume although the configuration has changed."""
    quiet: bool
    """Print nothing but warnings and where the results are."""
    dry_run: bool
    """Print the resolved configuration and stop."""


class Reader:
    """The reader of a script's command line.

    Args:
        description: what the script does.
        preset: the configuration that the options change.
        out: where results are left unless chosen otherwise.
        experiment: whose configuration it is.
        parents: readers of options that are read before, and explained with the others.
    """

    def __init__(
        self,
        description: str,
        preset: Any,  # noqa: ANN401
        out: Path,
        *,
        experiment: Experiment[Any, Any, Any] = WANG,
        parents: Sequence[argparse.ArgumentParser] = (),
    ) -> None:
        self._experiment = experiment
        self._parser = argparse.ArgumentParser(
            description=description.splitlines()[0], allow_abbrev=False, parents=list(parents)
        )
        add = self._parser.add_argument
        add("--out", type=Path, default=out, help="folder of the run (%(default)s)")
        add("--resume", metavar="auto|PATH", help="continue from the newest checkpoint in the folder, or from PATH")
        add("--force", action="store_true", help="resume although the configuration has changed")
        add("--quiet", action="store_true", help="print warnings and the result only")
        add("--dry-run", action="store_true", help="print the resolved configuration and stop")
        kind = experiment.settings
        for field in dataclasses.fields(kind):
            name = "--" + field.name.rstrip("_").replace("_", "-")
            default = getattr(preset, field.name)
            if field_type(kind, field)[0] is bool:
                add(name, action=argparse.BooleanOptionalAction, default=default, help=field.metadata["help"])
                continue
            add(
                name,
                dest=field.name,
                type=_converter(kind, field),
                default=default,
                metavar="|".join(map(str, field.metadata["choices"])) or field_type(kind, field)[0].__name__.upper(),
                help=f"{field.metadata['help']}" + ("" if default is None else " (%(default)s)"),
            )

    def read(self, arguments: Sequence[str] | None) -> tuple[Any, Run]:
        """Return what a command line says, the configuration resolved; explain errors and exit with status 2."""
        values = vars(self._parser.parse_args(arguments))
        run = Run(**{field.name: values.pop(field.name) for field in dataclasses.fields(Run)})
        settings = {field.name: values[field.name] for field in dataclasses.fields(self._experiment.settings)}
        try:
            return self._experiment.resolved(self._experiment.settings(**settings)), run
        except ValueError as error:
            self.refuse(str(error))

    def refuse(self, message: str) -> NoReturn:
        """Explain what is wrong with the command line, and exit with status 2."""
        self._parser.error(message)


def _converter(settings: type, field: dataclasses.Field[Any]) -> Callable[[str], object]:
    kind, _ = field_type(settings, field)

    def convert(text: str) -> object:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {kind.__name__}, got {text!r}") from None
        try:
            check_field(settings, field, value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(f"{field.name}: ")) from None
        return value

    return convert
