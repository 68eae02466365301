"""World models on the Hugging Face Hub: the same files as in a folder, and none holds code."""

import re
import tempfile
from pathlib import Path
from typing import Any

import sciwm
from sciwm.world.core import Core
from sciwm.world.files import FILES, save_world

__all__ = ["download", "is_hub_id", "upload"]

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PREFIX = "hf://"


def is_hub_id(text: str) -> bool:
    """Whether a text is the id of a model on the Hub.

    That is ``hf://owner/name``, or ``owner/name`` where there is no folder ``owner``.
    """
    if text.startswith(_PREFIX):
        return True
    return _ID.fullmatch(text) is not None and not Path(text).parent.exists()


def download(hub_id: str, *, revision: str | None = None) -> Path:
    """Fetch the files of a model, but for those that the Hub's cache has.

    Parameters
    ----------
    hub_id : str
        ``owner/name`` or ``hf://owner/name``.
    revision : str, optional
        Branch, tag or commit; default the main branch.

    Returns
    -------
    Path
        Local folder with the files.

    Raises
    ------
    FileNotFoundError
        If the Hub has no such model, or it cannot be reached and the cache does not have it.
    ValueError
        If ``hub_id`` is not ``owner/name``.
    ImportError
        Without huggingface_hub.
    """
    hub = _client(hub_id)
    name = hub_id.removeprefix(_PREFIX)
    try:
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except hub.errors.HFValidationError as error:
        raise ValueError(f"got {hub_id!r}, expected 'owner/name': {error}") from None
    except (hub.errors.HfHubHTTPError, hub.errors.LocalEntryNotFoundError) as error:
        at = f" at revision {revision!r}" if revision else ""
        first = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"got {hub_id!r}{at}, which is neither a folder here nor a model on the Hub that can be"
            f" fetched ({first}); check the name, and for a private model log in with `hf auth"
            " login`"
        ) from error


def upload(
    world: Core, hub_id: str, *, private: bool = False, message: str = "Upload world model"
) -> str:
    """Write a model to the Hub; see `sciwm.WorldModel.push_to_hub`."""
    hub = _client(hub_id)
    name = hub_id.removeprefix(_PREFIX)
    if not _ID.fullmatch(name):
        raise ValueError(f"got {hub_id!r}, expected 'owner/name'")
    api = hub.HfApi(library_name="sciwm", library_version=sciwm.__version__)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_world(world, folder)
        api.create_repo(name, private=private, exist_ok=True)
        if not api.file_exists(name, "README.md"):  # a model card that someone has written stays
            (folder / "README.md").write_text(_card(world, name), encoding="utf-8")
        done = api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
        return str(done.commit_url)


def _card(world: Core, name: str) -> str:
    does, kind = "forecasts" if world.readouts else "encodes", world.network.objective.settings.kind
    return (
        "---\nlibrary_name: sciwm\ntags: [sciwm, jepa, world-model, time-series]\n---\n"
        f"# {name.rpartition('/')[2]}\n\n"
        f"A world model of [sciwm](https://pypi.org/project/sciwm/) {sciwm.__version__}, objective"
        f" `{kind}`, which {does} states at steps of {world.step}."
        " `model.json` holds its whole configuration.\n\n"
        f'```python\nimport sciwm\n\nworld = sciwm.load("{name}")\n```\n'
    )


def _client(hub_id: str) -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ImportError(
            f"got {hub_id!r}, which is no folder here; if it is a model on the Hub: pip install"
            " 'sciwm[hub]'"
        ) from error
    return huggingface_hub
