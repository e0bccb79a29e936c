"""Known conditions in which a command ends: message, fix and exit code of each."""

from collections.abc import Sequence

import typer

from lowmem_rl.errors import LowMemError, SetupError
from lowmem_rl_cli import streams


def reported(error: BaseException) -> tuple[str, str, int] | None:
    """Returns message, hint and exit code of a known condition, None for a bug."""
    if isinstance(error, typer.TyperException):
        return *_usage_error(error), error.exit_code
    if isinstance(error, ImportError):
        from lowmem_rl.stack import not_loaded

        error = not_loaded(error) or error
    elif isinstance(error, OSError) and (fault := streams.stdout_fault(error)):
        error = SetupError(
            f"The output cannot be written: {fault}.", hint="Send it elsewhere; what was saved is whole."
        )
    elif isinstance(error, RuntimeError) and "home directory" in str(error):  # pathlib, for a path with ~
        error = SetupError("A path begins with ~, and this user has no home.", hint="Write it in full, or set HOME.")
    return (str(error), error.hint, error.exit_code) if isinstance(error, LowMemError) else None


def _usage_error(error: typer.TyperException) -> tuple[str, str]:
    """Returns what is wrong with the command line, and near names or the help page."""
    context, unknown = getattr(error, "ctx", None), getattr(error, "option_name", "")
    near: Sequence[str] = getattr(error, "possibilities", None) or ()
    if meant := _synonyms(unknown, context) or _keys_named(unknown) or near:
        return f"{error.message}.", f"Did you mean {' or '.join(meant)}?"
    message, _, suggestion = error.format_message().partition(" Did you mean ")
    if suggestion:
        return f"{message.rstrip('.?')}.", f"Did you mean {suggestion}"
    message = message.replace("Input should be", "must be").partition(", unable to")[0]
    help_page = f"`{context.command_path if context else 'lowmem-rl'} --help` shows how to use it."
    if context and context.params.get("resume") and "extra argument" in message:
        help_page = "--out names the run to continue: lowmem-rl train --resume --out runs/NAME"
    return f"{message.rstrip('.')}.", help_page


_SYNONYMS = {"--gpu": "--card"}


def _synonyms(option: str, context: typer.Context | None) -> Sequence[str]:
    """Returns the command's own word for an option, if it has one."""
    word = _SYNONYMS.get(option)
    has_it = context is not None and any(word in parameter.opts for parameter in context.command.params)
    return [word] if word and has_it else []


def _keys_named(option: str) -> Sequence[str]:
    """Returns what an unknown option such as `--lr` or `--grpo.group_size` may mean."""
    from lowmem_rl.config.keys import OPTIONS, is_known, namesakes

    name = option.lstrip("-")
    if name in OPTIONS:
        return [OPTIONS[name]]
    return [f"--set {key}=VALUE" for key in ([name] if is_known(name) else namesakes(name))]
