"""Pushes an accepted export to the hub. Token and repository are checked before anything is exported."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lowmem_rl.errors import ConfigError, SetupError
from lowmem_rl.models.hub import is_offline

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PushTarget:
    """A repository on the hub to which the present token may write."""

    repo: str
    public: bool

    def push(self, folder: Path) -> str:
        """Uploads a folder in one commit, into a repository that is made if it is missing; returns its address.

        Raises `SetupError` if the hub refuses it; the folder stays.
        """
        again = f"The export is in {folder}; later: hf upload {self.repo} {folder} --private"

        def upload() -> str:
            api = _api()
            api.create_repo(self.repo, private=not self.public, exist_ok=True)
            api.upload_folder(repo_id=self.repo, folder_path=folder, commit_message="Upload an export with its proof")
            return f"{api.endpoint}/{self.repo}"

        return _asked(self.repo, again, upload)


def find_target(repo: str, *, public: bool = False) -> PushTarget:
    """Returns where to push. The token is that of the environment (HF_TOKEN), else of `hf auth login`.

    Raises `ConfigError` for a name that is none and for a public repository that was not asked for, `SetupError` for a
    token that is missing or refused, and if the hub cannot be asked.
    """
    from huggingface_hub import get_token

    if not _NAME.fullmatch(repo):
        raise ConfigError(f"--push {repo[:100]!r} is not a repository.", hint="Its form is NAME/REPOSITORY.")
    if is_offline():
        what = f"HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids to push to {repo}."
        raise SetupError(what, hint="Unset it, or leave --push out.")
    if get_token() is None:
        what = f"There is no token with which {repo} could be pushed."
        raise SetupError(what, hint=f"{_TOKEN_HINT}, or leave --push out.")
    is_open = _asked(repo, _TOKEN_HINT + ".", lambda: _is_public(repo))
    if is_open and not public:
        what = f"{repo} is public already, and an export is private unless it is asked to be public."
        raise ConfigError(what, hint="Add --public, or push to another repository.")
    return PushTarget(repo, public)


_TOKEN_HINT = "Set HF_TOKEN to a token that may write there, or: hf auth login"


def _is_public(repo: str) -> bool:
    """Returns whether the repository is there and public; the token is tried first, which may see private ones."""
    from huggingface_hub.errors import RepositoryNotFoundError

    api = _api()
    api.whoami()
    try:
        return not api.repo_info(repo).private
    except RepositoryNotFoundError:
        return False


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi()


def _asked(repo: str, hint: str, ask: Callable[[], T]) -> T:
    """Returns what the hub answers. Raises `SetupError` with its status alone: messages may repeat what was sent."""
    from httpx import HTTPError
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return ask()
    except HfHubHTTPError as error:
        status = error.response.status_code
        who = "the token" if status in (401, 403) else "the request"
        raise SetupError(f"The hub refuses {who} for {repo} ({status}).", hint=hint) from None
    except (HTTPError, OSError) as error:
        what = f"{constants.ENDPOINT} does not answer ({type(error).__name__}): {repo} is not pushed."
        raise SetupError(what, hint=hint) from None
