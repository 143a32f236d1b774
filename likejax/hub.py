"""Densities on the Hugging Face Hub: one safetensors file and a model card in a repository."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from likejax.density import Density, check_density, count_parameters
from likejax.evaluation import Evaluation
from likejax.settings import checked
from likejax.storage.density import model_record, restore, save
from likejax.storage.store import CheckpointError

FILE = "model.safetensors"
"""Name of the file of weights in a repository."""
CARD = "README.md"
"""Name of the model card in a repository."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LIBRARY = "likejax"
_FACTS = {
    "exact": "exact",
    "bound": "a lower bound of the log-likelihood",
    "estimate": "an estimate from below of the log-likelihood",
}


def upload(
    density: Density,
    repo: str,
    *,
    evaluation: Evaluation | None = None,
    private: bool = False,
    token: str | None = None,
) -> str:
    """Uploads a density and its model card to a repository of the Hugging Face Hub.

    The repository is made if there is none. The file is what ``lj.save(density,
    "model.safetensors")`` writes, without pickle. ``lj.hub.download(repo)`` reads it.

    Args:
      density: Any density.
      repo: Name of the repository, ``OWNER/NAME``.
      evaluation: Result of ``lj.evaluate``, whose number the card shows.
      private: Whether a repository that is made is private.
      token: Access token of the Hub; ``None`` takes the one that ``hf auth login`` stored.

    Returns:
      Address of the commit that has both files.

    Raises:
      ImportError: If the package huggingface_hub or safetensors is not installed.
      TypeError: If an argument has another type.
      ValueError: If ``repo`` is not of the form ``OWNER/NAME``, or the evaluation is of data of
        another shape.

    References:
      Mitchell et al., 2019, Model Cards for Model Reporting, https://arxiv.org/abs/1810.03993

    Example:
      >>> import likejax as lj
      >>> density = lj.build(lj.models.VectorGlowConfig(depth=1, width=4), key=0)
      >>> lj.hub.upload(density, "glow")
      Traceback (most recent call last):
      ValueError: expected repo to be OWNER/NAME, such as 'me/glow-digits', got 'glow'
    """
    repo = _checked_repo(repo)
    private = checked("private", private, bool)
    text = card(density, repo, evaluation=evaluation)
    api = _hub().HfApi(token=token)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(density, folder / FILE)
        (folder / CARD).write_text(text)
        api.create_repo(repo, repo_type="model", private=private, exist_ok=True)
        message = f"A density of {_LIBRARY}"
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, repo_type="model", commit_message=message
        )
    return str(commit)


def download(
    repo: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    density: Density | None = None,
) -> Density:
    """Returns a density from a repository of the Hugging Face Hub; the file is kept in its cache.

    The file holds arrays and JSON; nothing in it is run. Checksums are verified, see
    ``lj.restore``.

    Args:
      repo: Name of the repository, ``OWNER/NAME``.
      revision: Branch, tag or commit; ``None`` for the newest.
      token: Access token of the Hub; ``None`` takes the one that ``hf auth login`` stored.
      density: A density of the same structure, for densities that have no config.

    Raises:
      CheckpointError: If the repository or its file cannot be had, or the file is damaged or not of
        likejax.
      ImportError: If the package huggingface_hub or safetensors is not installed.
      TypeError: If an argument has another type.
      ValueError: If ``repo`` is not of the form ``OWNER/NAME``, or the class of the model is not
        imported.

    Example:
      >>> import likejax as lj
      >>> lj.hub.download("glow")
      Traceback (most recent call last):
      ValueError: expected repo to be OWNER/NAME, such as 'me/glow-digits', got 'glow'
    """
    repo = _checked_repo(repo)
    if density is not None:
        check_density(density)
    hub = _hub()
    try:
        path = hub.hf_hub_download(repo, FILE, revision=revision, token=token)
    except (OSError, ValueError) as error:  # the errors of the package are of these kinds
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{FILE} of the repository {repo} cannot be downloaded, "
            f"revision {revision or 'newest'}: {first_line}"
        ) from error
    return restore(path, density=density)


def card(density: Density, repo: str, *, evaluation: Evaluation | None = None) -> str:
    """Returns the model card of a density, in Markdown with the header that the Hub reads.

    Args:
      density: Any density.
      repo: Name of the repository, ``OWNER/NAME``.
      evaluation: Result of ``lj.evaluate``, whose number the card shows.

    Raises:
      TypeError: If an argument has another type.
      ValueError: If ``repo`` is not of the form ``OWNER/NAME``, or the evaluation is of data of
        another shape.

    Example:
      >>> import likejax as lj
      >>> density = lj.build(lj.models.VectorGlowConfig(depth=1, width=4), key=0)
      >>> "Event shape: `(2,)`" in lj.hub.card(density, "me/points")
      True
    """
    check_density(density)
    repo = _checked_repo(repo)
    _check_evaluation(density, evaluation)
    levels = "continuous" if density.levels is None else f"{density.levels} integer values"
    measured = "Not measured." if evaluation is None else f"`{evaluation}`"
    config = json.dumps(model_record(density), indent=2)
    kind = density.kind.value
    facts = [
        f"* Event shape: `{tuple(density.event_shape)}`",
        f"* Data: {levels}",
        f"* Kind of `log_prob`: {kind} ({_FACTS[kind]})",
        f"* Parameters: {count_parameters(density):,}",
    ]
    parts = [
        f"---\nlibrary_name: {_LIBRARY}\ntags:\n- {_LIBRARY}\n- jax\n- density-estimation\n---",
        f"# {repo.split('/')[1]}",
        f"A density model of {_LIBRARY}: `{type(density).__name__}`.",
        "\n".join(facts),
        f"## Measured\n\n{measured}",
        f'## Use\n\n```python\nimport likejax as lj\n\ndensity = lj.hub.download("{repo}")\n```',
        f"## Config\n\n```json\n{config}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _check_evaluation(density: Density, evaluation: Any) -> None:
    if evaluation is None:
        return
    if not isinstance(evaluation, Evaluation):
        raise TypeError(
            f"expected evaluation to be what lj.evaluate returns, got {type(evaluation).__name__}"
        )
    of_data = (tuple(evaluation.event_shape), evaluation.levels, evaluation.kind)
    of_density = (tuple(density.event_shape), density.levels, density.kind)
    if of_data != of_density:
        raise ValueError(
            "expected an evaluation of this density, got one of another shape, levels or kind: "
            f"{of_data} instead of {of_density}"
        )


def _checked_repo(repo: object) -> str:
    if not isinstance(repo, str):
        raise TypeError(f"expected repo to be a string OWNER/NAME, got {type(repo).__name__}")
    if not _NAME.fullmatch(repo):
        raise ValueError(f"expected repo to be OWNER/NAME, such as 'me/glow-digits', got {repo!r}")
    return repo


def _hub() -> ModuleType:
    """The client of the Hub, or an error that says how it is installed."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            "the Hugging Face Hub needs the package huggingface_hub: pip install 'likejax[hub]'"
        ) from error
    return huggingface_hub
