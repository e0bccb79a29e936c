"""The hub and its cache on this disk, as huggingface_hub has them: variables, offline mode, token and endpoint.

Its constants load in 10 ms, its client in 0.4 s: the client is imported only to fetch something.
"""

import os
from pathlib import Path

from lowmem_rl.errors import SetupError

_TIMEOUT_S = 5.0


def hub_cache() -> Path:
    """Returns the directory of the hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def is_offline() -> bool:
    """Returns whether the environment forbids requests to the hub."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def go_offline() -> None:
    """Forbids requests to the hub in this process and those that it starts."""
    from huggingface_hub import constants

    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True  # read when it was imported


def cached_snapshot(repository: str, revision: str | None = None, kind: str = "models") -> Path | None:
    """Returns the cached folder of a hub repository (`kind`: models or datasets), or None.

    `models--org--name/refs/main` holds a hash, `snapshots/HASH/` the files
    (huggingface.co/docs/huggingface_hub/guides/manage-cache).
    """
    root, wanted = hub_cache() / "--".join([kind, *repository.split("/")]), revision or "main"
    reference = root / "refs" / wanted
    snapshot = root / "snapshots" / (reference.read_text().strip() if reference.is_file() else wanted)
    return snapshot if snapshot.is_dir() else None


def fetch_config(name: str, revision: str | None = None) -> Path:
    """Returns config.json of a hub model, fetched into the cache if it is not there.

    Raises `SetupError` with the reason if the hub shows none in time. A hub that does not answer at all is asked once:
    its client would try again for half a minute.
    """
    from httpx import HTTPError
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    if reason := why_no_hub():
        raise _not_fetched(name, reason)
    try:
        return Path(hf_hub_download(name, "config.json", revision=revision, etag_timeout=_TIMEOUT_S))
    except (OSError, HTTPError, EntryNotFoundError, ValueError) as error:
        raise refusal(name, error) or _not_fetched(name, _why(error.__cause__ or error)) from error


def _not_fetched(name: str, reason: str) -> SetupError:
    return SetupError(f"{name} is not in {hub_cache()}, and {reason}.", hint=how_to_fetch(name))


def how_to_fetch(name: str) -> str:
    """Returns the hint for a model that is neither here nor can be fetched now."""
    return f"Fetch it while online: hf download {name}   (or give a local folder as model.name)"


def refusal(name: str, error: BaseException) -> SetupError | None:
    """Returns the error for a model or data set that the hub does not show, None if the client's error is another one.

    Libraries wrap the client's errors: the first of those in the chain of causes decides.
    """
    from huggingface_hub import constants, errors, get_token

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, errors.HfHubHTTPError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    if isinstance(cause, errors.GatedRepoError):
        token = "no token is stored here" if get_token() is None else "the token here has no access to it"
        hint = f"Accept its licence on its page of {constants.ENDPOINT}, then: hf auth login"
        return SetupError(f"{name} is gated on the hub, and {token}.", hint=hint)
    what = f"The hub does not show {name} ({cause.response.status_code}, {type(cause).__name__})."
    return SetupError(
        what, hint="Check name and revision. A private model needs a token that may read it: hf auth login"
    )


def why_no_hub() -> str | None:
    """Returns why nothing can be fetched from the hub now, or None: one request with a short time limit."""
    from httpx import HTTPError
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_TIMEOUT_S)
    except (OSError, HTTPError) as error:
        return _why(error)
    return None


def _why(error: BaseException) -> str:
    from huggingface_hub import constants

    if is_offline():
        return "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids to fetch it"
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return f"{constants.ENDPOINT} does not answer ({reason[:200]})"
