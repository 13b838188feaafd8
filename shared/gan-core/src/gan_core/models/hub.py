"""Download and upload of model folders on the Hugging Face Hub."""

from __future__ import annotations

import glob
import re
import tempfile
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from gan_core.errors import CheckpointError, GanError
from gan_core.models.checkpoint import inside
from gan_core.models.folder import CARD, CONFIG, WEIGHTS, find_model, read_config, save_model
from gan_core.places import expanded
from gan_core.play.game import Game

REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
"""Pattern of the id of a repository, `owner/name`."""


def is_repository(path: str | Path) -> bool:
    """Returns whether a path is the id of a hub repository rather than a folder.

    It must have the form `owner/name`, and neither it nor a folder `owner` may exist. Paths with a leading dot,
    absolute paths and paths in a home folder are never looked up on the hub.
    """
    return bool(REPOSITORY.fullmatch(str(path))) and not Path(path).exists() and not Path(path).parent.exists()


def local_folder(path: str | Path) -> Path:
    """Returns a local folder, or downloads the hub repository with that id; see `is_repository`.

    Only the files of a model folder are downloaded, including those listed in its config.

    Raises:
        CheckpointError: there is no such folder or repository, or the hub cannot be reached.
    """
    if not is_repository(path):
        return find_model(expanded(path))
    text = str(path)
    try:
        config = read_config(Path(snapshot_download(text, allow_patterns=[CONFIG])))
        files = [glob.escape(inside(name, f"{text}/{CONFIG}")) for name in config.files]
        return Path(snapshot_download(text, allow_patterns=[CONFIG, WEIGHTS, CARD, *files]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        owner = text.partition("/")[0]
        raise CheckpointError(
            f"{text}: neither a local folder (there is no folder `{owner}` here) nor a model that can be downloaded "
            f"from the hub ({_reason(error)}); for a local folder, write ./{text}"
        ) from error


def push(game: Game, repository: str, *, private: bool, token: str | None) -> str:
    """Uploads a game's model folder; see `Game.push_to_hub`.

    Raises:
        GanError: the repository cannot be created or written, or the hub cannot be reached.
    """
    with tempfile.TemporaryDirectory() as folder:
        saved = save_model(game, Path(folder) / "model")
        try:
            api = HfApi(token=token)
            identity = api.create_repo(repository, private=private, exist_ok=True).repo_id
            return str(api.upload_folder(repo_id=identity, folder_path=saved))
        except Exception as error:  # the hub's HTTP client has exceptions of its own
            raise GanError(f"{repository}: cannot be uploaded to the hub ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """Returns the first line of an error's message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
