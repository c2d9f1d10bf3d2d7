"""`mlx-aimv2 upload`: a converted checkpoint to the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..messages import counted, size
from ..options.fields import option
from .guard import verb
from .output import put, say
from .screen import screen
from .tables import table


@dataclass(frozen=True)
class UploadOptions:
    """How to upload."""

    private: bool = option(False, "Create a private repository.")
    dry_run: bool = option(False, "Show what would be uploaded, without the network.")


@verb
def upload(
    path: Annotated[Path, typer.Argument(help="A folder that `convert` wrote.")],
    repo: Annotated[str, typer.Argument(help="The repository, OWNER/NAME; created if it does not exist.")],
    options: UploadOptions,
) -> None:
    """Upload a converted checkpoint to the Hugging Face Hub; other files in its folder stay behind."""
    from ..backend.device import require_mlx

    require_mlx()
    from ..publishing.upload import check_repo_name
    from ..publishing.upload import upload as run
    from ..publishing.upload_files import prepare_upload

    check_repo_name(repo)
    if options.dry_run:
        files = prepare_upload(path)
        rows = [(name, size(nbytes), "") for name, nbytes in files.sizes.items()]
        rows += [(name, "", "stays behind") for name in files.left]
        table(("file", "size", "note"), rows, paths=("file",))
        count = counted(len(files.sizes), "file")
        say(f"{count}, {size(files.nbytes)}, would go to {repo}; nothing was uploaded")
        return
    with screen() as events:
        address = run(path, repo, private=options.private, on_event=events)
    put(address)
